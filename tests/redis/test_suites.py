"""The conformance suites on a cluster of Valkey and on Redis 8; most of them with ``--soak`` alone."""

from __future__ import annotations

import pytest

from cloud_runtimes.testing import ConfigurationSuite, LockSuite, PubSubSuite, ScheduleSuite, StateSuite
from tests.support.harnesses.redis import CLUSTER, REDIS8
from tests.support.harnesses.rows import rows


class TestState(StateSuite):
    harness = rows({}, valkey_cluster=CLUSTER)


@pytest.mark.soak
class TestStateOnRedis8(StateSuite):
    harness = rows({}, redis8_server=REDIS8)


@pytest.mark.soak
class TestConfiguration(ConfigurationSuite):
    harness = rows({}, valkey_cluster=CLUSTER, redis8_server=REDIS8)


@pytest.mark.soak
class TestLock(LockSuite):
    harness = rows({}, valkey_cluster=CLUSTER, redis8_server=REDIS8)


@pytest.mark.soak
class TestPubSub(PubSubSuite):
    harness = rows({}, valkey_cluster=CLUSTER, redis8_server=REDIS8)


@pytest.mark.soak
class TestSchedule(ScheduleSuite):
    harness = rows({}, valkey_cluster=CLUSTER, redis8_server=REDIS8)
