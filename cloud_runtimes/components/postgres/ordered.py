"""A member of a group on PostgreSQL whose events come in the order of their keys. ``docs/explanation/postgres.md``, "Order by key", explains it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from ...spi.change import Change
from ...spi.operation import Operation
from .._log.claims import Claimed, Writes
from .._log.ordered import FOREVER, OrderedMember, PartWrites, Survey, split
from .changes import Call
from .connection import Connection, Flow
from .member import CLAIM, FORGET, LATE, LEAVE, STAY, Member, Settle, channel
from .statement import Result, Row, Statement

PARTS: Final = 16
"""Parts of a new group: so many members share its events at most. Fewer than elsewhere, since a frame becomes a row for each part."""
_PICKED: Final = 64
"""Claims that are taken at once at most."""
_SURVEY: Final = Statement(
    "SELECT (SELECT string_agg(m.member, ',') FROM {schema}.group_members m WHERE m.grp = g.id AND m.deadline > {schema}.now_ms()), "
    "(SELECT string_agg(p.member, ',' ORDER BY p.part) FROM {schema}.group_parts p WHERE p.grp = g.id), "
    f"{LATE} OR EXISTS (SELECT FROM {{schema}}.claims c WHERE c.grp = g.id AND c.member = '' AND c.deadline <= {{schema}}.now_ms() "
    "AND (c.part IS NULL OR c.part IN (SELECT part FROM {schema}.group_parts WHERE grp = g.id AND member = $2))), "
    "(SELECT min(due) FROM {schema}.delayed d WHERE d.topic = g.topic) - {schema}.now_ms() FROM {schema}.groups g WHERE g.id = $1",
    "int8 text",
)
_LOCK: Final = Statement("SELECT parts FROM {schema}.groups WHERE id = $1 FOR UPDATE", "int8")
_BACK: Final = Statement(
    "UPDATE {schema}.claims SET member = '', deadline = 0, deliveries = greatest(0, deliveries - 1) "
    "WHERE grp = $1 AND member = $2 AND part = ANY ($3)",
    "int8 text int4[]",
)
_FREE: Final = Statement(
    "UPDATE {schema}.group_parts SET member = '' WHERE grp = $1 AND member = $2 AND part = ANY ($3)", "int8 text int4[]"
)
# no settlement of an owner of before counts any more
_TAKE: Final = Statement(
    "WITH taken AS (UPDATE {schema}.group_parts SET member = $2 WHERE grp = $1 AND part = ANY ($3) AND member NOT IN "
    "(SELECT member FROM {schema}.group_members WHERE grp = $1 AND deadline > {schema}.now_ms()) RETURNING part) "
    "UPDATE {schema}.claims c SET member = '', deadline = 0 FROM taken t WHERE c.grp = $1 AND c.part = t.part AND c.member <> ''",
    "int8 text int4[]",
)
_UNKNOWN: Final = Statement(
    "UPDATE {schema}.claims SET member = '', deadline = 0, deliveries = greatest(0, deliveries - 1) "
    "WHERE grp = $1 AND member = $2 AND id <> ALL ($3)",
    "int8 text int8[]",
)
_OWNED: Final = Statement("SELECT part FROM {schema}.group_parts WHERE grp = $1 AND member = $2", "int8 text")
_PICK: Final = Statement(
    "WITH free AS (SELECT id FROM {schema}.claims WHERE grp = $1 AND part <> ALL ($3) AND member = '' "
    "AND part IN (SELECT part FROM {schema}.group_parts WHERE grp = $1 AND member = $2) AND deadline <= {schema}.now_ms() "
    "ORDER BY xid, frame, start LIMIT $4) "
    "UPDATE {schema}.claims c SET member = $2, deadline = $5, deliveries = c.deliveries + 1 FROM free WHERE c.id = free.id "
    "RETURNING c.id, c.frame, c.start, c.count, c.deliveries, c.settled, c.part, c.xid, {schema}.now_ms()",
    "int8 text int4[] int4 int8",
)
_SPLIT: Final = Statement(
    "INSERT INTO {schema}.claims AS n (grp, xid, frame, created, start, count, member, deadline, deliveries, settled, part) "
    "SELECT c.grp, c.xid, c.frame, c.created, u.start, u.count, u.member, u.deadline, u.deliveries, u.settled, u.part "
    "FROM unnest($1::int8[], $2::int4[], $3::int4[], $4::text[], $5::int8[], $6::int4[], $7::bytea[], $8::int4[]) "
    "AS u(id, start, count, member, deadline, deliveries, settled, part) JOIN {schema}.claims c ON c.id = u.id "
    "RETURNING n.id, n.frame, n.start, n.count, n.deliveries, n.settled, n.part, n.xid, {schema}.now_ms()",
    "int8[] int4[] int4[] text[] int8[] int4[] bytea[] int4[]",
)
_DONE: Final = Statement("DELETE FROM {schema}.claims WHERE id = ANY ($1)", "int8[]")


class KeyOrderMember(OrderedMember, Member):
    """See the module."""

    def _survey(self) -> Survey:
        self.component.check_open()
        result = self.component.engine.run(
            self._operation(), lambda connection: connection.execute(_SURVEY, self._group, self.name)
        )
        if not result.rows:
            raise self.no_group()
        live, owners, has_events, due = result.rows[0]
        soon = None if due is None else due / 1000
        has_events = has_events or (soon is not None and soon <= 0)
        return Survey(live.split(",") if live else (), owners.split(","), has_events, soon)

    def _commit(
        self, op: Operation, writes: Writes, changes: Sequence[Change] | None = None
    ) -> tuple[Collection[int], list[Claimed]]:
        settle = _SettleInOrder(self, writes, changes is not None)
        self.component.commit(op, [settle, *(changes or ())], relaxed=not (writes.durable and self.component.durable))
        if settle.owned is not None:
            self._changed(settle.parts, settle.owned, settle.lost)
        return settle.lost, settle.claimed

    def since(self, opened: float) -> None:
        if opened > self._since:
            self._dealt.clear()
        super().since(opened)

    def channels(self, writes: Writes) -> list[str]:
        parts = writes.parts or PartWrites()
        return [*super().channels(writes), *([channel(self._topic)] if parts.give or parts.leave else [])]

    def lock(self) -> Call:
        """Return what locks the group. Whoever has the lock may wait for claims of others, so nobody waits for it who has changed claims."""
        return _LOCK, (self._group,)

    def moves(self, writes: Writes, parts: PartWrites) -> list[Call]:
        """Return what renews the membership, moves parts, and claims what lies there for this member, behind `lock`."""
        group, me = self._group, self.name
        calls: list[Call] = []
        give = range(1 << 10) if parts.leave else parts.give
        if give:
            calls += [(_BACK, (group, me, list(give))), (_FREE, (group, me, list(give)))]
        if parts.leave:
            return [*calls, (LEAVE, (group, me)), (_OWNED, (group, me))]
        if writes.renew:
            calls += [(STAY, (group, me, self.ack_wait_ms)), (FORGET, (group, self.ack_wait_ms))]
        if parts.take:
            calls.append((_TAKE, (group, me, list(parts.take))))
        if writes.want and not self._sure:  # whether an earlier transaction has claimed any is not known
            known = [*self._held, *(claim.id for claim in self._claimed)]
            calls.append((_UNKNOWN, (group, me, known)))
        calls.append((_OWNED, (group, me)))
        if writes.want:
            calls.append((_PICK, (group, me, list(self._leaving), _PICKED, FOREVER)))
        return calls

    def picked(self, rows: Sequence[Row]) -> list[Claimed]:
        """Return claims in the order of the log."""
        if rows:
            self._server_us = rows[0][8] * 1000
        return [Claimed(*row[:7]) for row in sorted(rows, key=lambda row: (row[7], row[1], row[2]))]

    def claim(self, connection: Connection, want: int, owned: set[int], parts: int) -> Flow[list[Claimed]]:
        """Move the group's cursor, and claim what it passes for the owners of its parts."""
        if not (mine := owned - self._leaving):
            return []
        raw = self._raw_want(want, parts)
        slices = yield from connection.execute(CLAIM, self._group, self.name, self.ack_wait_ms, raw, list(self._frames))
        if not slices.rows:
            return []
        columns: list[list[Any]] = [[] for _ in range(8)]
        for claim in self.claimed(slices):
            dealt = self._deal(claim.frame, claim.start + claim.length, parts, self._bodies.pop)
            before = claim.deliveries - 1
            for part, start, length, settled in split(dealt, claim.start, claim.length, claim.settled):
                held = (self.name, FOREVER, before + 1) if part in mine else ("", 0, before)
                row = (claim.id, start, length, *held, settled, part)
                for column, value in zip(columns, row, strict=True):
                    column.append(value)
        done: Call = (_DONE, ([row[0] for row in slices.rows],))
        results = yield from connection.pipeline([(_SPLIT, columns), done])
        return self.picked([row for row in results[0].rows if row[6] in mine])


