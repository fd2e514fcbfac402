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
from ...errors import CloudRuntimesError, UnavailableError
from ...pubsub.letters import dead_letter
from ...spi.operation import Method, Operation
from ...spi.pubsub import Cause, Deliveries, EventSource, Settled, Settlement, Settlements, SubscribeRequest
from . import log
from .bell import Waiter
from .job import Job
from .log import Claimed

if TYPE_CHECKING:
    from .pubsub import SqlitePubSub

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
    """A claim of this member, in memory: what of it is settled, and when it was handed on (microseconds since 1970 UTC). Void once it is landed as a whole, or went to another member."""

    def __init__(self, claim: Claimed, at: int) -> None:
        super().__init__(claim.length, claim.settled)
        self.claim = claim
        self.at = at


class _Past(NamedTuple):
    """What this member remembers of an event that is to come again: when it got it first and last, and the last error. Times are microseconds since 1970 UTC."""

    first: int | None
    last: int | None
    error: str | None


_NO_PAST: Final = _Past(None, None, None)


class _Letter(NamedTuple):
    """An event on its way to the dead-letter topic: where it stands, why it goes there, and how often the group got it."""

    frame: int
    place: int
    cause: Cause
    deliveries: int


class _Landing(NamedTuple):
    """What one round writes: claims with their bitmaps (``None``: all settled), settlements other than ACK, whose tokens are records; how many expired."""

    bitmaps: list[tuple[int, bytes | None]]
    settled: list[Settled]
    expired: int


