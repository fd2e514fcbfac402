"""The conformance suites on a cluster of Valkey, on Redis 8, and what ``tests/conformance`` leaves out; with ``--soak``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud_runtimes.testing import (
    AdminSuite,
    ConfigurationSuite,
    LockSuite,
    PubSubSuite,
    RpcSuite,
    ScheduleSuite,
    StateSuite,
)
from tests.support.harnesses.redis import CLUSTER, FRAMED, REDIS, REDIS8
from tests.support.harnesses.rows import rows
from tests.support.harnesses.rpc import ServerRegistryRpc
from tests.support.redis import RedisServer

pytestmark = pytest.mark.soak


class TestState(StateSuite):
    harness = rows({}, valkey_cluster=CLUSTER, redis8_server=REDIS8)


class TestConfiguration(ConfigurationSuite):
    harness = rows({}, redis_server=REDIS, valkey_cluster=CLUSTER, redis8_server=REDIS8)


class TestLock(LockSuite):
    harness = rows({}, valkey_cluster=CLUSTER, redis8_server=REDIS8)


class TestPubSub(PubSubSuite):
    harness = rows({}, valkey_cluster=CLUSTER, redis8_server=REDIS8)


class TestFrames(PubSubSuite):
    harness = rows({}, valkey_server=FRAMED)

    test_members_share = None  # type: ignore[assignment]  # they share frames: see tests/conformance


class TestAdmin(AdminSuite):
    harness = rows({}, valkey_cluster=CLUSTER, redis8_server=REDIS8)


class TestSchedule(ScheduleSuite):
    harness = rows({}, redis_server=REDIS, valkey_cluster=CLUSTER, redis8_server=REDIS8)


@pytest.fixture(scope="module")
def served_rpc(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerRegistryRpc]:
    harness = ServerRegistryRpc(tmp_path_factory.mktemp("rpc"), redis_server.url)
    yield harness
    harness.close()


class TestRpc(RpcSuite):
    @pytest.fixture
    def harness(self, served_rpc: ServerRegistryRpc) -> ServerRegistryRpc:
        return served_rpc
