"""Publishing over a sidecar: events go as CloudEvents of ours, a request for each or, where the sidecar has it, for many."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from ..._native import events as kernel
from ...codec import json
from ...errors import CloudRuntimesError, ResourceExhaustedError
from ...spi.operation import Operation
from ...spi.pubsub import EventSource, PubSubDriver, SubscribeRequest
from .failures import Refused
from .subscription import StreamSubscription
from .transport import Flow, Transport, tell

if TYPE_CHECKING:
    from ..._native.events_py import Record

__all__ = ["SidecarPubSub"]

_ROOM: Final = 64 << 10
"""Bytes that a message has for all but data."""


_Places: TypeAlias = list[tuple[int, int]]
_Failed: TypeAlias = dict[tuple[int, int], CloudRuntimesError]


class _Going:
    """How far the publishing of several requests is.

    Attributes:
        requests: those that are left.
        failed: what failed alone.
        done: whether one has come through.
    """

    def __init__(self, op: Operation, requests: Iterator[tuple[_Places, list[Record]]]) -> None:
        self._op = op
        self.requests = requests
        self.failed: _Failed = {}
        self.done = False
        self._begun, self._longest = time.monotonic(), 0.0

    def another(self) -> None:
        """Another request is to be made; raise `DeadlineExceededError` where a publisher's would hardly be answered in time.

        One that is cut off arrives all the same and is sent again; one that is not made is only sent later.
        """
        now = time.monotonic()
        self._longest, self._begun = max(self._longest, now - self._begun), now
        left = self._op.remaining()
        if self.done and not self._op.repeatable and left is not None and left < 2 * self._longest:
            raise self._op.timed_out("the sidecar")

    def on(self, failed: _Failed) -> None:
        """One has been made."""
        self.failed |= failed
        self.done = self.done or not failed

    def stopped(self, places: _Places, error: BaseException) -> None:
        """One has not: raise what ended it, or take it for the error of all that is left, from which a publisher goes on."""
        if self.done:
            tell(error, True, True)
        if not self.done or self._op.repeatable or not isinstance(error, CloudRuntimesError):
            raise error
        for some in (places, *(later for later, _ in self.requests)):
            self.failed |= dict.fromkeys(some, error)


class SidecarPubSub(PubSubDriver):
    """Topics of one component of the sidecar. The group is the sidecar's application.

    Attributes:
        bulk: events of one request, at most.
        table: of the runtime, for messages.
    """

    bulk: ClassVar[int]
    table: ClassVar[str]

    def __init__(self, link: Transport, name: str) -> None:
        self._link = link
        self._name = name
        # base64 makes four bytes of three
        self.max_event_bytes = max(1, (link.largest - _ROOM) // 4 * 3)
        self.larger_events = (
            f"bytes go as base64, a third larger, in a message of at most {link.largest:,} bytes; "
            f"raise max_message in {self.table}, and the sidecar's own limit, or send a reference instead"
        )

    # -- publishing ---------------------------------------------------------

    def publish(
        self, op: Operation, topic: str, frames: Sequence[bytes], delay_ms: int | None, /
    ) -> Mapping[tuple[int, int], CloudRuntimesError]:
        going = _Going(op, self._requests(frames))
        for places, records in going.requests:
            try:
                going.another()
                going.on(self._link.run(op, self._publish(op, topic, places, records, going.done)))
            except BaseException as error:
                going.stopped(places, error)
        return going.failed

    async def publish_async(
        self, op: Operation, topic: str, frames: Sequence[bytes], delay_ms: int | None, /
    ) -> Mapping[tuple[int, int], CloudRuntimesError]:
        going = _Going(op, self._requests(frames))
        for places, records in going.requests:
            try:
                going.another()
                going.on(await self._link.run_async(op, self._publish(op, topic, places, records, going.done)))
            except BaseException as error:
                going.stopped(places, error)
        return going.failed

    def _publish(self, op: Operation, topic: str, places: _Places, records: list[Record], done: bool) -> Flow[_Failed]:
        """Make one request, and return what failed of it."""
        try:
            if len(records) == 1:
                yield from self._one(op, topic, records[0])
            else:
                yield from self._many(op, topic, records)
        except Refused as refused:
            if refused.failed is None and not done:
                raise  # nothing was published before, so that it can be tried again as it is
            error = refused.error(applied=True)
            return {
                place: error
                for number, place in enumerate(places)
                if refused.failed is None or str(number) in refused.failed
            }
        return {}

    def _requests(self, frames: Sequence[bytes]) -> Iterator[tuple[_Places, list[Record]]]:
        """Yield what goes in one request: as many events as fit, raw ones and lone ones alone."""
        most = self._link.largest - _ROOM
        places: _Places = []
        records: list[Record] = []
        size = 0
        for number, body in enumerate(frames):
            frame = kernel.Frame(body)
            for index in range(len(frame)):
                record = frame[index]
                needs = len(record.payload) // 3 * 4 + len(json.encode(record.extensions)) + 2048
                if needs > most + _ROOM:
                    raise ResourceExhaustedError(
                        f"event {record.id!r} is larger than a message may be ({self._link.largest:,} bytes): "
                        f"raise max_message in {self.table}, and the sidecar's own limit"
                    )
                if records and (size + needs > most or len(records) >= self.bulk or record.raw or records[0].raw):
                    yield places, records
                    places, records, size = [], [], 0
                places.append((number, index))
                records.append(record)
                size += needs
        if records:
            yield places, records

    @abstractmethod
    def _one(self, op: Operation, topic: str, record: Record) -> Flow[None]:
        """Publish an event."""

    def _many(self, op: Operation, topic: str, records: Sequence[Record]) -> Flow[None]:
        """Publish several at once; `Refused.failed` has the indices of those that failed, where they are told."""
        raise NotImplementedError

    @staticmethod
    def metadata(op: Operation, record: Record) -> dict[str, str]:
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
