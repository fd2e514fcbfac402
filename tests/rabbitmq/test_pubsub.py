"""RabbitMQ beyond the suite: delays over several queues, undelivered and large events, removed objects, frames."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.rabbitmq import member
from cloud_runtimes.errors import BulkError, InvalidArgumentError, NotFoundError, UnsupportedError
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.harnesses.rabbitmq import RabbitHome
from tests.support.waiting import until

pika: Any = pytest.importorskip("pika")


@pytest.fixture
def channel(home: RabbitHome) -> Iterator[Any]:
    home.home["prefix"] = home.prefix
    with closing(pika.BlockingConnection(pika.URLParameters(home.url))) as connection:
        yield connection.channel()


def ready(channel: Any, queue: str) -> int:
    """Return how many messages wait in a queue."""
    count: int = channel.queue_declare(queue, passive=True).method.message_count
    return count


# -- delays and deliveries ----------------------------------------------------


def test_a_delay_of_several_queues(home: RabbitHome, channel: Any, api: Api) -> None:
    client = home.client()
    with api.opened(client.pubsub.subscribe("bus", "t")) as sub:
        started = time.monotonic()
        api.call(client.pubsub, "publish", "bus", "t", "later", delay=0.32)
        event = api.call(sub, "receive", 60)
        assert 0.31 < time.monotonic() - started < 30
        started = time.monotonic()
        event.retry(delay=0.21)
        event = api.call(sub, "receive", 60)
        assert 0.2 < time.monotonic() - started < 30
        assert event.delivery_count == 2
        event.ack()
    for queue in ("t:delay:300", ":delay:20", ":delay:200", ":delay:10"):
        assert ready(channel, f"{home.prefix}{queue}") == 0


def test_retries_wait_for_no_others(home: RabbitHome, api: Api) -> None:
    """An event with a short delay comes before an event with a long delay that began to wait earlier."""
    client = home.client()
    api.call(client.pubsub, "publish_bulk", "bus", "t", ["long", "short"])
    with api.opened(client.pubsub.subscribe("bus", "t")) as sub:
        for delay in (2, 0.05):
            api.call(sub, "receive", 10).retry(delay=delay)
        assert [api.call(sub, "receive", 10).data for _ in range(2)] == ["short", "long"]


def test_what_is_due_for_nobody_holds_nothing_up(home: RabbitHome, channel: Any, api: Api) -> None:
    client = home.client()
    with api.opened(client.pubsub.subscribe("bus", "t")) as sub:
        api.call(client.pubsub, "publish", "bus", "t", 1)
        api.call(sub, "receive", 10).retry(delay=0.1)
        until(lambda: not ready(channel, f"{home.prefix}t:suite"))
        with api.opened(client.pubsub.subscribe("bus", "gone")) as other:
            for number in range(40):
                api.call(client.pubsub, "publish", "bus", "gone", number)
            for event in [api.call(other, "receive", 10) for _ in range(40)]:
                event.retry(delay=0.5)
        until(lambda: not ready(channel, f"{home.prefix}gone:suite"))
        channel.queue_delete(f"{home.prefix}gone:suite")
        event = api.call(sub, "receive", 10)
        event.retry(delay=0.5)
        assert api.call(sub, "receive", 10).delivery_count == 3
    until(lambda: ready(channel, f"{home.prefix}:orphans") == 40)


def test_delayed_events_for_nobody_hold_nothing_up(home: RabbitHome, api: Api) -> None:
    home.home["groups"] = []
    client = home.client()
    for number in range(40):
        api.call(client.pubsub, "publish", "bus", "nobody", number, delay=0.05)
    with api.opened(client.pubsub.subscribe("bus", "t")) as sub:
        api.call(client.pubsub, "publish", "bus", "t", 1, delay=0.05)
        assert api.call(sub, "receive", 10).data == 1


def test_a_member_whose_connection_ends(home: RabbitHome, channel: Any, api: Api) -> None:
    """The server counts what it delivers again; the last delivery that a member died with is over too."""
    client = home.client()
    with api.opened(client.pubsub.subscribe("bus", "dead")) as dead:
        with api.opened(client.pubsub.subscribe("bus", "t", max_deliveries=2, dead_letter_topic="dead")) as sub:
            api.call(client.pubsub, "publish", "bus", "t", 1)
            for count in (1, 2):
                event = api.call(sub, "receive", 10)
                assert event.delivery_count == count
                source: Any = sub._fetcher._source
                source._connection._socket.shutdown(socket.SHUT_RDWR)
            letter = api.call(dead, "receive", 10)
            assert (letter.extensions["dlreason"], letter.extensions["dlcount"]) == ("deliveries", 2)
            event.ack()  # it is void
            letter.ack()
    assert ready(channel, f"{home.prefix}t:suite") == 0


def test_a_pause_is_of_one_group(home: RabbitHome, api: Api) -> None:
    """Members of both groups look at once, over one connection, and one look is returned."""
    client = home.client()
    got: dict[str, list[int]] = {"g": [], "other": []}

    def noting(group: str) -> Any:
        def note(event: Any) -> None:
            got[group].append(event.data)

        return api.handler(note)

    def publish(numbers: range) -> None:
        for number in numbers:
            api.call(client.pubsub, "publish", "bus", "t", number)
            time.sleep(0.1)

    with (
        api.opened(client.pubsub.subscribe("bus", "t", noting("g"), group="g")),
        api.opened(client.pubsub.subscribe("bus", "t", noting("other"), group="other")),
    ):
        api.call(client.admin, "pause", "bus", "t", "g")
        publish(range(10))
        assert api.until(lambda: len(got["other"]) == 10)
        before = len(got["g"])
        publish(range(10, 30))
        assert api.until(lambda: len(got["other"]) == 30)
        assert len(got["g"]) == before
        api.call(client.admin, "resume", "bus", "t", "g")
        assert api.until(lambda: sorted(got["g"]) == list(range(30)))


def test_a_dead_letter_waits_for_somebody(home: RabbitHome, channel: Any, api: Api) -> None:
    home.home["groups"] = []
    client = home.client()
    with api.opened(client.pubsub.subscribe("bus", "t", dead_letter_topic="dead", group="g")) as sub:
        api.call(client.pubsub, "publish", "bus", "t", 1)
        api.call(sub, "receive", 10).drop()
        until(lambda: ready(channel, f"{home.prefix}dead:g") == 1)


def test_expiry(home: RabbitHome, api: Api) -> None:
    client = home.client()
    for ttl in (1, 100):
        api.call(client.pubsub, "publish", "bus", "t", ttl, ttl=ttl)
    time.sleep(1.1)
    with api.opened(client.pubsub.subscribe("bus", "t")) as sub:
        assert api.call(sub, "receive", 10).data == 100


# -- nobody, and what is removed ----------------------------------------------


def test_an_event_for_nobody(home: RabbitHome, api: Api) -> None:
    home.home["groups"] = []
    client = home.client()
    message = "no group has a queue of the topic 't'.*subscribe first.*groups.*unrouted"
    api.fails(NotFoundError, match=message)(client.pubsub, "publish", "bus", "t", 1)
    caught = api.fails(BulkError)(client.pubsub, "publish_bulk", "bus", "t", [1, 2])
    assert list(caught.failed) == [0, 1]
    home.home["unrouted"] = "drop"
    api.call(home.client().pubsub, "publish", "bus", "t", 1)
    with api.opened(client.pubsub.subscribe("bus", "t")) as sub:
        api.call(client.pubsub, "publish", "bus", "t", 2)
        assert api.call(sub, "receive", 10).data == 2


def test_where_a_group_begins_is_refused(home: RabbitHome, api: Api) -> None:
    api.fails(UnsupportedError, match="start.*name the group in the setting groups")(
        home.client().pubsub, "subscribe", "bus", "t", start="earliest"
    )


def test_what_is_removed_is_made_again(
    home: RabbitHome, channel: Any, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "_LOOK", 0.3)
    client = home.client()
    with api.opened(client.pubsub.subscribe("bus", "t")) as sub:
        channel.exchange_delete(f"{home.prefix}t")
        api.call(client.pubsub, "publish", "bus", "t", 1)
        event = api.call(sub, "receive", 10)
        event.ack()
        until(lambda: event.data == 1)
        channel.queue_delete(f"{home.prefix}t:suite")

        def arrives() -> bool:
            try:
                api.call(client.pubsub, "publish", "bus", "t", 2)
            except NotFoundError:  # the member has not made it again
                return False
            message = api.call(sub, "receive", 1)
            return message is not None and message.data == 2

        until(arrives)


def test_names(home: RabbitHome, api: Api) -> None:
    client = home.client()
    with api.opened(client.pubsub.subscribe("bus", "a:b", group="c%")) as one:
        with api.opened(client.pubsub.subscribe("bus", "a", group="b:c%")) as other:
            api.call(client.pubsub, "publish", "bus", "a:b", 1)
            assert api.call(one, "receive", 10).data == 1
            assert api.call(other, "receive", 0.2) is None
    api.fails(InvalidArgumentError, match="does not begin with a colon")(client.pubsub, "publish", "bus", ":due", 1)
    api.fails(InvalidArgumentError, match="at most 255 bytes")(client.pubsub, "publish", "bus", "é" * 120, 1)


# -- sizes --------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"content_mode": "binary"}, {"layout": "frame"}], ids=["event", "binary", "frame"]
)
def test_large_and_small_events(home: RabbitHome, api: Api, settings: dict[str, Any]) -> None:
    """Bodies of several frames of the protocol, none, and those that fit just or just not."""
    home.home |= settings
    client = home.client()
    values = [bytes(1_000_000), "", *("x" * size for size in range(130_700, 131_100, 40)), bytes(3)]
    with api.opened(client.pubsub.subscribe("bus", "t")) as sub:
        api.call(client.pubsub, "publish_bulk", "bus", "t", values)
        got = []
        for _ in values:
            event = api.call(sub, "receive", 10)
            got.append(event.data)
            event.ack()
        assert got == values


def test_the_prefetch_follows_what_messages_hold(home: RabbitHome, api: Api) -> None:
    home.home["layout"] = "frame"
    frames, events = home.client(), CloudRuntimesClient(
        app_id="suite", config={"capa": {"home": {**home.home, "layout": "event"}}}
    )
    with closing(events), api.opened(events.pubsub.subscribe("bus", "t", max_in_flight=64)) as sub:
        source: Any = sub._fetcher._source
        until(lambda: source._prefetch == 64)
        for _ in range(3):
            api.call(frames.pubsub, "publish_bulk", "bus", "t", list(range(500)))
        for _ in range(1500):
            event = api.call(sub, "receive", 10)
            event.ack()
        assert source._prefetch == 1
        api.call(events.pubsub, "publish_bulk", "bus", "t", list(range(100)))
        for _ in range(100):
            api.call(sub, "receive", 10).ack()
        until(lambda: source._prefetch == 64)


def test_frames_that_are_answered_in_turn(home: RabbitHome, api: Api) -> None:
    """Behind one that is not answered, each is acknowledged once: RabbitMQ closes the channel of a second time."""
    home.home["layout"] = "frame"
    client = home.client()
    with api.opened(client.pubsub.subscribe("bus", "t")) as sub:
        for first in (0, 2, 4):
            api.call(client.pubsub, "publish_bulk", "bus", "t", [first, first + 1])
        events = [api.call(sub, "receive", 10) for _ in range(6)]
        for number in (2, 4, 3, 5):
            events[number].ack()
        held = sub._fetcher._source.in_flight.held
        until(lambda: len(held) == 1)
        api.call(client.pubsub, "publish", "bus", "t", "next")
        assert api.call(sub, "receive", 10).data == "next"


def test_acknowledgements_are_those_of_their_messages() -> None:
    acknowledgements = member.Acknowledgements(2)

    def sent(tags: list[int]) -> list[tuple[int, int]]:
        return [(int.from_bytes(each[11:19], "big"), each[19]) for each in acknowledgements.take(tags)]

    assert sent([1, 2, 3]) == [(3, 1)]
    assert sent([6, 5]) == [(5, 0), (6, 0)]
    assert sent([4]) == [(4, 1)]
    assert sent([8, 7, 10]) == [(8, 1), (10, 0)]
    assert acknowledgements._beyond == {10}


# -- the home -----------------------------------------------------------------


def test_what_is_not_there(home: RabbitHome, api: Api) -> None:
    client = home.client()
    api.fails(UnsupportedError, match=r"or declare \[state.orders\]")(client.state, "get", "orders", "k")
    api.call(client, "wait_ready")


def test_a_declared_component(home: RabbitHome, api: Api, client: Make) -> None:
    tables = {name: {"component": "rabbitmq", **home.home} for name in ("bus", "other")}
    with CloudRuntimesClient(app_id="suite", config={"pubsub": tables}) as app_client:
        with (
            api.opened(app_client.pubsub.subscribe("bus", "t")) as sub,
            api.opened(app_client.pubsub.subscribe("other", "t")) as other,
        ):
            api.call(app_client.pubsub, "publish", "bus", "t", 1)
            assert api.call(sub, "receive", 10).data == 1
            assert api.call(other, "receive", 0.2) is None