class Member(EventSource):
    """See the module; made and joined by `SqlitePubSub.subscribe`."""

    def __init__(self, driver: SqlitePubSub, request: SubscribeRequest) -> None:
        self._driver = driver
        self._engine = driver.engine
        self._clocks = driver.engine.clocks
        self._request = request
        self._boot = self._clocks.boot_id()
        self._name = f"{os.getpid()}-{next(_numbers)}-{os.urandom(4).hex()}"
        self._ack_wait_ms = int((request.ack_wait or _DEFAULT_ACK_WAIT) * 1000)
        self._max_deliveries = request.max_deliveries or (_DEFAULT_DELIVERIES if request.dead_letter_topic else None)
        self._label = f"{driver.name}/{request.topic}/{request.group}"
        self._waiter: Waiter | None = None
        self._gone = False
        self._begin()

    def _begin(self) -> None:
        """Hold nothing."""
        self._held: dict[int, _Held] = {}
        # claimed and not yet handed on; settlements, and events found expired, not yet written
        self._claimed: list[Claimed] = []
        self._unlanded: list[Settled] = []
        self._expired = 0
        # of events that were retried, by frame and place; only where there is a dead-letter topic to tell
        self._past: OrderedDict[tuple[int, int], _Past] = OrderedDict()
        self._frames: OrderedDict[int, kernel.Frame] = OrderedDict()
        self._topic = self._group = 0
        self._renewed = 0
        self._seen = monotonic()
        self._next_due: float | None = None

    # -- joining ----------------------------------------------------------

    def joining(self, *, again: bool = False) -> Job:
        """Return the job that makes the group; its result goes to `join`. One that joins ``again`` has heard all there was."""

        def body(connection: sqlite3.Connection) -> tuple[int, int]:
            topic = log.find_topic(connection, self._driver.name, self._request.topic)
            latest = self._request.start == "latest" and not again
            wall = self._clocks.wall_ms()
            return topic, log.join_group(connection, topic, self._request.group, latest, self._boot, wall)

        return Job(body, durable=self._driver.component.durable)

    def join(self, joined: tuple[int, int]) -> None:
        """Take up the group's number and hang up the bell."""
        from .pubsub import bell

        self._topic, self._group = joined
        self._waiter = self._engine.bells.waiter(bell(self._topic))
        if self._gone:
            self.unhang()

    def _rejoin(self) -> None:
        """Join the group in the database that is there now, since the files of the last one are gone. What was held is void."""
        for held in self._held.values():
            held.void = True
        component = self._driver.component
        self._driver = component.driver("pubsub", self._driver.name)  # type: ignore[assignment]
        self._engine = self._driver.engine
        self._begin()
        self.join(self._engine.run(self.joining(again=True), self._operation()))

    def unhang(self) -> None:
        """Take the bell down again; also one that another thread is just hanging up."""
        self._gone = True
        if self._waiter is not None:
            self._waiter.close()

    # -- the source -------------------------------------------------------

    def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Deliveries:
        if self._engine.gone is None:
            try:
                deliveries = self._poll(settled, want)
                if not deliveries:
                    self._wait(timeout)
                return deliveries
            except UnavailableError:
                if self._engine.gone is None:
                    raise
        self._rejoin()
        return Deliveries()

    def _wait(self, timeout: float | None) -> None:
        """Return when there may be events, when woken, or after ``timeout`` seconds."""
        assert self._waiter is not None
        limits = [self._waiter.net]
        if timeout is not None:
            limits.append(timeout)
        if self._next_due is not None:
            limits.append(max(0.001, self._next_due))
        self._waiter.wait(min(limits))

    def wake(self) -> None:
        if self._waiter is not None:
            self._waiter.ring()

    def _poll(self, settled: Sequence[Settled], want: int) -> Deliveries:
        self._mark(settled)
        touched = any(held.touched for held in self._held.values())
        renew = bool(self._held) and self._clocks.boot_ms() >= self._renewed + self._ack_wait_ms // 3
        seen = monotonic() >= self._seen + _SEEN_EVERY
        wanting = want > 0 and not self._claimed
        if touched or self._unlanded or self._expired or renew or seen:
            # what is there is found by the round that has to be made anyway
            self._round(want if wanting else 0, renew, seen)
            if wanting and not self._claimed:
                self._look()  # for when there will be
        elif wanting and self._look():
            self._round(want, renew, seen)
        return self._deliver()

    def _round(self, want: int, renew: bool, seen: bool) -> None:
        """Land, renew and claim in one transaction; what failed is tried again with the next poll."""
        landing = self._landing()

        def body(connection: sqlite3.Connection) -> tuple[list[int], list[Claimed]]:
            now, wall = self._clocks.boot_ms(), self._clocks.wall_ms()
            lost = self._land(connection, landing, now)
            if renew:
                connection.execute(
                    "UPDATE claims SET deadline = ? WHERE grp = ? AND member = ?",
                    (now + self._ack_wait_ms, self._group, self._name),
                )
            if seen:
                connection.execute("UPDATE groups SET seen = ? WHERE id = ?", (wall, self._group))
            return lost, self._claim(connection, want, now, wall) if want else []

        # what only moves claims may be lost with the power: it is delivered again then. A dead letter is a publish.
        durable = self._driver.component.durable and (
            self._max_deliveries is not None or any(each.settlement is Settlement.DROP for each in landing.settled)
        )
        idle = not self._held
        self._next_due = None
        lost, claimed = self._engine.run(Job(body, durable=durable, bells=self._dead_bells()), self._operation())
        self._claimed += claimed
        if renew or idle:
            self._renewed = self._clocks.boot_ms()
        if seen:
            self._seen = monotonic()
        self._unlanded, self._expired = [], 0
        for id, _ in landing.bitmaps:
            held = self._held[id]
            held.touched = False
            if not held.left or id in lost:
                held.void = True
                del self._held[id]

    def close(self, settled: Sequence[Settled], /) -> None:
        self._mark(settled)
        landing = self._landing()
        left = [held.claim._replace(settled=held.settled) for held in self._held.values() if held.left]
        left += self._claimed

        def body(connection: sqlite3.Connection) -> None:
            lost = self._land(connection, landing, self._clocks.boot_ms())
            for claim in left:
                if claim.id not in lost:
                    log.hand_back(connection, claim, self._name)

        from .pubsub import bell

        try:
            if self._group:
                bells = (bell(self._topic), *self._dead_bells())
                self._engine.run(Job(body, durable=self._driver.component.durable, bells=bells), self._operation())
        finally:
            self.unhang()

    def _operation(self) -> Operation:
        return Operation(_POLL, self._driver.name, _TIMEOUT)

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

    def _claim(self, connection: sqlite3.Connection, want: int, now: int, wall: int) -> list[Claimed]:
        deadline = now + self._ack_wait_ms
        delayed, overdue = log.due(connection, self._topic, wall, self._group, now)
        if delayed:
            log.move_delayed(connection, self._topic, wall)
        claimed: list[Claimed] = []
        if overdue:
            claimed = log.take_over(connection, self._group, self._name, self._boot, now, deadline, want)
        if self._max_deliveries is not None:
            claimed = [each for each in claimed if not self._exhausted(connection, each)]
        want -= sum(len(each.open()) for each in claimed)
        if want > 0:
            claimed += log.claim_new(connection, self._topic, self._group, self._name, self._boot, deadline, want, wall)
        return claimed

    def _exhausted(self, connection: sqlite3.Connection, claim: Claimed) -> bool:
        """Put a claim away that was delivered often enough, its last holder having died with it."""
        assert self._max_deliveries is not None
        if claim.deliveries <= self._max_deliveries:
            return False
        cause, count = Cause("deliveries"), claim.deliveries - 1
        self._put_away(connection, [_Letter(claim.frame, claim.start + place, cause, count) for place in claim.open()])
        log.settle_claim(connection, claim.id, self._name, None)
        return True

    def _put_away(self, connection: sqlite3.Connection, events: Sequence[_Letter]) -> None:
        """Move events to the dead-letter topic, or count them as dropped."""
        target = self._request.dead_letter_topic
        if target is None:
            log.count(connection, f"dropped:{self._label}", len(events))
            return
        topic = log.find_topic(connection, self._driver.name, target)
        wall = self._clocks.wall_ms()
        by_frame: dict[int, list[_Letter]] = {}
        for event in events:
            by_frame.setdefault(event.frame, []).append(event)
        for number, body in log.bodies(connection, list(by_frame)).items():
            frame = kernel.Frame(body)
            records = [self._letter(frame, event) for event in by_frame[number]]
            letters = kernel.build_frame(frame.source, frame.type, frame.topic, records)
            connection.execute(
                "INSERT INTO frames (topic, count, size, created, body) VALUES (?, ?, ?, ?, ?)",
                (topic, len(records), len(letters), wall, letters),
            )
        log.count(connection, f"dead_lettered:{self._label}", len(events))

    def _letter(self, frame: kernel.Frame, event: _Letter) -> bytes:
        past = self._past.get((event.frame, event.place), _NO_PAST)
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

    def _remember(self, record: kernel.Record, cause: Cause | None) -> None:
        """Note what a dead letter will tell of an event that was delivered and not acknowledged."""
        held: _Held = record.held
        place = held.claim.frame, held.claim.start + record.place
        past = self._past.pop(place, _NO_PAST)
        first = held.at if held.claim.deliveries == 1 else past.first
        error = past.error if cause is None else cause.error
        self._past[place] = _Past(first, held.at, error)
        if len(self._past) > _PAST_KEPT:
            self._past.popitem(last=False)

    def _dead_bells(self) -> tuple[str, ...]:
        from .pubsub import bell

        target = self._request.dead_letter_topic
        number = None if target is None else self._driver._topics.get(target)
        if target is not None and number is None:
            rows = self._engine.query(
                None, "SELECT id FROM topics WHERE pubsub = ? AND name = ?", (self._driver.name, target)
            )
            number = rows[0][0] if rows else None
        return () if number is None else (bell(number),)

    def _mark(self, settled: Sequence[Settled]) -> None:
        """Mark what is settled; settlements other than ACK are kept for the round."""
        for tokens, settlement, delay, cause in Settlements(settled).groups:
            marked = kernel.mark_records(tokens)
            if settlement is not Settlement.ACK:
                self._unlanded += [Settled(token, settlement, delay, cause) for token in marked]
                if self._request.dead_letter_topic and settlement is not Settlement.RELEASE:
                    for record in marked:
                        self._remember(record, cause)

    def _landing(self) -> _Landing:
        """Gather what is to be written, so that the round reads nothing that may change meanwhile."""
        bitmaps = [(id, held.settled if held.left else None) for id, held in self._held.items() if held.touched]
        return _Landing(bitmaps, list(self._unlanded), self._expired)

    def _land(self, connection: sqlite3.Connection, landing: _Landing, now: int) -> list[int]:
        """Write settlements; returns the claims that had gone to others, whose settlements are void."""
        lost = [id for id, settled in landing.bitmaps if not log.settle_claim(connection, id, self._name, settled)]
        if landing.expired:
            log.count(connection, f"expired:{self._label}", landing.expired)
        again: list[tuple[int, int, int, int]] = []
        away: list[_Letter] = []
        for record, settlement, delay, cause in landing.settled:
            claim: Claimed = record.held.claim
            if claim.id in lost:
                continue
            event = (claim.frame, claim.start + record.place)
            if settlement is Settlement.DROP:
                away.append(_Letter(*event, cause or Cause("dropped"), claim.deliveries))
            elif (
                settlement is Settlement.RETRY
                and self._max_deliveries is not None
                and claim.deliveries >= self._max_deliveries
            ):
                away.append(_Letter(*event, cause or Cause("deliveries"), claim.deliveries))
            elif settlement is Settlement.RETRY:
                seconds = min(60.0, 2.0 ** (claim.deliveries - 1)) if delay is None else delay
                again.append((*event, now + int(seconds * 1000), claim.deliveries))
            else:
                again.append((*event, 0, claim.deliveries))
        if again:
            log.park(connection, self._group, self._boot, again)
        if away:
            self._put_away(connection, away)
        return lost

    # -- handing on -------------------------------------------------------

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
                records: list[kernel.Record] = []
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
