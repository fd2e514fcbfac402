"""Publish and subscribe (Dapr, "Pub/sub API reference"): events go as CloudEvents of ours, and come by streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..._link.pubsub import SidecarPubSub
from ..._link.subscription import StreamSubscription
from ..._link.transport import Flow
from ..._operation import Operation
from ...pubsub import driver as spi
from ...pubsub.driver import SubscribeRequest
from .events import CLOUD_EVENT, outgoing
from .subscription import DaprSubscription
from .transport import DaprTransport, Entry

if TYPE_CHECKING:
    from ..._native.events_py import Record

__all__ = ["DaprPubSub"]


class DaprPubSub(SidecarPubSub):
    """Topics of one component of the sidecar. The group is the sidecar's application."""

    bulk = 1000
    table = "[dapr]"

    def __init__(self, link: DaprTransport, name: str) -> None:
        super().__init__(link, name)
        self._bulk_link = link
        publishing = {spi.TTL, spi.RAW}
        self.features = frozenset({*publishing, spi.DEAD_LETTER, spi.SUBSCRIBE} if link.streams else publishing)

    def _one(self, op: Operation, topic: str, record: Record) -> Flow[None]:
        metadata = self.metadata(op, record)
        if record.raw:
            metadata["rawPayload"] = "true"
            content_type = record.content_type or "application/octet-stream"
            yield from self._link.publish(self._name, topic, record.payload, content_type, metadata)
        else:
            yield from self._link.publish(self._name, topic, outgoing(record), CLOUD_EVENT, metadata)

    def _many(self, op: Operation, topic: str, records: Sequence[Record]) -> Flow[None]:
        entries = [
            Entry(str(number), outgoing(record), self.metadata(op, record)) for number, record in enumerate(records)
        ]
        yield from self._bulk_link.publish_bulk(self._name, topic, entries)

    def _source(self, request: SubscribeRequest) -> StreamSubscription:
        self._link.need_streams("subscribe")
        return DaprSubscription(self._link, self._name, request)
