"""Publish and subscribe over Layotto: events go as bytes, one by one, and come by a stream or by callbacks."""

from __future__ import annotations

from ...codec.payload import OCTETS
from ...spi import pubsub as spi
from ...spi.operation import Operation
from ...spi.pubsub import EventRecord, SubscribeRequest
from .._sidecar.pubsub import SidecarPubSub
from .._sidecar.subscription import StreamSubscription
from .._sidecar.transport import Flow
from .events import outgoing
from .subscription import LayottoSubscription

__all__ = ["LayottoPubSub"]


class LayottoPubSub(SidecarPubSub):
    """Topics of one component of the sidecar. The group is the sidecar's application."""

    features = frozenset({spi.DEAD_LETTER, spi.SUBSCRIBE, spi.TTL})
    bulk = 1
    table = "[layotto]"

    def _one(self, op: Operation, topic: str, record: EventRecord) -> Flow[None]:
        yield from self._transport.publish(self._name, topic, outgoing(record), OCTETS, self.metadata(op, record))

    def _source(self, request: SubscribeRequest) -> StreamSubscription:
        return LayottoSubscription(self._transport, self._name, request)
