"""Conformance of a `PubSubDriver`: events from a publisher's call to a subscriber's hand."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import BulkError, InvalidArgumentError, PayloadError
from ...pubsub import OutgoingEvent
from ..faces import Face
from ..harness import Harness, requires
from ._base import Call, Suite, as_sent, one_each, values
from ._pubsub import NEVER, Reading, collect, nothing

__all__ = ["EventTests"]


class EventTests(Suite):
    """Data and attributes, bulk, order, topics, expiry, delay."""

    # -- events -------------------------------------------------------------

    def test_values_round_trip(self, call: Call, face: Face) -> None:
        sent = values(b"", b"\x00\xff", {"x": b"".decode()})
        with face.opened(call("subscribe", "t")) as sub:
            got = []
            for value in sent:  # one at a time, since a component may deliver several at once, in no order
                call("publish", "t", value)
                got += [event.data for event in collect(face, sub, 1)]
        assert got == sent
        assert [type(value) for value in got] == [type(value) for value in sent]

    def test_attributes(self, call: Call, face: Face, store: str) -> None:
        before = datetime.now(UTC)
        with face.opened(call("subscribe", "orders")) as sub:
            id = call("publish", "orders", {"n": 1})
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

    def test_given_attributes(self, call: Call, face: Face) -> None:
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
        with face.opened(call("subscribe", "t")) as sub:
            id = call("publish", "t", "grüße", content_type="text/plain", key="k 1", attributes=attributes)
            (event,) = collect(face, sub, 1)
        assert id == event.id == "my-id"
        assert event.type == "com.example.made"
        assert event.source == "/here?a=%20#[b]"
        assert event.subject == "thing"
        assert event.time == datetime(2025, 1, 15, 9, 30, 12, tzinfo=UTC)
        assert event.traceparent == attributes["traceparent"]
        assert event.key == "k 1"
        assert dict(event.extensions) == {"tenant": "blue", "level": 7, "urgent": True}
        assert event.data == "grüße"
        assert event.content_type == "text/plain"

    def test_xml(self, call: Call, face: Face) -> None:
        with face.opened(call("subscribe", "t")) as sub:
            call("publish", "t", "<é/>", content_type="application/xml")
            (event,) = collect(face, sub, 1)
        assert (event.data, event.content_type) == ("<é/>", "application/xml")

    def test_to_json(self, call: Call, face: Face) -> None:
        import json

        with face.opened(call("subscribe", "t")) as sub:
            id = call("publish", "t", {"n": [1, None]}, attributes={"tenant": "blue"})
            (event,) = collect(face, sub, 1)
        envelope = json.loads(event.to_json())
        assert envelope["specversion"] == "1.0"
        assert envelope["id"] == id
        assert envelope["data"] == {"n": [1, None]}
        assert envelope["tenant"] == "blue"

    def test_typed(self, call: Call, face: Face) -> None:
        with face.opened(call("subscribe", "t", type=Reading)) as sub:
            call("publish", "t", Reading("a", 1.5))
            (event,) = collect(face, sub, 1)
        assert event.data == Reading("a", 1.5)

    @pytest.mark.parametrize("bad", [{1, 2}, float("nan"), "\ud800", object()])
    def test_unencodable_data_is_refused(self, call: Call, face: Face, bad: Any) -> None:
        with face.opened(call("subscribe", "t")) as sub:
            call.fails(PayloadError)("publish", "t", bad)
            call("publish", "t", "good")
            assert collect(face, sub, 1)[0].data == "good"  # so nothing came before it

    def test_bad_arguments_are_refused(self, call: Call, face: Face) -> None:
        no_uris = ("", "a b", "a\tb", "ü", "<a>", "a%2", "a\\b")
        attributes: list[Any] = [{"source": text} for text in no_uris]
        attributes += one_each(id=("",), dataschema=("a b",), time=("yesterday",), data=("x",), tenant=(1.5,))
        attributes += [{"Not Lower": "x"}, "text", {"datacontenttype": "text/plain"}]
        others = one_each(key=("", "a\0b"), content_type=("none",), metadata=({"a": 1},), timeout=(0,))
        with face.opened(call("subscribe", "t")) as sub:
            for arguments in [*one_each(attributes=tuple(attributes)), *others]:
                call.fails(InvalidArgumentError)("publish", "t", 1, **arguments)
            for topic in ("", "a\nb", "x" * 256, 7, None):
                call.fails(InvalidArgumentError, match="topic")("publish", topic, 1)
            call.fails(InvalidArgumentError, match="list")("publish_bulk", "t", "text")
            call("publish", "t", "good")
            assert collect(face, sub, 1)[0].data == "good"  # so nothing came before it
        for options in ({"workers": 0}, {"batch": 0}, {"max_in_flight": 0}, {"group": ""}, {"handler": "no function"}):
            call.fails(InvalidArgumentError)("subscribe", "t", **options)
        call.fails(TypeError, match="colour")("subscribe", "t", colour="red")

    # -- bulk, order, topics ------------------------------------------------

    def test_bulk_in_order(self, call: Call, face: Face, harness: Harness) -> None:
        with face.opened(call("subscribe", "t")) as sub:
            ids = call("publish_bulk", "t", list(range(2500)))
            ids += call("publish_bulk", "t", [OutgoingEvent("x", "k", {"id": "given"})])
            events = as_sent(harness, collect(face, sub, 2500)) + collect(face, sub, 1)
        assert [event.data for event in events[:2500]] == list(range(2500))
        assert [event.id for event in events] == ids
        assert ids[-1] == "given"
        assert events[-1].key == "k"
        assert len(set(ids)) == len(ids)

    def test_bulk_tries_every_event(self, call: Call, face: Face, harness: Harness) -> None:
        with face.opened(call("subscribe", "t")) as sub:
            caught = call.fails(BulkError)("publish_bulk", "t", [1, {2}, 3])
            assert list(caught.failed) == [1]
            assert isinstance(caught.failed[1], PayloadError)
            events = as_sent(harness, collect(face, sub, 2))
            assert [event.data for event in events] == [1, 3]
            assert [event.id for event in events] == [caught.result[0], caught.result[2]]
        assert call("publish_bulk", "t", []) == []

    def test_one_by_one_in_order(self, call: Call, face: Face) -> None:
        for number in range(50):
            call("publish", "t", number)
        with face.opened(call("subscribe", "t")) as sub:
            assert [event.data for event in collect(face, sub, 50)] == list(range(50))

    def test_topics_are_apart(self, call: Call, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        other = harness.store("pubsub")
        one = call("subscribe", "one")
        two = call("subscribe", "two")
        far = face.call(client.pubsub, "subscribe", other, "one")
        call("publish", "one", 1)
        call("publish", "two", 2)
        assert collect(face, one, 1)[0].data == 1
        assert collect(face, two, 1)[0].data == 2
        nothing(face, far)
        face.call(one, "close")
        call("publish", "one", 3)
        call("publish", "two", 4)
        assert collect(face, two, 1)[0].data == 4
        assert face.call(one, "receive", NEVER) is None
        face.call(two, "close")
        face.call(far, "close")
        with face.opened(call("subscribe", "one")) as again:
            assert collect(face, again, 1)[0].data == 3

    # -- expiry, delay, raw -------------------------------------------------

    @requires("pubsub.ttl")
    def test_ttl(self, call: Call, face: Face, harness: Harness) -> None:
        call("publish", "t", "short", ttl=5)
        call("publish", "t", "long", ttl=500)
        harness.advance(6)
        with face.opened(call("subscribe", "t")) as sub:
            assert [event.data for event in collect(face, sub, 1)] == ["long"]
            nothing(face, sub)
        call.fails(InvalidArgumentError, match="ttl")("publish", "t", 1, ttl=0)

    @requires("pubsub.delay")
    def test_delay(self, call: Call, face: Face, harness: Harness) -> None:
        with face.opened(call("subscribe", "t")) as sub:
            call("publish", "t", "later", delay=30)
            call("publish", "t", "now")
            assert collect(face, sub, 1)[0].data == "now"
            nothing(face, sub)
            harness.advance(31)
            assert collect(face, sub, 1)[0].data == "later"
        call.fails(InvalidArgumentError, match="delay")("publish", "t", 1, delay=-1)

    @requires("pubsub.delay")
    @pytest.mark.timing
    def test_delay_in_real_time(self, call: Call, face: Face) -> None:
        with face.opened(call("subscribe", "t")) as sub:
            started = time.monotonic()
            call("publish", "t", "later", delay=0.3)
            collect(face, sub, 1)
            assert 0.28 < time.monotonic() - started < 1.5

    @requires("pubsub.raw")
    def test_raw(self, call: Call, face: Face, harness: Harness) -> None:
        with face.opened(call("subscribe", "t", raw=True)) as sub:
            call("publish", "t", {"n": 1}, raw=True)
            call("publish", "t", b"\x01\x02", raw=True)
            call("publish", "t", {"n": 2})
            plain, data, enveloped = collect(face, sub, 3)
        assert plain.data == ({"n": 1} if harness.raw_types else b'{"n":1}')
        assert data.data == b"\x01\x02"
        assert b'"specversion":"1.0"' in enveloped.data
