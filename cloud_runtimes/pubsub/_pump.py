"""The thread of a subscription: between an `EventSource` and those who take its events.

It fetches ahead up to ``max_in_flight`` unsettled events, lands answers in groups, and gives what was handed out and not settled within ``ack_wait`` back to be delivered again. Takers wait on a condition (threads) or a future (an event loop).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

from .._log import repeated
from .._thread import Background, Changes
from ..errors import CloudRuntimesError, InternalError, PayloadError
from .driver import Answer, Delivery, EventSource, Verdict
from .types import Event

__all__ = ["Pump"]

LANDING: Final = 0.05
"""Seconds within which an answer lands (docs/architecture.md, "The log")."""
_IDLE: Final = 0.25
_MAX_BACKOFF: Final = 5.0


class Pump:
    """See the module.

    Args:
        source: driven by this pump's thread only.
        name: of the subscription, for messages.
        pubsub_name, type, raw: of its events.
        max_in_flight: unsettled events at most, those fetched ahead included.
        ack_wait: seconds from hand-out to redelivery; ``None``: the broker counts them itself.
        poison: what becomes of data that does not fit ``type``.
    """

    def __init__(
        self,
        source: EventSource,
        *,
        name: str,
        pubsub_name: str,
        type: Any,
        raw: bool,
        max_in_flight: int,
        ack_wait: float | None,
        poison: Verdict,
    ) -> None:
        self._source = source
        self.name = name
        self._event: dict[str, Any] = {"pump": self, "pubsub_name": pubsub_name, "type": type, "raw": raw}
        self._typed = type is not None
        self._max_in_flight = max_in_flight
        self._flush_at = max(1, max_in_flight // 2)
        self._low = max(1, max_in_flight // 4)
        self._ack_wait = ack_wait
        self._poison = poison
        self._lock = threading.Lock()
        self._changes = Changes()
        self._ready: deque[Event[Any]] = deque()
        self._handed: deque[tuple[float, Sequence[Event[Any]]]] = deque()
        self._answers: list[Answer] = []
        self._open = 0
        self._closing = False
        self._ending = False
        self.error: CloudRuntimesError | None = None
        self._thread = Background(self._run, "cloud-runtimes-subscription")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    # -- takers -----------------------------------------------------------

    def take(self, limit: int, timeout: float | None) -> list[Event[Any]] | None:
        """Return 1 to ``limit`` events; ``[]`` once closed, ``None`` when ``timeout`` seconds are up.

        Raises:
            CloudRuntimesError: the subscription ended with it.
        """
        end = None if timeout is None else monotonic() + timeout
        while True:
            events: list[Event[Any]] = []
            with self._lock:
                if self._ready:
                    events = self._hand_out(limit)
                elif self._over():
                    return []
                else:
                    ticket = self._changes.ticket()
            if events:
                if events := self._fitting(events):
                    return events
            elif not self._changes.wait(ticket, None if end is None else end - monotonic()):
                return None

    async def take_async(self, limit: int, timeout: float | None) -> list[Event[Any]] | None:
        """Asynchronous `take`."""
        end = None if timeout is None else monotonic() + timeout
        while True:
            events: list[Event[Any]] = []
            with self._lock:
                if self._ready:
                    events = self._hand_out(limit)
                elif self._over():
                    return []
                else:
                    future = self._changes.future()
            if events:
                if events := self._fitting(events):
                    return events
            elif not await self._changes.wait_async(future, None if end is None else end - monotonic()):
                return None

    def _over(self) -> bool:
        if self.error is not None:
            raise self.error
        return self._closing

    def _hand_out(self, limit: int) -> list[Event[Any]]:
        ready = self._ready
        events = [ready.popleft() for _ in range(min(limit, len(ready)))]
        self._handed.append((float("inf") if self._ack_wait is None else monotonic() + self._ack_wait, events))
        return events

    def _fitting(self, events: list[Event[Any]]) -> list[Event[Any]]:
        """Return the events whose data fits the type asked for; the others are settled as poison."""
        if not self._typed:
            return events
        fitting = []
        for event in events:
            try:
                event.data  # noqa: B018
            except PayloadError as error:
                repeated(f"poison {self.name}", "%s: event %s does not fit: %s", self.name, event.id, error)
                self.settle((event,), self._poison, None)
            else:
                fitting.append(event)
        return fitting

    def wait(self) -> None:
        """Return once closed; raise the error that ended the subscription, if one did."""
        while True:
            with self._lock:
                if self._over():
                    return
                ticket = self._changes.ticket()
            self._changes.wait(ticket, None)

    async def wait_async(self) -> None:
        """Asynchronous `wait`."""
        while True:
            with self._lock:
                if self._over():
                    return
                future = self._changes.future()
            await self._changes.wait_async(future, None)

    def settle(self, events: Sequence[Event[Any]], verdict: Verdict, delay: float | None) -> None:
        """Queue an answer for those of ``events`` that have none; waits for nothing but other takers."""
        with self._lock:
            fresh = [event for event in events if event._verdict is None]
            for event in fresh:
                event._verdict = verdict
                self._answers.append(Answer(event._token, verdict, delay))
            self._open -= len(fresh)
            urgent = fresh and (len(self._answers) >= self._flush_at or self._open == 0)
        if urgent:
            self._source.wake()

    # -- the thread -------------------------------------------------------

    def _run(self) -> None:
        backoff = 0.0
        answers: list[Answer] = []
        while True:
            with self._lock:
                self._give_up_overdue()
                answers += self._answers
                self._answers = []
                if self._ending:
                    # what was handed out and has no answer was delivered; what was not goes back uncounted
                    held = [event for _, events in self._handed for event in events if event._verdict is None]
                    answers += [Answer(event._token, Verdict.RETURN) for event in held]
                    break
                want = 0 if self._closing else self._max_in_flight - self._open
                if want < self._low and self._ready:
                    want = 0
            try:
                if answers or want:
                    deliveries = self._source.exchange(answers, want)
                    answers = []
                    self._admit(deliveries)
                    backoff = 0.0
                self._source.wait(LANDING if self._open or self._answers else _IDLE)
                continue
            except Exception as error:
                ours = error if isinstance(error, CloudRuntimesError) else _unexpected(self.name, error)
            if not ours.retryable and ours.code != "DEADLINE_EXCEEDED":
                self._end(ours)
                break
            backoff = min(_MAX_BACKOFF, backoff * 2 or 0.05)
            repeated(f"pump {self.name}", "%s: %s; trying again", self.name, ours)
            self._source.wait(backoff)
        try:
            self._source.close(answers)
        except Exception as error:
            # nothing is lost by this: what was not given back comes again after ack_wait
            repeated(f"pump {self.name}", "%s: leaving the group failed: %s", self.name, error)
        self._end(None)

    def _admit(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        options = self._event
        events = [Event(record, token=token, delivery_count=count, **options) for record, token, count in deliveries]
        with self._lock:
            self._open += len(events)
            if self._closing:
                return  # unhanded: given back by the source's close
            self._ready.extend(events)
            self._changes.announce()

    def _give_up_overdue(self) -> None:
        """Have events delivered again that were handed out ``ack_wait`` ago and have no answer."""
        now = monotonic()
        while self._handed and self._handed[0][0] <= now:
            for event in self._handed.popleft()[1]:
                if event._verdict is None:
                    event._verdict = Verdict.RETRY
                    self._answers.append(Answer(event._token, Verdict.RETRY, 0.0))
                    self._open -= 1
        while self._handed and all(event._verdict is not None for event in self._handed[0][1]):
            self._handed.popleft()

    def _end(self, error: CloudRuntimesError | None) -> None:
        with self._lock:
            self._closing = True
            self.error = self.error or error
            self._changes.announce()

    def stop(self) -> None:
        """Hand out nothing any more; takers see the end."""
        with self._lock:
            self._closing = True
            for event in self._ready:
                event._verdict = Verdict.RETURN
            self._ready.clear()
            self._changes.announce()

    def end(self, timeout: float | None) -> bool:
        """Land the answers, give the rest back, and wait for the thread; tells whether it ended in time."""
        with self._lock:
            self._ending = True
        if not self._thread.started:  # its start was interrupted: let it do the leaving
            self._thread.start()
        self._source.wake()
        return self._thread.join(timeout)


def _unexpected(name: str, error: Exception) -> CloudRuntimesError:
    wrapped = InternalError(f"{name}: {type(error).__name__}: {error}", service="pubsub", operation="subscribe")
    wrapped.__cause__ = error
    return wrapped
