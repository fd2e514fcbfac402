"""``client.admin`` on NATS: an account that may only read looks at everything, and looking leaves no trace that ``nats`` would show."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

import pytest

from cloud_runtimes.components.nats import member
from cloud_runtimes.components.nats.consumers import EventStream
from cloud_runtimes.components.nats.streams import MAIN
from cloud_runtimes.errors import ConflictError, PermissionDeniedError, UnsupportedError
from cloud_runtimes.pubsub import OutgoingEvent
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.harnesses.nats import NatsHome
from tests.support.members import collect, die, join
from tests.support.nats import Serve
from tests.support.nats_other import Other
from tests.support.waiting import until

_LOOKING = [f"$JS.API.{each}.>" for each in ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET", "CONSUMER.LIST")]


def fill(client: Any) -> None:
    """Fill a bus with two groups, one of which has an order."""
    client.pubsub.publish_bulk("bus", "t", list(range(6)))
    with client.pubsub.subscribe("bus", "t", group="g", dead_letter_topic="dead") as events:
        taken = [events.receive(timeout=10) for _ in range(6)]
        taken[0].drop()
        for event in taken[1:3]:
            event.ack()
        assert until(lambda: client.pubsub.lag("bus", "t", group="g") == 3)
    with client.pubsub.subscribe("bus", "t", group="ordered", order="key"):
        pass
    client.pubsub.publish("bus", "größe", 1)


def look(client: Any, api: Api) -> None:
    """Look at all of it."""
    assert [topic.name for topic in api.call(client.admin, "topics", "bus")] == ["dead", "größe", "t"]
    first, second = api.call(client.admin, "groups", "bus", "t")
    assert (first.name, first.lag, second.name, second.lag) == ("g", 3, "ordered", 6)
    assert (first.order, second.order) == ("", "key")
    assert len(api.call(client.admin, "peek", "bus", "t", group="ordered")) == 6
    assert api.call(client.admin, "peek", "bus", "t", group="g")
    assert len(api.call(client.admin, "peek", "bus", "t", start="latest", limit=3)) == 3
    assert [each.count for each in api.call(client.admin, "dead_letters", "bus", "dead")] == [1]


def test_looking_leaves_no_trace(home: NatsHome, other: Other, api: Api) -> None:
    client = home.client()
    fill(client)

    def state() -> Any:
        def ask(verb: str) -> Any:
            told = json.loads(other.ask(f"$JS.API.{verb}").data, object_hook=_timeless)
            return told.get("state") or told

        names = ask("STREAM.NAMES")["streams"]
        return names, *(ask(f"{verb}.{name}") for name in names for verb in ("STREAM.INFO", "CONSUMER.LIST"))

    before = state()
    look(client, api)
    assert state() == before


def test_an_account_that_may_only_read(served: Serve, client: Make, api: Api) -> None:
    looker = {"user": "looker", "password": "p", "permissions": {"publish": {"allow": _LOOKING}}}
    server = served(authorization={"users": [looker, {"user": "app", "password": "p"}]})
    fill(client(f"nats://app:p@127.0.0.1:{server.port}"))
    looking = client(f"nats://looker:p@127.0.0.1:{server.port}")
    look(looking, api)
    api.fails(PermissionDeniedError)(looking.pubsub, "publish", "bus", "t", 1)


def _timeless(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != "ts"}


def test_names_are_read_from_subjects_and_consumers() -> None:
    stream: Any = object.__new__(EventStream)
    stream._root = "cr.bus"
    for name in ("t", "orders.eu", "größe", "a b", "_", "x" * 100, "ü" * 40, "a..b", "*", "a=b"):
        assert stream.topic_of(stream.topic(name)) == name
        assert stream.group_of(stream.consumer(MAIN, "t", name)) == name


def test_a_claimed_letter_is_never_delivered_again(home: NatsHome, other: Other, api: Api) -> None:
    """A process that dies behind its batch leaves the letters there, and their claims."""
    client = home.client()
    client.pubsub.subscribe("bus", "t", group="g").close()
    letters = [OutgoingEvent(number, attributes={"dlgroup": "g", "dltopic": "t"}) for number in range(4)]
    client.pubsub.publish_bulk("bus", "dead", letters)
    last = other.api("STREAM.INFO")["state"]["last_seq"]
    for sequence in (last - 3, last - 1):
        assert "error" not in json.loads(other.ask(f"{home.prefix}.bus.m.{sequence}").data)
    assert api.call(client.admin, "redrive", "bus", "dead").count == 2
    assert client.admin.peek("bus", "dead") == []
    with client.pubsub.subscribe("bus", "t", group="g") as events:
        assert sorted(event.data for event in (events.receive(timeout=10), events.receive(timeout=10)) if event) == [
            1,
            3,
        ]
        assert events.receive(timeout=0.2) is None


def test_a_stream_without_batches_is_named(home: NatsHome, other: Other, api: Api) -> None:
    client = home.client()
    client.pubsub.publish("bus", "dead", 1, attributes={"dlgroup": "g", "dltopic": "t"})
    config = {**other.api("STREAM.INFO")["config"], "allow_atomic": False}
    assert "error" not in other.api("STREAM.UPDATE", config)
    api.fails(UnsupportedError, match="lacks allow_atomic: set it")(client.admin, "discard", "bus", "dead")
    assert len(client.admin.peek("bus", "dead")) == 1


def test_a_group_with_a_busy_member_is_not_deleted(home: NatsHome, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "_HEARTBEAT", 0.1)
    monkeypatch.setattr(member, "_IDLE", 0.3)  # after which no request tells of it
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", list(range(9)))
    ended = threading.Event()
    options: dict[str, Any] = {"group": "g", "max_in_flight": 1, "start": "earliest"}
    with client.pubsub.subscribe("bus", "t", lambda event: ended.wait(30), **options):
        try:
            assert until(lambda: client.admin.groups("bus", "t")[0].in_flight or 0)
            api.pause(1.0)
            api.fails(ConflictError, match=rf"stop them first \(\S+-{os.getpid()}-")(
                client.admin, "delete_group", "bus", "t", "g"
            )
        finally:
            ended.set()
    assert client.admin.delete_group("bus", "t", "g") is not None


def test_a_dead_member_counts_until_its_lease_is_over(home: NatsHome, other: Other) -> None:
    """Its last word stays in the stream."""
    client = home.client()
    client.pubsub.publish("bus", "t", 1)
    source = join(client, ack_wait=4.0)
    collect(source, 1)
    source._asked = dict.fromkeys(source._asked, 0)  # as if it had no room
    source._renew()
    source._ping()
    die(source)
    with pytest.raises(ConflictError, match="stop them first"):
        client.admin.delete_group("bus", "t", "suite")

    def is_deleted() -> bool:
        try:
            return client.admin.delete_group("bus", "t", "suite") == 1
        except ConflictError:
            return False

    assert until(is_deleted)
    assert other.stored(source._stream.presence("suite=t", source.policy.name)) == 1


def test_a_group_whose_move_was_interrupted_skips_nothing(home: NatsHome, other: Other) -> None:
    client = home.client()
    client.pubsub.subscribe("bus", "t", group="g").close()
    client.pubsub.publish_bulk("bus", "t", [0, 1])
    assert other.api("CONSUMER.DELETE", None, ".g=t")["success"]
    with client.pubsub.subscribe("bus", "t", group="g", start="latest") as events:
        got = [events.receive(timeout=10) for _ in range(2)]
        assert sorted(event.data for event in got if event) == [0, 1]


def test_members_wait_for_who_moves_their_group(home: NatsHome, other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    """The move is slow between the removal of the old place and the new one."""
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", [0, 1])
    with client.pubsub.subscribe("bus", "t", group="g") as events:
        assert sorted(event.data for event in (events.receive(10), events.receive(10)) if event) == [0, 1]
        remove = EventStream.remove

        def remove_and_wait(stream: EventStream, consumer: str) -> Any:
            yield from remove(stream, consumer)
            time.sleep(0.3)

        monkeypatch.setattr(EventStream, "remove", remove_and_wait)
        home.client().admin.seek("bus", "t", "g", "latest")
        client.pubsub.publish("bus", "t", 2)
        event = events.receive(10)
        assert event
        assert event.data == 2
