"""The thread of a subscription: between an `EventSource` and those who take its events.

It fetches ahead up to ``max_in_flight`` unsettled events, lands answers in groups, and gives what was handed out and not settled within ``ack_wait`` back to be delivered again.

Takers and answers share no lock with it, only deques whose operations are whole: a ``KeyboardInterrupt`` at any point leaves an event in one of them, and a signal handler may receive, settle and close.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import repeat, starmap
from time import monotonic
from typing import Any, Final

from .._core.logs import repeated
from .._core.threads import Background, Changes
from .._native import events as kernel
from ..errors import CloudRuntimesError, InternalError, PayloadError
from ..spi.pubsub import Answers, Cause, Deliveries, Delivery, EventSource, Verdict
from ._letters import cause_of
from .types import Event

__all__ = ["Pump"]

LANDING: Final = 0.05
"""Seconds within which an answer lands (docs/architecture.md, "The log")."""
_IDLE: Final = 5.0
"""Seconds between looks at a source that says nothing."""
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
        self.pubsub_name = pubsub_name
        self._type = type
        self._raw = raw
        self._typed = type is not None
        self._max_in_flight = max_in_flight
        self._flush_at = max(1, max_in_flight // 2)
        self._low = max(1, max_in_flight // 4)
        self._ack_wait = ack_wait
        self._poison = poison
        self._changes = Changes()
        # fetched; handed out, with the time to give them up; settled, as they were answered
        self._ready: deque[Event[Any]] = deque()
        self._handed: deque[tuple[float, Sequence[Event[Any]]]] = deque()
        self._settled: deque[tuple[Sequence[Event[Any]], Verdict, float | None, Cause | None]] = deque()
        # the thread's own: answers to land, and events without one
        self._answers = Answers()
        self._open = 0
        # about how many events `_settled` holds
        self._waiting = 0
        self._woken = False
        self._closing = False
        self._ending = self._abandoned = False
        self.error: CloudRuntimesError | None = None
        self._thread = Background(self._run, "cloud-runtimes-subscription")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hold(self, seconds: float) -> None:
        """Give what is handed out up only after so long, however short the lease at the broker is, which a living member renews."""
        if self._ack_wait is not None:
            self._ack_wait = seconds

    # -- takers -----------------------------------------------------------

    def take(self, limit: int, timeout: float | None) -> list[Event[Any]] | None:
        """Return 1 to ``limit`` events; ``[]`` once closed, ``None`` when ``timeout`` seconds are up.

        Raises:
            CloudRuntimesError: the subscription ended with it.
        """
        end = None if timeout is None else monotonic() + timeout
        while True:
            if (events := self._hand_out(limit)) is not None:
                return events
            ticket = self._changes.ticket()
            if (events := self._hand_out(limit)) is not None:
                return events
            if not self._changes.wait(ticket, None if end is None else end - monotonic()):
                return None

    async def take_async(self, limit: int, timeout: float | None) -> list[Event[Any]] | None:
        """Asynchronous `take`."""
        end = None if timeout is None else monotonic() + timeout
        while True:
            if (events := self._hand_out(limit)) is not None:
                return events
            future = self._changes.future()
            if (events := self._hand_out(limit)) is not None:
                return events
            if not await self._changes.wait_async(future, None if end is None else end - monotonic()):
                return None

    def _hand_out(self, limit: int) -> list[Event[Any]] | None:
        """Return events that are there, ``[]`` once closed, ``None`` if there are none now."""
        events: list[Event[Any]] = []
        try:
            while self._ready and not self._closing:
                try:
                    # moved by one call into C: an interrupt finds each event here or there, never in between
                    events.extend(starmap(self._ready.popleft, repeat((), limit)))
                except IndexError:
                    pass
                if events:
                    self._handed.append((self._give_up_at(), events))
                    if fitting := self._fitting(events) if self._typed else events:
                        return fitting
                    events = []
        except BaseException:
            if events:
                self.settle(events, Verdict.RETURN, None)
            raise
        return [] if self._over() else None

    def _give_up_at(self) -> float:
        return float("inf") if self._ack_wait is None else monotonic() + self._ack_wait

    def _over(self) -> bool:
        if self.error is not None:
            raise self.error
        return self._closing

    def _fitting(self, events: list[Event[Any]]) -> list[Event[Any]]:
        """Return the events whose data fits the type asked for; the others are settled as poison."""
        fitting = []
        for event in events:
            try:
                event.data  # noqa: B018
            except PayloadError as error:
                next = "becomes a dead letter" if self._poison is Verdict.DROP else "is delivered again"
                repeated(
                    f"poison {self.name}", "%s: event %s does not fit and %s: %s", self.name, event.id, next, error
                )
                self.settle((event,), self._poison, None, cause_of("undecodable", error))
            else:
                fitting.append(event)
        return fitting

    def wait(self) -> None:
        """Return once closed; raise the error that ended the subscription, if one did."""
        while not self._over():
            ticket = self._changes.ticket()
            if self._over():
                return
            self._changes.wait(ticket, None)

    async def wait_async(self) -> None:
        """Asynchronous `wait`."""
        while not self._over():
            future = self._changes.future()
            if self._over():
                return
            await self._changes.wait_async(future, None)

    def settle(
        self, events: Sequence[Event[Any]], verdict: Verdict, delay: float | None, cause: Cause | None = None
    ) -> None:
        """Queue an answer for those of ``events`` that have none; waits for nobody."""
        count = len(events)
        self._settled.append((events, verdict, delay, cause))
        self._waiting += count
        if not self._woken and (self._waiting >= self._flush_at or self._waiting >= self._open):
            self._woken = True
            self._source.wake()

    # -- the thread -------------------------------------------------------

    def _run(self) -> None:
        backoff = 0.0
        answers = Answers()
        while True:
            ending = self._ending  # before the last look at what was settled
            self._woken = False
            self._take_answers()
            self._give_up_overdue()
            if self._abandoned and not ending:
                self._settle(self._drain(), Verdict.RETURN, None)
                ending = not self._handed
            answers.groups += self._answers.groups
            self._answers = Answers()
            if ending:
                self._drain()  # the source gives it back
                # what was handed out and has no answer was delivered; what was not goes back uncounted
                held = [event for _, events in self._handed for event in events if event._verdict is None]
                answers.add([event._token for event in held], Verdict.RETURN)
                break
            want = 0 if self._closing else self._max_in_flight - self._open
            if want < self._low and self._ready:
                want = 0
            try:
                if answers or want:
                    deliveries = self._source.exchange(answers, want)
                    answers = Answers()
                    self._admit(deliveries)
                    backoff = 0.0
                self._source.wait(LANDING if self._open else _IDLE)
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
        name, type, raw = self.pubsub_name, self._type, self._raw
        events: list[Event[Any]] = []
        if isinstance(deliveries, Deliveries):
            for records, count in deliveries.groups:
                events += kernel.receive_events(Event, records, count, self, name, type, raw)
        else:
            for record, token, count in deliveries:
                events.append(
                    Event(record, pump=self, token=token, pubsub_name=name, delivery_count=count, type=type, raw=raw)
                )
        self._open += len(events)
        if not self._closing:  # else: unhanded, given back by the source's close
            self._ready.extend(events)
            self._changes.announce()

    def _take_answers(self) -> None:
        """Turn what was settled into answers; of several for one event the first counts."""
        settled = self._settled
        while settled:
            events, verdict, delay, cause = settled.popleft()
            self._waiting -= len(events)
            self._settle(events, verdict, delay, cause)

    def _settle(
        self, events: Sequence[Event[Any]], verdict: Verdict, delay: float | None, cause: Cause | None = None
    ) -> None:
        tokens = kernel.settle_events(events, verdict)
        self._answers.add(tokens, verdict, delay, cause)
        self._open -= len(tokens)

    def _drain(self) -> list[Event[Any]]:
        """Take back what was fetched and not handed out."""
        events: list[Event[Any]] = []
        try:
            events.extend(starmap(self._ready.popleft, repeat(())))
        except IndexError:
            pass
        return events

    def _give_up_overdue(self) -> None:
        """Have events delivered again that were handed out ``ack_wait`` ago and have no answer."""
        now = monotonic()
        while self._handed and self._handed[0][0] <= now:
            self._settle(self._handed.popleft()[1], Verdict.RETRY, 0.0)
        while self._handed and kernel.all_settled(self._handed[0][1]):
            self._handed.popleft()

    def _end(self, error: CloudRuntimesError | None) -> None:
        self.error = self.error or error
        self._closing = True
        self._changes.announce()

    def stop(self) -> None:
        """Hand out nothing any more; takers see the end."""
        self._closing = True
        self._changes.announce()

    def abandon(self) -> None:
        """Nobody can take events any more: leave the group once what was handed out is settled or given up."""
        self.stop()
        self._abandoned = True
        self._source.wake()

    def end(self, timeout: float | None) -> bool:
        """Land the answers, give the rest back, and wait for the thread; tells whether it ended in time."""
        self._ending = True
        if not self._thread.started:  # its start was interrupted: let it do the leaving
            self._thread.start()
        self._source.wake()
        return self._thread.join(timeout)


def _unexpected(name: str, error: Exception) -> CloudRuntimesError:
    wrapped = InternalError(f"{name}: {type(error).__name__}: {error}", service="pubsub", operation="subscribe")
    wrapped.__cause__ = error
    return wrapped
