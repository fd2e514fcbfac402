"""Topics with a stream: a group that begins later gets what was published before, whoever dies meanwhile."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.rabbitmq import replay
from cloud_runtimes.errors import ConflictError, NotFoundError
from cloud_runtimes.testing import Api
from tests.support import Rounds
from tests.support.harnesses.rabbitmq import StreamHome
from tests.support.waiting import until

pika: Any = pytest.importorskip("pika")


@pytest.fixture
def home(rabbitmq_url: str) -> Iterator[StreamHome]:
    harness = StreamHome(rabbitmq_url)
    harness.home["prefix"] = harness.prefix
    with closing(harness):
        yield harness


def waiting(home: StreamHome, queue: str) -> int | None:
    """Return how many messages wait in a queue; ``None``: it is not there."""
    with closing(pika.BlockingConnection(pika.URLParameters(home.url))) as connection:
        try:
            count: int = connection.channel().queue_declare(f"{home.prefix}{queue}", passive=True).method.message_count
        except pika.exceptions.ChannelClosedByBroker:
            return None
    return count


def begun(home: StreamHome) -> bool:
    """Return whether the group has what the stream had."""
    return waiting(home, "t:suite:replay") is None


def fill(client: CloudRuntimesClient, count: int) -> None:
    for start in range(0, count, 1000):
        client.pubsub.publish_bulk("bus", "t", list(range(start, min(start + 1000, count))))


def drain(api: Api, sub: Any, seen: Counter[int], count: int, timeout: float = 20) -> None:
    """Receive until so many different events were seen."""
    while len(seen) < count:
        batch = api.call(sub, "receive", timeout)
        assert batch is not None, f"{count - len(seen)} events are absent"
        seen.update(event.data for event in batch)
        batch.ack()


def test_an_event_before_any_group(home: StreamHome, api: Api) -> None:
    """Also one with a delay, which a topic without groups would hold back."""
    client = home.client()
    api.call(client.pubsub, "publish", "bus", "t", "delayed", delay=0.3)
    api.call(client.pubsub, "publish", "bus", "t", "first")
    for group in ("one", "two"):
        with api.opened(client.pubsub.subscribe("bus", "t", group=group)) as sub:
            got = []
            for _ in range(2):
                event = api.call(sub, "receive", 10)
                got.append(event.data)
                event.ack()
            assert got == ["first", "delayed"]


def test_messages_of_all_kinds(home: StreamHome, api: Api) -> None:
    """The copy is what was published: frames, binary mode, events without an envelope, large ones."""
    sent = []
    for number, settings in enumerate(({"layout": "frame"}, {"content_mode": "binary"}, {})):
        config = {"capa": {"home": {**home.home, **settings}}}
        with closing(CloudRuntimesClient(app_id="suite", config=config)) as client:
            api.call(client.pubsub, "publish_bulk", "bus", "t", [number, bytes(300_000)])
            sent += [number, bytes(300_000)]
    client = home.client()
    api.call(client.pubsub, "publish", "bus", "t", {"raw": 1}, raw=True)
    with api.opened(client.pubsub.subscribe("bus", "t")) as sub:
        for value in sent:
            event = api.call(sub, "receive", 10)
            assert (event.data, event.delivery_count) == (value, 1)
            event.ack()
        event = api.call(sub, "receive", 10)
        assert event.data == {"raw": 1}
        event.ack()


def test_a_member_that_leaves_amid_a_replay(home: StreamHome, api: Api, rounds: Rounds) -> None:
    """Another member begins it again."""
    client, count = home.client(), rounds(2_000, 300_000)
    fill(client, count)
    seen: Counter[int] = Counter()
    with api.opened(client.pubsub.subscribe("bus", "t", batch=100)) as first:
        other = client.pubsub.subscribe("bus", "t", batch=100)
        batch = api.call(first, "receive", 10)
        seen.update(event.data for event in batch)
        batch.ack()
        started = time.monotonic()
    assert time.monotonic() - started < 10
    with api.opened(other) as sub:
        drain(api, sub, seen, count)
        until(lambda: begun(home))
        api.call(client.pubsub, "publish", "bus", "t", -1)
        drain(api, sub, seen, count + 1)


def test_a_connection_that_ends_amid_a_replay(home: StreamHome, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    client = home.client()
    fill(client, 1_500)
    copies: list[int] = []
    wait = replay.Replay._wait

    def cut(self: Any, connection: Any) -> Any:
        deliveries = wait(self, connection)
        copies.append(len(deliveries))
        if len(copies) == 3:
            connection.close()
        return deliveries

    monkeypatch.setattr(replay.Replay, "_wait", cut)
    seen: Counter[int] = Counter()
    with api.opened(client.pubsub.subscribe("bus", "t", batch=100)) as sub:
        drain(api, sub, seen, 1_500)
    assert sum(copies) > 1_502  # it went on


def test_what_is_published_amid_a_replay(home: StreamHome, api: Api, rounds: Rounds) -> None:
    """Nothing is missed, those before come first, and only what is published while the queue is bound comes twice."""
    client, before = home.client(), rounds(1_000, 200_000)
    fill(client, before)
    done = threading.Event()
    sent = [before]

    def publish() -> None:
        while not done.is_set():
            client.pubsub.publish("bus", "t", sent[0])
            sent[0] += 1

    thread = threading.Thread(target=publish)
    thread.start()
    seen: Counter[int] = Counter()
    try:
        with api.opened(client.pubsub.subscribe("bus", "t", batch=100)) as sub:
            drain(api, sub, seen, before)
            assert set(range(before)) <= set(seen)
            until(lambda: begun(home), 60)
            at = sent[0]
            until(lambda: sent[0] > at + 100)
            done.set()
            thread.join()
            drain(api, sub, seen, sent[0])
    finally:
        done.set()
        thread.join()
    assert set(seen) == set(range(sent[0]))
    assert not [number for number, times in seen.items() if times > 1 and (number < before or number > at)]


def test_a_member_that_leaves_while_the_queue_is_bound(
    home: StreamHome, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends what it began, so nothing comes twice."""
    client = home.client()
    fill(client, 3)
    bound = threading.Event()

    def pause(seconds: float) -> None:
        bound.set()
        time.sleep(seconds)

    monkeypatch.setattr(replay, "sleep", pause)
    for number in range(3, 6):
        seen: Counter[int] = Counter()
        with api.opened(client.pubsub.subscribe("bus", "t", batch=10)) as sub:
            drain(api, sub, seen, 3 if number == 3 else 1)
            assert bound.wait(60)
        api.call(client.pubsub, "publish", "bus", "t", number)
    assert begun(home)
    assert waiting(home, "t:suite") == 1


