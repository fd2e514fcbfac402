"""Publish and subscribe (Dapr, "Pub/sub API reference"): events go as CloudEvents of ours, and come by streams, or over HTTP alone by callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...spi import pubsub as spi
from ...spi.operation import Operation
from ...spi.pubsub import EventRecord, EventSource, SubscribeRequest
from .._sidecar.pubsub import SidecarPubSub, StreamSubscription
from .._sidecar.transport import Flow
from .callbacks import CallbackSubscription
from .events import CLOUD_EVENT, incoming, outgoing
from .grpc_transport import GrpcTransport
from .transport import BulkEntry

__all__ = ["DaprPubSub"]


class DaprSubscription(StreamSubscription):
    """A subscription by stream (Dapr, "Streaming subscriptions"; alpha)."""

    message = "SubscribeTopicEventsRequestAlpha1"

    def _record(self, event: Any) -> EventRecord:
        return incoming(event, raw=self._raw)


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
            yield from self._transport.publish(self._name, topic, outgoing(record), CLOUD_EVENT, metadata)

    def _many(self, op: Operation, topic: str, records: Sequence[EventRecord]) -> Flow[None]:
        entries = [
            BulkEntry(str(number), outgoing(record), self.metadata(op, record)) for number, record in enumerate(records)
        ]
        yield from self._transport.publish_bulk(self._name, topic, entries)

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        if not self._transport.streams:
            return CallbackSubscription(self._transport.callbacks, self._name, request)
        return super().subscribe(op, request)

    async def subscribe_async(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        if not self._transport.streams:
            return CallbackSubscription(self._transport.callbacks, self._name, request)
        return await super().subscribe_async(op, request)
