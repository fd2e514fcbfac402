"""Conformance of a `PubSubDriver`, through the service."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from ...client import CloudRuntimesClient
from ...errors import BulkError, ClosedError, PayloadError, ResourceExhaustedError, UnsupportedError
from ...pubsub import OutgoingEvent
from ..apis import Api
from ..harness import Harness, requires
from ._base import Call, as_sent, values
from ._pubsub_answers import NEVER, SOON, AnswerTests, collect, data, nothing
from ._pubsub_handlers import HandlerTests
from ._pubsub_order import OrderTests
from ._stopwatch import Stopwatch
from ._transactions import InboxTests


def drain(api: Api, call: Call, count: int) -> list[Any]:
    """Receive ``count`` events of the topic ``t`` in batches and see that no more come."""
    events: list[Any] = []
    with call.opened("subscribe", "t", batch=500) as sub:
        while len(events) < count:
            batch = api.call(sub, "receive", SOON)
            assert batch is not None, f"only {len(events)} of {count} came"
            events += batch
            batch.ack()
        assert api.call(sub, "receive", 0.2) is None
    return events


@requires("pubsub.subscribe")
class PubSubSuite(AnswerTests, HandlerTests, OrderTests, InboxTests):
    """Every case of Dapr's pub/sub conformance, and those that it misses: redelivery, dead letters, groups, give-back."""

    # -- what is not there ----------------------------------------------------

    def test_undeclared_features_are_refused(self, call: Call) -> None:
        published = {"ttl": 5, "delay": 5, "raw": True}
        subscribed = {
            "group": "other",
            "start": "latest",
            "start_time": datetime(2025, 1, 15, tzinfo=UTC),
            "ack_wait": 5,
            "max_deliveries": 5,
            "dead_letter": "dead",
        }
        for feature, value in (published | subscribed).items():
            if call.lacks(f"pubsub.{feature}"):
                method, arguments = ("publish", ("t", 1)) if feature in published else ("subscribe", ("t",))
                option = {"dead_letter": "dead_letter_topic", "start_time": "start"}.get(feature, feature)
                call.fails(UnsupportedError)(method, *arguments, **{option: value})
        if call.lacks("pubsub.lag"):
            call.fails(UnsupportedError, match="lag is not supported")("lag", "t")

    def test_too_large_is_refused(self, call: Call, client: CloudRuntimesClient, api: Api, store: str) -> None:
        driver = call.driver()
        largest = driver.max_event_bytes
        message = re.escape(f"has {largest + 1:,} bytes, {largest:,} are taken: {driver.too_large_hint}")
        call.fails(ResourceExhaustedError, match=message)("publish", "t", bytes(largest + 1))
        call.fails(BulkError, match=message)("publish_bulk", "t", [bytes(largest + 1)])
        with call.opened("publisher", "t") as publisher:
            api.fails(ResourceExhaustedError, match=message)(publisher, "send", bytes(largest + 1))

    # -- events ---------------------------------------------------------------

    def test_values_round_trip(self, call: Call, api: Api) -> None:
        sent = values(b"", b"\x00\xff", {"x": b"".decode()})
        with call.opened("subscribe", "t") as sub:
            got = []
            for value in sent:  # one at a time, since a component may deliver several at once, in no order
                call("publish", "t", value)
                got += data(api, sub, 1)
            call("publish", "t", "<é/>", content_type="application/xml")
            (event,) = collect(api, sub, 1)
        assert got == sent
        assert [type(value) for value in got] == [type(value) for value in sent]
        assert (event.data, event.content_type) == ("<é/>", "application/xml")

    def test_attributes(self, call: Call, api: Api, store: str) -> None:
        before = datetime.now(UTC)
        with call.opened("subscribe", "orders") as sub:
            id = call("publish", "orders", {"n": 1})
            after = datetime.now(UTC)
            (event,) = collect(api, sub, 1)
        assert event.id == id
        assert len(id) == 36
        assert (event.type, event.source) == ("cloud_runtimes.event", "suite")
        assert (event.topic, event.pubsub_name) == ("orders", store)
        assert event.content_type == "application/json"
        assert (event.subject, event.key, event.extensions) == (None, None, {})
        assert before - timedelta(seconds=5) < event.time < after + timedelta(seconds=5)
        assert event.delivery_count in (1, None)

    def test_given_attributes(self, call: Call, api: Api) -> None:
        attributes = {
            "id": "my-id",
            "type": "com.example.made",
            "source": "/here?a=%20#[b]",
            "subject": "thing",
            "time": "2025-01-15T09:30:12Z",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "tenant": "blue",
            "level": 7,
            "urgent": True,
        }
        with call.opened("subscribe", "t") as sub:
            id = call("publish", "t", "grüße", content_type="text/plain", key="k 1", attributes=attributes)
            (event,) = collect(api, sub, 1)
        assert id == event.id == "my-id"
        for name in ("type", "source", "subject", "traceparent"):
            assert getattr(event, name) == attributes[name]
        assert event.time == datetime(2025, 1, 15, 9, 30, 12, tzinfo=UTC)
        assert dict(event.extensions) == {"tenant": "blue", "level": 7, "urgent": True}
        assert (event.key, event.data, event.content_type) == ("k 1", "grüße", "text/plain")

    # -- bulk, order, topics --------------------------------------------------

    def test_bulk_in_order(self, call: Call, api: Api, harness: Harness) -> None:
        with call.opened("subscribe", "t") as sub:
            ids = call("publish_bulk", "t", list(range(2500)))
            ids += call("publish_bulk", "t", [OutgoingEvent("x", "k", {"id": "given"})])
            events = as_sent(harness, collect(api, sub, 2500)) + collect(api, sub, 1)
        assert [event.data for event in events[:2500]] == list(range(2500))
        assert [event.id for event in events] == ids
        assert ids[-1] == "given"
        assert events[-1].key == "k"
        assert len(set(ids)) == len(ids)

    def test_bulk_tries_every_event(self, call: Call, api: Api, harness: Harness) -> None:
        with call.opened("subscribe", "t") as sub:
            caught = call.fails(BulkError)("publish_bulk", "t", [1, 2j, 3])
            assert list(caught.failed) == [1]
            assert isinstance(caught.failed[1], PayloadError)
            events = as_sent(harness, collect(api, sub, 2))
            assert [event.data for event in events] == [1, 3]
            assert [event.id for event in events] == [caught.result[0], caught.result[2]]
        assert call("publish_bulk", "t", []) == []

    def test_one_by_one_in_order(self, call: Call, api: Api) -> None:
        for number in range(50):
            call("publish", "t", number)
        with call.opened("subscribe", "t") as sub:
            assert data(api, sub, 50) == list(range(50))

    def test_topics_and_stores_are_apart(self, call: Call, api: Api, harness: Harness) -> None:
        far = call.on(store=harness.store("pubsub"))("subscribe", "one")
        one, two = call("subscribe", "one"), call("subscribe", "two")
        call("publish", "one", 1)
        call("publish", "two", 2)
        assert data(api, one, 1) == [1]
        assert data(api, two, 1) == [2]
        nothing(api, far)
        api.call(one, "close")
        call("publish", "one", 3)
        call("publish", "two", 4)
        assert data(api, two, 1) == [4]
        assert api.call(one, "receive", NEVER) is None
        api.call(two, "close")
        api.call(far, "close")
        with call.opened("subscribe", "one") as again:
            assert data(api, again, 1) == [3]

    # -- expiry, delay, raw ---------------------------------------------------

    @requires("pubsub.ttl")
    def test_ttl(self, call: Call, api: Api, harness: Harness) -> None:
        call("publish", "t", "short", ttl=5)
        call("publish", "t", "long", ttl=500)
        harness.advance(6)
        with call.opened("subscribe", "t") as sub:
            assert data(api, sub, 1) == ["long"]
            nothing(api, sub)

    @requires("pubsub.delay")
    def test_delay(self, call: Call, api: Api, harness: Harness) -> None:
        with call.opened("subscribe", "t") as sub:
            call("publish", "t", "later", delay=30)
            call("publish", "t", "now")
            assert data(api, sub, 1) == ["now"]
            nothing(api, sub)
            harness.advance(31)
            assert data(api, sub, 1) == ["later"]

    @requires("pubsub.delay")
    def test_delay_in_real_time(self, call: Call, api: Api) -> None:
        with call.opened("subscribe", "t") as sub:
            started = time.monotonic()
            with Stopwatch() as watch:
                call("publish", "t", "later", delay=0.3)
                collect(api, sub, 1)
                assert watch.seconds < 1.5
            assert time.monotonic() - started > 0.28

    @requires("pubsub.raw")
    def test_raw(self, call: Call, api: Api, harness: Harness) -> None:
        with call.opened("subscribe", "t", raw=True) as sub:
            call("publish", "t", {"n": 1}, raw=True)
            call("publish", "t", b"\x01\x02", raw=True)
            call("publish", "t", {"n": 2})
            plain, raw, enveloped = data(api, sub, 3)
        assert plain == ({"n": 1} if harness.raw_types else b'{"n":1}')
        assert raw == b"\x01\x02"
        assert b'"specversion":"1.0"' in enveloped

    # -- iterating and closing ------------------------------------------------

    def test_iterating(self, call: Call, api: Api, harness: Harness) -> None:
        call("publish_bulk", "t", [1, 2, 3])
        with call.opened("subscribe", "t") as sub:
            events = []
            for _ in range(3):  # a component may deliver the next one only after this one's answer
                events += api.take(sub, 1)
                events[-1].ack()
            threading.Timer(0.1, sub.close).start()
            assert api.take(sub) == [], "a close ends it"
        assert [event.data for event in as_sent(harness, events)] == [1, 2, 3]

    def test_receive_times_out(self, call: Call, api: Api) -> None:
        with call.opened("subscribe", "t") as sub:
            started = time.monotonic()
            with Stopwatch() as watch:
                assert api.call(sub, "receive", 0.2) is None
                assert watch.seconds < 2
            assert time.monotonic() - started > 0.15
            assert api.call(sub, "receive", 0) is None
        assert api.call(sub, "receive", 5) is None  # closed
        api.call(sub, "close")

    def test_client_close_closes(self, call: Call, api: Api, harness: Harness) -> None:
        client = harness.client()
        sub = call.on(client)("subscribe", "t")
        api.call(client, "close")
        assert api.call(sub, "receive", 5) is None
        call.on(client).fails(ClosedError)("publish", "t", 1)
        call.on(client).fails(ClosedError)("subscribe", "t")

    # -- the publisher --------------------------------------------------------

    def test_publisher(self, call: Call, api: Api, harness: Harness) -> None:
        with call.opened("publisher", "t") as publisher:
            numbers = [api.call(publisher, "send", {"n": number}, key=f"k{number % 3}") for number in range(2500)]
            assert numbers == list(range(1, 2501))
            api.call(publisher, "flush")
            stats = publisher.stats()
            assert (stats.accepted, stats.delivered) == (2500, 2500)
            assert (stats.failed, stats.dropped, stats.buffered, stats.bytes) == (0, 0, 0, 0)
            assert stats.batches >= 3
        events = as_sent(harness, drain(api, call, 2500), lambda event: event.data["n"])
        assert [event.data for event in events] == [{"n": number} for number in range(2500)]
        assert [event.key for event in events] == [f"k{number % 3}" for number in range(2500)]
        assert len({event.id for event in events}) == 2500
        assert all(event.source == "suite" for event in events)

    def test_linger_sends(self, call: Call, api: Api) -> None:
        with call.opened("publisher", "t", linger=0.02) as publisher, call.opened("subscribe", "t") as sub:
            api.call(publisher, "send", 1)
            assert data(api, sub, 1) == [1]

    def test_publisher_attributes(self, call: Call, api: Api, harness: Harness) -> None:
        options: Any = {"attributes": {"type": "a.b", "tenant": "blue"}, "content_type": "application/msgpack"}
        with call.opened("publisher", "t", **options) as publisher:
            api.call(publisher, "send", {"x": 1})
            api.call(publisher, "send", {"x": 2}, attributes={"tenant": "red", "id": "two"}, metadata={"m": "1"})
        one, two = as_sent(harness, drain(api, call, 2), lambda event: event.data["x"])
        assert (one.type, one.extensions, one.data) == ("a.b", {"tenant": "blue"}, {"x": 1})
        assert one.content_type == "application/msgpack"
        assert (two.id, two.type, two.extensions, two.data) == ("two", "a.b", {"tenant": "red"}, {"x": 2})
        assert two.metadata == ({"m": "1"} if harness.event_metadata else {})

    def test_close_flushes(self, call: Call, api: Api, harness: Harness) -> None:
        publisher = call.plain("publisher", "t", linger=60)
        for number in range(10):
            api.call(publisher, "send", number)
        for _ in range(2):
            api.call(publisher, "close")
        assert publisher.stats().delivered == 10
        api.fails(ClosedError)(publisher, "send", 1)
        assert publisher.stats().accepted == 10
        client = harness.client()
        publisher = call.on(client).plain("publisher", "t", linger=60)
        api.call(publisher, "send", 10)
        api.call(client, "close")
        assert publisher.stats().delivered == 1
        assert len(drain(api, call, 11)) == 11
