"""A subscription that is a stream: many events in flight, each answered for by its id."""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Any, ClassVar, Final, NamedTuple

from ..._core.logs import repeated
from ...errors import CloudRuntimesError
from ...spi.operation import Operation
from ...spi.pubsub import Cause, Delivery, EventRecord, Settled, Settlement, SubscribeRequest
from ...spi.push import PushSource
from .failures import SidecarError, stream_error
from .transport import Stream, Transport, resolve

__all__ = ["STATUS", "StreamSubscription", "Token"]

STATUS: Final = {Settlement.ACK: 0, Settlement.RETRY: 1, Settlement.DROP: 2}
"""Numbers of ``TopicEventResponse``, of Dapr and of Layotto."""
_LEAVING: Final = 5.0
_FIRST_BACKOFF: Final = 0.05


class Token(NamedTuple):
    """What an answer needs: on which connection the event came, and its id."""

    connection: int
    id: str


class StreamSubscription(PushSource):
    """See the module. What a connection brought is answered on it or not at all: after its end the sidecar delivers it again."""

    def __init__(self, transport: Transport, pubsub: str, request: SubscribeRequest) -> None:
        super().__init__()
        self._transport = transport
        self._name = f"the subscription to {request.topic!r} of {pubsub!r}"
        self._raw = request.raw
        self._first = self._subscribe_request(pubsub, request)
        self._connection = 0
        self._stream: Stream | None = None
        self._live = False
        self._failure: CloudRuntimesError | None = None
        self._begun = False
        # after a failure: seconds, and the time before which there is no other try
        self._backoff = self._again = self._since = 0.0

    _steady: ClassVar[float] = 0.0
    """Seconds for which a connection must have been live for the next to follow it at once."""
    _patience: ClassVar[float] = 5.0
    """Seconds between tries, at most."""

    # -- what a sidecar calls it ----------------------------------------------

    @abstractmethod
    def _subscribe_request(self, pubsub: str, request: SubscribeRequest) -> Any:
        """Return the first message."""

    @abstractmethod
    def _record(self, event: Any) -> EventRecord:
        """Return an event as a record.

        Raises:
            CloudRuntimesError: it cannot be one.
        """

    @abstractmethod
    def _settlement_message(self, id: str, settlement: Settlement) -> Any:
        """Return the message that answers for an event."""

    # -- connecting ---------------------------------------------------------

    def begin(self, op: Operation) -> None:
        """Connect, and wait until the sidecar says that the subscription is live."""
        self._connect()
        try:
            self._greeted.result(op.remaining())
        except TimeoutError:
            pass
        finally:
            self._keep_if_live()
        self._check_live(op)

    async def begin_async(self, op: Operation) -> None:
        """Asynchronous `begin`."""
        self._connect()
        try:
            async with asyncio.timeout(op.remaining()):
                await asyncio.wrap_future(self._greeted)
        except TimeoutError:
            pass
        finally:
            self._keep_if_live()
        self._check_live(op)

    def _keep_if_live(self) -> None:
        if not self._live:
            self._cancel()

    def _check_live(self, op: Operation) -> None:
        if not self._live:
            raise self._failure or op.timed_out("the sidecar")

    def _connect(self) -> None:
        self._connection += 1
        mine = self._connection
        self._live, self._failure = False, None
        self._greeted: Future[None] = Future()
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
            resolve(self._greeted, None)
        else:
            event = message.event_message
            token = Token(connection, event.id)
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
            resolve(self._greeted, None)
            self._changes.announce()

    def _refused_error(self, why: SidecarError) -> CloudRuntimesError:
        """Return the error of a subscription that was refused before it was live."""
        return why.error(applied=False)

    def _cancel(self) -> None:
        stream, self._stream = self._stream, None
        self._connection += 1
        if stream is not None:
            stream.cancel()

    # -- driven by the service ----------------------------------------------

    def _look(self) -> float | None:
        if (failure := self._failure) is not None:
            # what the stream brought before its end comes again, on another one
            self._cancel()
            self._forget()
            self._failure = None
            if self._live and monotonic() - self._since >= self._steady:
                self._backoff = 0.0
            self._backoff = min(self._patience, self._backoff * 2 or _FIRST_BACKOFF)
            self._again = monotonic() + random.uniform(self._backoff / 2, self._backoff)
            raise failure
        if self._stream is None:
            if (left := self._again - monotonic()) > 0:
                return left
            self._connect()
        return None

    def _settle(self, token: Token, settled: Settled) -> None:
        if settled.settlement is not Settlement.RELEASE:  # its end gives back
            self._answer(token, settled.settlement, settled.cause)

    def _answer(self, token: Token, settlement: Settlement, cause: Cause | None = None) -> None:
        stream = self._stream
        if stream is not None and token.connection == self._connection:
            stream.send(self._settlement_message(token.id, settlement))

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
