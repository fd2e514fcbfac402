"""Events: an envelope of JSON in a topic of the embedded runtime, and streams or callbacks that bring them."""

from __future__ import annotations

import base64
import json
import math
import threading
from collections.abc import Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import grpc

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.protocols.layotto.messages import APP, messages
from cloud_runtimes.pubsub import Event, Subscription

from .quirks import Quirks, Refuse, check_store

__all__ = ["PubSub"]

_OCTETS = "application/octet-stream"
_RETRY = 1
_AGAIN = 0.2
"""Seconds after which an event comes again that nobody could be given."""
_WINDOW = 32


class PubSub:
    """Topics, and one stream for each.

    Attributes:
        clocks: by which the time of events is up.
        panics: answers that would have ended a real one: anything but success for an event without an id.
        settled: answers that came by streams that have ended.
    """

    def __init__(
        self, client: CloudRuntimesClient, quirks: Quirks, app_id: str, callback_port: int | None, clocks: Clocks
    ) -> None:
        self.panics = self.settled = 0
        self._over = threading.Event()
        self.clocks = clocks
        self._pubsub = client.pubsub
        self._quirks = quirks
        self._app_id = app_id
        self._callback_port = callback_port
        self._channel: grpc.Channel | None = None
        self._lock = threading.Lock()
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._components: list[tuple[tuple[str, str], Subscription[Any]]] = []

    # -- publishing ---------------------------------------------------------

    def PublishEvent(self, request: Any, context: Any) -> Any:
        pubsub = check_store(request.pubsub_name)
        if not request.topic:
            raise Refuse("INVALID_ARGUMENT", "topic is empty")
        metadata = dict(request.metadata)
        ttl = metadata.get("ttlInSeconds")
        envelope = self._envelope(request)
        if ttl is not None and self._quirks.expired_is_empty:
            envelope["expiration"] = self.clocks.wall_ms() + float(ttl) * 1000
            ttl = None
        self._pubsub.publish(
            pubsub,
            request.topic,
            json.dumps(envelope).encode(),
            content_type=_OCTETS,
            key=metadata.get("partitionKey"),
            ttl=None if ttl is None else float(ttl),
        )
        return messages().Empty()

    def _envelope(self, request: Any) -> dict[str, Any]:
        kind, data = request.data_content_type, request.data
        if kind == "application/cloudevents+json":
            envelope: dict[str, Any] = json.loads(data)
        else:
            envelope = {
                "id": str(uuid4()),
                "source": self._app_id,
                "type": "com.dapr.event.sent",
                "specversion": "1.0",
                "datacontenttype": kind or "text/plain",
            }
            if kind == _OCTETS:
                envelope["data_base64"] = base64.b64encode(data).decode()
            elif kind == "application/json":
                envelope["data"] = json.loads(data)
            else:
                envelope["data"] = data.decode(errors="replace")
        return _spoiled(envelope) if self._quirks.spoils_numbers else envelope

    # -- subscribing --------------------------------------------------------

    def begin(self) -> None:
        """Ask the application for its topics, if it is to be called back."""
        if self._callback_port is None:
            return
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self._callback_port}")
        self._ask()

    def _ask(self) -> None:
        assert self._channel is not None
        kinds = messages()
        try:
            reply = self._channel.unary_unary(
                f"{APP}ListTopicSubscriptions",
                request_serializer=kinds.Empty.SerializeToString,
                response_deserializer=kinds.ListTopicSubscriptionsResponse.FromString,
            )(kinds.Empty())
        except grpc.RpcError:
            if not self._quirks.asks_once:
                raise
            return  # only a line of its log
        for each in reply.subscriptions:
            self._listen((each.pubsub_name, each.topic))

    def SubscribeTopicEvents(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        first = next(requests).initial_request
        if first.pubsub_name in ("", "none"):
            raise Refuse("UNKNOWN", f"pubsub {first.pubsub_name} is not initialized.")
        key = first.pubsub_name, first.topic
        yield messages().SubscribeTopicEventsResponse(initial_response={})
        stream = _Stream()
        with self._lock:
            taken = key in self._streams and self._quirks.one_stream
            if not taken:
                self._streams[key] = stream
        self._listen(key)
        if taken:
            raise Refuse("UNKNOWN", f"already subscribed to pubsub {key[0]!r} topic {key[1]!r}")
        context.add_callback(stream.end)

        def read() -> None:
            with suppress(Exception):
                for request in requests:
                    stream.settle(request.event_processed)
            stream.end()

        threading.Thread(target=read, name="fake-layotto-answers", daemon=True).start()
        try:
            while (response := stream.responses.get()) is not None:
                yield response
        finally:
            self._over.wait(self._quirks.notices_late)
            self.panics += stream.panics
            self.settled += stream.settled
            with self._lock:
                if self._streams.get(key) is stream:
                    del self._streams[key]
            stream.close()
            if not self._quirks.stays_subscribed:
                self._forget(key)

    def _listen(self, key: tuple[str, str]) -> None:
        """Subscribe the component, once more."""
        subscription = self._pubsub.subscribe(*key, group=self._app_id, max_in_flight=_WINDOW)
        with self._lock:
            self._components.append((key, subscription))
        threading.Thread(
            target=self._deliver, args=(key, subscription), name="fake-layotto-component", daemon=True
        ).start()

    def _deliver(self, key: tuple[str, str], component: Subscription[Any]) -> None:
        for event in component:
            request = self._request(key, event.data)
            with self._lock:
                stream = self._streams.get(key)
            if self._channel is not None and not request.id:
                event.ack()
            elif self._channel is not None:
                self._call_back(request, event)
            elif stream is None or not stream.give(request, event):
                event.retry(_AGAIN)

    def _request(self, key: tuple[str, str], data: bytes) -> Any:
        """Return what a stream brings of an event; of one whose time is up, or that is no JSON, nothing but its being there."""
        try:
            envelope = json.loads(data)
        except ValueError:
            envelope = {"expiration": 0}
        if envelope.get("expiration", math.inf) <= self.clocks.wall_ms():
            return messages().TopicEventRequest()
        return _requested(key, envelope)

    def _call_back(self, request: Any, event: Event[Any]) -> None:
        assert self._channel is not None
        kinds = messages()
        future = self._channel.unary_unary(
            f"{APP}OnTopicEvent",
            request_serializer=kinds.TopicEventRequest.SerializeToString,
            response_deserializer=kinds.TopicEventResponse.FromString,
        ).future(request)

        def done(call: Any) -> None:
            if call.code() is grpc.StatusCode.OK:
                _settle(event, call.result().status)
            elif call.code() is grpc.StatusCode.UNIMPLEMENTED:
                event.ack()
            else:
                event.retry(_AGAIN)

        future.add_done_callback(done)

    def _forget(self, key: tuple[str, str] | None) -> None:
        with self._lock:
            gone = [each for each in self._components if key is None or each[0] == key]
            self._components = [each for each in self._components if each not in gone]
        for _, subscription in gone:
            subscription.close()

    def reset(self) -> None:
        """Let go of what streams have left behind."""
        self._forget(None)

    def close(self) -> None:
        """End all."""
        self._over.set()
        self._forget(None)
        if self._channel is not None:
            self._channel.close()


class _Stream:
    """Stream of a subscriber, with its unsettled events."""

    def __init__(self) -> None:
        self.responses: SimpleQueue[Any] = SimpleQueue()
        self._lock = threading.Lock()
        self._waiting: dict[str, Event[Any]] = {}
        self._over = False
        self.panics = self.settled = 0

    def give(self, request: Any, event: Event[Any]) -> bool:
        """Send an event; returns whether the stream is still there."""
        with self._lock:
            if self._over:
                return False
            self._waiting[request.id] = event
        self.responses.put(messages().SubscribeTopicEventsResponse(event_message=request))
        return True

    def settle(self, done: Any) -> None:
        self.settled += 1
        self.panics += not done.id and done.status.status != 0
        with self._lock:
            waiting = self._waiting.pop(done.id, None)
        if waiting is not None:
            _settle(waiting, done.status.status)

    def end(self) -> None:
        self.responses.put(None)

    def close(self) -> None:
        with self._lock:
            self._over = True
            waiting, self._waiting = self._waiting, {}
        for event in waiting.values():
            event.retry(0)


def _settle(event: Event[Any], status: int) -> None:
    if status == _RETRY:
        event.retry(0)
    else:  # what is dropped is settled with a warning
        event.ack()


def _requested(key: tuple[str, str], envelope: dict[str, Any]) -> Any:
    kind = envelope.get("datacontenttype", "")
    if "data_base64" in envelope:
        payload = base64.b64decode(envelope["data_base64"])
    elif kind == "application/json":
        payload = json.dumps(envelope.get("data"), separators=(",", ":")).encode()
    else:
        payload = str(envelope.get("data", "")).encode()
    return messages().TopicEventRequest(
        id=envelope["id"],
        source=envelope["source"],
        type=envelope["type"],
        spec_version=envelope["specversion"],
        data_content_type=kind,
        data=payload,
        topic=key[1],
        pubsub_name=key[0],
    )


def _spoiled(value: Any) -> Any:
    """Return JSON as jsoniter's fastest way writes what it has read into floats."""
    if isinstance(value, dict):
        return {name: _spoiled(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_spoiled(each) for each in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        number = round(float(value), 6)
        return int(number) if number.is_integer() else number
    return value