class _SettleInOrder(Settle):
    """Writes of a member whose events come in order.

    Attributes:
        parts: changes of who owns them.
        owned: parts that are the member's now; ``None``: it was not looked.
    """

    _member: KeyOrderMember

    def __init__(self, member: KeyOrderMember, writes: Writes, whole: bool) -> None:
        super().__init__(member.component, member, writes, whole)
        self.parts = writes.parts or PartWrites()
        self.owned: set[int] | None = None
        self._moves = bool(writes.want or writes.renew or any(self.parts))

    @property
    def conditional(self) -> bool:
        return self._whole or self._moves

    def calls(self, connection: Connection) -> Flow[list[Call]]:
        # a claim that comes later takes its rows, and leases are the members' own
        writes, want, renew = self._writes, self._writes.want, self._writes.renew
        writes.want, writes.renew = 0, False
        try:
            calls = yield from super().calls(connection)
        finally:
            writes.want, writes.renew = want, renew
        if want:
            yield from self._member.move_due(connection)
        if self._moves:
            self._calls = [self._member.lock(), *calls, *self._member.moves(writes, self.parts)]
        return self._calls

    def check(self, connection: Connection, results: Sequence[Result]) -> Flow[None]:
        yield from super().check(connection, results)
        if not self._moves:
            return
        parts = results[0].rows[0][0] if results[0].rows else 0
        picked: Sequence[Row] = ()
        for (statement, _), result in zip(self._calls, results, strict=True):
            if statement is _OWNED:
                self.owned = {row[0] for row in result.rows}
            elif statement is _PICK:
                picked = result.rows
        self.claimed = self._member.picked(picked)
        want = self._writes.want - sum(claim.remaining for claim in self.claimed)
        if want > 0 and self.owned and len(picked) < _PICKED:
            self.claimed += yield from self._member.claim(connection, want, self.owned, parts)
