"""Publish and subscribe over a sidecar: events go as CloudEvents of ours, a request for each or, where the sidecar has it, for many; they come by a stream, each answered for by its id."""

from __future__ import annotations

import asyncio
import math
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from time import monotonic
from typing import Any, ClassVar, Final, NamedTuple

from ..._core.backoff import Backoff
from ..._core.logs import repeated
from ...errors import CloudRuntimesError
from ...spi.flow import both_apis
from ...spi.operation import Operation
from ...spi.pubsub import (
    BatchLimits,
    Cause,
    Delivery,
    EventRecord,
    EventSource,
    Failures,
    OutgoingBatch,
    PubSubDriver,
    Settled,
    Settlement,
    SubscribeRequest,
)
from ...spi.push import PushSource
from .channel import Channel
from .transport import Flow, SidecarDriver, SidecarError, Stream, resolve, stream_error

_STATUS: Final = {Settlement.ACK: 0, Settlement.RETRY: 1, Settlement.DROP: 2}
"""Numbers of ``TopicEventResponse``, of Dapr and of Layotto."""
_ROOM: Final = 64 << 10
"""Bytes that a message has for all but data."""
_EVENT_ROOM: Final = 2048
"""Bytes that an event of several has for all but data."""
_LEAVING: Final = 5.0


