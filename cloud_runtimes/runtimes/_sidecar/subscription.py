"""A subscription that is a stream: many events in flight, each answered for by its id."""

from __future__ import annotations

import asyncio
import heapq
import random
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from ..._core.logs import repeated
from ..._core.threads import Changes
from ...errors import CloudRuntimesError
from ...spi.operation import Operation
from ...spi.pubsub import Answer, Cause, Delivery, EventSource, SubscribeRequest, Verdict
from .failures import Refused, stream_error
from .transport import Stream, Transport

if TYPE_CHECKING:
    from ..._native.events_py import Record

__all__ = ["STATUS", "StreamSubscription", "Token"]

STATUS: Final = {Verdict.ACK: 0, Verdict.RETRY: 1, Verdict.DROP: 2}
"""Numbers of ``TopicEventResponse``, of Dapr and of Layotto."""
_FIRST_DELAY: Final = 1.0
"""Seconds after which an answer asks for another try, where nobody says when: what is retried at once would go round and round."""
_LEAVING: Final = 5.0
_FIRST_BACKOFF: Final = 0.05


class Token(NamedTuple):
    """What an answer needs: on which connection the event came, and its id."""

    connection: int
    id: str


class StreamSubscription(EventSource):
    """See the module. What a connection brought is answered on it or not at all: after its end the sidecar delivers it again."""

    def __init__(self, link: Transport, pubsub: str, request: SubscribeRequest) -> None:
        self._link = link
        self._name = f"the subscription to {request.topic!r} of {pubsub!r}"
        self._raw = request.raw
        self._first = self._asks(pubsub, request)
        self._changes = Changes()
        self._woken = False
        self._connection = 0
        self._stream: Stream | None = None
        self._live = False
        self._failure: CloudRuntimesError | None = None
        self._begun = False
        # after a failure: seconds, and the time before which there is no other try
        self._backoff = self._again = self._since = 0.0
        # whether the last exchange wanted more than there was
        self._room = True
        self._events: deque[Delivery] = deque()
        # answers that are held back: (when, number, token)
        self._later: list[tuple[float, int, Token]] = []
        self._numbers = count()

    _steady: ClassVar[float] = 0.0
    """Seconds for which a connection must have been live for the next to follow it at once."""
    _patience: ClassVar[float] = 5.0
    """Seconds between tries, at most."""

    # -- what a sidecar calls it ----------------------------------------------

    @abstractmethod
    def _asks(self, pubsub: str, request: SubscribeRequest) -> Any:
        """Return the first message."""

    @abstractmethod
    def _record(self, event: Any) -> Record:
        """Return an event as a record.

        Raises:
            CloudRuntimesError: it cannot be one.
        """

    @abstractmethod
    def _says(self, id: str, verdict: Verdict) -> Any:
        """Return the message that answers for an event."""

    # -- connecting ---------------------------------------------------------

    def begin(self, op: Operation) -> None:
        """Connect, and wait until the sidecar says that the subscription is live."""
        self._connect()
        try:
            while not self._is_live():
                ticket = self._changes.ticket()
                left = 0.0 if self._is_live() else op.remaining()
                if not self._changes.wait(ticket, left) and not self._is_live():
                    raise op.timed_out("the sidecar")
        except BaseException:
            self._cancel()
            raise

    async def begin_async(self, op: Operation) -> None:
        """Asynchronous `begin`."""
        self._connect()
        try:
            while not self._is_live():
                future = self._changes.future()
                left = 0.0 if self._is_live() else op.remaining()
                if not await self._changes.wait_async(future, left) and not self._is_live():
                    raise op.timed_out("the sidecar")
                await asyncio.sleep(0)
        except BaseException:
            self._cancel()
            raise

    def _is_live(self) -> bool:
        if self._failure is not None:
            raise self._failure
        return self._live

    def _connect(self) -> None:
        self._connection += 1
        mine = self._connection
        self._live, self._failure = False, None
        self._events.clear()
        self._later.clear()
        self._stream = self._link.open(
            "events", self._first, lambda message: self._received(mine, message), lambda why: self._ended(mine, why)
        )

    def _received(self, connection: int, message: Any) -> None:
        if connection != self._connection:
            return
        if not message.HasField("event_message"):
            self._live = self._begun = True
            self._since = monotonic()
            self._changes.announce()
        else:
            event = message.event_message
            token = Token(connection, event.id)
            try:
                self._events.append(Delivery(self._record(event), token, None))
            except CloudRuntimesError as error:
                repeated(f"poison {self._name}", "%s: event %s is dropped: %s", self._name, event.id, error)
                self._answer(token, Verdict.DROP)
            if self._room:
                self._changes.announce()

    def _ended(self, connection: int, why: Exception | None) -> None:
        if connection == self._connection:
            if self._begun or not isinstance(why, Refused):
                self._failure = stream_error(why, f"{self._name} was ended by the sidecar")
            else:  # it never was
                self._failure = self._never(why)
            self._changes.announce()

    def _never(self, why: Refused) -> CloudRuntimesError:
        """Return the error of a subscription that was refused before it was live."""
        return why.error(applied=False)

    def _cancel(self) -> None:
        stream, self._stream = self._stream, None
        self._connection += 1
        if stream is not None:
            stream.cancel()

    # -- driven by the service ----------------------------------------------

    def exchange(self, answers: Sequence[Answer], want: int, /) -> list[Delivery]:
        for answer in answers:
            self._settle(answer)
        self._land(monotonic())
        if (failure := self._failure) is not None:
            # what the stream brought before its end comes again, on another one
            self._cancel()
            self._events.clear()
            self._failure = None
            if self._live and monotonic() - self._since >= self._steady:
                self._backoff = 0.0
            self._backoff = min(self._patience, self._backoff * 2 or _FIRST_BACKOFF)
            self._again = monotonic() + random.uniform(self._backoff / 2, self._backoff)
            raise failure
        if self._stream is None:
            if monotonic() < self._again:
                return []
            self._connect()
        events: list[Delivery] = []
        while len(events) < want and self._events:
            events.append(self._events.popleft())
        self._room = len(events) < want
        return events

    def _settle(self, answer: Answer) -> None:
        token: Token = answer.token
        if token.connection != self._connection or answer.verdict is Verdict.RETURN:
            return
        if answer.verdict is Verdict.RETRY and answer.delay != 0:
            delay = _FIRST_DELAY if answer.delay is None else answer.delay
            heapq.heappush(self._later, (monotonic() + delay, next(self._numbers), token))
        else:
            self._answer(token, answer.verdict, answer.cause)

    def _land(self, now: float) -> None:
        """Send the answers that were held back until now."""
        while self._later and self._later[0][0] <= now:
            self._answer(heapq.heappop(self._later)[2], Verdict.RETRY)

    def _answer(self, token: Token, verdict: Verdict, cause: Cause | None = None) -> None:
        stream = self._stream
        if stream is not None and token.connection == self._connection:
            stream.send(self._says(token.id, verdict))

    def wait(self, timeout: float, /) -> None:
        ticket = self._changes.ticket()
        if self._later:
            timeout = min(timeout, max(0.0, self._later[0][0] - monotonic()))
        if self._stream is None:
            timeout = min(timeout, max(0.0, self._again - monotonic()))
        if self._woken or (self._room and self._events) or (self._room and self._failure is not None):
            timeout = 0.0
        self._changes.wait(ticket, timeout)
        self._woken = False
        # until an exchange asks for more: who has no room for what is there must not be sent back at once
        self._room = False
        self._land(monotonic())

    def wake(self) -> None:
        self._woken = True
        self._changes.announce()

    def close(self, answers: Sequence[Answer], /) -> None:
        for answer in answers:
            self._settle(answer)
        stream = self._stream
        if stream is not None:
            # answers first: the end of what this side says is what unsubscribes
            stream.finish()
            if not stream.join(_LEAVING):
                stream.cancel()
                stream.join(_LEAVING)
        self._stream = None
        self._connection += 1
