"""Events to the application over gRPC."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format
from grpc import StatusCode

from cloud_runtimes.protocols.dapr.messages import messages
from tests.support.apps import GrpcApp, serving_grpc
from tests.support.sidecar_events import TRACE, beside, publish, settled, taken
from tests.support.waiting import until


@pytest.fixture
def home(request: pytest.FixtureRequest) -> str:
    return f"subscriptions-{request.node.name}"


def listing(*subscriptions: dict[str, Any]) -> tuple[str, Callable[[Any, Any], Any]]:
    kinds = messages()
    reply = kinds.ListTopicSubscriptionsResponse(
        subscriptions=[kinds.TopicSubscription(**each) for each in subscriptions]
    )
    return "Empty", lambda request, context: reply


def saying(*statuses: int) -> tuple[str, Callable[[Any, Any], Any]]:
    remaining = list(statuses)

    def answer(request: Any, context: Any) -> Any:
        return messages().TopicEventResponse(status=remaining.pop(0) if remaining else 0)

    return "TopicEventRequest", answer


def test_over_grpc_an_event_is_on_topic_event(home: str) -> None:
    app = GrpcApp(ListTopicSubscriptions=listing({"pubsub_name": "store", "topic": "t"}), OnTopicEvent=saying(1, 0))
    with serving_grpc(app), beside(app, home, app_token="token") as sidecar:
        query = f"metadata.cloudevent.traceparent={TRACE}&metadata.cloudevent.subject=s"
        publish(sidecar, "t", {"n": 1}, query=query)
        until(lambda: len(app.named("OnTopicEvent")) == 2, "the second try")
    request = app.named("OnTopicEvent")[0]
    assert (request.topic, request.pubsub_name, request.path) == ("t", "store", "")
    assert (request.source, request.type, request.spec_version) == ("app", "com.dapr.event.sent", "1.0")
    assert (request.data_content_type, json.loads(request.data)) == ("application/json", {"n": 1})
    extensions = json_format.MessageToDict(request.extensions)
    assert set(extensions) == {"time", "subject", "topic", "pubsubname", "traceid", "traceparent", "tracestate"}
    assert (extensions["traceparent"], extensions["subject"]) == (TRACE, "s")
    assert app.got[-1][2]["dapr-api-token"] == "token"
    assert app.got[-1][2]["traceparent"] == TRACE


def recorded_metadata(channel: Any) -> list[dict[str, Any]]:
    """Record the metadata of calls of the application: grpcio shows no server what begins with ``grpc-``."""
    received: list[dict[str, Any]] = []
    unary = channel.unary

    def recording(path: str, request: Any, reply: str, metadata: Any = (), timeout: float | None = None) -> Any:
        received.append(dict(metadata))
        return unary(path, request, reply, metadata, timeout)

    channel.unary = recording
    return received


def test_over_grpc_a_trace_is_told_in_binary_too(home: str) -> None:
    app = GrpcApp(ListTopicSubscriptions=listing({"pubsub_name": "store", "topic": "t"}), OnTopicEvent=saying())
    with serving_grpc(app), beside(app, home) as sidecar:
        assert sidecar.context.app is not None
        metadata = recorded_metadata(sidecar.context.app)
        for parent in (5, True, "", "x", "é", "1" * 513, ["1"]):
            event = {"id": "1", "source": "s", "type": "t", "specversion": "1.0", "data": 7, "traceparent": parent}
            publish(sidecar, "t", event, "application/cloudevents+json")
        publish(sidecar, "t", 7, query=f"metadata.cloudevent.traceparent={TRACE}")
        requests = until(lambda: len(app.named("OnTopicEvent")) == 8 and app.named("OnTopicEvent"))
    assert all(request.data == b"7" for request in requests)
    packed = b"\0\0" + bytes.fromhex(TRACE[3:35]) + b"\1" + bytes.fromhex(TRACE[36:52]) + b"\2\1"
    assert [each["grpc-trace-bin"] for each in metadata if "grpc-trace-bin" in each] == [packed]


@pytest.mark.parametrize("data", [b"\x00\xff", b"text"])
def test_over_grpc_data_is_bytes(home: str, data: bytes) -> None:
    app = GrpcApp(ListTopicSubscriptions=listing({"pubsub_name": "store", "topic": "t"}), OnTopicEvent=saying())
    with serving_grpc(app), beside(app, home) as sidecar:
        publish(sidecar, "t", data, "application/octet-stream" if data[:1] == b"\x00" else "text/plain")
        (request,) = until(lambda: app.named("OnTopicEvent"))
        assert request.data == data


def test_over_grpc_rules_and_dead_letters(home: str) -> None:
    kinds = messages()
    routes = kinds.TopicRoutes(rules=[kinds.TopicRule(match="event.data.n == 1", path="one")], default="other")
    app = GrpcApp(
        ListTopicSubscriptions=listing(
            {"pubsub_name": "store", "topic": "t", "routes": routes, "dead_letter_topic": "dead"}
        ),
        OnTopicEvent=("TopicEventRequest", lambda request, context: kinds.TopicEventResponse(status=2)),
    )
    with serving_grpc(app), beside(app, home) as sidecar:
        publish(sidecar, "t", {"n": 1})
        assert taken(sidecar, "dead").data == {"n": 1}
        publish(sidecar, "t", {"n": 2})
        until(lambda: len(app.named("OnTopicEvent")) == 2)
        assert [each.path for each in app.named("OnTopicEvent")] == ["one", "other"]


def test_over_grpc_what_is_not_implemented_is_dropped(home: str) -> None:
    subscription = {"pubsub_name": "store", "topic": "t", "dead_letter_topic": "dead"}
    app = GrpcApp(ListTopicSubscriptions=listing(subscription))
    with serving_grpc(app), beside(app, home) as sidecar:
        publish(sidecar, "t", 1)
        until(lambda: settled(sidecar), "its end")


def test_over_grpc_an_error_asks_for_another_try(home: str) -> None:
    def failing(request: Any, context: Any) -> Any:
        if len(app.named("OnTopicEvent")) == 1:
            context.abort(StatusCode.INTERNAL, "no")
        return messages().TopicEventResponse()

    app = GrpcApp(
        ListTopicSubscriptions=listing({"pubsub_name": "store", "topic": "t"}),
        OnTopicEvent=("TopicEventRequest", failing),
    )
    with serving_grpc(app), beside(app, home) as sidecar:
        publish(sidecar, "t", 1)
        until(lambda: len(app.named("OnTopicEvent")) == 2)


@pytest.mark.parametrize("many", [False, True])
def test_over_grpc_what_a_message_cannot_hold_is_dropped(home: str, many: bool) -> None:
    kinds = messages()
    config = kinds.BulkSubscribeConfig(enabled=many, max_messages_count=1)
    subscription = {"pubsub_name": "store", "topic": "t", "dead_letter_topic": "dead", "bulk_subscribe": config}
    app = GrpcApp(ListTopicSubscriptions=listing(subscription), OnTopicEvent=saying())
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    event = {"id": "1", "source": "s", "type": "t", "data": 7, "deep": deep}
    with serving_grpc(app), beside(app, home) as sidecar:
        publish(sidecar, "t", event, "application/cloudevents+json")
        assert taken(sidecar, "dead")._record.raw


@pytest.mark.parametrize("method", ["OnBulkTopicEvent", "OnBulkTopicEventAlpha1"])
@pytest.mark.parametrize("raw", [False, True])
def test_over_grpc_a_bulk(home: str, method: str, raw: bool) -> None:
    kinds = messages()

    def answer(request: Any, context: Any) -> Any:
        return kinds.TopicEventBulkResponse(
            statuses=[kinds.TopicEventBulkResponseEntry(entry_id=each.entry_id) for each in request.entries]
        )

    config = kinds.BulkSubscribeConfig(enabled=True, max_messages_count=3, max_await_duration_ms=60_000)
    subscription = {
        "pubsub_name": "store",
        "topic": "t",
        "bulk_subscribe": config,
        "metadata": {"rawPayload": str(raw).lower()},
    }
    app = GrpcApp(ListTopicSubscriptions=listing(subscription), **{method: ("TopicEventBulkRequest", answer)})
    with serving_grpc(app), beside(app, home) as sidecar:
        for number in range(3):
            publish(sidecar, "t", number, query="metadata.rawPayload=true" if raw else "")
        (request,) = until(lambda: app.named(method))
        until(lambda: settled(sidecar), "the end")
    assert (request.type, request.topic, request.pubsub_name) == ("com.dapr.event.sent.bulk", "t", "store")
    if raw:
        assert [each.bytes for each in request.entries] == [b"0", b"1", b"2"]
    else:
        assert [each.cloud_event.data for each in request.entries] == [b"0", b"1", b"2"]
        assert request.entries[0].cloud_event.source == "app"
