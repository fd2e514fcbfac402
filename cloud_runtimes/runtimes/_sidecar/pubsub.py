"""Publishing over a sidecar: events go as CloudEvents of ours, a request for each or, where the sidecar has it, for many."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

from ...codec import json
from ...errors import ResourceExhaustedError
from ...spi.operation import Operation
from ...spi.pubsub import BatchLimits, EventRecord, EventSource, Failures, OutgoingBatch, PubSubDriver, SubscribeRequest
from .driver import SidecarDriver, operation
from .failures import SidecarError
from .subscription import StreamSubscription
from .transport import Flow, Transport

__all__ = ["SidecarPubSub"]

_ROOM: Final = 64 << 10
"""Bytes that a message has for all but data."""
_EVENT_ROOM: Final = 2048
"""Bytes that an event has for all but data and extensions."""


class SidecarPubSub(SidecarDriver, PubSubDriver):
    """Topics of one component of the sidecar. The group is the sidecar's application.

    Attributes:
        bulk: events of one request, at most.
        table: of the runtime, for messages.
    """

    bulk: ClassVar[int]
    table: ClassVar[str]

    def __init__(self, transport: Transport, name: str) -> None:
        super().__init__(transport, name)
        # base64 makes four bytes of three
        self.max_event_bytes = max(1, (transport.largest - _ROOM) // 4 * 3)
        self.limits = BatchLimits(self.bulk, max(1, self.max_event_bytes - self.bulk * _EVENT_ROOM))
        self.larger_events = (
            f"bytes go as base64, a third larger, in a message of at most {transport.largest:,} bytes; "
            f"raise max_message in {self.table}, and the sidecar's own limit, or send a reference instead"
        )

    # -- publishing ---------------------------------------------------------

    @operation
    def publish(self, op: Operation, batch: OutgoingBatch, /) -> Flow[Failures]:
        """Make one request, and return what failed of it."""
        records = list(batch)
        for record in records:
            self._check(record)
        try:
            if len(records) == 1:
                yield from self._one(op, batch.topic, records[0])
            else:
                yield from self._many(op, batch.topic, records)
        except SidecarError as refused:
            if refused.failed is None:
                raise
            error = refused.error(applied=True)
            return {place: error for place in range(len(records)) if str(place) in refused.failed}
        return {}

    def _check(self, record: EventRecord) -> None:
        """Refuse an event whose message would be too large, before it is sent."""
        needs = len(record.payload) // 3 * 4 + len(json.encode(record.extensions)) + _EVENT_ROOM
        if needs > self._transport.largest:
            raise ResourceExhaustedError(
                f"event {record.id!r} is larger than a message may be ({self._transport.largest:,} bytes): "
                f"raise max_message in {self.table}, and the sidecar's own limit"
            )

    @abstractmethod
    def _one(self, op: Operation, topic: str, record: EventRecord) -> Flow[None]:
        """Publish an event."""

    def _many(self, op: Operation, topic: str, records: Sequence[EventRecord]) -> Flow[None]:
        """Publish several at once; `SidecarError.failed` has the indices of those that failed, where they are told."""
        raise NotImplementedError

    @staticmethod
    def metadata(op: Operation, record: EventRecord) -> dict[str, str]:
        metadata = {**(op.metadata or {}), **record.metadata}
        if record.key is not None:
            metadata.setdefault("partitionKey", record.key)
        if record.expires_us is not None:
            metadata["ttlInSeconds"] = str(max(1, math.ceil(record.expires_us / 1e6 - time.time())))
        return metadata

    # -- subscribing --------------------------------------------------------

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        source = self._source(request)
        source.begin(op)
        return source

    async def subscribe_async(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        source = self._source(request)
        await source.begin_async(op)
        return source

    @abstractmethod
    def _source(self, request: SubscribeRequest) -> StreamSubscription:
        """Return a subscription that has not begun.

        Raises:
            UnsupportedError: the transport has no streams.
        """
