"""The log of a pub/sub name as records that move to another database: groups first, then the frames of each topic, then those that are published later.

The target notes in a table ``copied`` which frames it has, by a key that they keep when they move on. So a frame is stored once, however often a copy is tried and whatever became of its events since. A frame comes with what each group has not settled of it, and both are stored in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from ...errors import AlreadyExistsError, ConflictError
from ...spi.operation import Operation
from ...spi.portable import BATCH_BYTES, BATCH_RECORDS, EventsRecord, GroupRecord, Portable, Records, Slice, events_key
from .sql import Rows, Sql, Steps, Tables

Parts: TypeAlias = dict[str, tuple[Slice, ...] | None]
Calls: TypeAlias = list[tuple[Sql, Sequence[Any]]]


class LogSql(NamedTuple):
    """Statements that differ. A frame's *place* is (transaction, number); where there is no order of transactions, they are all 0.

    Attributes:
        frames_after: frames of a topic behind a place: number, transaction, count, body.
        groups: of some topics: number, topic, name, and what `part` needs.
        part: of a group, the place and the count of a frame, and what of it is claimed: what the group has not settled; ``None``: it has come neither to this frame nor to any behind it.
        has_copied: whether the table ``copied`` is there.
        make_group: of a topic, a name and a number of parts, before all frames.
        catch_up: turns what groups have not come to into claims that are free.
        put_frame: topic, count, body; returns number, transaction and the time of its creation.
        put_claim: group, frame, start, count, deadline, deliveries, settled, and transaction and time of the frame.
        move_cursor: of a group, to the end of a frame: its number, transaction.
        held: how many claims of a pub/sub name have holders whose leases last.
    """

    frames_after: Sql
    groups: Sql
    part: Callable[[Sequence[Any], tuple[int, int], int, Sequence[Slice] | None], tuple[Slice, ...] | None]
    has_copied: Sql
    make_group: Sql
    catch_up: tuple[Sql, ...]
    put_frame: Sql
    put_claim: Sql
    move_cursor: Sql
    held: Sql


_TOPICS: Final = Sql("SELECT name, id FROM {schema}.topics WHERE pubsub = $1 AND name <> '' ORDER BY name", "text")
_MINE: Final = "topic IN (SELECT id FROM {schema}.topics WHERE pubsub = $1 AND name <> '')"
_COUNT: Final = Sql(
    f"SELECT (SELECT count(*) FROM {{schema}}.frames WHERE {_MINE}) + "
    f"(SELECT count(*) FROM {{schema}}.delayed WHERE {_MINE}) + (SELECT count(*) FROM {{schema}}.groups WHERE {_MINE})",
    "text",
)
# of the topic without a name (`_log.mending`)
_REDRIVEN: Final = Sql(
    "SELECT count(*) FROM {schema}.topics t JOIN {schema}.frames f ON f.topic = t.id JOIN {schema}.claims c ON c.frame = f.id "
    "WHERE t.pubsub = $1 AND t.name = ''",
    "text",
)
_GROUPS_AFTER: Final = Sql(
    "SELECT t.name, g.name, g.parts FROM {schema}.topics t JOIN {schema}.groups g ON g.topic = t.id "
    f"WHERE t.pubsub = $1 AND (t.name, g.name) > ($2, $3) ORDER BY t.name, g.name LIMIT {BATCH_RECORDS}",
    "text text text",
)
_ALL_GROUPS: Final = Sql(
    "SELECT t.name, g.name, g.parts FROM {schema}.topics t JOIN {schema}.groups g ON g.topic = t.id "
    "WHERE t.pubsub = $1 AND t.name = ANY ($2) AND g.name = ANY ($3)",
    "text text[] text[]",
)
_DELAYED: Final = "d.id, d.count, d.body, d.due"
_DELAYED_AFTER: Final = Sql(
    f"SELECT {_DELAYED} FROM (SELECT id, sum(size) OVER (ORDER BY id) - size AS before FROM "
    "(SELECT id, length(body) AS size FROM {schema}.delayed WHERE topic = $1 AND id > $2 "
    f"ORDER BY id LIMIT {BATCH_RECORDS}) AS a) AS part "
    f"JOIN {{schema}}.delayed d ON d.id = part.id WHERE part.before < {BATCH_BYTES} ORDER BY d.id",
    "int8 int8",
)
_DELAYED_BY_ID: Final = Sql(f"SELECT {_DELAYED} FROM {{schema}}.delayed d WHERE d.id = ANY ($1)", "int8[]")
_FRAMES_BY_ID: Final = Sql("SELECT f.id, f.count, f.body FROM {schema}.frames f WHERE f.id = ANY ($1)", "int8[]")
_CLAIMS: Final = Sql(
    "SELECT grp, frame, start, count, settled, deadline, deliveries, member, {boot} FROM {schema}.claims "
    "WHERE grp = ANY ($1) AND frame = ANY ($2) ORDER BY start",
    "int8[] int8[]",
)
_MAKE_COPIED: Final = (
    Sql(
        "CREATE TABLE {schema}.copied "
        "(topic bigint NOT NULL, key text NOT NULL, frame bigint, xid bigint, delayed bigint, PRIMARY KEY (topic, key))"
    ),
    Sql("CREATE INDEX copied_frame ON {schema}.copied (topic, frame)"),
)
_COPIED: Final = Sql(
    "SELECT topic, key, frame, xid, delayed FROM {schema}.copied WHERE topic = ANY ($1) AND key = ANY ($2)",
    "int8[] text[]",
)
_KEYS: Final = Sql("SELECT frame, key FROM {schema}.copied WHERE topic = $1 AND frame = ANY ($2)", "int8 int8[]")
_FOREIGN: Final = Sql(
    "SELECT t.name FROM {schema}.topics t WHERE t.id = ANY ($1) AND EXISTS (SELECT 1 FROM {schema}.frames f WHERE f.topic = t.id "
    "AND NOT EXISTS (SELECT 1 FROM {schema}.copied c WHERE c.topic = t.id AND c.frame = f.id))",
    "int8[]",
)
_NOTE: Final = Sql(
    "INSERT INTO {schema}.copied (topic, key, frame, xid, delayed) VALUES ($1, $2, $3, $4, $5)",
    "int8 text int8 int8 int8",
)
MAKE_TOPIC: Final = Sql(
    "INSERT INTO {schema}.topics (pubsub, name) VALUES ($1, $2) ON CONFLICT DO NOTHING", "text text"
)
_PUT_DELAYED: Final = Sql(
    "INSERT INTO {schema}.delayed (topic, due, count, body) VALUES ($1, $2, $3, $4) RETURNING id",
    "int8 int8 int4 bytea",
)


class PortableLog(Portable):
    """The topics of a pub/sub name."""

    def __init__(self, tables: Tables, name: str, sql: LogSql) -> None:
        self._tables = tables
        self._name = name
        self._sql = sql
        self._copied = False
        self._checked: set[int] = set()

    def count(self, op: Operation, /) -> int:
        return int(self._tables.query(op, _COUNT, self._name)[0][0])

    def in_use(self, op: Operation, /) -> str | None:
        held = self._tables.query(op, self._sql.held, self._name)[0][0]
        if self._tables.query(op, _REDRIVEN, self._name)[0][0]:
            raise ConflictError(
                f"redriven events of {self._name!r} wait for their groups and cannot be copied: let these handle them first"
            )
        return f"a consumer holds {held:,} slices of its events" if held else None

    # -- reading ----------------------------------------------------------

    def export(self, op: Operation, after: GroupRecord | EventsRecord | None, /) -> Records:
        if not isinstance(after, EventsRecord):
            position = after.key if after else ("", "")
            if rows := self._tables.query(op, _GROUPS_AFTER, self._name, *position):
                return [GroupRecord((topic, group), parts) for topic, group, parts in rows]
            after = None
        delayed = after is not None and after.due_ms is not None
        passed = after.key[0] if after else None
        topics = self._topics(op)
        for read in (self._frames, self._delayed)[delayed:]:
            for topic, number in topics.items():
                if passed is None or topic >= passed:
                    records = read(op, topic, number, after.position if after and topic == passed else None)
                    if records:
                        return records
            after = passed = None
        return []

    def _topics(self, op: Operation) -> dict[str, int]:
        return dict(self._tables.query(op, _TOPICS, self._name))

    def _frames(self, op: Operation, topic: str, number: int, after: tuple[int, int] | None) -> list[EventsRecord]:
        xid, id = after or (0, 0)
        rows = self._tables.query(op, self._sql.frames_after, number, str(xid), id)
        parts = self._parts(op, [number], [(number, row[1], row[0], row[2]) for row in rows])
        keys: dict[Any, Any] = {}
        if rows and self._has_copied(op):  # what came from elsewhere keeps its key
            keys = dict(self._tables.query(op, _KEYS, number, [row[0] for row in rows]))
        return [
            EventsRecord((topic, keys.get(id) or events_key(body, number=id)), (xid, id), count, body, None, parts[id])
            for id, xid, count, body in rows
        ]

    def _delayed(self, op: Operation, topic: str, number: int, after: int | None) -> list[EventsRecord]:
        rows = self._tables.query(op, _DELAYED_AFTER, number, after or 0)
        return [
            EventsRecord((topic, events_key(body, due_ms=due)), id, count, body, due, {})
            for id, count, body, due in rows
        ]

    def _has_copied(self, op: Operation) -> bool:
        self._copied = self._copied or bool(self._tables.query(op, self._sql.has_copied)[0][0])
        return self._copied

    def _parts(
        self, op: Operation, topics: Sequence[int], frames: Sequence[tuple[int, int, int, int]]
    ) -> dict[int, Parts]:
        """Return what the groups have not settled of frames, given by topic, transaction, number and count."""
        if not frames:
            return {}
        groups = self._tables.query(op, self._sql.groups, list(topics))
        claims: dict[tuple[int, int], list[Slice]] = {}
        ids = [frame[2] for frame in frames]
        for group, frame, start, count, settled, deadline, deliveries, member, boot in self._tables.query(
            op, _CLAIMS, [row[0] for row in groups], ids
        ):
            open_ = claims.setdefault((group, frame), [])
            if deadline is not None:  # else settled before the cursor came
                due = 0 if member else self._tables.due_ms(deadline, boot)
                open_.append(Slice(start, count, settled, due, deliveries))
        return {
            id: {
                group[2]: self._sql.part(group, (xid, id), count, claims.get((group[0], id)))
                for group in groups
                if group[1] == topic
            }
            for topic, xid, id, count in frames
        }

    def find(self, op: Operation, keys: Sequence[tuple[str, str]], /) -> Mapping[tuple[str, str], Any]:
        names, second = sorted({key[0] for key in keys}), sorted({key[1] for key in keys})
        records: dict[tuple[str, str], Any] = {}
        asked = set(keys)
        for topic, group, parts in self._tables.query(op, _ALL_GROUPS, self._name, names, second):
            if (topic, group) in asked:
                records[topic, group] = GroupRecord((topic, group), parts)
        if not self._has_copied(op):
            return records
        topics = {number: name for name, number in self._topics(op).items()}
        noted = self._tables.query(op, _COPIED, list(topics), second)
        delayed = {row[0]: row[1:] for row in self._by_id(op, _DELAYED_BY_ID, [row[4] for row in noted])}
        frames = {row[0]: row[1:] for row in self._by_id(op, _FRAMES_BY_ID, [row[2] for row in noted])}
        there = [(topic, xid, id, frames[id][0]) for topic, _, id, xid, _ in noted if id in frames]
        parts = self._parts(op, sorted({row[0] for row in there}), there)
        for topic, name, id, xid, later in noted:
            # one that is gone was delivered and swept since, or published: it is no record that is absent
            count, body = frames.get(id, (0, b""))
            due = None
            if later is not None:
                count, body, due = delayed.get(later, (0, b"", None))
            key = (topics[topic], name)
            records[key] = EventsRecord(key, (xid, id), count, body, due, parts.get(id, {}))
        return records

    def _by_id(self, op: Operation, sql: Sql, ids: Sequence[int | None]) -> Rows:
        wanted = [id for id in ids if id is not None]
        return self._tables.query(op, sql, wanted) if wanted else []

    # -- writing ----------------------------------------------------------

    def put(self, op: Operation, records: Records, /) -> None:
        self._tables.write(op, lambda: self._steps(records))

    def _steps(self, records: Records) -> Steps:
        names = sorted({record.key[0] for record in records})
        making = [(MAKE_TOPIC, (self._name, name)) for name in names]
        answers = yield [(self._sql.has_copied, ()), *making, (_TOPICS, (self._name,))]
        if not answers[0][0][0]:
            yield [(sql, ()) for sql in _MAKE_COPIED]
        topics: dict[Any, Any] = dict(answers[-1])
        wanted = [topics[name] for name in names]
        groups = [record for record in records if isinstance(record, GroupRecord)]
        if groups:
            yield [(self._sql.make_group, (topics[record.key[0]], record.key[1], record.parts)) for record in groups]
        events = [record for record in records if isinstance(record, EventsRecord)]
        noted = (yield [(_COPIED, (wanted, [record.key[1] for record in events]))])[0]
        there = {(row[0], row[1]) for row in noted}
        fresh = {record.key: record for record in events if (topics[record.key[0]], record.key[1]) not in there}
        events = list(fresh.values())
        frames = [record for record in events if record.due_ms is None]
        delayed = [record for record in events if record.due_ms is not None]
        if frames and (unchecked := [topic for topic in wanted if topic not in self._checked]):
            if foreign := (yield [(_FOREIGN, (unchecked,))])[0]:
                raise AlreadyExistsError(
                    f"the topic {foreign[0][0]!r} of {self._name!r} has events of its own at the target, between which others have no "
                    "place: copy to a home where it is not in use yet, or leave it out"
                )
            self._checked.update(unchecked)
        if frames:
            yield from self._put_frames(frames, topics, (yield [(self._sql.groups, (wanted,))])[0])
        if delayed:
            inserted = yield [(_PUT_DELAYED, (topics[r.key[0]], r.due_ms, r.events, r.body)) for r in delayed]
            yield [
                (_NOTE, (topics[record.key[0]], record.key[1], None, None, rows[0][0]))
                for record, rows in zip(delayed, inserted, strict=True)
            ]

    def _put_frames(self, frames: Sequence[EventsRecord], topics: Mapping[str, int], groups: Rows) -> Steps:
        numbers = {(row[1], row[2]): row[0] for row in groups}
        # groups that come past frames here, whatever the target has that they have not come to
        passing = {
            numbers[topics[record.key[0]], group]
            for record in frames
            for group, slices in record.groups.items()
            if slices is not None
        }
        if passing:
            yield [(sql, (sorted(passing),)) for sql in self._sql.catch_up]
        inserted = yield [
            (self._sql.put_frame, (topics[record.key[0]], record.events, record.body)) for record in frames
        ]
        calls: Calls = []
        cursors: dict[int, tuple[int, int]] = {}
        for record, ((frame, xid, created),) in zip(frames, inserted, strict=True):
            topic = topics[record.key[0]]
            calls.append((_NOTE, (topic, record.key[1], frame, xid, None)))
            for name, slices in record.groups.items():
                if slices is None:
                    continue
                group = numbers[topic, name]
                cursors[group] = (frame, xid)
                for start, count, settled, due, deliveries in slices:
                    row = (group, frame, start, count, self._tables.deadline(due), deliveries, settled, xid, created)
                    calls.append((self._sql.put_claim, row))
        calls += [(self._sql.move_cursor, (group, *end)) for group, end in cursors.items()]
        yield calls
