"""Conformance of a `PubSubDriver`, through the service: events, groups, answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import (
    BulkError,
    ClosedError,
    InvalidArgumentError,
    PayloadError,
    ResourceExhaustedError,
    UnsupportedError,
)
from ...pubsub import DropEvent, Event, EventBatch, OutgoingEvent
from ..faces import Face
from ..harness import Harness, requires
from ._base import Suite, as_sent, values
from ._publisher import PublisherCases

__all__ = ["PubSubSuite"]

SOON = 10.0
"""Seconds in which what must come has come."""
NEVER = 0.3
"""Seconds in which what must not come would have come."""


@dataclass
class Reading:
    """A typed payload."""

    sensor: str
    value: float


def collect(face: Face, sub: Any, count: int, *, ack: bool = True) -> list[Any]:
    """Receive ``count`` events."""
    events: list[Any] = []
    while len(events) < count:
        event = face.call(sub, "receive", SOON)
        assert event is not None, f"only {len(events)} of {count} came"
        events.append(event)
        if ack:
            event.ack()
    return events


def nothing(face: Face, sub: Any) -> None:
    """Assert that nothing (more) comes."""
    event = face.call(sub, "receive", NEVER)
    assert event is None, f"unexpected {event!r} with {event.data!r}"


@requires("pubsub.subscribe")
class PubSubSuite(PublisherCases, Suite):
    """Every case of Dapr's pub/sub conformance, and those that it misses: redelivery, dead letters, groups, give-back."""

    service = "pubsub"

    # -- events -----------------------------------------------------------

    def test_values_round_trip(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        sent = values(b"", b"\x00\xff", {"x": b"".decode()})
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            for value in sent:
                face.call(client.pubsub, "publish", store, "t", value)
            got = [event.data for event in collect(face, sub, len(sent))]
        assert got == sent
        assert [type(value) for value in got] == [type(value) for value in sent]

    def test_attributes(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        before = datetime.now(UTC)
        with face.opened(face.call(client.pubsub, "subscribe", store, "orders")) as sub:
            id = face.call(client.pubsub, "publish", store, "orders", {"n": 1})
            (event,) = collect(face, sub, 1)
        assert event.id == id
        assert len(id) == 36
        assert event.type == "cloud_runtimes.event"
        assert event.source == "suite"
        assert event.topic == "orders"
        assert event.pubsub_name == store
        assert event.content_type == "application/json"
        assert event.subject is None
        assert event.key is None
        assert event.extensions == {}
        assert abs((event.time - before).total_seconds()) < 5
        assert event.delivery_count in (1, None)

    def test_given_attributes(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        attributes = {
            "id": "my-id",
            "type": "com.example.made",
            "source": "/here",
            "subject": "thing",
            "time": "2025-01-15T09:30:12Z",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "tenant": "blue",
            "level": 7,
            "urgent": True,
        }
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            id = face.call(
                client.pubsub,
                "publish",
                store,
                "t",
                "grüße",
                content_type="text/plain",
                key="k 1",
                attributes=attributes,
            )
            (event,) = collect(face, sub, 1)
        assert id == event.id == "my-id"
        assert event.type == "com.example.made"
        assert event.source == "/here"
        assert event.subject == "thing"
        assert event.time == datetime(2025, 1, 15, 9, 30, 12, tzinfo=UTC)
        assert event.traceparent == attributes["traceparent"]
        assert event.key == "k 1"
        assert dict(event.extensions) == {"tenant": "blue", "level": 7, "urgent": True}
        assert event.data == "grüße"
        assert event.content_type == "text/plain"

    def test_to_json(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        import json

        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            id = face.call(client.pubsub, "publish", store, "t", {"n": [1, None]}, attributes={"tenant": "blue"})
            (event,) = collect(face, sub, 1)
        envelope = json.loads(event.to_json())
        assert envelope["specversion"] == "1.0"
        assert envelope["id"] == id
        assert envelope["data"] == {"n": [1, None]}
        assert envelope["tenant"] == "blue"

    def test_typed(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        with face.opened(face.call(client.pubsub, "subscribe", store, "t", type=Reading)) as sub:
            face.call(client.pubsub, "publish", store, "t", Reading("a", 1.5))
            (event,) = collect(face, sub, 1)
        assert event.data == Reading("a", 1.5)

    @pytest.mark.parametrize("bad", [{1, 2}, float("nan"), "\ud800", object()])
    def test_unencodable_data_is_refused(self, client: CloudRuntimesClient, face: Face, store: str, bad: Any) -> None:
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            with pytest.raises(PayloadError):
                face.call(client.pubsub, "publish", store, "t", bad)
            face.call(client.pubsub, "publish", store, "t", "good")
            assert collect(face, sub, 1)[0].data == "good"  # so nothing came before it

    def test_bad_arguments_are_refused(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            for arguments in (
                {"attributes": {"Not Lower": "x"}},
                {"attributes": {"id": ""}},
                {"attributes": {"time": "yesterday"}},
                {"attributes": {"data": "x"}},
                {"attributes": {"tenant": 1.5}},
                {"attributes": "text"},
                {"attributes": {"datacontenttype": "text/plain"}},
                {"key": ""},
                {"key": "a\0b"},
                {"content_type": "none"},
                {"metadata": {"a": 1}},
                {"timeout": 0},
            ):
                with pytest.raises(InvalidArgumentError):
                    face.call(client.pubsub, "publish", store, "t", 1, **arguments)
            for topic in ("", "a\nb", "x" * 256, 7, None):
                with pytest.raises(InvalidArgumentError, match="topic"):
                    face.call(client.pubsub, "publish", store, topic, 1)
            with pytest.raises(InvalidArgumentError, match="list"):
                face.call(client.pubsub, "publish_bulk", store, "t", "text")
            face.call(client.pubsub, "publish", store, "t", "good")
            assert collect(face, sub, 1)[0].data == "good"  # so nothing came before it
        for options in (
            {"workers": 0},
            {"batch": 0},
            {"max_in_flight": 0},
            {"group": ""},
            {"handler": "no function"},
        ):
            refused = "group" in options and self.lacks(client, "pubsub.group", store)
            with pytest.raises(UnsupportedError if refused else InvalidArgumentError):
                face.call(client.pubsub, "subscribe", store, "t", **options)
        with pytest.raises(TypeError, match="colour"):
            face.call(client.pubsub, "subscribe", store, "t", colour="red")

    # -- bulk, order, topics ----------------------------------------------

    def test_bulk_in_order(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            ids = face.call(client.pubsub, "publish_bulk", store, "t", list(range(2500)))
            ids += face.call(client.pubsub, "publish_bulk", store, "t", [OutgoingEvent("x", "k", {"id": "given"})])
            events = as_sent(harness, collect(face, sub, 2500)) + collect(face, sub, 1)
        assert [event.data for event in events[:2500]] == list(range(2500))
        assert [event.id for event in events] == ids
        assert ids[-1] == "given"
        assert events[-1].key == "k"
        assert len(set(ids)) == len(ids)

    def test_bulk_tries_every_event(
        self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness
    ) -> None:
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            with pytest.raises(BulkError) as caught:
                face.call(client.pubsub, "publish_bulk", store, "t", [1, {2}, 3])
            assert list(caught.value.failed) == [1]
            assert isinstance(caught.value.failed[1], PayloadError)
            events = as_sent(harness, collect(face, sub, 2))
            assert [event.data for event in events] == [1, 3]
            assert [event.id for event in events] == [caught.value.result[0], caught.value.result[2]]
        assert face.call(client.pubsub, "publish_bulk", store, "t", []) == []

    def test_one_by_one_in_order(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        for number in range(50):
            face.call(client.pubsub, "publish", store, "t", number)
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            assert [event.data for event in collect(face, sub, 50)] == list(range(50))

    def test_topics_are_apart(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        other = harness.store("pubsub")
        one = face.call(client.pubsub, "subscribe", store, "one")
        two = face.call(client.pubsub, "subscribe", store, "two")
        far = face.call(client.pubsub, "subscribe", other, "one")
        face.call(client.pubsub, "publish", store, "one", 1)
        face.call(client.pubsub, "publish", store, "two", 2)
        assert collect(face, one, 1)[0].data == 1
        assert collect(face, two, 1)[0].data == 2
        nothing(face, far)
        face.call(one, "close")
        face.call(client.pubsub, "publish", store, "one", 3)
        face.call(client.pubsub, "publish", store, "two", 4)
        assert collect(face, two, 1)[0].data == 4
        assert face.call(one, "receive", NEVER) is None
        face.call(two, "close")
        face.call(far, "close")
        with face.opened(face.call(client.pubsub, "subscribe", store, "one")) as again:
            assert collect(face, again, 1)[0].data == 3

    # -- groups -----------------------------------------------------------

    @requires("pubsub.group")
    def test_each_group_gets_all(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        one = face.call(client.pubsub, "subscribe", store, "t", group="one")
        two = face.call(client.pubsub, "subscribe", store, "t", group="two")
        face.call(client.pubsub, "publish_bulk", store, "t", list(range(20)))
        assert [event.data for event in collect(face, one, 20)] == list(range(20))
        assert [event.data for event in collect(face, two, 20)] == list(range(20))
        face.call(one, "close")
        face.call(two, "close")

    def test_members_share(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        members = [
            face.call(each.pubsub, "subscribe", store, "t", max_in_flight=10) for each in (client, harness.client())
        ]
        sent = list(range(200 + 3 * harness.prefetch))
        face.call(client.pubsub, "publish_bulk", store, "t", sent)
        got: list[list[int]] = [[], []]
        end = time.monotonic() + SOON
        while sum(map(len, got)) < len(sent) and time.monotonic() < end:
            for mine, member in zip(got, members, strict=True):
                event = face.call(member, "receive", 0.02)
                if event is not None:
                    mine.append(event.data)
                    event.ack()
        assert sorted(got[0] + got[1]) == sent
        assert got[0]
        assert got[1]
        for member in members:
            face.call(member, "close")

    @requires("pubsub.start", "pubsub.group")
    def test_start(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.pubsub, "publish", store, "t", "old")
        latest = face.call(client.pubsub, "subscribe", store, "t", group="late", start="latest")
        earliest = face.call(client.pubsub, "subscribe", store, "t", group="early", start="earliest")
        default = face.call(client.pubsub, "subscribe", store, "t", group="default")
        face.call(client.pubsub, "publish", store, "t", "new")
        assert [event.data for event in collect(face, latest, 1)] == ["new"]
        assert [event.data for event in collect(face, earliest, 2)] == ["old", "new"]
        assert [event.data for event in collect(face, default, 2)] == ["old", "new"]
        for sub in (latest, earliest, default):
            face.call(sub, "close")
        # a group that exists goes on where it was, whatever start says
        with face.opened(face.call(client.pubsub, "subscribe", store, "t", group="late", start="earliest")) as sub:
            nothing(face, sub)
        with pytest.raises(InvalidArgumentError, match="start"):
            face.call(client.pubsub, "subscribe", store, "t", start="sometime")

    # -- answers ----------------------------------------------------------

    def test_acked_is_done(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.pubsub, "publish_bulk", store, "t", list(range(10)))
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            collect(face, sub, 10)
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            nothing(face, sub)

    @requires("pubsub.retry_delay")
    def test_retry(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        face.call(client.pubsub, "publish_bulk", store, "t", ["a", "b"])
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            first, second = collect(face, sub, 2, ack=False)
            first.retry(delay=0)
            second.ack()
            (again,) = collect(face, sub, 1, ack=False)
            assert (again.id, again.data, again.delivery_count) == (first.id, "a", 2)
            first.ack()  # the first answer counted, and this delivery is over
            again.retry(delay=30)
            again.ack()  # no: the first answer counts
            nothing(face, sub)
            harness.advance(31)
            (third,) = collect(face, sub, 1)
            assert third.delivery_count == 3
            nothing(face, sub)
        for bad in (-1, float("nan"), float("inf")):
            with pytest.raises(InvalidArgumentError, match="delay"):
                third.retry(bad)

    @requires("pubsub.retry_delay")
    def test_retry_backs_off(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        face.call(client.pubsub, "publish", store, "t", 1)
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            for least, most in ((0.9, 1.2), (1.9, 2.3), (3.9, 4.4)):
                (event,) = collect(face, sub, 1, ack=False)
                event.retry()
                face.pause(0.1)
                harness.advance(least - 0.6)
                nothing(face, sub)
                harness.advance(most - least + 0.4)
            (event,) = collect(face, sub, 1)
            assert event.delivery_count == 4

    def test_drop(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.pubsub, "publish_bulk", store, "t", ["bad", "good"])
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            bad, good = collect(face, sub, 2, ack=False)
            bad.drop()
            good.ack()
            nothing(face, sub)
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            nothing(face, sub)

    @requires("pubsub.dead_letter")
    def test_dead_letter(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        id = face.call(client.pubsub, "publish", store, "t", {"n": 1}, key="k", attributes={"tenant": "blue"})
        dead = face.call(client.pubsub, "subscribe", store, "dead")
        with face.opened(face.call(client.pubsub, "subscribe", store, "t", dead_letter_topic="dead")) as sub:
            (event,) = collect(face, sub, 1, ack=False)
            event.drop()
            (letter,) = collect(face, dead, 1)
        assert (letter.id, letter.data, letter.key, letter.topic) == (id, {"n": 1}, "k", "t")
        assert dict(letter.extensions) == {"tenant": "blue"}
        face.call(dead, "close")
        with pytest.raises(InvalidArgumentError, match="another topic"):
            face.call(client.pubsub, "subscribe", store, "t", dead_letter_topic="t")

    @requires("pubsub.dead_letter", "pubsub.max_deliveries", "pubsub.retry_delay")
    def test_last_delivery(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        dead = face.call(client.pubsub, "subscribe", store, "dead")
        options = {"dead_letter_topic": "dead", "max_deliveries": 3}
        with face.opened(face.call(client.pubsub, "subscribe", store, "t", **options)) as sub:
            id = face.call(client.pubsub, "publish", store, "t", "poison")
            counts = []
            for _ in range(3):
                (event,) = collect(face, sub, 1, ack=False)
                counts.append(event.delivery_count)
                event.retry(delay=0)
            assert counts == [1, 2, 3]
            (letter,) = collect(face, dead, 1)
            assert letter.id == id
            nothing(face, sub)
        face.call(dead, "close")
        with face.opened(face.call(client.pubsub, "subscribe", store, "u", max_deliveries=2)) as sub:
            face.call(client.pubsub, "publish", store, "u", "gone")
            for _ in range(2):
                collect(face, sub, 1, ack=False)[0].retry(delay=0)
            nothing(face, sub)

    @requires("pubsub.dead_letter")
    def test_data_that_does_not_fit(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        dead = face.call(client.pubsub, "subscribe", store, "dead")
        options = {"type": Reading, "dead_letter_topic": "dead"}
        with face.opened(face.call(client.pubsub, "subscribe", store, "t", **options)) as sub:
            for data in ({"sensor": 5}, Reading("ok", 1.0)):
                face.call(client.pubsub, "publish", store, "t", data)
            assert collect(face, sub, 1)[0].data == Reading("ok", 1.0)
            assert collect(face, dead, 1)[0].data == {"sensor": 5}
        face.call(dead, "close")

    @requires("pubsub.ack_wait")
    def test_unsettled_comes_again(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        with face.opened(face.call(client.pubsub, "subscribe", store, "t", ack_wait=0.4)) as sub:
            face.call(client.pubsub, "publish", store, "t", 1)
            (event,) = collect(face, sub, 1, ack=False)
            started = time.monotonic()
            (again,) = collect(face, sub, 1)
            assert 0.3 < time.monotonic() - started < 1.4
            assert again.id == event.id
            assert again.delivery_count == 2
            event.ack()
            nothing(face, sub)

    def test_close_gives_back(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        face.call(client.pubsub, "publish_bulk", store, "t", list(range(10)))
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            done = {event.data for event in collect(face, sub, 3)}
            (held,) = collect(face, sub, 1, ack=False)
        started = time.monotonic()
        with face.opened(face.call(harness.client().pubsub, "subscribe", store, "t")) as sub:
            events = as_sent(harness, collect(face, sub, 7))
            assert [event.data for event in events] == [number for number in range(10) if number not in done]
            counts = {event.data: event.delivery_count for event in events}
            # only what was handed out counts as delivered
            assert counts[held.data] in (2, None)
            assert all(count in (1, None) for data, count in counts.items() if data != held.data)
        assert time.monotonic() - started < 5
        assert done == {0, 1, 2} or not harness.bulk_order

    def test_max_in_flight(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        face.call(client.pubsub, "publish_bulk", store, "t", list(range(20)))
        with face.opened(face.call(client.pubsub, "subscribe", store, "t", max_in_flight=4)) as sub:
            events = collect(face, sub, 4, ack=False)
            nothing(face, sub)
            for event in events:
                event.ack()
            events += collect(face, sub, 16)
        assert [event.data for event in as_sent(harness, events)] == list(range(20))

    # -- batches ----------------------------------------------------------

    def test_batch(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        face.call(client.pubsub, "publish_bulk", store, "t", list(range(25)))
        with face.opened(face.call(client.pubsub, "subscribe", store, "t", batch=10)) as sub:
            got: list[int] = []
            while len(got) < 25:
                batch = face.call(sub, "receive", SOON)
                assert isinstance(batch, EventBatch)
                assert 1 <= len(batch) <= 10
                assert all(isinstance(event, Event) for event in batch)
                got += [event.data for event in batch]
                batch.ack()
            assert as_sent(harness, got, int) == list(range(25))
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            nothing(face, sub)

    @requires("pubsub.retry_delay")
    def test_batch_settles_the_rest(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.pubsub, "publish_bulk", store, "t", ["a", "b", "c"])
        with face.opened(face.call(client.pubsub, "subscribe", store, "t", batch=3)) as sub:
            batch = face.call(sub, "receive", SOON)
            assert [event.data for event in batch] == ["a", "b", "c"]
            batch[1].retry(delay=0)
            batch.ack()
            again = face.call(sub, "receive", SOON)
            assert [event.data for event in again] == ["b"]
            again.drop()
            nothing_more = face.call(sub, "receive", NEVER)
            assert nothing_more is None

    # -- handlers ---------------------------------------------------------

    def test_handler(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        got: list[Any] = []
        sub = face.call(client.pubsub, "subscribe", store, "t", face.handler(lambda event: got.append(event.data)))
        face.call(client.pubsub, "publish_bulk", store, "t", list(range(50)))
        assert face.until(lambda: len(got) == 50)
        assert as_sent(harness, got, int) == list(range(50))
        with pytest.raises(InvalidArgumentError, match="handler"):
            face.call(sub, "receive", 0.1)
        face.call(sub, "close")
        face.call(sub, "wait")
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as again:
            nothing(face, again)

    @requires("pubsub.retry_delay")
    def test_handler_outcomes(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        calls: list[tuple[str, int]] = []

        def body(event: Event[Any]) -> None:
            calls.append((event.data, event.delivery_count or 0))
            if event.data == "drop":
                raise DropEvent
            if event.data == "fail" and event.delivery_count == 1:
                raise RuntimeError("once")
            if event.data == "answered":
                event.drop()
                raise RuntimeError("too late to count")

        sub = face.call(client.pubsub, "subscribe", store, "t", face.handler(body))
        face.call(client.pubsub, "publish_bulk", store, "t", ["ok", "drop", "fail", "answered"])
        assert face.until(lambda: len(calls) == 4)
        face.pause(0.2)
        harness.advance(1.5)
        assert face.until(lambda: len(calls) == 5)
        assert sorted(calls) == [("answered", 1), ("drop", 1), ("fail", 1), ("fail", 2), ("ok", 1)]
        harness.advance(100)
        face.pause(NEVER)
        assert len(calls) == 5
        face.call(sub, "close")

    def test_handler_batch(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        sizes: list[int] = []
        face.call(client.pubsub, "publish_bulk", store, "t", list(range(100)))
        handler = face.handler(lambda batch: sizes.append(len(batch)))
        sub = face.call(client.pubsub, "subscribe", store, "t", handler, batch=40)
        assert face.until(lambda: sum(sizes) == 100)
        assert max(sizes) <= 40
        face.call(sub, "close")

    def test_workers_run_at_once(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        running, most = set(), 0
        lock = threading.Lock()

        def enter(event: Event[Any]) -> None:
            nonlocal most
            with lock:
                running.add(event.data)
                most = max(most, len(running))

        if face.name == "async":
            import asyncio

            async def handler(event: Event[Any]) -> None:
                enter(event)
                await asyncio.sleep(0.15)
                running.discard(event.data)

            handle: Callable[[Any], Any] = handler
        else:

            def handle(event: Event[Any]) -> None:
                enter(event)
                time.sleep(0.15)
                running.discard(event.data)

        sub = face.call(client.pubsub, "subscribe", store, "t", handle, workers=4)
        face.call(client.pubsub, "publish_bulk", store, "t", list(range(8)))
        assert face.until(lambda: most == 4)
        assert face.until(lambda: not running)
        face.call(sub, "close")

    def test_async_handler_of_a_sync_subscription(self, client: CloudRuntimesClient, store: str) -> None:
        got: list[tuple[Any, str]] = []

        async def handler(event: Event[Any]) -> None:
            got.append((event.data, threading.current_thread().name))

        with client.pubsub.subscribe(store, "t", handler):
            client.pubsub.publish(store, "t", 1)
            end = time.monotonic() + SOON
            while not got and time.monotonic() < end:
                time.sleep(0.01)
        assert got == [(1, "cloud-runtimes-loop")]

    # -- iterating and closing --------------------------------------------

    def test_close_ends_the_iteration(self, client: CloudRuntimesClient, store: str, harness: Harness) -> None:
        client.pubsub.publish_bulk(store, "t", [1, 2, 3])
        got = []
        with client.pubsub.subscribe(store, "t") as sub:
            for event in sub:
                got.append(event.data)
                event.ack()
                if len(got) == 3:
                    threading.Timer(0.1, sub.close).start()
        assert as_sent(harness, got, int) == [1, 2, 3]

    def test_async_iteration(self, client: CloudRuntimesClient, store: str, harness: Harness) -> None:
        import asyncio

        async def run() -> list[int]:
            got = []
            async with await client.pubsub.subscribe_async(store, "t") as sub:
                await client.pubsub.publish_bulk_async(store, "t", [1, 2, 3])
                async for event in sub:
                    got.append(event.data)
                    event.ack()
                    if len(got) == 3:
                        break
            return got

        assert as_sent(harness, asyncio.run(run()), int) == [1, 2, 3]

    def test_receive_times_out(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            started = time.monotonic()
            assert face.call(sub, "receive", 0.2) is None
            assert 0.15 < time.monotonic() - started < 2
            assert face.call(sub, "receive", 0) is None
        assert face.call(sub, "receive", 5) is None  # closed
        face.call(sub, "close")

    def test_client_close_closes(self, face: Face, store: str, harness: Harness) -> None:
        client = harness.client()
        sub = face.call(client.pubsub, "subscribe", store, "t")
        face.call(client, "close")
        assert face.call(sub, "receive", 5) is None
        with pytest.raises(ClosedError):
            face.call(client.pubsub, "publish", store, "t", 1)
        with pytest.raises(ClosedError):
            face.call(client.pubsub, "subscribe", store, "t")

    # -- expiry, delay, raw -----------------------------------------------

    @requires("pubsub.ttl")
    def test_ttl(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        face.call(client.pubsub, "publish", store, "t", "short", ttl=5)
        face.call(client.pubsub, "publish", store, "t", "long", ttl=500)
        harness.advance(6)
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            assert [event.data for event in collect(face, sub, 1)] == ["long"]
            nothing(face, sub)
        with pytest.raises(InvalidArgumentError, match="ttl"):
            face.call(client.pubsub, "publish", store, "t", 1, ttl=0)

    @requires("pubsub.delay")
    def test_delay(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            face.call(client.pubsub, "publish", store, "t", "later", delay=30)
            face.call(client.pubsub, "publish", store, "t", "now")
            assert collect(face, sub, 1)[0].data == "now"
            nothing(face, sub)
            harness.advance(31)
            assert collect(face, sub, 1)[0].data == "later"
        with pytest.raises(InvalidArgumentError, match="delay"):
            face.call(client.pubsub, "publish", store, "t", 1, delay=-1)

    @requires("pubsub.delay")
    def test_delay_in_real_time(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            started = time.monotonic()
            face.call(client.pubsub, "publish", store, "t", "later", delay=0.3)
            collect(face, sub, 1)
            assert 0.28 < time.monotonic() - started < 1.5

    @requires("pubsub.raw")
    def test_raw(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        with face.opened(face.call(client.pubsub, "subscribe", store, "t", raw=True)) as sub:
            face.call(client.pubsub, "publish", store, "t", {"n": 1}, raw=True)
            face.call(client.pubsub, "publish", store, "t", b"\x01\x02", raw=True)
            face.call(client.pubsub, "publish", store, "t", {"n": 2})
            plain, data, enveloped = collect(face, sub, 3)
        assert plain.data == ({"n": 1} if harness.raw_types else b'{"n":1}')
        assert data.data == b"\x01\x02"
        assert b'"specversion":"1.0"' in enveloped.data

    # -- what is not there ------------------------------------------------

    def test_undeclared_features_are_refused(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        uses: dict[str, tuple[str, dict[str, Any]]] = {
            "pubsub.ttl": ("publish", {"ttl": 5}),
            "pubsub.delay": ("publish", {"delay": 5}),
            "pubsub.raw": ("publish", {"raw": True}),
            "pubsub.group": ("subscribe", {"group": "other"}),
            "pubsub.start": ("subscribe", {"start": "latest"}),
            "pubsub.ack_wait": ("subscribe", {"ack_wait": 5}),
            "pubsub.max_deliveries": ("subscribe", {"max_deliveries": 5}),
            "pubsub.dead_letter": ("subscribe", {"dead_letter_topic": "dead"}),
        }
        for feature, (method, arguments) in uses.items():
            if self.lacks(client, feature, store):
                with pytest.raises(UnsupportedError):
                    face.call(client.pubsub, method, store, "t", *([1] if method == "publish" else []), **arguments)

    def test_too_large_is_refused(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        largest = client.pubsub._driver(store).max_event_bytes
        with pytest.raises(ResourceExhaustedError, match="bytes"):
            face.call(client.pubsub, "publish", store, "t", bytes(largest + 1))