def test_another_retention(home: StreamHome, api: Api) -> None:
    api.call(home.client().pubsub, "publish", "bus", "t", 1)
    home.home["retention"] = "1d"
    api.fails(ConflictError, match="inequivalent arg 'x-max-age'.*another prefix")(
        home.client().pubsub, "publish", "bus", "t", 1
    )


def test_a_deleted_group_begins_anew(home: StreamHome, api: Api) -> None:
    with home.client() as client:
        fill(client, 5)
        for count in (5, 6):
            with api.opened(client.pubsub.subscribe("bus", "t", group="g", batch=10)) as sub:
                seen: Counter[int] = Counter()
                drain(api, sub, seen, count)
                with pytest.raises(ConflictError, match="has members: stop them first"):
                    client.admin.delete_group("bus", "t", "g")
                assert until(lambda: waiting(home, "t:g:replay") is None)
            client.pubsub.publish("bus", "t", count)
            assert until(lambda: client.admin.delete_group("bus", "t", "g", dry_run=True) == 1)
            assert client.admin.delete_group("bus", "t", "g") == 1
            assert waiting(home, "t:g") is None
            with pytest.raises(NotFoundError, match="t has no group 'g'"):
                client.admin.delete_group("bus", "t", "g")


def test_members_get_no_letter_that_was_removed(home: StreamHome, api: Api) -> None:
    """A group that has begun, one with a member that is there, and one that is new."""
    with home.client() as client:
        client.pubsub.subscribe("bus", "t", group="g", dead_letter_topic="dead").close()
        client.pubsub.subscribe("bus", "dead", group="begun").close()
        with api.opened(client.pubsub.subscribe("bus", "dead", group="member", max_in_flight=10)) as sub:
            assert until(lambda: waiting(home, "dead:member:replay") is None)  # or what comes meanwhile may come twice
            with client.pubsub.publisher("bus", "dead") as publisher:
                for number in range(1000):
                    reason = "dropped" if number % 2 else "deliveries"
                    publisher.send(number, attributes={"dlgroup": "g", "dltopic": "t", "dlreason": reason})
            got = [api.call(sub, "receive", 20) for _ in range(10)]
            assert until(lambda: client.admin.redrive("bus", "dead", reason="dropped", dry_run=True).count == 500)
            assert client.admin.redrive("bus", "dead", reason="dropped").count == 500
            for event in got:
                event.ack()
            while (event := api.call(sub, "receive", 2)) is not None:
                got.append(event)
                event.ack()
            numbers = [event.data for event in got]
            assert {*numbers} >= {*range(0, 1000, 2)}
            assert len(numbers) == len({*numbers}) < 600
        for group in ("begun", "new"):
            seen: Counter[int] = Counter()
            with api.opened(client.pubsub.subscribe("bus", "dead", group=group, batch=100)) as sub:
                drain(api, sub, seen, 500)
                assert api.call(sub, "receive", 1) is None
            assert seen == Counter(range(0, 1000, 2))
        assert until(lambda: client.admin.delete_group("bus", "dead", "begun", dry_run=True) == 0)
        with api.opened(client.pubsub.subscribe("bus", "t", group="g", batch=100)) as sub:
            drain(api, sub, redriven := Counter(), 500)
        assert redriven == Counter(range(1, 1000, 2))
