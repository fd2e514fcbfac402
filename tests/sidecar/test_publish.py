"""Publishing over raw HTTP and raw gRPC: what becomes of the event, and the refusals."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.raw import call, send

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def received(sidecar: Sidecar, topic: str, **options: Any) -> Any:
    """Take the one event that is in a topic, by the library."""
    with sidecar.context.client.pubsub.subscribe("store", topic, group="test", **options) as subscription:
        event = subscription.receive(timeout=30)
        assert event is not None
        event.ack()
        return event


def publish(sidecar: Sidecar, over: str, topic: str, data: bytes, content_type: str, **metadata: str) -> Any:
    if over == "http":
        query = "&".join(f"metadata.{name}={value}" for name, value in metadata.items())
        headers = {"content-type": content_type} if content_type else {}
        return send(sidecar.http_address, "POST", f"/v1.0/publish/store/{topic}?{query}", data, headers)
    request = messages().PublishEventRequest(
        pubsub_name="store", topic=topic, data=data, data_content_type=content_type, metadata=metadata
    )
    return call(sidecar.grpc_address, "PublishEvent", request)


@pytest.fixture(params=["http", "grpc"])
def over(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ok(answer: Any) -> bool:
    return answer.status == 204 or answer.code == "OK"


def test_an_event_gets_daprs_envelope(sidecar: Sidecar, over: str) -> None:
    assert ok(publish(sidecar, over, "a/b", b'{"n": 1}', "application/json"))
    event = received(sidecar, "a/b")
    assert (event.type, event.source, event.content_type) == ("com.dapr.event.sent", "app", "application/json")
    assert event.data == {"n": 1}
    assert len(event.id) == 36
    assert event.topic == "a/b"


@pytest.mark.parametrize(("content_type", "data"), [("", b"text"), ("text/plain", b"text")])
def test_without_a_content_type_it_is_text(sidecar: Sidecar, over: str, content_type: str, data: bytes) -> None:
    assert ok(publish(sidecar, over, "t", data, content_type))
    event = received(sidecar, "t")
    assert (event.content_type, event.data) == ("text/plain", "text")


def test_attributes_can_be_overridden(sidecar: Sidecar, over: str) -> None:
    attributes = {
        "id": "my-id",
        "source": "my-source",
        "type": "my-type",
        "subject": "my-subject",
        "traceparent": TRACE,
    }
    metadata = {f"cloudevent.{name}": value for name, value in attributes.items()}
    assert ok(publish(sidecar, over, "t", b"1", "application/json", **metadata, partitionKey="k"))
    event = received(sidecar, "t")
    assert (event.id, event.source, event.type, event.subject) == ("my-id", "my-source", "my-type", "my-subject")
    assert (event.traceparent, event.key) == (TRACE, "k")


def test_the_trace_context_of_the_request_is_the_events(sidecar: Sidecar) -> None:
    headers = {"traceparent": TRACE, "tracestate": "a=1", "content-type": "text/plain"}
    assert send(sidecar.http_address, "POST", "/v1.0/publish/store/t", b"x", headers).status == 204
    event = received(sidecar, "t")
    assert event.traceparent == TRACE
    assert event.extensions == {"tracestate": "a=1"}
    request = messages().PublishEventRequest(pubsub_name="store", topic="u", data=b"x")
    assert call(sidecar.grpc_address, "PublishEvent", request, metadata={"traceparent": TRACE}).code == "OK"
    assert received(sidecar, "u").traceparent == TRACE


@pytest.mark.parametrize(
    ("given", "expected"),
    [("/a?b=%20#c", "/a?b=%20#c"), ("my source", "my%20source"), ("50%\a", "50%25%07"), ("ü", "%C3%BC")],
)
def test_a_source_becomes_a_uri_reference(sidecar: Sidecar, given: str, expected: str) -> None:
    query = f"metadata.cloudevent.source={quote(given, safe='')}"
    assert send(sidecar.http_address, "POST", f"/v1.0/publish/store/t?{query}", b"x").status == 204
    assert received(sidecar, "t").source == expected


def test_the_source_of_a_cloud_event_is_taken_as_it_is(sidecar: Sidecar) -> None:
    event = {"id": "1", "source": "my source", "type": "t", "specversion": "1.0", "data": 7}
    headers = {"content-type": "application/cloudevents+json"}
    assert send(sidecar.http_address, "POST", "/v1.0/publish/store/t", event, headers).status == 204
    assert json.loads(received(sidecar, "t")._record.payload)["source"] == "my source"


def test_a_cloud_event_is_taken_as_it_is(sidecar: Sidecar, over: str) -> None:
    event = {
        "id": "1",
        "source": "s",
        "type": "t",
        "specversion": "1.0",
        "time": "2020-01-02T03:04:05Z",
        "data": [1],
        "mine": "x",
        "topic": "lie",
    }
    assert ok(publish(sidecar, over, "t", json.dumps(event).encode(), "application/cloudevents+json"))
    message = received(sidecar, "t")
    assert (message.id, message.source, message.type, message.data) == ("1", "s", "t", [1])
    assert message.extensions == {"mine": "x"}
    assert message.time.year == 2020
    assert message.topic == "t"


def test_a_cloud_event_gets_what_it_lacks(sidecar: Sidecar, over: str) -> None:
    assert ok(publish(sidecar, over, "t", b'{"data_base64": "AAE="}', "application/cloudevents+json; charset=utf-8"))
    message = received(sidecar, "t")
    assert (message.source, message.type, message.data) == ("Dapr", "com.dapr.event.sent", b"\x00\x01")


def test_a_raw_payload_has_no_envelope(sidecar: Sidecar, over: str) -> None:
    assert ok(publish(sidecar, over, "t", b"\x00raw", "application/octet-stream", rawPayload="true"))
    assert received(sidecar, "t", raw=True).data == b"\x00raw"


def test_ttl_ends_an_event(sidecar: Sidecar, over: str) -> None:
    assert ok(publish(sidecar, over, "t", b"1", "application/json", ttlInSeconds="100"))
    event = received(sidecar, "t")
    expires = event._record.expires_us
    assert expires is not None
    assert 0 < expires - event._record.time_us <= 101_000_000


@pytest.mark.parametrize("body", [b"nothing", b"[1]", b'{"data_base64": "*"}'])
def test_a_cloud_event_that_is_none_is_refused(sidecar: Sidecar, over: str, body: bytes) -> None:
    answer = publish(sidecar, over, "t", body, "application/cloudevents+json")
    if over == "http":
        assert (answer.status, answer.error) == (500, "ERR_PUBSUB_CLOUD_EVENTS_SER")
        info, resource = answer.json["details"]
        assert info["reason"] == "DAPR_PUBSUB_CLOUD_EVENT_CREATION"
        assert info["metadata"]["appID"] == "app"
        assert resource["resource_type"] == "pubsub"
        assert resource["description"] == "cannot create cloudevent"
    else:
        assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "DAPR_PUBSUB_CLOUD_EVENT_CREATION")
        assert answer.details["ResourceInfo"].resource_name == "store"


def test_what_cannot_be_published_is_told(sidecar: Sidecar, over: str) -> None:
    answer = publish(sidecar, over, "x" * 300, b"1", "application/json")
    if over == "http":
        assert (answer.status, answer.error) == (500, "ERR_PUBSUB_PUBLISH_MESSAGE")
        assert answer.json["message"].startswith("error when publishing to topic xxx")
    else:
        assert (answer.code, answer.reason) == ("INTERNAL", "DAPR_PUBSUB_PUBLISH_MESSAGE")


# -- bulk -------------------------------------------------------------------


def test_a_bulk_over_http(sidecar: Sidecar) -> None:
    entries = [
        {"entryId": "1", "event": {"n": 1}, "contentType": "application/json"},
        {"entryId": "2", "event": "text", "contentType": "text/plain", "metadata": {"cloudevent.type": "t2"}},
        {"entryId": "3", "event": "AAE=", "contentType": "application/octet-stream"},
    ]
    answer = send(sidecar.http_address, "POST", "/v1.0/publish/bulk/store/t?metadata.cloudevent.source=s", entries)
    assert (answer.status, answer.body) == (204, b"")
    with sidecar.context.client.pubsub.subscribe("store", "t", batch=10, group="g") as subscription:
        events = subscription.receive(timeout=30)
        assert events is not None
        assert [event.data for event in events] == [{"n": 1}, "text", b"\x00\x01"]
        # the request's metadata reaches only an entry that has some itself
        assert [event.source for event in events] == ["app", "s", "app"]
        assert [event.type for event in events] == ["com.dapr.event.sent", "t2", "com.dapr.event.sent"]


def test_names_of_a_bulk_differ_by_more_than_their_case(sidecar: Sidecar) -> None:
    entry = {"entryID": "1", "Event": 5, "contenttype": "application/json"}  # `entryID`: so Dapr's JavaScript SDK
    assert send(sidecar.http_address, "POST", "/v1.0/publish/bulk/store/t", [entry]).status == 204
    assert received(sidecar, "t").data == 5


def test_a_bulk_over_grpc(sidecar: Sidecar) -> None:
    kinds = messages()
    entries = [
        kinds.BulkPublishRequestEntry(entry_id=str(n), event=b"%d" % n, content_type="application/json")
        for n in range(2500)
    ]
    request = kinds.BulkPublishRequest(pubsub_name="store", topic="t", entries=entries)
    for method in ("BulkPublishEvent", "BulkPublishEventAlpha1"):
        answer = call(sidecar.grpc_address, method, request, "BulkPublishResponse")
        assert answer.code == "OK"
        assert not answer.message.failedEntries
    values: list[Any] = []
    with sidecar.context.client.pubsub.subscribe("store", "t", batch=1000, group="g") as subscription:
        while len(values) < 5000:
            events = subscription.receive(timeout=30)
            assert events is not None
            values += [event.data for event in events]
            events.ack()
    assert sorted(values) == sorted([*range(2500)] * 2)


@pytest.mark.parametrize(
    ("body", "reason", "text"),
    [
        ({"entryId": "1"}, "UNMARSHAL_EVENTS", "error when unmarshaling the request for topic t pubsub store:"),
        ([{"event": 1, "contentType": "application/json"}], "MARSHAL_EVENTS", "entryId is duplicated or not present"),
        (
            [{"entryId": "1", "event": 1, "contentType": "application/json"}] * 2,
            "MARSHAL_EVENTS",
            "entryId is duplicated or not present",
        ),
        ([{"entryId": "1", "event": 1, "contentType": "text/plain"}], "MARSHAL_ENVELOPE", "cloud event envelope"),
        (
            [{"entryId": "1", "event": "*", "contentType": "application/octet-stream"}],
            "MARSHAL_ENVELOPE",
            "cloud event envelope",
        ),
    ],
)
def test_a_bulk_that_cannot_be_read(sidecar: Sidecar, body: Any, reason: str, text: str) -> None:
    answer = send(sidecar.http_address, "POST", "/v1.0/publish/bulk/store/t", body)
    assert (answer.status, answer.error) == (400, "ERR_PUBSUB_EVENTS_SER")
    assert answer.json["details"][0]["reason"] == f"DAPR_PUBSUB_{reason}"
    assert text in answer.json["message"]


def test_what_fails_of_a_bulk_is_told(sidecar: Sidecar) -> None:
    entries = [
        {"entryId": "good", "event": 1, "contentType": "application/json"},
        {"entryId": "bad", "event": 1, "contentType": "no media type"},
    ]
    answer = send(sidecar.http_address, "POST", "/v1.0/publish/bulk/store/t", entries)
    assert answer.status == 500
    assert answer.error == "ERR_PUBSUB_PUBLISH_MESSAGE"
    (failed,) = answer.json["failedEntries"]
    assert failed["entryId"] == "bad"
    assert "media type" in failed["error"]
    assert received(sidecar, "t").data == 1  # the others are published
    kinds = messages()
    request = kinds.BulkPublishRequest(
        pubsub_name="store",
        topic="t",
        entries=[kinds.BulkPublishRequestEntry(entry_id="bad", event=b"1", content_type="no media type")],
    )
    refused = call(sidecar.grpc_address, "BulkPublishEvent", request, "BulkPublishResponse")
    assert (refused.code, refused.reason) == ("INTERNAL", "DAPR_PUBSUB_PUBLISH_MESSAGE")
