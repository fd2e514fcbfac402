"""A member of a consumer group on the log: claims slices of frames, holds them, settles them.

It belongs to the thread of its subscription; only `wake` may be called from others.
"""

from __future__ import annotations

import os
import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from itertools import count as counter
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from ..._native import events as kernel
from ...errors import CloudRuntimesError
from ...spi.events import dead_letter
from ...spi.operation import Method, Operation
from ...spi.pubsub import Cause, Deliveries, EventSource, Settled, Settlement, Settlements, SubscribeRequest
from . import log
from .log import Claimed
from .writes import WriteTask

if TYPE_CHECKING:
    from . import SqliteComponent
    from .notifier import Waiter

__all__ = ["Member"]

_POLL: Final = Method("pubsub", "receive", repeatable=False)
_TIMEOUT: Final = 30.0
_FRAMES_KEPT: Final = 8
_SEEN_EVERY: Final = 60.0
_DEFAULT_ACK_WAIT: Final = 30.0
_DEFAULT_DELIVERIES: Final = 5
_PAST_KEPT: Final = 4096
_numbers = counter()

# one look, without writing: is there anything to take, and if not, when will there be
_LOOK: Final = """
SELECT
  EXISTS (SELECT 1 FROM frames WHERE topic = :topic AND (id > g.frame OR (id = g.frame AND count > g.position)) AND id >= g.frame),
  (SELECT min(deadline) FROM claims WHERE grp = :group),
  (SELECT min(due) FROM delayed WHERE topic = :topic)
FROM groups g WHERE g.id = :group
"""


class _Held(kernel.Marks):
    """A claim of this member, in memory: what of it is settled, and when it was delivered (microseconds since 1970 UTC). Void once all of it is written, or another member has it."""

    def __init__(self, claim: Claimed, at: int) -> None:
        super().__init__(claim.length, claim.settled)
        self.claim = claim
        self.at = at


class _Pending(NamedTuple):
    """What one write settles: claims with their bitmaps (``None``: all settled), settlements other than ACK, and how many events expired."""

    bitmaps: list[tuple[int, bytes | None]]
    settled: list[Settled]
    expired: int


class _DeadLetter(NamedTuple):
    """An event for the dead-letter topic: where it is, why it goes there, and how often the group got it."""

    frame: int
    place: int
    cause: Cause
    deliveries: int


class _Past(NamedTuple):
    """What this member remembers of an event that comes again: its first and last delivery (microseconds since 1970 UTC), and the last error."""

    first: int | None = None
    last: int | None = None
    error: str | None = None


