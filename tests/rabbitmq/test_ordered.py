"""Order by key on RabbitMQ beyond the suite: queues that change hands, neighbours' messages, connections that end, what is there already."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from math import inf
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.rabbitmq import ordered
from cloud_runtimes.components.rabbitmq.topology import QUEUES, SHARES
from cloud_runtimes.errors import BulkError, ConflictError, NotFoundError, UnsupportedError
from cloud_runtimes.pubsub import Event, OutgoingEvent
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.suites._pubsub_order import KeyLog, keyed
from tests.support.harnesses.rabbitmq import RabbitHome, StreamHome
from tests.support.waiting import until

pika: Any = pytest.importorskip("pika")


@pytest.fixture
def channel(home: RabbitHome) -> Iterator[Any]:
    home.home["prefix"] = home.prefix
    home.home["groups"] = []
    with closing(pika.BlockingConnection(pika.URLParameters(home.url))) as connection:
        yield connection.channel()


def ready(channel: Any, home: RabbitHome) -> dict[str, int]:
    """Return how many messages wait in the queues of the group that have some."""
    counts = {
        name: channel.queue_declare(f"{home.prefix}t:suite:{name}", passive=True).method.message_count
        for name in QUEUES
    }
    return {name: count for name, count in counts.items() if count}


def handler(log: KeyLog, seconds: float = 0.0, note: Callable[[Event[Any]], None] = lambda event: None) -> Any:
    def handle(event: Event[Any]) -> None:
        key, number = event.data
        log.begin(key, number)
        note(event)
        time.sleep(seconds)
        log.end(key, number)

    return handle


def queues_of(sub: Any) -> set[int]:
    """Return the channels of the queues that a member is the one of."""
    source: Any = sub._fetcher._source
    return set(source._active) - set(source._leaving)


# -- members ------------------------------------------------------------------


def test_a_late_member_gets_its_share(home: RabbitHome, channel: Any, api: Api) -> None:
    """Under load, also where others wait in front of it; each key stays in order, and nothing is left."""
    client, log, done = home.client(), KeyLog(), threading.Event()
    sent = 0

    def publish() -> None:
        nonlocal sent
        while not done.is_set():
            events = [OutgoingEvent([f"k{key}", sent], f"k{key}") for key in range(200)]
            client.pubsub.publish_bulk("bus", "t", events)
            sent += 1

    subs = [client.pubsub.subscribe("bus", "t", handler(log), order="key", workers=2)]
    thread = threading.Thread(target=publish)
    thread.start()
    try:
        until(lambda: len(queues_of(subs[0])) == SHARES)
        for _ in range(3):
            subs.append(client.pubsub.subscribe("bus", "t", handler(log), order="key", workers=2))
        started = time.monotonic()
        until(lambda: all(len(queues_of(sub)) == SHARES // 4 for sub in subs))
        assert time.monotonic() - started < 10
    finally:
        done.set()
        thread.join()
    until(lambda: log.is_complete(200, sent))
    assert log.faults == []
    until(lambda: not any(sub._fetcher._source.in_flight.held for sub in subs))
    for sub in subs:
        api.call(sub, "close")
    assert ready(channel, home) == {}


def test_moving_counts_no_delivery(home: RabbitHome, channel: Any, api: Api) -> None:
    """A queue that has changed hands five times uses up no delivery of two."""
    client = home.client()
    options: dict[str, Any] = {"order": "key", "max_deliveries": 2, "ack_wait": 60}
    counts = []
    for turn in range(5):
        with api.opened(client.pubsub.subscribe("bus", "t", **options)) as sub:
            if turn == 0:
                api.call(client.pubsub, "publish_bulk", "bus", "t", keyed(1, 3))
            event = api.call(sub, "receive", 10)
            assert event.data == ["k0", 0]
            counts.append(event.delivery_count)
    assert counts == [1, 2, 2, 2, 2]
    until(lambda: list(ready(channel, home).values()) == [3])


def test_a_connection_that_ends(home: RabbitHome, channel: Any, api: Api) -> None:
    """What it had is void, and comes again in order; an answer to it settles nothing."""
    client = home.client()
    with api.opened(client.pubsub.subscribe("bus", "t", order="key")) as sub:
        api.call(client.pubsub, "publish_bulk", "bus", "t", keyed(1, 3))
        event = api.call(sub, "receive", 10)
        source: Any = sub._fetcher._source
        revision = source.revision
        source._connection._socket.shutdown(socket.SHUT_RDWR)
        until(lambda: source.revision != revision and source.is_connected and source.in_flight.held)
        event.ack()
        got = []
        for _ in range(3):
            event = api.call(sub, "receive", 10)
            got.append((event.data[1], event.delivery_count))
            event.ack()
        assert got == [(0, 2), (1, 2), (2, 2)]
        until(lambda: not source.in_flight.held)
    assert ready(channel, home) == {}


def test_the_lease_is_that_of_heartbeats(home: RabbitHome, api: Api) -> None:
    client = home.client()
    with api.opened(client.pubsub.subscribe("bus", "t", order="key", ack_wait=8)) as sub:
        source: Any = sub._fetcher._source
        until(lambda: source.valid_until > time.monotonic() + 6)
        assert source.valid_until < time.monotonic() + 8
    home.home["url"] += "?heartbeat=0"
    with api.opened(home.client().pubsub.subscribe("bus", "t", order="key", ack_wait=8)) as sub:
        source = sub._fetcher._source
        until(lambda: source.valid_until == inf)


# -- messages -----------------------------------------------------------------


def test_messages_without_a_part(home: RabbitHome, channel: Any, api: Api) -> None:
    """Of other programs, in frames, and without keys: all come, and keys of frames keep their order."""
    client = home.client()
    config = {"capa": {"home": {**home.home, "layout": "frame"}}}
    log = KeyLog()
    with closing(CloudRuntimesClient(app_id="suite", config=config)) as frames:
        with api.opened(client.pubsub.subscribe("bus", "t", order="key", batch=10)) as sub:
            channel.basic_publish(f"{home.prefix}t", "of others", b"text", pika.BasicProperties("text/plain"))
            batch = api.call(sub, "receive", 10)
            assert [event.data for event in batch] == ["text"]
            batch.ack()
            until(lambda: not sub._fetcher._source.in_flight.held)
        with api.opened(client.pubsub.subscribe("bus", "t", handler(log), order="key", workers=4)):
            api.call(frames.pubsub, "publish_bulk", "bus", "t", keyed(10, 30))
            until(lambda: log.is_complete(10, 30))
        assert log.faults == []


def test_delays_keep_to_their_part(home: RabbitHome, channel: Any, api: Api) -> None:
    """Also one that takes two queues, and dead letters that a group with an order reads."""
    client = home.client()
    options: dict[str, Any] = {"order": "key", "dead_letter_topic": "dead"}
    with (
        api.opened(client.pubsub.subscribe("bus", "dead", order="key")) as dead,
        api.opened(client.pubsub.subscribe("bus", "t", **options)) as sub,
    ):
        api.call(client.pubsub, "publish", "bus", "t", 0, key="k")
        first = api.call(sub, "receive", 10)
        (queue,) = queues_of(sub)
        for number, delay in enumerate((0.1, 0.11), 1):
            api.call(client.pubsub, "publish", "bus", "t", number, key="k", delay=delay)
        assert api.call(sub, "receive", 0.7) is None  # the first is not settled
        assert queues_of(sub) == {queue}
        first.ack()
        for _ in range(2):
            api.call(sub, "receive", 10).drop()
        letters = [api.call(dead, "receive", 10)]
        letters[0].ack()
        letters.append(api.call(dead, "receive", 10))
        assert sorted((letter.data, letter.key) for letter in letters) == [(1, "k"), (2, "k")]
        assert queues_of(dead) == {queue}


@pytest.mark.parametrize("settings", [{}, {"content_mode": "binary"}], ids=["structured", "binary"])
def test_events_of_all_sizes_with_and_without_keys(home: RabbitHome, api: Api, settings: dict[str, Any]) -> None:
    """In one batch: their errors are told by index, and each key has them in order."""
    home.home |= {"groups": [], **settings}
    client = home.client()
    sizes = (3, 300_000, 0)
    events = [OutgoingEvent(bytes(sizes[number % 3]), ("k1", "k2", None)[number % 4 % 3]) for number in range(12)]
    caught = api.fails(BulkError)(client.pubsub, "publish_bulk", "bus", "t", events)
    assert sorted(caught.failed) == list(range(12))
    with api.opened(client.pubsub.subscribe("bus", "t", order="key")) as sub:
        api.call(client.pubsub, "publish_bulk", "bus", "t", events)
        got: dict[Any, list[bytes]] = {}
        for _ in events:
            event = api.call(sub, "receive", 10)
            got.setdefault(event.key, []).append(event.data)
            event.ack()
    for key in ("k1", "k2"):
        assert got[key] == [event.data for event in events if event.key == key]


# -- what is there ------------------------------------------------------------


def test_a_group_named_in_the_settings(home: RabbitHome, channel: Any, api: Api) -> None:
    """It has the queue of a group without an order from the first event on, unless a member was there before."""
    home.home["groups"] = ["first", "late"]
    client = home.client()
    with api.opened(client.pubsub.subscribe("bus", "t", group="first", order="key")) as sub:
        api.call(home.client().pubsub, "publish", "bus", "t", 1, key="k")
        assert api.call(sub, "receive", 10).data == 1
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
        channel.queue_declare(f"{home.prefix}t:first", passive=True)
    api.fails(ConflictError, match="the group 'late' of .* has no order")(
        client.pubsub, "subscribe", "bus", "t", group="late", order="key"
    )


def test_queues_that_are_removed(home: RabbitHome, channel: Any, api: Api) -> None:
    """They are made again, whichever it is."""
    client = home.client()
    with api.opened(client.pubsub.subscribe("bus", "t", order="key")) as sub:
        for number, names in enumerate((["members"], [*QUEUES, "members"])):
            for name in names:
                channel.queue_delete(f"{home.prefix}t:suite:{name}")

            def arrives(number: int = number) -> bool:
                try:
                    api.call(client.pubsub, "publish", "bus", "t", number, key="k")
                except NotFoundError:  # the member has not made it again
                    return False
                event = api.call(sub, "receive", 1)
                if event is not None:
                    event.ack()
                return event is not None and event.data == number

            until(arrives)


def test_no_order_from_a_stream(rabbitmq_url: str, api: Api) -> None:
    with closing(StreamHome(rabbitmq_url)) as home:
        api.fails(UnsupportedError, match='set kind = "queue"')(
            home.client().pubsub, "subscribe", "bus", "t", order="key"
        )


def test_a_share_of_the_prefetch(home: RabbitHome, api: Api) -> None:
    """``max_in_flight`` bounds what is there of a queue, from 64 on."""
    for given, wanted in ((None, 1000), (4, 64), (500, 500), (5000, 5000), (100_000, 65_535)):
        with api.opened(home.client().pubsub.subscribe("bus", "t", order="key", max_in_flight=given)) as sub:
            source: Any = sub._fetcher._source
            assert isinstance(source, ordered.OrderedMember)
            assert source._messages == wanted


def test_the_backlog_of_a_key_holds_up_no_other(home: RabbitHome, channel: Any, api: Api) -> None:
    """Of the same queue, as long as ``max_in_flight`` is above it."""
    client = home.client()
    with api.opened(client.pubsub.subscribe("bus", "t", order="key", max_in_flight=2000)) as sub:
        backlog = [OutgoingEvent(["hot", number], "hot") for number in range(1500)]
        others = [OutgoingEvent([f"k{key}", 0], f"k{key}") for key in range(64)]  # some in each queue
        api.call(client.pubsub, "publish_bulk", "bus", "t", backlog + others)
        got = [api.call(sub, "receive", 10).data for _ in range(1 + len(others))]
        assert got.count(["hot", 0]) == 1
        assert sorted(got) == sorted([["hot", 0], *([f"k{key}", 0] for key in range(64))])
