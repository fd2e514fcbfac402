"""Mending of a log in SQL tables: dead letters are removed and delivered again in one transaction, topics are purged, groups moved, paused and deleted.

A removed event leaves a record in its place that has expired, so no cursor and no claim changes. A frame of nothing else goes. Events for one group alone lie in a topic without a name, to which nobody can subscribe. A claim of the group has them, as it has those that are tried again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from ..._native import events as kernel
from ...errors import PayloadError
from ...spi.admin import GroupInfo, Position, Target
from ...spi.broker.mending import group_is_gone, has_members
from ...spi.broker.policy import LATEST
from ...spi.broker.showing import milliseconds
from ...spi.events import EventRecord, undo_dead_letter
from ...spi.operation import Operation
from ...spi.pubsub import Delivery
from .._copy.log import MAKE_TOPIC, Calls, LogSql
from .._copy.sql import Rows, Sql, Steps, Tables
from .admin import GROUP, REMOVED, TOPIC, LogAdmin, LogShape
from .member import MEMBER_MS

_HIDDEN: Final = ""
_FRAMES: Final = Sql(
    "SELECT f.id, f.body FROM {schema}.frames f WHERE f.topic = $1 AND f.id = ANY ($2) ORDER BY f.id FOR UPDATE",
    "int8 int8[]",
)
_DROP_CLAIMS: Final = Sql(
    "DELETE FROM {schema}.claims WHERE grp IN (SELECT id FROM {schema}.groups WHERE topic = $1) AND frame = ANY ($2)",
    "int8 int8[]",
)
_DROP: Final = Sql("DELETE FROM {schema}.frames WHERE topic = $1 AND id = ANY ($2)", "int8 int8[]")
_TARGETS: Final = Sql(
    "SELECT t.name, t.id, g.name, g.id FROM {schema}.topics t LEFT JOIN {schema}.groups g ON g.topic = t.id "
    "WHERE t.pubsub = $1 AND t.name = ANY ($2)",
    "text text[]",
)
_OLD: Final = Sql(
    "SELECT CAST(coalesce(sum(f.count), 0) AS bigint) FROM {schema}.frames f WHERE f.topic = $1 AND f.created < $2",
    "int8 int8",
)
_DROP_OLD: Final = Sql("DELETE FROM {schema}.frames WHERE topic = $1 AND created < $2 RETURNING id, count", "int8 int8")
_ALL: Final = 2**62
_LOCK: Final = Sql("SELECT g.id FROM {schema}.groups g WHERE g.id = ANY ($1) FOR UPDATE", "int8[]")
_DROP_GROUPS: Final = (
    *(
        Sql(f"DELETE FROM {{schema}}.{table} WHERE grp = ANY ($1)", "int8[]")
        for table in ("claims", "group_parts", "group_members")
    ),
    Sql("DELETE FROM {schema}.groups WHERE id = ANY ($1)", "int8[]"),
)
_DROP_FRAMES: Final = Sql("DELETE FROM {schema}.frames WHERE topic = $1", "int8")
_DROP_DELAYED: Final = Sql("DELETE FROM {schema}.delayed WHERE topic = $1", "int8")
_PAUSE: Final = Sql("UPDATE {schema}.groups SET paused = $2 WHERE id = $1", "int8 int4")
# all but those of redriven events, which are in no place of the topic
_FREE: Final = Sql(
    "DELETE FROM {schema}.claims WHERE grp = $1 AND frame NOT IN (SELECT f.id FROM {schema}.topics t "
    "JOIN {schema}.frames f ON f.topic = t.id WHERE t.name = '')",
    "int8",
)
_GONE: Final = kernel.encode_record(b"", None, expires=REMOVED)


class LogMender(LogAdmin):
    """The topics of a pub/sub name, and what mends them."""

    def __init__(self, tables: Tables, name: str, shape: LogShape, log: LogSql) -> None:
        super().__init__(tables, name, shape)
        self._write = tables.write
        self._rewrite = shape.rewrite
        self._seek = shape.seek
        self._log = log

    def remove(self, op: Operation, topic: str, letters: Sequence[Delivery], to: Target | None, /) -> int:
        picked: dict[int, dict[int, EventRecord]] = {}
        for record, (_, frame, index), *_ in letters:
            picked.setdefault(frame, {})[index] = record
        numbers = self._query(op, TOPIC, self._name, topic)
        taken: list[EventRecord] = []

        def steps() -> Steps:
            taken.clear()
            number = numbers[0][0]
            (rows,) = yield [(_FRAMES, (number, sorted(picked)))]
            emptied: list[int] = []
            calls: Calls = []
            for id, body in rows:
                rest, found = _without(body, picked[id])
                taken.extend(found)
                if rest is None:
                    emptied.append(id)
                elif found:
                    calls.append((self._rewrite, (id, rest)))
            if emptied:
                calls += [(_DROP_CLAIMS, (number, emptied)), (_DROP, (number, emptied))]
            if calls:
                yield calls
            return (yield from self._deliver(taken, to)) if to and taken else None

        if numbers:
            self._write(op, steps)
        return len(taken)

    def purge(self, op: Operation, topic: str, before: datetime | None, dry_run: bool, /) -> int:
        numbers = self._query(op, TOPIC, self._name, topic)
        if not numbers:
            return 0
        old = numbers[0][0], _ALL if before is None else milliseconds(before)
        if dry_run:
            return int(self._query(op, _OLD, *old)[0][0])
        purged: Rows = []

        def steps() -> Steps:
            (purged[:],) = yield [(_DROP_OLD, old)]
            if purged:
                yield [(_DROP_CLAIMS, (old[0], [id for id, _ in purged]))]

        self._write(op, steps)
        return sum(count for _, count in purged)

    def seek(self, op: Operation, topic: str, group: str, to: Position, /) -> bool:
        numbers = self._query(op, TOPIC, self._name, topic)
        groups = self._query(op, GROUP, numbers[0][0], group) if numbers else []
        if not groups:
            return False
        id = groups[0][0]
        if groups[0][1] is not None:  # it has an order
            self._check_unused(topic, {id: group}, self._query(op, self._sql.members, [id]))
        begins = milliseconds(to) if isinstance(to, datetime) else {"earliest": None, "latest": LATEST}[to]

        def steps() -> Steps:
            yield [(self._seek, (id, begins)), (_FREE, (id,))]
            return {numbers[0][0]}

        self._write(op, steps)
        return True

    def pause(self, op: Operation, topic: str, group: str, paused: bool, /) -> bool:
        numbers = self._query(op, TOPIC, self._name, topic)
        groups = self._query(op, GROUP, numbers[0][0], group) if numbers else []

        def steps() -> Steps:
            yield [(_PAUSE, (groups[0][0], int(paused)))]

        if groups:
            self._write(op, steps)
        return bool(groups)

    def delete_group(self, op: Operation, topic: str, group: str, dry_run: bool, /) -> int | None:
        for info in self.groups(op, topic):
            if info.name == group:
                self._delete(op, topic, [info], dry_run)
                return info.lag
        return None

    def delete_topic(self, op: Operation, topic: str, dry_run: bool, /) -> int | None:
        # its number stays, since publishers know it
        events = next((each.events for each in self.topics(op, topic, 1) if each.name == topic), None)
        if events is not None:
            self._delete(op, topic, self.groups(op, topic), dry_run, _DROP_FRAMES, _DROP_DELAYED)
        return events

    def _delete(self, op: Operation, topic: str, groups: Sequence[GroupInfo], dry_run: bool, *more: Sql) -> None:
        """Delete groups that have no members, and what ``more`` deletes of their topic."""
        ((number,),) = self._query(op, TOPIC, self._name, topic)
        names = {row[0]: info.name for info in groups for row in self._query(op, GROUP, number, info.name)}
        ids = sorted(names)

        def steps() -> Steps:
            _, members = yield [(_LOCK, (ids,)), (self._sql.members, (ids,))]
            self._check_unused(topic, names, members)
            yield [*((sql, (ids,)) for sql in _DROP_GROUPS), *((sql, (number,)) for sql in more)]

        if dry_run:
            self._check_unused(topic, names, self._query(op, self._sql.members, ids))
        else:
            self._write(op, steps)

    def _check_unused(self, topic: str, names: Mapping[int, str], members: Rows) -> None:
        if members:
            id = members[0][0]
            mine = [member for group, member in members if group == id]
            raise has_members(self._name, topic, names[id], mine, MEMBER_MS / 1000)

    def _deliver(self, letters: Sequence[EventRecord], to: Target) -> Steps:
        """Publish dead letters as the events that they were; returns the numbers of their topics."""
        by_target: dict[tuple[str, str | None], list[EventRecord]] = {}
        for record in letters:
            group = str(record.extensions["dlgroup"]) if to == "group" else None
            by_target.setdefault((str(record.extensions["dltopic"]), group), []).append(record)
        names = sorted({topic for topic, _ in by_target} | {_HIDDEN})
        *_, rows = yield [*((MAKE_TOPIC, (self._name, name)) for name in names), (_TARGETS, (self._name, names))]
        topics = {name: number for name, number, *_ in rows}
        groups = {(name, group): id for name, _, group, id in rows}
        publishing: Calls = []
        for (topic, group), records in by_target.items():
            if group is not None and (topic, group) not in groups:
                raise group_is_gone(self._name, topic, group)
            first = records[0]
            frame = kernel.build_frame(first.source, first.type, topic, tuple(map(undo_dead_letter, records)))
            number = topics[topic if group is None else _HIDDEN]
            publishing.append((self._log.put_frame, (number, len(records), frame)))
        published = yield publishing
        claims: Calls = [
            (self._log.put_claim, (groups[target], frame, 0, len(by_target[target]), 0, 0, None, xid, created))
            for target, ((frame, xid, created),) in zip(by_target, published, strict=True)
            if target[1] is not None
        ]
        if claims:
            yield claims
        return {topics[topic] for topic, _ in by_target}


def _without(body: bytes, picked: Mapping[int, EventRecord]) -> tuple[bytes | None, Sequence[Any]]:
    """Return a frame without some of its events, ``None``: nothing is left, and those of them that were still there."""
    try:
        frame = kernel.Frame(body)
    except PayloadError:  # which is one event
        return None, [*picked.values()]
    indexes = range(len(frame))
    there = {index for index in indexes if frame.expires(index) != REMOVED}
    found = [record for index, record in picked.items() if index in there]
    there -= picked.keys()
    if not there:
        return None, found
    records = tuple(frame.record_bytes(index) if index in there else _GONE for index in indexes)
    return kernel.build_frame(frame.source, frame.type, frame.topic, records), found
