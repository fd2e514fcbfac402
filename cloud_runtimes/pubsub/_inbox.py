"""Transactions that settle events: whoever handles the events opens them, the thread of the subscription commits them, since it alone speaks to the source."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, NamedTuple

from .._native import events as kernel
from ..errors import ClosedError, ConflictError
from ..spi.change import Change
from ..spi.operation import Operation, mark_interrupted
from ..spi.pubsub import EventSource, Settlement
from .types import Event


class _Commit(NamedTuple):
    """Transaction to commit; ``done`` gets its outcome."""

    op: Operation
    events: Sequence[Event[Any]]
    changes: Sequence[Change]
    done: Future[None]


class Inbox:
    """The transactions of one subscription.

    Args:
        name: of the subscription, for messages.
        wake: has its thread call `run` soon.
        settled: is told of events that a transaction has settled.
    """

    def __init__(self, name: str, wake: Callable[[], None], settled: Callable[[Sequence[Event[Any]]], None]) -> None:
        self._name = name
        self._wake = wake
        self._tell = settled
        self._waiting: deque[_Commit] = deque()
        self._closed = False

    def add(self, op: Operation, events: Sequence[Event[Any]], changes: Sequence[Change]) -> Future[None]:
        """Have a transaction committed; the future gets its outcome."""
        done: Future[None] = Future()
        self._waiting.append(_Commit(op, events, changes, done))
        self._wake()
        if self._closed:
            self.close()
        return done

    def late(self, op: Operation) -> Exception:
        """Return the error of a transaction that was not begun in time."""
        return op.timed_out(f"the turn to commit to {self._name}")

    # -- the thread -------------------------------------------------------

    def run(self, source: Any) -> int:
        """Commit what waits, each by itself; return how many events that settled."""
        settled = 0
        while self._waiting:
            op, events, changes, done = self._waiting.popleft()
            if not done.set_running_or_notify_cancel():
                continue
            try:
                self._commit(source, op, events, changes)
            except Exception as error:
                done.set_exception(error)
            else:
                settled += len(kernel.settle_events(events, Settlement.ACK))
                self._tell(events)
                done.set_result(None)
        return settled

    def _commit(
        self, source: EventSource, op: Operation, events: Sequence[Event[Any]], changes: Sequence[Change]
    ) -> None:
        if any(event._settlement is not None for event in events):
            raise ConflictError(f"an event of {self._name} is settled already, by an answer or since ack_wait is over")
        source.commit(op, [event._token for event in events], changes)

    def close(self) -> None:
        """Refuse what waits, and all that comes later."""
        self._closed = True
        while self._waiting:
            done = self._waiting.popleft().done
            if done.set_running_or_notify_cancel():
                done.set_exception(ClosedError(f"the subscription to {self._name} has ended: its events come again"))


class Settling:
    """Commit target of a transaction: acknowledges some events along with it."""

    def __init__(self, inbox: Inbox, events: Sequence[Event[Any]]) -> None:
        self._inbox = inbox
        self._events = events

    def commit(self, op: Operation, changes: Sequence[Change]) -> None:
        """Acknowledge events and apply changes in one transaction."""
        done = self._inbox.add(op, self._events, changes)
        try:
            done.result(op.remaining())
        except FutureTimeout:
            if done.cancel():
                raise self._inbox.late(op) from None
            done.result()  # it has begun, and ends by the deadline
        except BaseException as error:
            if not isinstance(error, Exception):
                mark_interrupted(error, not done.cancel())
            raise

    async def commit_async(self, op: Operation, changes: Sequence[Change]) -> None:
        """Acknowledge events and apply changes in one transaction."""
        done = self._inbox.add(op, self._events, changes)
        result = asyncio.wrap_future(done)
        try:
            await asyncio.wait({result}, timeout=op.remaining())
            if not result.done() and done.cancel():
                raise self._inbox.late(op)
            await result
        except asyncio.CancelledError as error:
            mark_interrupted(error, not done.cancel())
            raise
