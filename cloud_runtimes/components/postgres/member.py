"""A member of a consumer group on PostgreSQL. ``docs/explanation/postgres.md``, "The log", explains it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from ...spi.broker.policy import LOOK_TIMEOUT, POLL
from ...spi.change import Change
from ...spi.operation import Operation
from ...spi.pubsub import SubscribeRequest
from .._log.claims import Claimed, Writes
from .._log.member import MEMBER_MS, LogMember, Waits
from . import PostgresComponent
from .changes import Call, PostgresChange
from .connection import Connection, Flow
from .failures import SqlFailure
from .schema import NO_PARTITION, make_partitions
from .statement import Result, Statement

SEEN: Final = Statement("UPDATE {schema}.groups SET seen = {schema}.now_ms() WHERE id = $1", "int8")
STAY: Final = Statement(
    "INSERT INTO {schema}.group_members (grp, member, deadline) SELECT id, $2, {schema}.now_ms() + $3 FROM {schema}.groups "
    "WHERE id = $1 ON CONFLICT (grp, member) DO UPDATE SET deadline = excluded.deadline",
    "int8 text int8",
)
"""Renews a member of a group."""
FORGET: Final = Statement(
    "DELETE FROM {schema}.group_members WHERE grp = $1 AND deadline <= {schema}.now_ms() - $2", "int8 int8"
)
LEAVE: Final = Statement("DELETE FROM {schema}.group_members WHERE grp = $1 AND member = $2", "int8 text")
_PAUSED: Final = Statement("SELECT paused FROM {schema}.groups WHERE id = $1", "int8")
JOINED: Final = Statement(
    "UPDATE {schema}.groups SET seen = {schema}.now_ms(), dead_letters = coalesce($2, dead_letters) WHERE id = $1",
    "int8 text",
)
LATE: Final = (
    "g.present IS NOT NULL OR "
    "(SELECT true FROM {schema}.frames f WHERE f.topic = g.topic AND f.xid >= pg_snapshot_xmax(g.past) ORDER BY f.xid, f.id LIMIT 1) OR "
    "(SELECT true FROM pg_snapshot_xip(g.past) late CROSS JOIN LATERAL (SELECT FROM {schema}.frames f "
    "WHERE f.topic = g.topic AND f.xid = late ORDER BY f.xid, f.id LIMIT 1) f LIMIT 1)"
)
"""Whether there are frames that a group ``g`` has not claimed; ordered, so that nobody reads a whole table to find nothing."""
# is there anything to take, and if not, in how many milliseconds will there be
_LOOK: Final = Statement(
    f"SELECT {LATE}, "
    "(SELECT min(deadline) FROM {schema}.claims c WHERE c.grp = g.id) - {schema}.now_ms(), "
    "(SELECT min(due) FROM {schema}.delayed d WHERE d.topic = g.topic) - {schema}.now_ms() "
    "FROM {schema}.groups g WHERE g.id = $1",
    "int8",
)
_MOVE: Final = Statement(
    "WITH due AS (DELETE FROM {schema}.delayed WHERE id IN (SELECT id FROM {schema}.delayed "
    "WHERE topic = $1 AND due <= (SELECT {schema}.now_ms()) ORDER BY due, id LIMIT 64 FOR UPDATE SKIP LOCKED) RETURNING *) "
    "INSERT INTO {schema}.frames (topic, count, body) SELECT topic, count, body FROM due ORDER BY due, id",
    "int8",
)
CLAIM: Final = Statement("SELECT * FROM {schema}.claim($1, $2, $3, $4, $5)", "int8 text int8 int4 int8[]")
_BODIES: Final = Statement("SELECT id, body FROM {schema}.frames WHERE id = ANY ($1)", "int8[]")
_LOADED: Final = 8
"""Frames that are loaded at once at most."""
_HELD: Final = "id = ANY ($1) AND member = $2"
_DONE: Final = Statement(f"DELETE FROM {{schema}}.claims WHERE {_HELD} RETURNING id", "int8[] text")
_PARTLY: Final = Statement(
    "UPDATE {schema}.claims c SET settled = u.settled FROM unnest($1::int8[], $3::bytea[]) AS u(id, settled) "
    "WHERE c.id = u.id AND c.member = $2 RETURNING c.id",
    "int8[] text bytea[]",
)
_AGAIN: Final = Statement(
    "INSERT INTO {schema}.claims (grp, xid, frame, created, start, count, member, deadline, deliveries, part) "
    "SELECT c.grp, c.xid, c.frame, c.created, u.place, 1, '', CASE WHEN u.delay = 0 THEN 0 ELSE {schema}.now_ms() + u.delay END, u.deliveries, c.part "
    "FROM unnest($1::int8[], $3::int4[], $4::int8[], $5::int4[]) AS u(id, place, delay, deliveries) "
    "JOIN {schema}.claims c ON c.id = u.id AND c.member = $2",
    "int8[] text int4[] int8[] int4[]",
)
_BACK: Final = Statement(
    "UPDATE {schema}.claims c SET member = '', deadline = 0, deliveries = c.deliveries - 1, start = u.start, count = u.count, "
    "settled = u.settled FROM unnest($1::int8[], $3::int4[], $4::int4[], $5::bytea[]) AS u(id, start, count, settled) "
    "WHERE c.id = u.id AND c.member = $2",
    "int8[] text int4[] int4[] bytea[]",
)
_RELEASE: Final = Statement(f"UPDATE {{schema}}.claims SET member = '', deadline = 0 WHERE {_HELD}", "int8[] text")
_DEAD: Final = Statement(
    "INSERT INTO {schema}.frames (topic, count, body) SELECT $3, $4, $5 WHERE EXISTS (SELECT 1 FROM {schema}.claims "
    "WHERE id = $1 AND member = $2)",
    "int8 text int8 int4 bytea",
)
_COUNT: Final = Statement(
    "INSERT INTO {schema}.counters AS c (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = c.value + excluded.value",
    "text int8",
)
_RENEW: Final = Statement(
    f"UPDATE {{schema}}.claims SET deadline = {{schema}}.now_ms() + $3 WHERE {_HELD}", "int8[] text int8"
)


class Member(LogMember):
    """A member of a group in the database."""

    def __init__(
        self,
        component: PostgresComponent,
        pubsub: str,
        request: SubscribeRequest,
        topic: int,
        group: int,
        dead_letters: int | None,
    ) -> None:
        super().__init__(pubsub, request)
        self.component = component
        self._topic = topic
        self._group = group
        self._dead_letters = dead_letters
        self._server_us = 0
        self._since = 0.0
        self._bodies: dict[int, bytes] = {}

    def _now_us(self) -> int:
        return self._server_us

    def _wait_on(self) -> Waits:
        return self.component.engine.notifier.subscribe(channel(self._topic))

    def _look(self) -> tuple[bool, float | None]:
        self.component.check_open()
        result = self.component.engine.run(self._operation(), lambda connection: connection.execute(_LOOK, self._group))
        if not result.rows:
            raise self.no_group()
        fresh, overdue, due = result.rows[0]
        delays = [ms / 1000 for ms in (overdue, due) if ms is not None]
        soonest = min(delays) if delays else None
        return fresh or (soonest is not None and soonest <= 0), soonest

    def is_paused(self) -> bool:
        rows = self.component.engine.run(
            Operation(POLL, self.pubsub, LOOK_TIMEOUT), lambda connection: connection.execute(_PAUSED, self._group)
        ).rows
        return bool(rows and rows[0][0])

    def _commit(
        self, op: Operation, writes: Writes, changes: Sequence[Change] | None = None
    ) -> tuple[Collection[int], list[Claimed]]:
        settle = Settle(self.component, self, writes, changes is not None)
        self.component.commit(op, [settle, *(changes or ())], relaxed=not (writes.durable and self.component.durable))
        return settle.lost, settle.claimed

    def _give_back(self, claims: Sequence[int]) -> None:
        # waits for a transaction that holds them
        self.component.engine.run(
            self._operation(), lambda connection: connection.execute(_RELEASE, list(claims), self.name)
        )

    def since(self, opened: float) -> None:
        """Forget frames where the connection is newer: the server may have crashed, and numbers of frames whose commit nobody waited for are given again."""
        if opened > self._since:
            self._frames.clear()
            self._since = opened

    def channels(self, writes: Writes) -> list[str]:
        """Return the channels of those who can take something after some writes."""
        names = []
        if writes.back or any(each.delay_ms == 0 for each in writes.again):
            names.append(channel(self._topic))
        if self._dead_letters is not None and any(each.frame is not None for each in writes.dead):
            names.append(channel(self._dead_letters))
        return names

    def claimed(self, result: Result) -> list[Claimed]:
        """Take in what was claimed."""
        claims = []
        for *claim, now_ms, body in result.rows:
            self._server_us = now_ms * 1000
            claims.append(Claimed(*claim))
            if body is not None:
                self._bodies[claim[1]] = body
        return claims

    def move_due(self, connection: Connection) -> Flow[None]:
        """Publish delayed events that are due; a transaction of its own, since a claim does not see what its own has written."""
        if self._next_due is None or self._next_due > 0:
            return
        try:
            yield from connection.execute(_MOVE, self._topic)
        except SqlFailure as error:
            if error.state != NO_PARTITION:
                raise
            yield from make_partitions(connection, self.component.settings.retention)
            yield from connection.execute(_MOVE, self._topic)

    def calls(self, writes: Writes) -> list[Call]:
        """Return what settles, renews and claims."""
        me = self.name
        calls: list[Call] = []
        if writes.again:
            ids, _, indexes, delays, counts, _ = zip(*writes.again, strict=True)
            calls.append((_AGAIN, (ids, me, indexes, delays, counts)))
        for id, count, frame in writes.dead:
            if frame is not None and self._dead_letters is not None:
                calls.append((_DEAD, (id, me, self._dead_letters, count, frame)))
            kind = "dropped" if frame is None else "dead_lettered"
            calls.append((_COUNT, (f"{kind}:{self.label}", count)))
        if writes.expired:
            calls.append((_COUNT, (f"expired:{self.label}", writes.expired)))
        if done := [id for id, settled in writes.settled if settled is None]:
            calls.append((_DONE, (done, me)))
        if partly := [(id, settled) for id, settled in writes.settled if settled is not None]:
            ids, bitmaps = zip(*partly, strict=True)
            calls.append((_PARTLY, (ids, me, bitmaps)))
        if writes.back:
            back = writes.back
            columns = ([c.start for c in back], [c.length for c in back], [c.settled for c in back])
            calls.append((_BACK, ([c.id for c in back], me, *columns)))
        if writes.renew:
            mine = [*self._held, *(claim.id for claim in self._claimed)]
            calls.append((_RENEW, (mine, me, self.ack_wait_ms)))
        if writes.seen:
            calls.append((SEEN, (self._group,)))
            if self.request.order is None:
                calls += [(STAY, (self._group, me, MEMBER_MS)), (FORGET, (self._group, 0))]
        if writes.leave:
            calls.append((LEAVE, (self._group, me)))
        if writes.want:
            calls.append((CLAIM, (self._group, me, self.ack_wait_ms, writes.want, list(self._frames))))
        return calls

    def _load(self, frame: int) -> bytes | None:
        body = self._bodies.pop(frame, None)  # it came with its claim, unless another member made that
        if body is None:
            known = {*self._frames, *self._bodies}
            others = [claim.frame for claim in self._claimed if claim.frame not in known]
            wanted = list(dict.fromkeys([frame, *others]))[:_LOADED]
            rows = self.component.engine.run(
                self._operation(), lambda connection: connection.execute(_BODIES, wanted)
            ).rows
            self._bodies.update((id, found) for id, found in rows)
            body = self._bodies.pop(frame, None)
        return body


class Settle(PostgresChange):
    """Writes of a member. If they must be ``whole``, a lost claim rolls the transaction back.

    Attributes:
        lost: claims that have gone to others.
        claimed: new claims.
    """

    def __init__(self, component: PostgresComponent, member: Member, writes: Writes, whole: bool) -> None:
        super().__init__(component)
        self._member = member
        self._writes = writes
        self._whole = whole
        self.lost: Collection[int] = ()
        self.claimed: list[Claimed] = []

    @property
    def conditional(self) -> bool:
        return self._whole

    def calls(self, connection: Connection) -> Flow[list[Call]]:
        self._member.since(connection.opened)
        if self._writes.want:
            yield from self._member.move_due(connection)
        self.channels = self._member.channels(self._writes)
        self._calls = self._member.calls(self._writes)
        return self._calls

    def check(self, connection: Connection, results: Sequence[Result]) -> Flow[None]:
        kept: set[int] = set()
        for (statement, _), result in zip(self._calls, results, strict=True):
            if statement in (_DONE, _PARTLY):
                kept.update(row[0] for row in result.rows)
            elif statement is CLAIM:
                self.claimed = self._member.claimed(result)
        self.lost = {id for id, _ in self._writes.settled} - kept
        if self.lost and self._whole:
            raise self._member.gone()
        yield from ()


def channel(topic: int) -> str:
    """Return the channel that wakes the members of a topic."""
    return f"topic-{topic}"
