"""A member of a consumer group on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from ...spi.broker.ordered import PARTS
from ...spi.broker.policy import begins_at
from ...spi.change import Change
from ...spi.operation import Operation
from ...spi.pubsub import Deliveries, Settled, SubscribeRequest
from .._log.claims import Claimed, Writes
from .._log.member import MEMBER_MS, LogMember
from . import SqliteComponent, log
from .writes import WriteTask, apply_all

if TYPE_CHECKING:
    from .notifier import Waiter

# one look, without writing: is there anything to take, and if not, when will there be
_LOOK: Final = """
SELECT
  EXISTS (SELECT 1 FROM frames WHERE topic = :topic AND (id > g.frame OR (id = g.frame AND count > g.position)) AND id >= g.frame),
  (SELECT min(deadline) FROM claims WHERE grp = :group),
  (SELECT min(due) FROM delayed WHERE topic = :topic)
FROM groups g WHERE g.id = :group
"""


class Member(LogMember):
    """See the module; made by `SqlitePubSub.subscribe`, which runs `joining` and hands its result to `join`."""

    def __init__(self, context: SqliteComponent, pubsub: str, request: SubscribeRequest) -> None:
        self._context = context
        self._engine = context.engine
        self._clocks = context.clocks
        self._boot = self._clocks.boot_id()
        self._topic = self._group = 0
        super().__init__(pubsub, request)

    # -- joining ----------------------------------------------------------

    def joining(self, *, again: bool = False) -> WriteTask:
        """Return the write that makes the group. A member that joins ``again`` has seen all events of before."""

        def body(connection: sqlite3.Connection) -> tuple[int, int]:
            topic = log.find_topic(connection, self.pubsub, self.request.topic)
            begins = None if again else begins_at(self.request)
            wall, parts = self._clocks.wall_ms(), None if self.request.order is None else PARTS
            name = self.request.group
            group, its_parts = log.join_group(
                connection, topic, name, begins, self._boot, wall, parts, self.request.dead_letter_topic
            )
            self._policy.check_order(has_order=its_parts is not None)
            if parts is None:
                log.stay(connection, group, self.name, self._boot, self._clocks.boot_ms(), MEMBER_MS)
            return topic, group

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

    def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Deliveries:
        poll = super().poll
        return self._engine.unless_gone(lambda: poll(settled, want, timeout), self._rejoin)

    # -- what the database does -------------------------------------------

    def _clock(self) -> float:
        return self._clocks.boot_ms() / 1000

    def _now_us(self) -> int:
        return self._clocks.wall_ms() * 1000

    def _wait_on(self) -> Waiter:
        return self._engine.notifier.subscribe(log.topic_channel(self._topic))

    def _look(self) -> tuple[bool, float | None]:
        rows = self._engine.query(None, _LOOK, {"topic": self._topic, "group": self._group})
        if not rows:
            raise self.no_group()
        fresh, deadline, due = rows[0]
        delays = []
        if deadline is not None:
            delays.append((deadline - self._clocks.boot_ms()) / 1000)
        if due is not None:
            delays.append((due - self._clocks.wall_ms()) / 1000)
        soonest = min(delays) if delays else None
        return fresh or (soonest is not None and soonest <= 0), soonest

    def is_paused(self) -> bool:
        rows = self._engine.query(None, "SELECT paused FROM groups WHERE id = ?", (self._group,))
        return bool(rows and rows[0][0])

    def _commit(
        self, op: Operation, writes: Writes, changes: Sequence[Change] | None = None
    ) -> tuple[Collection[int], list[Claimed]]:
        def body(connection: sqlite3.Connection) -> tuple[list[int], list[Claimed]]:
            now, wall = self._clocks.boot_ms(), self._clocks.wall_ms()
            task.channels = channels
            lost = self._settle(connection, writes, now, wall, task)
            if changes is not None:
                if lost:
                    raise self.gone()
                task.channels += apply_all(connection, changes)
            if writes.renew:
                # not those of a transaction of which it is not known whether it was made: they go to whoever is there
                ids = [*self._held, *(claim.id for claim in self._claimed)]
                rows = [(now + self.ack_wait_ms, id, self.name) for id in ids]
                connection.executemany("UPDATE claims SET deadline = ? WHERE id = ? AND member = ?", rows)
            if writes.seen:
                connection.execute("UPDATE groups SET seen = ? WHERE id = ?", (wall, self._group))
                log.stay(connection, self._group, self.name, self._boot, now, MEMBER_MS)
            if writes.leave:
                log.leave(connection, self._group, self.name)
            return lost, self._claim(connection, writes.want, now, wall) if writes.want else []

        channels = (log.topic_channel(self._topic),) if writes.back else ()
        task = WriteTask(body, durable=self._context.durable and writes.durable)
        return self._engine.run(task, op)  # type: ignore[no-any-return]

    def _give_back(self, claims: Sequence[int]) -> None:
        def body(connection: sqlite3.Connection) -> None:
            log.release(connection, claims, self.name)

        # behind all writes that have begun
        self._engine.run(WriteTask(body, durable=self._context.durable), self._operation())

    def _claim(self, connection: sqlite3.Connection, want: int, now: int, wall: int) -> list[Claimed]:
        deadline = now + self.ack_wait_ms
        delayed, overdue = log.due(connection, self._topic, wall, self._group, now)
        if delayed:
            log.move_delayed(connection, self._topic, wall)
        claimed: list[Claimed] = []
        if overdue:
            claimed = log.take_over(connection, self._group, self.name, self._boot, now, deadline, want)
        want -= sum(each.remaining for each in claimed)
        if want > 0:
            claimed += log.claim_new(connection, self._topic, self._group, self.name, self._boot, deadline, want, wall)
        return claimed

    def _settle(
        self, connection: sqlite3.Connection, writes: Writes, now: int, wall: int, task: WriteTask
    ) -> list[int]:
        """Write settlements; returns the claims that had gone to others, whose settlements are void."""
        lost = [id for id, settled in writes.settled if not log.settle_claim(connection, id, self.name, settled)]
        if writes.expired:
            log.count(connection, f"expired:{self.label}", writes.expired)
        again = [
            (each.frame, each.position, now + each.delay_ms if each.delay_ms else 0, each.deliveries, each.part)
            for each in writes.again
            if each.claim not in lost
        ]
        if again:
            log.park(connection, self._group, self._boot, again)
        for claim, events, frame in writes.dead:
            if claim in lost:
                continue
            if frame is not None and self.request.dead_letter_topic is not None:
                topic = log.find_topic(connection, self.pubsub, self.request.dead_letter_topic)
                log.append(connection, topic, events, frame, wall)
                task.channels += (log.topic_channel(topic),)
            log.count(connection, f"{'dropped' if frame is None else 'dead_lettered'}:{self.label}", events)
        for back in writes.back:
            if back.id not in lost:
                log.hand_back(connection, back, self.name)
        return lost

    def _load(self, frame: int) -> bytes | None:
        rows = self._engine.query(None, "SELECT body FROM frames WHERE id = ?", (frame,))
        return rows[0][0] if rows else None
