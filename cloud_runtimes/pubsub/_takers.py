"""Takers of the events of a subscription: what they are handed out, and what they answer.

Takers and settlements share no lock with the thread of the subscription, only deques with atomic operations. A ``KeyboardInterrupt`` at any point leaves an event in one of them. A signal handler may receive, settle and close.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat, starmap
from time import monotonic
from typing import TYPE_CHECKING, Any

from .._core import propagation
from .._core.logs import kind_of, repeated
from .._core.threads import Changes
from .._native import events as kernel
from .._service import Health
from ..errors import CloudRuntimesError, PayloadError, UnsupportedError
from ..spi.events import cause_of
from ..spi.pubsub import (
    AsyncEventSource,
    Cause,
    Delivery,
    EventSource,
    Settlement,
    Settlements,
    SubscribeRequest,
)
from ._inbox import Inbox
from ._ordering import KeyOrder
from .types import Event, SubscriptionStats

if TYPE_CHECKING:
    from ..state.transaction import StateTransaction


class Takers:
    """Takers of one source; see the module. `Fetcher` drives it.

    ``max_in_flight`` counts unsettled events, those fetched ahead included. ``ack_wait`` is ``None`` where the broker counts it itself. With ``handled`` a handler gets the events, which keeps them while it runs, for ``handler_timeout`` seconds at most. ``observe`` is told the counters where something came.
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
        # where workers and tasks wait, of which one wakes; where threads do, of which all wake; where the end is waited for
        self._idle, self._changes, self._ends = Changes(), Changes(), Changes()
        # fetched; handed out, with the time to give them up; settled
        self._ready: deque[Event[Any]] = deque()
        self._handed: deque[tuple[float, Sequence[Event[Any]]]] = deque()
        # by `id`, those whose taker asked for longer, and until when
        self._extended: dict[int, tuple[float, Event[Any]]] = {}
        self._settled: deque[tuple[Sequence[Event[Any]], Settlement, float | None, Cause | None]] = deque()
        # by source and id, those that were given up; `None`: they were acknowledged since
        self._late: dict[tuple[str, str] | None, Event[Any] | None] = {}
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
        return bool(self._idle.wait_for(self._for_workers, None))

    async def await_events_async(self) -> bool:
        """Wait until there are events for a worker; ``False`` once closed. Raises the error that ended the subscription."""
        return bool(await self._idle.wait_for_async(self._for_workers, None))

    @property
    def closing(self) -> bool:
        """Whether nothing is handed out any more."""
        return self._closing

    async def pause(self, seconds: float, *, sync: bool) -> None:
        """Wait so long, or until the subscription closes."""
        if sync:
            self._ends.wait_for(lambda: self._closing, seconds)
        else:
            await self._ends.wait_for_async(lambda: self._closing, seconds)

    def _announce(self) -> None:
        """Wake all who wait for anything."""
        for changes in (self._idle, self._changes, self._ends):
            changes.announce()

    def _offer(self) -> None:
        """Say that there are events, in the own thread or task. One worker wakes, and the next one where there is more than it takes: all of them would find nothing most of the time. Threads that take events may be interrupted, so all of those wake."""
        self._changes.announce()
        self._idle.announce_to_one()

    def _for_workers(self) -> int | None:
        """Return 1 where there are events, 0 once closed, ``None`` if there are none now."""
        if self._over():
            return 0
        if self._ready and self._may_take():
            if len(self._ready) > 1:
                self._idle.announce_to_one()  # who does the same
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
        events = self._hand_out(limit)
        if events is None:
            events = await self._idle.wait_for_async(partial(self._hand_out, limit), timeout)
        if self._ready:
            self._idle.announce_to_one()
        return events

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
                    if fitting := self._fitting(events):
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
        """Return the events whose data fits the type, where one was asked for; the others are settled as poison."""
        misfits = kernel.hand_out(events, self._typed)
        for event, error in misfits:
            self.poison(event, error)
        bad = {id(event) for event, _ in misfits}
        return [event for event in events if id(event) not in bad] if bad else events

    def poison(self, event: Event[Any], error: BaseException) -> None:
        """Settle an event whose data does not fit the type asked for."""
        next = "becomes a dead letter" if self._poison is Settlement.DROP else "is delivered again"
        message = "%s: event %s does not fit and %s: %s"
        repeated(f"poison {self.name} {kind_of(error)}", message, self.name, id_of(event), next, error)
        self.settle((event,), self._poison, None, cause_of("undecodable", error))

    def wait(self) -> None:
        """Return once closed; raise the error that ended the subscription, if one did."""
        self._ends.wait_for(self._over, None)

    async def wait_async(self) -> None:
        """Return once closed; raise the error that ended the subscription, if one did."""
        await self._ends.wait_for_async(self._over, None)

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
                self._announce()
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
        if event._settlement is not Settlement.RETRY or self._late.get(name := name_of(event)) is not event:
            return
        self._late[name] = None
        for again in self._ready.copy():
            if name_of(again) == name:
                try:
                    self._ready.remove(again)
                except (IndexError, ValueError):  # a taker was faster
                    continue
                self._late.pop(name, None)
                self.settle((again,), Settlement.ACK, None)

    def _release_keys(self, events: Sequence[Event[Any]]) -> None:
        """Let the next events of the keys of handled ones be handed out."""
        if self._order is not None and sum(map(self._order.queue.release, events)):
            self._announce()

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


def name_of(event: Event[Any]) -> tuple[str, str] | None:
    """Return what tells an event from all others, in every delivery; ``None``: another writer's, which cannot be read."""
    try:
        return event.source, event.id
    except PayloadError:
        return None


def id_of(event: Event[Any]) -> str:
    """Return the id of an event for the log; another writer's may be no text."""
    try:
        return event.id
    except PayloadError as error:
        return f"({error})"
