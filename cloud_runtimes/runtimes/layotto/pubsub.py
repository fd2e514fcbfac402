"""Publish and subscribe over Layotto: events go as bytes, one by one, and come by a stream or by callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._link.pubsub import SidecarPubSub
from ..._link.subscription import StreamSubscription
from ..._link.transport import Flow
from ..._operation import Operation
from ...codec.payload import OCTETS
from ...pubsub import driver as spi
from ...pubsub.driver import SubscribeRequest
from .events import outgoing
from .subscription import LayottoSubscription

if TYPE_CHECKING:
    from ..._native.events_py import Record

__all__ = ["LayottoPubSub"]


class LayottoPubSub(SidecarPubSub):
    """Topics of one component of the sidecar. The group is the sidecar's application."""

    features = frozenset({spi.DEAD_LETTER, spi.SUBSCRIBE, spi.TTL})
    bulk = 1
    table = "[layotto]"

    def _one(self, op: Operation, topic: str, record: Record) -> Flow[None]:
        yield from self._link.publish(self._name, topic, outgoing(record), OCTETS, self.metadata(op, record))

    def _source(self, request: SubscribeRequest) -> StreamSubscription:
        return LayottoSubscription(self._link, self._name, request)
