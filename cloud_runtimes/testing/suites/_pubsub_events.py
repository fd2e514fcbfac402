"""Conformance of a `PubSubDriver`: events from a publisher's call to a subscriber's hand."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import BulkError, InvalidArgumentError, PayloadError, UnsupportedError
from ...pubsub import OutgoingEvent
from ..faces import Face
from ..harness import Harness, requires
from ._base import Suite, as_sent, values
from ._pubsub import NEVER, Reading, collect, nothing

__all__ = ["EventTests"]


class EventTests(Suite):
    """Data and attributes, bulk, order, topics, expiry, delay."""

    # -- events -------------------------------------------------------------

    def test_values_round_trip(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        sent = values(b"", b"\x00\xff", {"x": b"".decode()})
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            got = []
            for value in sent:  # one at a time, since a component may deliver several at once, in no order
                face.call(client.pubsub, "publish", store, "t", value)
                got += [event.data for event in collect(face, sub, 1)]
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
            "source": "/here?a=%20#[b]",
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
        assert event.source == "/here?a=%20#[b]"
        assert event.subject == "thing"
        assert event.time == datetime(2025, 1, 15, 9, 30, 12, tzinfo=UTC)
        assert event.traceparent == attributes["traceparent"]
        assert event.key == "k 1"
        assert dict(event.extensions) == {"tenant": "blue", "level": 7, "urgent": True}
        assert event.data == "grüße"
        assert event.content_type == "text/plain"

    def test_xml(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            face.call(client.pubsub, "publish", store, "t", "<é/>", content_type="application/xml")
            (event,) = collect(face, sub, 1)
        assert (event.data, event.content_type) == ("<é/>", "application/xml")

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
        no_uris = ("", "a b", "a\tb", "ü", "<a>", "a%2", "a\\b")
        sources: list[dict[str, Any]] = [{"attributes": {"source": text}} for text in no_uris]
        with face.opened(face.call(client.pubsub, "subscribe", store, "t")) as sub:
            for arguments in (
                *sources,
                {"attributes": {"Not Lower": "x"}},
                {"attributes": {"id": ""}},
                {"attributes": {"dataschema": "a b"}},
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

    # -- bulk, order, topics ------------------------------------------------

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

    # -- expiry, delay, raw -------------------------------------------------

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
    @pytest.mark.timing
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
