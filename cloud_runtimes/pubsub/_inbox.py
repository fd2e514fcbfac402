"""Transactions that settle events: whoever handles the events opens them. The thread of the subscription commits those of the events' own engine, since it alone speaks to the source. A store of another engine gets the ids of the events in the commit."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Final, NamedTuple

from .._core.arguments import HIDDEN
from .._native import events as kernel
from ..errors import ClosedError, ConflictError
from ..spi.change import Change
from ..spi.operation import Operation, mark_interrupted
from ..spi.pubsub import EventSource, Settlement
from ..spi.state import StateWrite
from .types import Event

_SETTLEMENT: Final = attrgetter("_settlement")
_TOKEN: Final = attrgetter("_token")
_PREFIX: Final = f"{HIDDEN}inbox{HIDDEN}"
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
"""Ids that are part of a key as they are; of others a hash is."""


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
        if any(map(_SETTLEMENT, events)):
            raise ConflictError(f"an event of {self._name} is settled already, by an answer or since ack_wait is over")
        source.commit(op, list(map(_TOKEN, events)), changes)

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


class HandledIds:
    """Ids of events in a store of another engine than theirs. They lie there in the commit of what came of the events, so that a repetition finds them.

    Args:
        name: of the subscription, for messages.
        group: what tells its group from others.
        events: that the transaction handles.
        retention: seconds for which the store keeps an id.
        acknowledge: is told of events that are done with.

    Attributes:
        keys: of the ids.
        writes: that put them into the store, where they are not.
    """

    def __init__(
        self,
        name: str,
        group: Sequence[str],
        events: Sequence[Event[Any]],
        retention: float,
        acknowledge: Callable[[Sequence[Event[Any]]], None],
    ) -> None:
        self._name = name
        self._events = events
        self._acknowledge = acknowledge
        self.keys = [_key(group, event.source, event.id) for event in events]
        self.writes = [StateWrite(key, b"1", create=True, ttl_ms=int(retention * 1000)) for key in self.keys]

    def check(self) -> None:
        """Refuse events that are settled already, and a batch that has one twice; acknowledge all but the first of these.

        Raises:
            ConflictError: one is, or it has.
        """
        if any(map(_SETTLEMENT, self._events)):
            raise ConflictError(f"an event of {self._name} is settled already, by an answer or since ack_wait is over")
        first = dict(zip(reversed(self.keys), reversed(self._events), strict=True))
        if len(first) < len(self._events):
            repeated = [event for key, event in zip(self.keys, self._events, strict=True) if first[key] is not event]
            self._acknowledge(repeated)
            raise ConflictError(
                f"{len(repeated)} of a batch of {self._name} repeat others of it and are settled now; the others come again"
            )

    def done(self) -> None:
        """Acknowledge all of them: their commit was made."""
        self._acknowledge(self._events)

    def resolve(self, found: Collection[str], conflict: ConflictError) -> None:
        """Acknowledge those whose ids the store has already, where a commit met a conflict.

        Raises:
            ConflictError: not all are; nothing was written.
        """
        before = [event for key, event in zip(self.keys, self._events, strict=True) if key in found]
        if not before:
            raise conflict
        self._acknowledge(before)
        if others := len(self._events) - len(before):
            raise ConflictError(
                f"{len(before)} of a batch of {self._name} were handled before and are settled now; "
                f"the other {others} come again"
            ) from conflict


def _key(group: Sequence[str], source: str, id: str) -> str:
    """Return the key of an event's id. Ids of one source stay in their order, which is mostly that of time: stores write neighbours fastest."""
    return _of_source(*group, source) + (id if _PLAIN.fullmatch(id) else f"={_digest(id)}")


@lru_cache(maxsize=256)
def _of_source(*names: str) -> str:
    return f"{_PREFIX}{_digest(*names)}{HIDDEN}"


def _digest(*names: str) -> str:
    digest = blake2b(digest_size=12)
    for name in names:
        digest.update(b"%d:%b" % (len(name), name.encode()))
    return digest.hexdigest()
