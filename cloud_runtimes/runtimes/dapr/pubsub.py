"""Publish and subscribe (Dapr, "Pub/sub API reference"): events go as CloudEvents of ours, and come by streams, or over HTTP alone by callbacks."""

from __future__ import annotations

import base64
import re
from asyncio import wrap_future
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

from ..._core.logs import repeated
from ...codec import json
from ...codec.payload import JSON, OCTETS
from ...errors import CloudRuntimesError, InvalidArgumentError
from ...protocols.dapr.events import ADDED, CLOUD_EVENT, FIELDS
from ...spi import pubsub as spi
from ...spi.events import make_event
from ...spi.operation import Operation
from ...spi.pubsub import Delivery, EventRecord, EventSource, Settled, Settlement, SubscribeRequest
from ...spi.push import PushSource
from .._sidecar.pubsub import SidecarPubSub, StreamSubscription
from .._sidecar.stores import is_exact
from .._sidecar.transport import Flow, resolve
from .callbacks import DaprCallbacks
from .grpc_transport import GrpcTransport

_JSON: Final = re.compile(r"[/+]json *(;|$)", re.IGNORECASE)
_EXPIRY: Final = re.compile(rb',"expirytime":"[^"]*"')
_NAME: Final = re.compile(r"[a-z0-9]{1,100}")
_DAPRS: Final = ADDED | {"tracestate", "partitionkey", "subject", "time", "expiration"}
"""Attributes of a delivery that are no extensions of the event."""


class DaprSubscription(StreamSubscription):
    """A subscription by stream (Dapr, "Streaming subscriptions"; alpha)."""

    message = "SubscribeTopicEventsRequestAlpha1"

    def _record(self, event: Any) -> EventRecord:
        return _incoming(event, self._raw)