class SidecarPubSub(SidecarDriver, PubSubDriver):
    """Topics of one component of the sidecar. The group is the sidecar's application."""

    bulk: ClassVar[int]  # events of one request, at most
    table: ClassVar[str]  # of the configuration, for messages
    subscription: ClassVar[type[StreamSubscription]]

    def __init__(self, transport: Channel, name: str) -> None:
        super().__init__(transport, name)
        # base64 makes four bytes of three
        self.max_event_bytes = max(1, (transport.largest - _ROOM) // 4 * 3)
        self.limits = BatchLimits(self.bulk, max(1, self.max_event_bytes - self.bulk * _EVENT_ROOM))
        self.too_large_hint = (
            f"bytes go as base64, a third larger, in a message of at most {transport.largest:,} bytes; "
            f"raise max_message in {self.table}, and the sidecar's own limit, or send a reference instead"
        )

    def _publish(self, op: Operation, batch: OutgoingBatch, /) -> Flow[Failures]:
        """Make one request, and return what failed of it."""
        records = list(batch)
        try:
            if len(records) == 1:
                yield from self._one(op, batch.topic, records[0])
            else:
                yield from self._many(op, batch.topic, records)
        except SidecarError as refused:
            if refused.failed is None:
                raise
            error = refused.error(applied=True)
            return {index: error for index in range(len(records)) if str(index) in refused.failed}
        return {}

    publish, publish_async = both_apis(_publish)

    @abstractmethod
    def _one(self, op: Operation, topic: str, record: EventRecord) -> Flow[None]: ...

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

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        source = self.subscription(self._transport, self._name, request)
        with source.connecting(op):
            source.greeted.result(op.remaining())
        return source

    async def subscribe_async(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        source = self.subscription(self._transport, self._name, request)
        with source.connecting(op):
            async with asyncio.timeout(op.remaining()):
                await asyncio.wrap_future(source.greeted)
        return source


class EventToken(NamedTuple):
    """Key of an answer: the connection on which the event came, and the id of the event."""

    connection: int
    id: str


class StreamSubscription(PushSource):
    """See the module. What a connection brought is answered on it or not at all: after its end the sidecar delivers it again."""

    _steady: ClassVar[float] = 0.0
    """Seconds for which a connection must have been live for the next to follow it at once."""
    _patience: ClassVar[float] = 5.0
    """Seconds between tries, at most."""
    message: ClassVar[str]
    """The kind of messages that are sent."""

    def __init__(self, transport: Channel, pubsub: str, request: SubscribeRequest) -> None:
        super().__init__()
        self._transport = transport
        self._name = f"the subscription to {request.topic!r} of {pubsub!r}"
        self._raw = request.raw
        self._message = getattr(transport.pb(), self.message)
        first = {"pubsub_name": pubsub, "topic": request.topic, "dead_letter_topic": request.dead_letter_topic}
        metadata = {**(request.metadata or {}), **({"rawPayload": "true"} if request.raw else {})}
        self._first = self._message(initial_request={**first, "metadata": metadata})
        self.greeted: Future[None] = Future()
        self._connection = 0
        self._stream: Stream | None = None
        self._live = self._begun = False
        self._failure: CloudRuntimesError | None = None
        self._pauses = Backoff(0.05, self._patience)
        self._again = self._since = 0.0  # before `_again`, which follows a failure, there is no other try

    @abstractmethod
    def _record(self, event: Any) -> EventRecord:
        """Return an event as a record, or raise `CloudRuntimesError`."""

    @contextmanager
    def connecting(self, op: Operation) -> Iterator[None]:
        """Connect, and expect that the sidecar has said that the subscription is live."""
        self._connect()
        try:
            yield
        except TimeoutError:
            pass
        finally:
            if not self._live:
                self._cancel()
        if not self._live:
            raise self._failure or op.timed_out("the sidecar")

    def _connect(self) -> None:
        self._connection += 1
        mine = self._connection
        self._live, self._failure = False, None
        self.greeted = Future()
        self._forget()
        self._stream = self._transport.open(
            "events", self._first, lambda message: self._received(mine, message), lambda why: self._ended(mine, why)
        )

    def _received(self, connection: int, message: Any) -> None:
        if connection != self._connection:
            return
        if not message.HasField("event_message"):
            self._live = self._begun = True
            self._since = monotonic()
            resolve(self.greeted, None)
        else:
            event = message.event_message
            token = EventToken(connection, event.id)
            try:
                self.push(Delivery(self._record(event), token, None))
            except CloudRuntimesError as error:
                repeated(f"poison {self._name}", "%s: event %s is dropped: %s", self._name, event.id, error)
                self._answer(token, Settlement.DROP)

    def _ended(self, connection: int, why: Exception | None) -> None:
        if connection == self._connection:
            if self._begun or not isinstance(why, SidecarError):
                self._failure = stream_error(why, f"{self._name} was ended by the sidecar")
            else:  # it never was
                self._failure = self._refused_error(why)
            resolve(self.greeted, None)
            self._changes.announce()

    def _refused_error(self, why: SidecarError) -> CloudRuntimesError:
        """Return the error of a subscription that was refused before it was live."""
        return why.error(applied=False)

    def _cancel(self) -> None:
        stream, self._stream = self._stream, None
        self._connection += 1
        if stream is not None:
            stream.cancel()

    def _look(self) -> float | None:
        if (failure := self._failure) is not None:
            # what the stream brought before its end comes again, on another one
            self._cancel()
            self._forget()
            self._failure = None
            if self._live and monotonic() - self._since >= self._steady:
                self._pauses.reset()
            self._again = monotonic() + self._pauses.next()
            raise failure
        if self._stream is None:
            if (remaining := self._again - monotonic()) > 0:
                return remaining
            self._connect()
        return None

    def _settle(self, token: EventToken, settled: Settled) -> None:
        if settled.settlement is not Settlement.RELEASE:  # its end gives back
            self._answer(token, settled.settlement, settled.cause)

    def _answer(self, token: EventToken, settlement: Settlement, cause: Cause | None = None) -> None:
        stream = self._stream
        if stream is not None and token.connection == self._connection:
            stream.send(self._message(event_processed={"id": token.id, "status": {"status": _STATUS[settlement]}}))

    def close(self, settled: Sequence[Settled], /) -> None:
        for each in settled:
            self._take(each)
        stream = self._stream
        if stream is not None:
            # settlements first: the end of what this side says is what unsubscribes
            stream.finish()
            if not stream.join(_LEAVING):
                stream.cancel()
                stream.join(_LEAVING)
        self._stream = None
        self._connection += 1
