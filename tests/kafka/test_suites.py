"""The pub/sub suite on Kafka. A topic has one partition there, since the suite knows one order; members that share have two."""

from __future__ import annotations

import pytest

from cloud_runtimes.testing import PubSubSuite
from cloud_runtimes.testing.suites._base import Suite
from tests.support.harnesses.kafka import KAFKA, KAFKA_SHARED, KAFKA_SHARED_STORM, KAFKA_STORM, KAFKA_THREE
from tests.support.harnesses.rows import rows


@pytest.mark.soak
class TestPubSub(PubSubSuite):
    harness = rows({}, kafka_servers=KAFKA | KAFKA_STORM, kafka_cluster=KAFKA_THREE)

    test_members_share = None


class TestShared(Suite):
    """Cases that members share, and what is quick."""

    service = PubSubSuite.service
    harness = rows({}, kafka_servers=KAFKA_SHARED)

    test_members_share = PubSubSuite.test_members_share
    test_values_round_trip = PubSubSuite.test_values_round_trip
    test_given_attributes = PubSubSuite.test_given_attributes
    test_start_beside_another_topic = PubSubSuite.test_start_beside_another_topic
    test_start_at_a_time = PubSubSuite.test_start_at_a_time
    test_lag = PubSubSuite.test_lag
    test_dead_letter = PubSubSuite.test_dead_letter
    test_close_gives_back = PubSubSuite.test_close_gives_back
    test_too_large_is_refused = PubSubSuite.test_too_large_is_refused


@pytest.mark.soak
class TestStorm(TestShared):
    """The same, while partitions move all the time."""

    harness = rows({}, kafka_servers=KAFKA_SHARED_STORM)