class DaprPubSub(SidecarPubSub):
    """Topics of one component of the sidecar. The group is the sidecar's application."""

    features = frozenset({spi.TTL, spi.RAW, spi.DEAD_LETTER, spi.SUBSCRIBE})
    bulk = 1000
    table = "[dapr]"
    subscription = DaprSubscription

    _transport: GrpcTransport

    def _one(self, op: Operation, topic: str, record: EventRecord) -> Flow[None]:
        metadata = self.metadata(op, record)
        if record.raw:
            metadata["rawPayload"] = "true"
            content_type = record.content_type or "application/octet-stream"
            yield from self._transport.publish(self._name, topic, record.payload, content_type, metadata)
        else:
            yield from self._transport.publish(self._name, topic, _outgoing(record), CLOUD_EVENT, metadata)

    def _many(self, op: Operation, topic: str, records: Sequence[EventRecord]) -> Flow[None]:
        events = [(_outgoing(record), self.metadata(op, record)) for record in records]
        yield from self._transport.publish_bulk(self._name, topic, events)

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        if not self._transport.streams:
            return CallbackSubscription(self._transport.callbacks, self._name, request)
        return super().subscribe(op, request)

    async def subscribe_async(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        if not self._transport.streams:
            return CallbackSubscription(self._transport.callbacks, self._name, request)
        return await super().subscribe_async(op, request)


class CallbackSubscription(PushSource):
    """A subscription whose events the sidecar posts."""

    def __init__(self, callbacks: DaprCallbacks, pubsub: str, request: SubscribeRequest) -> None:
        super().__init__()
        self._callbacks = callbacks
        self._name = f"the subscription to {request.topic!r} of {pubsub!r}"
        self._raw = request.raw
        self._closed = False
        self._key = callbacks.subscribed(self, pubsub, request)

    async def deliver(self, document: Any) -> Settlement:
        """Hand out an event, and return what is said of it."""
        try:
            record = _posted(document, self._raw)
        except CloudRuntimesError as error:
            repeated(f"poison {self._name}", "%s: an event is dropped: %s", self._name, error)
            return Settlement.DROP
        if self._closed:
            return Settlement.RELEASE
        settlement: Future[Settlement] = Future()
        self.push(Delivery(record, settlement, None))
        if self._closed:
            self._give_back()  # nobody else does any more
        return await wrap_future(settlement)

    def _settle(self, token: Future[Settlement], settled: Settled) -> None:
        resolve(token, settled.settlement)

    def close(self, settled: Sequence[Settled], /) -> None:
        self._closed = True
        self._callbacks.unsubscribed(self._key, self)
        for each in settled:
            self._settle(each.token, each)
        self._retry(float("inf"))
        self._give_back()

    def _give_back(self) -> None:
        while self._events:
            try:
                delivery = self._events.popleft()
            except IndexError:
                return
            resolve(delivery.token, Settlement.RELEASE)


def _outgoing(record: EventRecord) -> bytes:
    """Return a record as a CloudEvent that Dapr leaves as it is.

    It has a ``traceid``, without which Dapr would write over ``traceparent``. JSON whose numbers Dapr would decode into floats goes as base64, and so does ``null``, which Dapr would leave out.
    """
    event, payload = record.to_json(), record.payload
    if record.expires_us is not None:
        event = _EXPIRY.sub(b"", event, count=1)  # Dapr is told the time to live
    data = b'"data":%b}' % payload
    if event.endswith(data) and (payload == b"null" or not is_exact(payload)):
        event = b'%b"data_base64":"%b"}' % (event.removesuffix(data), base64.b64encode(payload))
    if record.traceparent is not None:
        event = b'{"traceid":%b,%b' % (json.encode(record.traceparent), event[1:])
    return event


def _incoming(message: Any, raw: bool) -> EventRecord:
    """Return a ``TopicEventRequest`` as a record; ``raw``: its data is all there is of the event."""
    members = _members(message.extensions)
    # a dead letter tells the topic it was first published to
    first = members.get("topic")
    topic = first if isinstance(first, str) and first else message.topic
    data, content_type = bytes(message.data), message.data_content_type
    return _record(message.id, message.type, message.source, content_type, data, members, topic, raw)


def _posted(event: Any, raw: bool) -> EventRecord:
    """Return an event as Dapr posts it, a CloudEvent in JSON, as a record; ``raw``: its data is all there is of the event."""
    texts = {name: event.get(name) or "" for name in ("id", "type", "source", "datacontenttype", "topic")}
    if not all(isinstance(each, str) for each in texts.values()):
        raise InvalidArgumentError("an attribute of the event is no text")
    content_type, value = texts["datacontenttype"], event.get("data")
    try:
        if isinstance(given := event.get("data_base64"), str):
            data = base64.b64decode(given, validate=True)
        elif value is None and "data" not in event:
            data = b""
        elif isinstance(value, str) and not _JSON.search(content_type):
            data = value.encode()
        else:
            data = json.encode(value)
            content_type = content_type or JSON
    except ValueError:
        raise InvalidArgumentError("the event's data_base64 is not base64") from None
    members = {name: each for name, each in event.items() if name not in FIELDS and isinstance(each, str | int | float)}
    return _record(
        texts["id"], texts["type"], texts["source"], content_type, data, members, texts["topic"] or "unknown", raw
    )


def _record(
    id: str, type: str, source: str, content_type: str, data: bytes, members: Mapping[str, Any], topic: str, raw: bool
) -> EventRecord:
    extensions = {
        name: _plain(value)
        for name, value in members.items()
        if name not in _DAPRS and _NAME.fullmatch(name) and _is_plain(value)
    }
    if state := _text(members, "tracestate"):
        extensions["tracestate"] = state
    attributes: dict[str, Any] = {"id": id or None, "type": type or None, "source": source or None, "raw": raw}
    more: dict[str, Any] = {
        "time": _text(members, "time"),
        "key": _text(members, "partitionkey"),
        "traceparent": _text(members, "traceparent"),
        "subject": _text(members, "subject"),
        "extensions": extensions,
    }
    try:
        return make_event(data, content_type or OCTETS, topic, **attributes, **more)
    except InvalidArgumentError:  # attributes of others, of another form than CloudEvents has: the event counts more
        return make_event(data, content_type or OCTETS, topic, **attributes)


def _members(struct: Any) -> dict[str, Any]:
    """Return the members of a ``Struct`` that an event can have: text, numbers, booleans."""
    members: dict[str, Any] = {}
    for name, value in struct.fields.items():
        kind = value.WhichOneof("kind")
        if kind in ("string_value", "number_value", "bool_value"):
            members[name] = getattr(value, kind)
    return members


def _text(members: Mapping[str, Any], name: str) -> str | None:
    value = members.get(name)
    return value if isinstance(value, str) and value else None


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | bool) or (float(value).is_integer() and abs(value) < 2**31)


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) else value
