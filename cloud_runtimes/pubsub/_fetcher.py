"""Fetcher between an `EventSource` and the takers of its events.

It fetches ahead up to ``max_in_flight`` unsettled events and settles in groups. It returns events that were handed
out and not settled within ``ack_wait``, so that they are delivered again. A thread drives it, or for an
`AsyncEventSource` a task.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, wait
from itertools import repeat, starmap
from math import inf
from time import monotonic
from typing import Any, Final, TypeAlias

from .._core.logs import in_development, once, repeated
from .._core.threads import Background
from .._native import events as kernel
from ..errors import ClosedError, CloudRuntimesError
from ..spi.events import cause_of
from ..spi.flow import run_sync
from ..spi.pubsub import (
    AsyncEventSource,
    Cause,
    Deliveries,
    Delivery,
    EventSource,
    Settlement,
    Settlements,
    SubscribeRequest,
)
from ._ordering import WAITING, KeyOrder
from ._takers import Takers, id_of, name_of
from .types import Event, SubscriptionStats

LANDING: Final = 0.05
"""Seconds within which a settlement reaches the source."""
_LOOK: Final = 0.5
"""Seconds after which a member looks again whether its group is paused."""
_LATE: Final = 1000
"""Events that were given up whose answers are waited for."""
RunTask: TypeAlias = Callable[[Coroutine[Any, Any, None]], "Future[None]"]


class Fetcher(Takers):
    """Drives one source; see the module.

    ``run_task`` starts a coroutine in the client's own loop, for an `AsyncEventSource`. The rest is of `Takers`.
    """

    def __init__(
        self,
        source: EventSource | AsyncEventSource,
        pubsub_name: str,
        request: SubscribeRequest,
        *,
        run_task: RunTask,
        can_pause: bool,
        **more: Any,
    ) -> None:
        super().__init__(source, pubsub_name, request, **more)
        # whether the group is paused, when to look again, and what it was not handed out because of it
        self._paused = False
        self._look_at = 0.0 if can_pause else inf
        self._kept: list[Event[Any]] = []
        self._in_loop = isinstance(source, AsyncEventSource)
        self._runner: Background | _Task = (
            _Task(self._run, run_task)
            if self._in_loop
            else Background(lambda: run_sync(self._run()), "cloud-runtimes-subscription")
        )

    def start(self) -> None:
        """Start the thread or task."""
        self._runner.start()

    # -- the thread or task -----------------------------------------------

    async def _poll(self, want: int, timeout: float | None) -> Sequence[Delivery]:
        result: Any = self._source.poll(self._telling, want, timeout)
        deliveries: Sequence[Delivery] = await result if self._in_loop else result
        return deliveries

    async def _pause(self, seconds: float) -> None:
        if self._in_loop:
            await self._pauses.wait_for_async(lambda: self._woken, seconds)
        else:
            self._pauses.wait_for(lambda: self._woken, seconds)

    async def _run(self) -> None:
        """Poll and settle until the end; in a thread nothing of it suspends."""
        deliveries: Sequence[Delivery] = ()
        while True:
            ending = self._ending  # before the last look at what was settled
            self._woken = False
            self._take_settled()
            committed = self.inbox.run(self._source)
            self._open -= committed
            self._counts["ack"] += committed
            if self._observe is not None:
                self._observe(self.stats(), deliveries)
            deliveries = ()
            self._give_up_overdue()
            if self._order is not None and not self._closing and self._order.repeat(self._is_handled):
                self._offer()
            if self._abandoned and not ending:
                self._tell(self._drain(), Settlement.RELEASE)
                ending = not self._handed and not self._extended
            if ending:
                self._drain()  # the source gives it back
                # what was handed out and is not settled was delivered; what was not goes back uncounted
                handed = [event for _, events in self._handed for event in events]
                handed += [event for _, event in self._extended.values()]
                handed += [event for worker in self._workers if (event := worker.event) is not None]
                held = [event for event in handed if event._settlement is None]
                self._telling.add([event._token for event in held], Settlement.RELEASE)
                if self._order is not None:
                    self._telling.add(self._order.pending(), Settlement.RELEASE)
                break
            want = 0 if self._closing or self._paused else self._room()
            if want < self._low and self._ready:
                want = 0
            timeout = LANDING if self._open else None
            if timeout is not None and self._order is not None:
                timeout = self._order.next_due(timeout)
            if self._paused and self._open == len(self._kept):  # nobody has an answer
                timeout = _LOOK
            try:
                deliveries = await self._poll(want, timeout)
                if (deliveries or self._open or self._paused) and monotonic() >= self._look_at:
                    await self._look()
            except Exception as error:
                if self._order is not None:  # some sources lose what they hold with their connection
                    self._follow(self._order)
                pause = self.health.failed(error)
                if pause is None:
                    self._end(self.health.problem)
                    break
                await self._pause(pause)
            else:
                self.health.works()
                self._telling = Settlements()
                self._admit(deliveries)
                if self._order is not None:
                    self._follow(self._order)
        try:
            closing: Any = self._source.close(self._telling)
            if self._in_loop:
                await closing
        except Exception as error:
            # nothing is lost by this: what was not given back comes again after ack_wait
            if not isinstance(error, ClosedError):  # the client is gone already, as at exit
                repeated(f"subscription {self.name}", "%s: leaving the group failed: %s", self.name, error)
        self._end(None)

    async def _look(self) -> None:
        """Keep events back while the group is paused."""
        self._look_at = monotonic() + _LOOK
        try:
            result: Any = self._source.is_paused()
            paused: bool = await result if self._in_loop else result
        except CloudRuntimesError as error:  # the next poll tells
            if error.retryable:
                self._look_at = monotonic() + LANDING
            return
        if paused == self._paused:
            return
        self._paused = paused
        if self._order is not None:
            self._order.is_paused = paused
        elif paused:
            self._kept = self._drain()
        else:
            kept, self._kept = self._kept, []
            self._ready.extend(kept)
        self._announce()

    def stats(self) -> SubscriptionStats:
        """Return a snapshot of the counters."""
        counts = self._counts
        waiting = self._order.queue.waiting if self._order is not None and self._open else 0
        seconds = self._batch_seconds + sum(worker.busy for worker in self._workers)
        return SubscriptionStats(
            counts["ack"], counts["retry"], counts["drop"], counts["again"], self._open, waiting, seconds
        )

    def _room(self) -> int:
        """Return for how many more events there is room; those that wait for an earlier one of their key take none up to a limit."""
        room = self._max_in_flight - self._open
        if self._order is None:
            return room
        if len(self._ready) >= self._low:
            return 0
        return room + min(self._order.queue.waiting, WAITING * self._max_in_flight)

    def _follow(self, order: KeyOrder) -> None:
        """Hand out no more of what the source has lost or gives away."""
        could = order.may_take
        self._open -= order.follow(self._telling)
        if self._ready and not could:
            self._offer()

    def _is_handled(self, event: Event[Any]) -> bool:
        if self._late and self._late.get(name_of(event), event) is None:
            return True  # and acknowledged, as `_take_settled` will find
        return any(worker.event is event for worker in self._workers)

    def _admit(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        name, type, raw = self.pubsub_name, self._type, self._raw
        events: list[Event[Any]] = []
        if isinstance(deliveries, Deliveries):
            for records, count in deliveries.groups:
                events += kernel.receive_events(Event, records, count, self, name, type, raw)
                if count is not None and count > 1:
                    self._counts["again"] += len(records)
        else:
            for record, token, count in deliveries:
                events.append(
                    Event(record, fetcher=self, token=token, pubsub_name=name, delivery_count=count, type=type, raw=raw)
                )
                if count is not None and count > 1:
                    self._counts["again"] += 1
        self._open += len(events)
        if self._late:
            done = [event for event in events if self._late.get(name_of(event), event) is None]
            self._tell(done, Settlement.ACK)
            for event in done:
                del self._late[name_of(event)]
            events = [event for event in events if event._settlement is None]
        if not self._closing:  # else: unhanded, given back by the source's close
            if self._order is None:
                (self._kept if self._paused else self._ready).extend(events)
            else:
                kernel.hand_out(events, False)
                self._order.queue.add(events)
            self._offer()

    def _take_settled(self) -> None:
        """Gather what was settled; of several settlements of one event the first counts."""
        # a handler's own answer is there before it is through
        done = [event for worker in self._workers for event in worker.take_done()]
        if self._order is not None:
            done += self._order.queue.take_done()
        settled = self._settled
        acknowledged: list[Event[Any]] = []
        while settled:
            events, settlement, delay, cause = settled.popleft()
            self._waiting -= len(events)
            if settlement is Settlement.ACK:
                acknowledged += events
                continue
            if acknowledged:
                self._tell(acknowledged, Settlement.ACK)
                acknowledged = []
            self._settle(events, settlement, delay, cause)
        if acknowledged or done:
            if self._late and self._order is not None:
                late = [event for event in acknowledged + done if self._late.get(name_of(event), event) is None]
                if answered := self._order.answer_late(late, self._telling):
                    self._open -= answered
                    self._counts["ack"] += answered
                    self._offer()  # keys are free
            self._tell(acknowledged + done, Settlement.ACK)
        while self.took:
            self._batch_seconds += self.took.popleft()

    def _settle(
        self, events: Sequence[Event[Any]], settlement: Settlement, delay: float | None, cause: Cause | None = None
    ) -> None:
        if self._order is not None and settlement is not Settlement.ACK:
            self._open -= self._order.settle(events, settlement, delay, cause, self._telling)
            self._offer()  # keys may be free
        else:
            self._tell(events, settlement, delay, cause)

    def _tell(
        self,
        events: Sequence[Event[Any]],
        settlement: Settlement,
        delay: float | None = None,
        cause: Cause | None = None,
    ) -> None:
        """Tell the source of events with its next poll."""
        tokens = kernel.settle_events(events, settlement)
        self._telling.add(tokens, settlement, delay, cause)
        self._open -= len(tokens)
        self._counts[settlement.value] += len(tokens)

    def _drain(self) -> list[Event[Any]]:
        """Take back what was fetched and not handed out."""
        events, self._kept = self._kept, []
        try:
            events.extend(starmap(self._ready.popleft, repeat(())))
        except IndexError:
            pass
        return events

    def _give_up_overdue(self) -> None:
        """Have events delivered again that were handed out ``ack_wait`` ago and are not settled."""
        now = monotonic()
        while self._handed and self._handed[0][0] <= now:
            events = self._handed.popleft()[1]
            if self._extended:
                events = [event for event in events if id(event) not in self._extended]
            self._give_up(events)
        while self._handed and kernel.all_settled(self._handed[0][1]):
            self._handed.popleft()
        for key, (until, event) in list(self._extended.items()):
            if until <= now or event._settlement is not None:
                del self._extended[key]
                self._give_up((event,))
        if self._handler_timeout is not None:
            for worker in self._workers:
                event = worker.event
                if event is not None and worker.held() >= self._handler_timeout and event is worker.event:
                    self._give_up((event,))

    def _give_up(self, events: Sequence[Event[Any]]) -> None:
        """Have events delivered again, unless they are settled; a handler that has them took too long."""
        if kernel.all_settled(events):
            return
        cause = None
        if self._handled:
            message = "the handler of %s has event %s for more than %g s: it is delivered again"
            repeated(f"slow {self.name}", message, self.name, id_of(events[0]), self._handler_timeout)
            cause = cause_of("deliveries", TimeoutError(f"the handler took longer than {self._handler_timeout:g} s"))
        elif in_development():
            message = "%s: event %s was received and not answered for %g s, so that it comes again: call ack(), retry() or drop(), or keep it by extend()"
            once(f"unanswered {self.name}", message, self.name, id_of(events[0]), self._ack_wait)
        self._late.update((name_of(event), event) for event in events if event._settlement is None)
        self._late.pop(None, None)
        while len(self._late) > _LATE:
            del self._late[next(iter(self._late))]
        self._settle(events, Settlement.RETRY, 0.0, cause)

    def _end(self, error: CloudRuntimesError | None) -> None:
        self.error = self.error or error
        self._open = 0
        if self._observe is not None:
            self._observe(self.stats(), ())
        self.stop()
        self._drain()
        self.inbox.close()
        self._announce()

    def stop(self) -> None:
        """Hand out nothing any more; takers see the end."""
        self._closing = True
        for worker in self._workers:
            worker.stopped = True
        self._announce()

    def abandon(self) -> None:
        """Nobody can take events any more: leave the group once what was handed out is settled or given up."""
        self.stop()
        self._abandoned = True
        self._wake()

    def end(self, timeout: float | None) -> bool:
        """Settle, give the rest back, and wait for the end; returns whether it ended in time."""
        self._ending = True
        if not self._runner.started:  # its start was interrupted: let it do the leaving
            self._runner.start()
        self._wake()
        return self._runner.join(timeout)


class _Task:
    """A coroutine in the client's own loop, with the methods of `Background` that are needed here."""

    def __init__(self, target: Callable[[], Coroutine[Any, Any, None]], run_task: RunTask) -> None:
        self._target = target
        self._run_task = run_task
        self._future: Future[None] | None = None

    @property
    def started(self) -> bool:
        """Whether `start` has been called."""
        return self._future is not None

    def start(self) -> None:
        """Start it, once."""
        if self._future is None:
            self._future = self._run_task(self._target())

    def join(self, timeout: float | None) -> bool:
        """Wait for its end at most ``timeout`` seconds; returns whether it has ended, or never began."""
        return self._future is None or bool(wait((self._future,), timeout).done)