class Member(EventSource):
    """See the module; made by `SqlitePubSub.subscribe`, which runs `joining` and hands its result to `join`."""

    def __init__(self, context: SqliteComponent, pubsub: str, request: SubscribeRequest) -> None:
        self._context = context
        self._engine = context.engine
        self._clocks = context.clocks
        self._pubsub = pubsub
        self._request = request
        self._boot = self._clocks.boot_id()
        self._name = f"{os.getpid()}-{next(_numbers)}-{os.urandom(4).hex()}"
        self._ack_wait_ms = int((request.ack_wait or _DEFAULT_ACK_WAIT) * 1000)
        self._max_deliveries = request.max_deliveries or (_DEFAULT_DELIVERIES if request.dead_letter_topic else None)
        self._label = f"{pubsub}/{request.topic}/{request.group}"
        self._begin()

    def _begin(self) -> None:
        """Hold nothing."""
        self._waiter: Waiter | None = None
        self._held: dict[int, _Held] = {}
        # claimed and not yet delivered; settlements, and events found expired, not yet written
        self._claimed: list[Claimed] = []
        self._unwritten: list[Settled] = []
        self._expired = 0
        self._past: OrderedDict[tuple[int, int], _Past] = (
            OrderedDict()
        )  # of events that were retried, by frame and place
        self._frames: OrderedDict[int, kernel.Frame] = OrderedDict()
        self._topic = self._group = 0
        self._renewed = 0
        self._seen = monotonic()
        self._next_due: float | None = None

    # -- joining ----------------------------------------------------------

    def joining(self, *, again: bool = False) -> WriteTask:
        """Return the write that makes the group. A member that joins ``again`` has seen all events of before."""

        def body(connection: sqlite3.Connection) -> tuple[int, int]:
            topic = log.find_topic(connection, self._pubsub, self._request.topic)
            latest = self._request.start == "latest" and not again
            wall = self._clocks.wall_ms()
            return topic, log.join_group(connection, topic, self._request.group, latest, self._boot, wall)

        return WriteTask(body, durable=self._context.durable)

    def join(self, joined: tuple[int, int]) -> None:
        """Take up the numbers of the topic and the group."""
        self._topic, self._group = joined

    def _rejoin(self) -> Deliveries:
        """Join the group in the database that is there now. What was held is void."""
        for held in self._held.values():
            held.void = True
        self._unsubscribe()
        self._engine = self._context.engine
        self._begin()
        self.join(self._engine.run(self.joining(again=True), self._operation()))
        return Deliveries()

    # -- the source -------------------------------------------------------

    def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Deliveries:
        return self._engine.unless_gone(lambda: self._poll(settled, want, timeout), self._rejoin)

    def _poll(self, settled: Sequence[Settled], want: int, timeout: float | None) -> Deliveries:
        waiter = self._waiter
        if waiter is None:
            self._waiter = self._engine.notifier.subscribe(log.topic_channel(self._topic))
        self._mark(settled)
        touched = any(held.touched for held in self._held.values())
        renew = bool(self._held) and self._clocks.boot_ms() >= self._renewed + self._ack_wait_ms // 3
        seen = monotonic() >= self._seen + _SEEN_EVERY
        wanting = want > 0 and not self._claimed
        if touched or self._unwritten or self._expired or renew or seen:
            # what is there is found by the write that has to be made anyway
            self._write(want if wanting else 0, renew, seen)
            if wanting and not self._claimed:
                self._look()  # for when there will be
        elif wanting and self._look():
            self._write(want, renew, seen)
        deliveries = self._deliver()
        if not deliveries and waiter is not None:  # nobody could wake it before
            pause = 60.0 if timeout is None else timeout
            waiter.wait(pause if self._next_due is None else min(pause, max(0.001, self._next_due)))
        return deliveries

    def wake(self) -> None:
        if (waiter := self._waiter) is not None:
            waiter.wake()

    def _write(self, want: int, renew: bool, seen: bool) -> None:
        """Settle, renew and claim in one transaction; what failed is tried again with the next poll."""
        pending = self._pending()

        def body(connection: sqlite3.Connection) -> tuple[list[int], list[Claimed]]:
            now, wall = self._clocks.boot_ms(), self._clocks.wall_ms()
            lost = self._settle(connection, pending, now, task)
            if renew:
                connection.execute(
                    "UPDATE claims SET deadline = ? WHERE grp = ? AND member = ?",
                    (now + self._ack_wait_ms, self._group, self._name),
                )
            if seen:
                connection.execute("UPDATE groups SET seen = ? WHERE id = ?", (wall, self._group))
            return lost, self._claim(connection, want, now, wall, task) if want else []

        # what only moves claims may be lost with the power: it is delivered again then. A dead letter is a publish.
        durable = self._context.durable and (
            self._max_deliveries is not None or any(each.settlement is Settlement.DROP for each in pending.settled)
        )
        idle = not self._held
        self._next_due = None
        task = WriteTask(body, durable=durable)
        lost, claimed = self._engine.run(task, self._operation())
        self._claimed += claimed
        if renew or idle:
            self._renewed = self._clocks.boot_ms()
        if seen:
            self._seen = monotonic()
        self._unwritten, self._expired = [], 0
        for id, _ in pending.bitmaps:
            held = self._held[id]
            held.touched = False
            if not held.left or id in lost:
                held.void = True
                del self._held[id]

    def close(self, settled: Sequence[Settled], /) -> None:
        self._mark(settled)
        pending = self._pending()
        left = [held.claim._replace(settled=held.settled) for held in self._held.values() if held.left]
        left += self._claimed

        def body(connection: sqlite3.Connection) -> None:
            lost = self._settle(connection, pending, self._clocks.boot_ms(), task)
            for claim in left:
                if claim.id not in lost:
                    log.hand_back(connection, claim, self._name)

        task = WriteTask(body, durable=self._context.durable, channels=(log.topic_channel(self._topic),))
        try:
            self._engine.run(task, self._operation())
        finally:
            self._unsubscribe()

    def _unsubscribe(self) -> None:
        if self._waiter is not None:
            self._waiter.close()

    def _operation(self) -> Operation:
        return Operation(_POLL, self._pubsub, _TIMEOUT)

    def _look(self) -> bool:
        """Tell whether there is anything to take; else note when there will be."""
        rows = self._engine.query(None, _LOOK, {"topic": self._topic, "group": self._group})
        if not rows:
            return False
        fresh, deadline, due = rows[0]
        if fresh:
            return True
        left = []
        if deadline is not None:
            left.append((deadline - self._clocks.boot_ms()) / 1000)
        if due is not None:
            left.append((due - self._clocks.wall_ms()) / 1000)
        self._next_due = min(left) if left else None
        return self._next_due is not None and self._next_due <= 0

    # -- claims -----------------------------------------------------------

    def _claim(self, connection: sqlite3.Connection, want: int, now: int, wall: int, task: WriteTask) -> list[Claimed]:
        deadline = now + self._ack_wait_ms
        delayed, overdue = log.due(connection, self._topic, wall, self._group, now)
        if delayed:
            log.move_delayed(connection, self._topic, wall)
        claimed: list[Claimed] = []
        if overdue:
            claimed = log.take_over(connection, self._group, self._name, self._boot, now, deadline, want)
        if self._max_deliveries is not None:
            claimed = [each for each in claimed if not self._exhausted(connection, each, task)]
        want -= sum(len(each.open()) for each in claimed)
        if want > 0:
            claimed += log.claim_new(connection, self._topic, self._group, self._name, self._boot, deadline, want, wall)
        return claimed

    def _exhausted(self, connection: sqlite3.Connection, claim: Claimed, task: WriteTask) -> bool:
        """Dead-letter a claim that was delivered often enough, its last holder having died with it."""
        assert self._max_deliveries is not None
        if claim.deliveries <= self._max_deliveries:
            return False
        cause, count = Cause("deliveries"), claim.deliveries - 1
        events = [_DeadLetter(claim.frame, claim.start + place, cause, count) for place in claim.open()]
        self._bury(connection, events, task)
        log.settle_claim(connection, claim.id, self._name, None)
        return True

    # -- settlements ------------------------------------------------------

    def _mark(self, settled: Sequence[Settled]) -> None:
        """Mark what is settled; settlements other than ACK are kept for the next write."""
        for tokens, settlement, delay, cause in Settlements(settled).groups:
            marked = kernel.mark_records(tokens)
            if settlement is not Settlement.ACK:
                self._unwritten += [Settled(token, settlement, delay, cause) for token in marked]
                if self._request.dead_letter_topic and settlement is not Settlement.RELEASE:
                    for record in marked:
                        self._remember(record, cause)

    def _pending(self) -> _Pending:
        """Gather what is to be written, so that the write reads nothing that may change meanwhile."""
        bitmaps = [(id, held.settled if held.left else None) for id, held in self._held.items() if held.touched]
        return _Pending(bitmaps, list(self._unwritten), self._expired)

    def _settle(self, connection: sqlite3.Connection, pending: _Pending, now: int, task: WriteTask) -> list[int]:
        """Write settlements; returns the claims that had gone to others, whose settlements are void."""
        lost = [id for id, settled in pending.bitmaps if not log.settle_claim(connection, id, self._name, settled)]
        if pending.expired:
            log.count(connection, f"expired:{self._label}", pending.expired)
        again: list[tuple[int, int, int, int]] = []
        dead: list[_DeadLetter] = []
        for record, settlement, delay, cause in pending.settled:
            claim: Claimed = record.marks.claim
            if claim.id in lost:
                continue
            event = (claim.frame, claim.start + record.place)
            exhausted = self._max_deliveries is not None and claim.deliveries >= self._max_deliveries
            if settlement is Settlement.DROP:
                dead.append(_DeadLetter(*event, cause or Cause("dropped"), claim.deliveries))
            elif settlement is Settlement.RELEASE:
                again.append((*event, 0, claim.deliveries))
            elif exhausted:
                dead.append(_DeadLetter(*event, cause or Cause("deliveries"), claim.deliveries))
            else:
                seconds = min(60.0, 2.0 ** (claim.deliveries - 1)) if delay is None else delay
                again.append((*event, now + int(seconds * 1000), claim.deliveries))
        if again:
            log.park(connection, self._group, self._boot, again)
        if dead:
            self._bury(connection, dead, task)
        return lost

    # -- dead letters -----------------------------------------------------

    def _bury(self, connection: sqlite3.Connection, events: Sequence[_DeadLetter], task: WriteTask) -> None:
        """Move events to the dead-letter topic, or count them as dropped."""
        target = self._request.dead_letter_topic
        if target is None:
            log.count(connection, f"dropped:{self._label}", len(events))
            return
        topic = log.find_topic(connection, self._pubsub, target)
        wall = self._clocks.wall_ms()
        by_frame: dict[int, list[_DeadLetter]] = {}
        for event in events:
            by_frame.setdefault(event.frame, []).append(event)
        for number, body in log.bodies(connection, list(by_frame)).items():
            frame = kernel.Frame(body)
            records = [self._record(frame, event) for event in by_frame[number]]
            built = kernel.build_frame(frame.source, frame.type, frame.topic, records)
            log.append(connection, topic, len(records), built, wall)
        log.count(connection, f"dead_lettered:{self._label}", len(events))
        task.channels += (log.topic_channel(topic),)

    def _record(self, frame: kernel.Frame, event: _DeadLetter) -> bytes:
        past = self._past.get((event.frame, event.place), _Past())
        cause = event.cause if event.cause.error else event.cause._replace(error=past.error)
        try:
            return dead_letter(
                frame[event.place],
                cause,
                topic=self._request.topic,
                group=self._request.group,
                count=event.deliveries,
                first_us=past.first,
                last_us=past.last,
            )
        except CloudRuntimesError:  # of another writer, with attributes that ours may not have: it goes as it is
            return frame.record_bytes(event.place)

    def _remember(self, record: kernel.ClaimedRecord, cause: Cause | None) -> None:
        """Note what a dead letter will tell of an event that was delivered and not acknowledged."""
        held = record.marks
        place = held.claim.frame, held.claim.start + record.place
        past = self._past.pop(place, _Past())
        first = held.at if held.claim.deliveries == 1 else past.first
        self._past[place] = _Past(first, held.at, past.error if cause is None else cause.error)
        if len(self._past) > _PAST_KEPT:
            self._past.popitem(last=False)

    # -- delivering -------------------------------------------------------

    def _deliver(self) -> Deliveries:
        """Turn claims into deliveries; a claim whose frame cannot be read stays for the next time."""
        deliveries = Deliveries()
        now_us = self._clocks.wall_ms() * 1000
        while self._claimed:
            claim = self._claimed[0]
            frame = self._frame(claim.frame)
            held = _Held(claim, now_us)
            gone: Sequence[int] = claim.open()
            if frame is not None:
                records: list[kernel.ClaimedRecord] = []
                gone = frame.deliver(claim.start, gone, now_us, held, records)
                deliveries.groups.append((records, claim.deliveries))
                self._expired += len(gone)
            for place in gone:
                held.settle(place)  # expired, or dropped from a full log
            if claim.id in self._held:
                # overdue, and taken over from ourselves: only settlements of the later delivery count
                self._held[claim.id].void = True
            self._held[claim.id] = held
            del self._claimed[0]
        return deliveries

    def _frame(self, id: int) -> kernel.Frame | None:
        frame = self._frames.get(id)
        if frame is None:
            rows = self._engine.query(None, "SELECT body FROM frames WHERE id = ?", (id,))
            if not rows:
                return None
            frame = self._frames[id] = kernel.Frame(rows[0][0])
            while len(self._frames) > _FRAMES_KEPT:
                self._frames.popitem(last=False)
        return frame
