"""Fetcher between an `EventSource` and the takers of its events.

It fetches ahead up to ``max_in_flight`` unsettled events and settles in groups. It returns events that were handed
out and not settled within ``ack_wait``, so that they are delivered again. A thread drives it, or for an
`AsyncEventSource` a task.

Takers and settlements share no lock with it, only deques with atomic operations. A ``KeyboardInterrupt`` at any
point leaves an event in one of them. A signal handler may receive, settle and close.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, wait
from functools import partial
from itertools import repeat, starmap
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .._core import propagation
from .._core.logs import kind_of, repeated
from .._core.threads import Background, Changes
from .._native import events as kernel
from .._service import Health
from ..errors import ClosedError, CloudRuntimesError, PayloadError, UnsupportedError
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
from ._inbox import Inbox
from ._ordering import WAITING, KeyOrder
from .types import Event, SubscriptionStats

if TYPE_CHECKING:
    from ..state.transaction import StateTransaction

LANDING: Final = 0.05
"""Seconds within which a settlement reaches the source."""
_LATE: Final = 1000
"""Events that were given up whose answers are waited for."""
RunTask: TypeAlias = Callable[[Coroutine[Any, Any, None]], "Future[None]"]


class Fetcher:
    """Drives one source; see the module.

    ``max_in_flight`` counts unsettled events, those fetched ahead included. ``ack_wait`` is ``None`` where the broker counts it itself. With ``handled`` a handler gets the events, which keeps them while it runs, for ``handler_timeout`` seconds at most. ``run_task`` starts a coroutine in the client's own loop, for an `AsyncEventSource`. ``observe`` is told the counters where something came.
    """

    def __init__(
        self,
        source: EventSource | AsyncEventSource,
        pubsub_name: str,
        request: SubscribeRequest,
        *,
        type: Any,
        max_in_flight: int,
        ack_wait: float | None,
        handled: bool,
        handler_timeout: float | None,
        run_task: RunTask,
        open_transaction: Callable[..., StateTransaction],
        observe: Callable[[SubscriptionStats, Sequence[Delivery]], None] | None = None,
    ) -> None:
        self._source = source
        self._open_transaction = open_transaction
        self._observe = observe
        self.name = f"{pubsub_name}/{request.topic} (group {request.group})"
        self.pubsub_name = pubsub_name
        self._type = type
        self._raw = request.raw
        self._typed = type is not None
        self._max_in_flight = max_in_flight
        self._flush_at = max(1, max_in_flight // 2)
        self._low = max(1, max_in_flight // 4)
        self._ack_wait = ack_wait
        self._handled = handled
        self._handler_timeout = handler_timeout
        self._poison = Settlement.DROP if request.dead_letter_topic else Settlement.RETRY
        self._changes = Changes()
        # fetched; handed out, with the time to give them up; settled
        self._ready: deque[Event[Any]] = deque()
        self._handed: deque[tuple[float, Sequence[Event[Any]]]] = deque()
        # by `id`, those whose taker asked for longer, and until when
        self._extended: dict[int, tuple[float, Event[Any]]] = {}
        self._settled: deque[tuple[Sequence[Event[Any]], Settlement, float | None, Cause | None]] = deque()
        # by source and id, those that were given up; `None`: they were acknowledged since
        self._late: dict[tuple[str, str], Event[Any] | None] = {}
        # of the thread or task alone: what the source is told next, and how many events are not settled
        self._telling = Settlements()
        self._open = 0
        # about how many events `_settled` holds
        self._waiting = 0
        self._woken = False
        self._closing = False
        self._ending = self._abandoned = False
        self._pauses = Changes()
        # those that hand events to a handler, and note themselves what they are through with
        self._workers: list[kernel.Worker] = []
        # how many events got which answer, and came again; seconds that handlers of batches took, from any thread
        self._counts = {**{each.value: 0 for each in Settlement}, "again": 0}
        self.took: deque[float] = deque()
        self._batch_seconds = 0.0
        self._order: KeyOrder | None = None
        if request.order is not None:
            assert isinstance(source, EventSource)
            self._order = KeyOrder(self._ready, source, pubsub_name, request, self._counts)
        self.inbox = Inbox(self.name, self._wake, self._release_keys)
        self.error: CloudRuntimesError | None = None
        self.health = Health(self.name, "pubsub")
        self._in_loop = isinstance(source, AsyncEventSource)
        self._runner: Background | _Task = (
            _Task(self._run, run_task)
            if self._in_loop
            else Background(lambda: run_sync(self._run()), "cloud-runtimes-subscription")
        )

    def start(self) -> None:
        """Start the thread or task."""
        self._runner.start()

    def hold(self, seconds: float) -> None:
        """Redeliver unsettled events after ``seconds``, even if the broker's own lease is shorter."""
        if self._ack_wait is not None:
            self._ack_wait = seconds

    def worker(self, handler: Callable[..., Any], takes: Sequence[int], client: object, count: int) -> kernel.Worker:
        """Return one of ``count`` workers that hand events to a handler."""
        flush_at = max(1, self._flush_at // count) if self._order is None else self._flush_at
        worker = kernel.Worker(
            self._ready, handler, takes, client, typed=self._typed, flush_at=flush_at, wake=self._wake_once,
            enter=propagation.enter_event, late=self._acknowledge_late, keys=None if self._order is None else self._order.queue,
        )  # fmt: skip
        worker.stopped = self._closing
        self._workers.append(worker)
        return worker

    # -- takers -----------------------------------------------------------

    def await_events(self) -> bool:
        """Wait until there are events for a worker; ``False`` once closed. Raises the error that ended the subscription."""
        return bool(self._changes.wait_for(self._for_workers, None))

    async def await_events_async(self) -> bool:
        """Wait until there are events for a worker; ``False`` once closed. Raises the error that ended the subscription."""
        return bool(await self._changes.wait_for_async(self._for_workers, None))

    @property
    def closing(self) -> bool:
        """Whether nothing is handed out any more."""
        return self._closing

    async def pause(self, seconds: float, *, sync: bool) -> None:
        """Wait so long, or until the subscription closes."""
        if sync:
            self._changes.wait_for(lambda: self._closing, seconds)
        else:
            await self._changes.wait_for_async(lambda: self._closing, seconds)

    def _for_workers(self) -> int | None:
        """Return 1 where there are events, 0 once closed, ``None`` if there are none now."""
        if self._over():
            return 0
        if self._ready and self._may_take():
            return 1
        handled = self._handled_count + sum(worker.waiting for worker in self._workers)
        if handled >= self._flush_at or handled >= self._open:
            self._wake_once()
        return None

    def _may_take(self) -> bool:
        return self._order is None or self._order.may_take

    def take(self, limit: int, timeout: float | None) -> list[Event[Any]] | None:
        """Return 1 to ``limit`` events; ``[]`` once closed, ``None`` when ``timeout`` seconds are up. Raises the error that ended the subscription."""
        if (events := self._hand_out(limit)) is not None:
            return events
        return self._changes.wait_for(partial(self._hand_out, limit), timeout)

    async def take_async(self, limit: int, timeout: float | None) -> list[Event[Any]] | None:
        """Return 1 to ``limit`` events; ``[]`` once closed, ``None`` when ``timeout`` seconds are up. Raises the error that ended the subscription."""
        if (events := self._hand_out(limit)) is not None:
            return events
        return await self._changes.wait_for_async(partial(self._hand_out, limit), timeout)

    def _hand_out(self, limit: int) -> list[Event[Any]] | None:
        """Return events that are there, ``[]`` once closed, ``None`` if there are none now."""
        events: list[Event[Any]] = []
        try:
            while self._ready and not self._closing and self._may_take():
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
                self.settle(events, Settlement.RELEASE, None)
            raise
        return [] if self._over() else None

    def _give_up_at(self) -> float:
        limit = self._handler_timeout if self._handled else self._ack_wait
        return float("inf") if limit is None else monotonic() + limit

    def extend(self, events: Sequence[Event[Any]], seconds: float | None) -> None:
        """Give unsettled events ``seconds`` from now, by default ``ack_wait``; see `Event.extend`."""
        if self._handled:
            return  # kept while the handler runs
        if self._ack_wait is None:
            raise UnsupportedError(f"{self.name}: the broker alone counts how long an event may take: answer sooner")
        until = monotonic() + (self._ack_wait if seconds is None else seconds)
        for event in events:
            if event._settlement is None:
                self._extended[id(event)] = until, event

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
                self.poison(event, error)
            else:
                fitting.append(event)
        return fitting

    def poison(self, event: Event[Any], error: BaseException) -> None:
        """Settle an event whose data does not fit the type asked for."""
        next = "becomes a dead letter" if self._poison is Settlement.DROP else "is delivered again"
        message = "%s: event %s does not fit and %s: %s"
        repeated(f"poison {self.name} {kind_of(error)}", message, self.name, id_of(event), next, error)
        self.settle((event,), self._poison, None, cause_of("undecodable", error))

    def wait(self) -> None:
        """Return once closed; raise the error that ended the subscription, if one did."""
        self._changes.wait_for(self._over, None)

    async def wait_async(self) -> None:
        """Return once closed; raise the error that ended the subscription, if one did."""
        await self._changes.wait_for_async(self._over, None)

    def settle(
        self, events: Sequence[Event[Any]], settlement: Settlement, delay: float | None, cause: Cause | None = None
    ) -> None:
        """Queue a settlement for those of ``events`` that have none; waits for nobody."""
        count = len(events)
        if self._late and settlement is Settlement.ACK:
            for event in events:
                self._acknowledge_late(event)
        if self._order is not None and settlement is Settlement.ACK:
            # in the order in which their keys are free
            if sum(map(self._order.queue.finish, [event for event in events if event.key is not None])):
                self._changes.announce()
            events = [event for event in events if event.key is None]
            count = len(events)
        elif self._order is not None:
            for event in events:
                self._order.queue.keep(event)
        self._settled.append((events, settlement, delay, cause))
        self._waiting += count
        if self._handled_count >= self._flush_at or self._handled_count >= self._open:
            self._wake_once()

    @property
    def _handled_count(self) -> int:
        """About how many answers wait for the thread, without those of workers."""
        return self._waiting + (0 if self._order is None else self._order.queue.handled)

    def _acknowledge_late(self, event: Event[Any]) -> None:
        """Settle an event that was given up and is acknowledged now, unless somebody has it again. Any thread may call it."""
        if event._settlement is not Settlement.RETRY or self._late.get(name := _name(event)) is not event:
            return
        self._late[name] = None
        for again in self._ready.copy():
            if _name(again) == name:
                try:
                    self._ready.remove(again)
                except (IndexError, ValueError):  # a taker was faster
                    continue
                self.settle((again,), Settlement.ACK, None)

    def _release_keys(self, events: Sequence[Event[Any]]) -> None:
        """Let the next events of the keys of handled ones be handed out."""
        if self._order is not None and sum(map(self._order.queue.release, events)):
            self._changes.announce()

    def transaction(self, events: Sequence[Event[Any]], *arguments: Any) -> StateTransaction:
        """Return a transaction that settles events; see `Event.transaction`."""
        return self._open_transaction(self, events, *arguments)

    def _wake_once(self) -> None:
        if not self._woken:
            self._wake()

    def _wake(self) -> None:
        self._woken = True
        self._source.wake()
        self._pauses.announce()

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
                self._changes.announce()
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
            want = 0 if self._closing else self._room()
            if want < self._low and self._ready:
                want = 0
            timeout = LANDING if self._open else None
            if timeout is not None and self._order is not None:
                timeout = self._order.next_due(timeout)
            try:
                deliveries = await self._poll(want, timeout)
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
            self._changes.announce()

    def _is_handled(self, event: Event[Any]) -> bool:
        if self._late and self._late.get(_name(event), event) is None:
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
            done = [event for event in events if self._late.get(_name(event), event) is None]
            self._tell(done, Settlement.ACK)
            for event in done:
                del self._late[_name(event)]
            events = [event for event in events if event._settlement is None]
        if not self._closing:  # else: unhanded, given back by the source's close
            if self._order is None:
                self._ready.extend(events)
            else:
                self._order.queue.add(events)
            self._changes.announce()

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
                late = [event for event in acknowledged + done if self._late.get(_name(event), event) is None]
                if answered := self._order.answer_late(late, self._telling):
                    self._open -= answered
                    self._counts["ack"] += answered
                    self._changes.announce()  # keys are free
            self._tell(acknowledged + done, Settlement.ACK)
        while self.took:
            self._batch_seconds += self.took.popleft()

    def _settle(
        self, events: Sequence[Event[Any]], settlement: Settlement, delay: float | None, cause: Cause | None = None
    ) -> None:
        if self._order is not None and settlement is not Settlement.ACK:
            self._open -= self._order.settle(events, settlement, delay, cause, self._telling)
            self._changes.announce()  # keys may be free
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
        events: list[Event[Any]] = []
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
        self._late.update((_name(event), event) for event in events if event._settlement is None)
        while len(self._late) > _LATE:
            del self._late[next(iter(self._late))]
        self._settle(events, Settlement.RETRY, 0.0, cause)

    def _end(self, error: CloudRuntimesError | None) -> None:
        self.error = self.error or error
        self._open = 0
        if self._observe is not None:
            self._observe(self.stats(), ())
        self.stop()
        self.inbox.close()
        self._changes.announce()

    def stop(self) -> None:
        """Hand out nothing any more; takers see the end."""
        self._closing = True
        for worker in self._workers:
            worker.stopped = True
        self._changes.announce()

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


def _name(event: Event[Any]) -> tuple[str, str]:
    try:
        return event.source, event.id
    except PayloadError:  # of another writer
        return "", ""


def id_of(event: Event[Any]) -> str:
    """Return the id of an event for the log; another writer's may be no text."""
    try:
        return event.id
    except PayloadError as error:
        return f"({error})"
