"""The pub/sub suite on every harness of the table, and over a sidecar by gRPC; publishing over HTTP is in ``tests/sidecar_client``."""

from __future__ import annotations

from cloud_runtimes.testing import Api, Harness, PubSubSuite
from cloud_runtimes.testing.suites._base import Call, Suite
from tests.support.harnesses.dapr import DaprGrpc
from tests.support.harnesses.embedded import HARNESSES, MemoryHarness
from tests.support.harnesses.layotto import LAYOTTO
from tests.support.harnesses.nats import NATS_EVENTS, NATS_FRAMED
from tests.support.harnesses.postgres import POSTGRES
from tests.support.harnesses.rabbitmq import RABBITMQ, RABBITMQ_FRAMED, RABBITMQ_STREAMS
from tests.support.harnesses.redis import FRAMED, REDIS, VALKEY, RedisHome
from tests.support.harnesses.rows import rows


class TestPubSub(PubSubSuite):
    harness = rows(
        HARNESSES,
        second=(MemoryHarness.name, RedisHome.name),
        short=(
            PubSubSuite.test_members_share,
            PubSubSuite.test_each_group_gets_all,
            PubSubSuite.test_start,
            PubSubSuite.test_what_is_settled_does_not_come_again,
            PubSubSuite.test_retry,
            PubSubSuite.test_dead_letter,
            PubSubSuite.test_last_delivery,
            PubSubSuite.test_unsettled_comes_again,
            PubSubSuite.test_close_gives_back,
            PubSubSuite.test_handler,
            PubSubSuite.test_bulk_in_order,
            PubSubSuite.test_ttl,
            PubSubSuite.test_delay,
            PubSubSuite.test_publisher,
            PubSubSuite.test_an_event_and_its_writes,
        ),
        beside={DaprGrpc.name: DaprGrpc},
        beside_layotto=LAYOTTO,
        postgres_url=POSTGRES,
        nats_server=NATS_EVENTS,
        rabbitmq_url=RABBITMQ,
        redis_server=REDIS,
        valkey_server=VALKEY,
    )


class _Frames(Suite):
    """Cases of the suite in which several events a message make a difference."""

    service = PubSubSuite.service

    test_bulk_in_order = PubSubSuite.test_bulk_in_order
    test_publisher_attributes = PubSubSuite.test_publisher_attributes
    test_raw = PubSubSuite.test_raw
    test_dead_letter = PubSubSuite.test_dead_letter
    test_last_delivery = PubSubSuite.test_last_delivery
    test_close_gives_back = PubSubSuite.test_close_gives_back
    test_max_in_flight = PubSubSuite.test_max_in_flight
    test_batch_settles_the_rest = PubSubSuite.test_batch_settles_the_rest
    test_a_dead_letter_tells_the_last_error = PubSubSuite.test_a_dead_letter_tells_the_last_error


class TestFramesOnNats(_Frames):
    harness = rows({}, nats_server=NATS_FRAMED)


class TestFramesOnRabbitmq(_Frames):
    harness = rows({}, rabbitmq_url=RABBITMQ_FRAMED)


class TestStreamsOnRabbitmq(Suite):
    """Cases in which a stream makes a difference."""

    harness = rows({}, rabbitmq_url=RABBITMQ_STREAMS)
    service = PubSubSuite.service

    test_start = PubSubSuite.test_start
    test_each_group_gets_all = PubSubSuite.test_each_group_gets_all
    test_what_is_settled_does_not_come_again = PubSubSuite.test_what_is_settled_does_not_come_again
    test_dead_letter = PubSubSuite.test_dead_letter


class TestFrames(_Frames):
    """And those that differ on Valkey; the rest of the suite is in ``tests/redis``."""

    harness = rows({}, valkey_server=FRAMED)

    test_retry = PubSubSuite.test_retry
    test_ttl = PubSubSuite.test_ttl
    test_unsettled_comes_again = PubSubSuite.test_unsettled_comes_again
    test_what_is_settled_does_not_come_again = PubSubSuite.test_what_is_settled_does_not_come_again

    def test_members_share(self, call: Call, api: Api, harness: Harness) -> None:
        # they share frames: each publish makes one
        members = [each("subscribe", "t") for each in (call, call.on(harness.client()))]
        for number in range(40):
            call("publish", "t", number)
        got: list[list[int]] = [[], []]

        def take() -> bool:
            for mine, member in zip(got, members, strict=True):
                event = api.call(member, "receive", 0.2)
                mine += [] if event is None else [event.data]
            return sum(map(len, got)) == 40

        assert api.until(take)
        assert sorted(got[0] + got[1]) == list(range(40))
        assert all(got)
        for member in members:
            api.call(member, "close")
