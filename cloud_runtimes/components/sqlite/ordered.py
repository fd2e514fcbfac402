"""A member of a group on SQLite whose events come in the order of their keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

from ...spi.change import Change
from ...spi.operation import Operation
from .._log.claims import Claimed, Writes
from .._log.ordered import FOREVER, OrderedMember, PartWrites, Survey, split
from . import log
from .member import Member
from .writes import WriteTask, apply_all

LIMIT: Final = 256
"""Claims that are taken at once at most."""
_FRESH: Final = """
SELECT EXISTS (SELECT 1 FROM frames f WHERE f.topic = g.topic AND f.id >= g.frame AND (f.id > g.frame OR f.count > g.position)),
  (SELECT min(due) FROM delayed WHERE topic = g.topic) FROM groups g WHERE g.id = ?
"""
_LIVE: Final = "SELECT member FROM group_members WHERE grp = ? AND boot = ? AND deadline > ?"
_OWNERS: Final = "SELECT member FROM group_parts WHERE grp = ? ORDER BY part"
_OWNED: Final = "SELECT part FROM group_parts WHERE grp = ? AND member = ?"
_TAKE: Final = f"UPDATE group_parts SET member = ? WHERE grp = ? AND part = ? AND member NOT IN ({_LIVE})"
_FREE: Final = "UPDATE group_parts SET member = '' WHERE grp = ? AND part = ? AND member = ?"
_BACK: Final = (
    "UPDATE claims SET member = '', deadline = 0, deliveries = max(0, deliveries - 1) WHERE grp = ? AND part = ? AND member = ?"
)
# no settlement of an owner of before counts any more
_FENCE: Final = "UPDATE claims SET member = '', deadline = 0 WHERE grp = ? AND part = ? AND member <> ''"
_FREE_CLAIMS: Final = (
    "FROM claims WHERE grp = ? AND part IN (SELECT part FROM group_parts WHERE grp = ? AND member = ?) "
    "AND member = '' AND deadline <= ?"
)
_TURNS: Final = (
    f"SELECT id, frame, start, count, deliveries, settled, part {_FREE_CLAIMS} ORDER BY frame, start LIMIT {LIMIT}"
)
_MINE: Final = "SELECT id FROM claims WHERE grp = ? AND member = ?"
_UNKNOWN: Final = "UPDATE claims SET member = '', deadline = 0, deliveries = max(0, deliveries - 1) WHERE id = ?"
_PICK: Final = "UPDATE claims SET member = ?, boot = ?, deadline = ?, deliveries = deliveries + 1 WHERE id = ?"
# of events that another program has claimed or copied
_PLAIN: Final = "FROM claims WHERE grp = ? AND part IS NULL AND deadline <= ?"
_PLAIN_TURNS: Final = (
    f"SELECT id, frame, start, count, deliveries, settled {_PLAIN} ORDER BY frame, start LIMIT {LIMIT}"
)
_CURSOR: Final = "UPDATE groups SET frame = ?, position = ?, seen = ? WHERE id = ?"


class KeyOrderMember(OrderedMember, Member):
    """See the module."""

    def _begin(self) -> None:
        super()._begin()
        self._has_plain = False

    def _survey(self) -> Survey:
        query, group = self._engine.query, self._group
        now, wall = self._clocks.boot_ms(), self._clocks.wall_ms()
        live = {row[0] for row in query(None, _LIVE, (group, self._boot, now))}
        owners = [row[0] for row in query(None, _OWNERS, (group,))]
        if not (rows := query(None, _FRESH, (group,))):
            raise self.no_group()
        ((fresh, due),) = rows
        self._has_plain = bool(query(None, f"SELECT EXISTS (SELECT 1 {_PLAIN})", (group, now))[0][0])
        waits = (
            self._has_plain
            or query(None, f"SELECT EXISTS (SELECT 1 {_FREE_CLAIMS})", (group, group, self.name, now))[0][0]
        )
        next_due = None if due is None else (due - wall) / 1000
        return Survey(live, owners, bool(fresh or waits or (next_due is not None and next_due <= 0)), next_due)

    def _commit(
        self, op: Operation, writes: Writes, changes: Sequence[Change] | None = None
    ) -> tuple[Collection[int], list[Claimed]]:
        parts = writes.parts or PartWrites()

        def body(connection: sqlite3.Connection) -> tuple[list[int], list[Claimed], set[int]]:
            now, wall = self._clocks.boot_ms(), self._clocks.wall_ms()
            task.channels = ()
            lost = self._settle(connection, writes, now, wall, task)
            if changes is not None:
                if lost:
                    raise self.gone()
                task.channels += apply_all(connection, changes)
            if writes.seen:
                connection.execute("UPDATE groups SET seen = ? WHERE id = ?", (wall, self._group))
            self._move_parts(connection, writes, parts, now)
            if parts.give or parts.leave:
                task.channels += (log.topic_channel(self._topic),)
            owned = {row[0] for row in connection.execute(_OWNED, (self._group, self.name))}
            claimed = self._pick(connection, writes.want, owned - self._leaving, now, wall) if writes.want else []
            return lost, claimed, owned

        task = WriteTask(body, durable=self._context.durable and writes.durable)
        lost, claimed, owned = self._engine.run(task, op)
        self._changed(parts, owned, lost)
        return lost, claimed

    def _move_parts(self, connection: sqlite3.Connection, writes: Writes, parts: PartWrites, now: int) -> None:
        group, me = self._group, self.name
        give = parts.give
        if parts.leave:
            give = [row[0] for row in connection.execute(_OWNED, (group, me))]
            log.leave(connection, group, me)
        for part in give:
            connection.execute(_BACK, (group, part, me))
            connection.execute(_FREE, (group, part, me))
        if writes.renew:
            log.stay(connection, group, me, self._boot, now, self.ack_wait_ms)
        for part in parts.take:
            if connection.execute(_TAKE, (me, group, part, group, self._boot, now)).rowcount:
                connection.execute(_FENCE, (group, part))

    def _pick(self, connection: sqlite3.Connection, want: int, owned: set[int], now: int, wall: int) -> list[Claimed]:
        """Claim events of own parts: first those that are claimed already, then new ones."""
        if not owned:
            return []
        group, me = self._group, self.name
        if log.due(connection, self._topic, wall, group, 0)[0]:
            log.move_delayed(connection, self._topic, wall)
        if not self._sure:  # whether an earlier transaction has claimed any is not known
            mine = {row[0] for row in connection.execute(_MINE, (group, me))}
            known = {*self._held, *(claim.id for claim in self._claimed)}
            connection.executemany(_UNKNOWN, [(id,) for id in mine - known])
        if self._has_plain:
            self._split_plain(connection, now)
        claimed: list[Claimed] = []
        rows = connection.execute(_TURNS, (group, group, me, now)).fetchall()
        for row in rows:
            claim = Claimed(*row)
            if claim.part not in owned:
                continue
            if want <= 0:
                return claimed
            connection.execute(_PICK, (me, self._boot, FOREVER, claim.id))
            claimed.append(claim._replace(deliveries=claim.deliveries + 1))
            want -= claim.remaining
        if len(rows) < LIMIT:
            claimed += self._split(connection, want, owned, wall)
        return claimed

    def _split(self, connection: sqlite3.Connection, want: int, owned: set[int], wall: int) -> list[Claimed]:
        """Move the group's cursor, and claim what it passes for the owners of its parts."""
        group, me = self._group, self.name
        frame, position, parts = connection.execute(
            "SELECT frame, position, parts FROM groups WHERE id = ?", (group,)
        ).fetchone()
        raw, start = self._raw_want(want, parts) if want > 0 else 0, (frame, position)
        claimed: list[Claimed] = []
        load = partial(self._body, connection)
        while raw > 0:
            rows = connection.execute(log.NEXT, (self._topic, frame, 64)).fetchall()
            for id, count in rows:
                first = position if id == frame else 0
                frame, position = id, first
                if count == first:
                    continue
                stop = min(count, first + raw)
                for part, begin, length, settled in split(self._deal(id, count, parts, load), first, stop - first):
                    mine = part in owned
                    held = (me, self._boot, FOREVER, 1) if mine else ("", self._boot, 0, 0)
                    cursor = connection.execute(log.CLAIM, (group, id, begin, length, *held, settled, part))
                    if mine:
                        claimed.append(Claimed(int(cursor.lastrowid or 0), id, begin, length, 1, settled, part))
                raw -= stop - first
                position = stop
                if raw <= 0:
                    break
            if len(rows) < 64:
                break
        if (frame, position) != start:
            connection.execute(_CURSOR, (frame, position, wall, group))
        return claimed

    def _split_plain(self, connection: sqlite3.Connection, now: int) -> None:
        """Make claims of parts of those that have none."""
        parts = connection.execute("SELECT parts FROM groups WHERE id = ?", (self._group,)).fetchone()[0]
        rows = connection.execute(_PLAIN_TURNS, (self._group, now)).fetchall()
        for id, frame, start, count, deliveries, settled in rows:
            dealt = self._deal(frame, start + count, parts, partial(self._body, connection))
            for part, begin, length, others in split(dealt, start, count, settled):
                free = ("", self._boot, 0, deliveries)
                connection.execute(log.CLAIM, (self._group, frame, begin, length, *free, others, part))
            connection.execute("DELETE FROM claims WHERE id = ?", (id,))

    @staticmethod
    def _body(connection: sqlite3.Connection, id: int) -> bytes:
        row = connection.execute("SELECT body FROM frames WHERE id = ?", (id,)).fetchone()
        return row[0] if row else b""
