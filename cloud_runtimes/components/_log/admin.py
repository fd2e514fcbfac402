"""``client.admin`` on a log in SQL tables: its statements, and what their rows mean. The tables of our SQL components are alike; a `LogShape` says what is other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from ..._native import events as kernel
from ...errors import PayloadError
from ...spi.admin import GroupInfo, MemberInfo, Position, PubSubAdmin, TopicInfo
from ...spi.broker.policy import member_info
from ...spi.broker.reading import pack_payload
from ...spi.broker.showing import milliseconds, time_of
from ...spi.operation import Operation
from ...spi.pubsub import Delivery
from .._copy.sql import Rows, Sql, Tables
from .claims import Claimed

_SLICES: Final = 1000
"""Slices of frames that are read at once."""
REMOVED: Final = 1
"""When a record expires that stands for a removed one, microseconds since 1970 UTC. So its frame, which groups know by number and index, stays as long."""
Place: TypeAlias = tuple[int, int, int]
"""Of an event: transaction, frame, index."""


class LogShape(NamedTuple):
    """Parts of statements that differ; ``f`` is a frame, ``g`` a group, ``c`` a claim.

    Attributes:
        frames_after: as in `LogSql`.
        rewrite: gives a frame another body.
        seek: moves the group ``$1`` to the first event since ``$2``, or behind the last; ``NULL``: before the first.
        size: bytes of a frame.
        unseen: whether a group has not claimed all of a frame of its topic.
        seen: how many events of such a frame it has claimed.
        held: whether the lease of a claim, or of a member of a group with an order, lasts.
        created: when the frame of a claim was published.
        xid: the transaction of a frame, or ``0``.
        claim_xid: the same of a claim.
        order: of frames.
        begins: whether a frame is not before the place ``$2, $3``.
        claim_begins: the same of a claim.
    """

    frames_after: Sql
    rewrite: Sql
    seek: Sql
    size: str
    unseen: str
    seen: str
    held: str
    created: str
    xid: str
    claim_xid: str
    order: tuple[str, ...]
    begins: str
    claim_begins: str


class _Statements(NamedTuple):
    topics: Sql
    groups: Sql
    all_groups: Sql
    members: Sql
    since: Sql
    last: Sql
    unsettled: Sql


TOPIC: Final = Sql("SELECT id FROM {schema}.topics WHERE pubsub = $1 AND name = $2", "text text")
GROUP: Final = Sql("SELECT id, parts FROM {schema}.groups WHERE topic = $1 AND name = $2", "int8 text")
_HOLDS: Final = [
    f"EXISTS (SELECT 1 FROM {{schema}}.{each} h WHERE h.topic = t.id)" for each in ("frames", "groups", "delayed")
]
_BODY: Final = Sql("SELECT f.body FROM {schema}.frames f WHERE f.id = $1", "int8")


@cache
def _statements(shape: LogShape) -> _Statements:
    newest = ", ".join(f"{each} DESC" for each in shape.order)
    oldest = ", ".join(shape.order)
    return _Statements(
        topics=Sql(
            "SELECT t.name, CAST(coalesce(sum(f.count), 0) AS bigint), "
            f"CAST(coalesce(sum({shape.size}), 0) AS bigint), min(f.created), max(f.created), "
            "(SELECT count(*) FROM {schema}.groups g WHERE g.topic = t.id) FROM (SELECT id, name FROM {schema}.topics t "
            "WHERE pubsub = $1 AND name <> '' "
            f"AND substr(name, 1, length($2)) = $2 AND ({' OR '.join(_HOLDS)}) ORDER BY name LIMIT $3) AS t "
            "LEFT JOIN {schema}.frames f ON f.topic = t.id GROUP BY t.id, t.name ORDER BY t.name",
            "text text int8",
        ),
        groups=_groups_of(shape, "t.name = $2", "text text"),
        all_groups=_groups_of(shape, "t.name <> ''", "text"),
        members=Sql(
            "SELECT c.grp, c.member FROM {schema}.group_members c "
            f"WHERE c.grp = ANY ($1) AND {shape.held} ORDER BY c.member",
            "int8[]",
        ),
        since=Sql(
            f"SELECT {shape.xid}, f.id FROM {{schema}}.frames f WHERE f.topic = $1 AND f.created >= $2 "
            f"ORDER BY {oldest} LIMIT 1",
            "int8 int8",
        ),
        last=Sql(
            f"SELECT {shape.xid}, f.id, f.count FROM {{schema}}.frames f WHERE f.topic = $1 ORDER BY {newest} LIMIT $2",
            "int8 int8",
        ),
        unsettled=Sql(
            f"SELECT * FROM (SELECT {shape.claim_xid} AS xid, c.frame AS id, c.start AS start, c.count AS count, "
            f"c.settled AS settled, c.deliveries AS deliveries FROM {{schema}}.claims c "
            f"WHERE c.grp = $1 AND {shape.claim_begins} "
            f"UNION ALL SELECT {shape.xid}, f.id, {shape.seen}, f.count - {shape.seen}, NULL, 0 FROM {{schema}}.groups g "
            f"JOIN {{schema}}.frames f ON f.topic = g.topic AND {shape.unseen} WHERE g.id = $1 AND {shape.begins}) AS s "
            f"WHERE s.id <> $3 OR s.start + s.count - 1 > $4 ORDER BY xid, id, start LIMIT $5",
            "int8 text int8 int4 int8",
        ),
    )


def _groups_of(shape: LogShape, which: str, types: str) -> Sql:
    """Return what asks for the groups of some topics, and their claims: one statement, since members claim events meanwhile."""
    return Sql(
        f"SELECT g.id, g.name, g.parts, '', CAST(coalesce(sum(f.count - {shape.seen}), 0) AS bigint), 0, NULL, "
        "min(f.created), t.name, g.paused, g.dead_letters FROM {schema}.topics t JOIN {schema}.groups g ON g.topic = t.id "
        f"LEFT JOIN {{schema}}.frames f ON f.topic = g.topic AND {shape.unseen} "
        f"WHERE t.pubsub = $1 AND {which} GROUP BY g.id, g.name, g.parts, t.name, g.paused, g.dead_letters "
        f"UNION ALL SELECT c.grp, NULL, NULL, CASE WHEN {shape.held} THEN c.member ELSE '' END AS holder, "
        f"CAST(sum(c.count) AS bigint), count(*), c.settled, min({shape.created}), NULL, 0, NULL FROM {{schema}}.topics t "
        "JOIN {schema}.groups g ON g.topic = t.id JOIN {schema}.claims c ON c.grp = g.id "
        f"WHERE t.pubsub = $1 AND {which} GROUP BY c.grp, holder, c.settled",
        types,
    )


class LogAdmin(PubSubAdmin):
    """The topics of a pub/sub name."""

    def __init__(self, tables: Tables, name: str, shape: LogShape) -> None:
        self._query = tables.query
        self._name = name
        self._frames_after = shape.frames_after
        self._sql = _statements(shape)

    def topics(self, op: Operation, prefix: str, limit: int, /) -> Sequence[TopicInfo]:
        rows = self._query(op, self._sql.topics, self._name, prefix, limit)
        return [
            TopicInfo(name, events, size, _time(first), _time(last), groups)
            for name, events, size, first, last, groups in rows
        ]

    def groups(self, op: Operation, topic: str, /) -> Sequence[GroupInfo]:
        return self._groups(op, self._query(op, self._sql.groups, self._name, topic))

    def backlogs(self, op: Operation, limit: int, /) -> Sequence[GroupInfo]:
        return self._groups(op, self._query(op, self._sql.all_groups, self._name))

    def _groups(self, op: Operation, rows: Rows) -> list[GroupInfo]:
        groups = sorted((row for row in rows if row[1] is not None), key=itemgetter(8, 1))
        parts: dict[int, list[Any]] = {row[0]: [] for row in groups}
        living: dict[int, list[str]] = {id: [] for id in parts}
        for row in rows:
            parts[row[0]].append(row)
        for id, name in self._query(op, self._sql.members, [*parts]) if parts else ():
            living[id].append(name)
        return [_group(row, parts[row[0]], living[row[0]]) for row in groups]

    def peek(
        self, op: Operation, topic: str, group: str | None, start: Position, limit: int, /
    ) -> Sequence[Delivery] | None:
        numbers = self._query(op, TOPIC, self._name, topic)
        if group is not None:
            groups = self._query(op, GROUP, numbers[0][0], group) if numbers else []
            if not groups:
                return None
            place = (0, 0, -1) if start == "earliest" else start
            return _taken(self._unsettled(op, topic, groups[0][0], place), limit)
        place = self._begin(op, numbers[0][0], start, limit) if numbers else None
        return (
            []
            if place is None
            else _taken(self._all(op, topic, numbers[0][0], place, to_the_end=start == "latest"), limit)
        )

    def _begin(self, op: Operation, topic: int, start: Position, limit: int) -> Place | None:
        """Return the place behind which to begin; ``None``: nothing is that late."""
        if start == "earliest":
            return 0, 0, -1
        if isinstance(start, datetime):
            rows = self._query(op, self._sql.since, topic, milliseconds(start))
            return (*rows[0], -1) if rows else None
        if start != "latest":
            place: Place = start
            return place
        for xid, frame, count in self._query(op, self._sql.last, topic, limit):
            limit -= count
            place = xid, frame, max(-limit, 0) - 1
            if limit <= 0:
                return place
        return 0, 0, -1

    def _all(self, op: Operation, topic: str, number: int, after: Place, *, to_the_end: bool) -> Iterator[Delivery]:
        """Yield the events behind a place, as many as are read at once, or all."""
        xid, id, index = after
        is_over = False
        while not is_over:
            rows = self._query(op, self._frames_after, number, str(xid), id - 1)
            is_over = not rows
            for frame, its_xid, count, body in rows:
                first = index + 1 if (its_xid, frame) == (xid, id) else 0
                for event in _events(topic, body, its_xid, Claimed(0, frame, first, count - first, 0, None)):
                    is_over = is_over or not to_the_end
                    yield event
            if rows:
                id, xid, index = rows[-1][0] + 1, rows[-1][1], -1

    def _unsettled(self, op: Operation, topic: str, group: int, after: Place) -> Iterator[Delivery]:
        most = _SLICES
        while True:
            rows = self._query(op, self._sql.unsettled, group, str(after[0]), *after[1:], most)
            is_last = len(rows) < most
            # slices of one frame overlap where one has what the other settled, so they are needed together
            frames = [(place, [*slices]) for place, slices in groupby(rows, lambda row: (row[0], row[1]))]
            if not is_last and len(frames) == 1:
                most *= 10
                continue
            for (xid, frame), slices in frames if is_last else frames[:-1]:
                claims = [Claimed(0, frame, start, count, past, settled) for *_, start, count, settled, past in slices]
                for (body,) in self._query(op, _BODY, frame):
                    found = [event for claim in claims for event in _events(topic, body, xid, claim)]
                    yield from sorted((each for each in found if each.token > after), key=lambda each: each.token)
                after = xid, frame, max(claim.start + claim.length for claim in claims) - 1
            if is_last:
                return


def _taken(events: Iterator[Delivery], limit: int) -> list[Delivery]:
    return [event for event, _ in zip(events, range(limit), strict=False)]


def _events(topic: str, body: bytes, xid: int, claim: Claimed) -> Iterator[Delivery]:
    """Return the events of a slice that are neither settled nor removed. A frame that cannot be read is one event, without an envelope."""
    try:
        frame = kernel.Frame(body)
    except PayloadError:
        frame = kernel.Frame(pack_payload(body, None, topic, f"{topic}-{claim.frame}"))
        yield Delivery(frame[0], (xid, claim.frame, claim.start + claim.length - 1), claim.deliveries)
        return
    for index in claim.open():
        at = claim.start + index
        if frame.expires(at) != REMOVED:
            yield Delivery(frame[at], (xid, claim.frame, at), claim.deliveries)


def _group(group: Sequence[Any], rows: Rows, living: Sequence[str]) -> GroupInfo:
    """Return a group: of what it has not claimed, of its claims with one holder and bitmap, and the members of one with an order."""
    name, parts, topic = group[1], group[2], group[8]
    lag, times, held = 0, [], dict.fromkeys(living, 0)
    for _, _, _, holder, events, claims, settled, created, *_ in rows:
        open = events - claims * int.from_bytes(settled or b"").bit_count()
        if not open:
            continue
        lag += open
        times.append(created)
        if holder and (parts is None or holder in held):
            held[holder] = held.get(holder, 0) + open
    members: tuple[MemberInfo, ...] = tuple(member_info(member, count) for member, count in sorted(held.items()))
    order = "" if parts is None else "key"
    oldest, paused = _time(min(times, default=None)), bool(group[9])
    return GroupInfo(topic, name, lag, oldest, sum(held.values()), members, paused, order, group[10])


def _time(ms: int | None) -> datetime | None:
    return None if ms is None else time_of(ms)
