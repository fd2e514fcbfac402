"""The data of the embedded store, for copying it to another home and from one."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from ..._core.home import is_memory
from ...errors import UnsupportedError
from ...spi.operation import Operation
from ...spi.portable import BATCH_BYTES, BATCH_RECORDS, Portable, Slice
from .._copy.log import LogSql, PortableLog
from .._copy.sql import NAMES, PortableJobs, PortableState, Rows, Sql, Steps, Tables, stored_configuration
from . import SqliteComponent
from .configuration import SqliteConfiguration
from .log import topic_channel
from .writes import WriteTask

_LIST: Final = re.compile(r"= ANY \((\$\d+)\)")
_RAISE_TOKENS: Final = Sql(
    "INSERT INTO counters (name, value) VALUES ('lock.token', $1) "
    "ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"
)
_REST: Final = (
    "INSERT INTO claims (grp, frame, start, count, member, boot, deadline, deliveries) "
    "SELECT g.id, f.id, {start}, f.count - {start}, '', '', 0, 0 FROM groups g JOIN frames f ON f.topic = g.topic AND f.id {which} g.frame "
    "WHERE g.id = ANY ($1)"
)


def _part(
    group: Sequence[Any], location: tuple[int, int], count: int, claims: Sequence[Slice] | None
) -> tuple[Slice, ...] | None:
    """Return what a group has not settled of a frame, by its cursor."""
    *_, frame, position = group
    if location[1] == frame and position < count:
        return (*(claims or ()), Slice(position, count - position, None, 0, 0))
    if location[1] <= frame or claims is not None:
        return tuple(claims or ())
    return None


LOG: Final = LogSql(
    frames_after=Sql(
        "SELECT f.id, 0, f.count, f.body FROM (SELECT id, sum(size) OVER (ORDER BY id) - size AS before FROM "
        f"(SELECT id, size FROM frames WHERE topic = $1 AND id > $3 ORDER BY id LIMIT {BATCH_RECORDS})) AS part "
        f"JOIN frames f ON f.id = part.id WHERE part.before < {BATCH_BYTES} ORDER BY f.id"
    ),
    groups=Sql("SELECT id, topic, name, frame, position FROM groups WHERE topic = ANY ($1)"),
    part=_part,
    has_copied=Sql("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'copied')"),
    make_group=Sql(
        "INSERT INTO groups (topic, name, frame, position, seen, parts) VALUES ($1, $2, 0, 0, {now}, $3) ON CONFLICT DO NOTHING"
    ),
    catch_up=(
        Sql(_REST.format(start="g.position", which="=") + " AND g.position < f.count"),
        Sql(_REST.format(start="0", which=">")),
    ),
    put_frame=Sql(
        "INSERT INTO frames (topic, count, size, created, body) VALUES ($1, $2, length($3), {now}, $3) RETURNING id, 0, 0"
    ),
    put_claim=Sql(
        "INSERT INTO claims (grp, frame, start, count, member, boot, deadline, deliveries, settled) "
        "VALUES ($1, $2, $3, $4, '', $boot, $5, $6, $7)"
    ),
    move_cursor=Sql(
        "UPDATE groups SET frame = $2, position = (SELECT count FROM frames WHERE id = $2), seen = {now} WHERE id = $1"
    ),
    held=Sql(
        "SELECT count(*) FROM claims c JOIN groups g ON g.id = c.grp JOIN topics t ON t.id = g.topic "
        "WHERE t.pubsub = $1 AND c.member <> '' AND c.deadline > $moment AND c.boot = $boot"
    ),
)


class DatabaseTables(Tables):
    """The tables of a file."""

    def __init__(self, component: SqliteComponent) -> None:
        self._component = component

    def _named(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return parameters by the names that SQLite has for ``$1``, ``$2`` …, and those of `_text`."""
        clocks = self._component.engine.clocks
        times = {"now": clocks.wall_ms(), "moment": clocks.boot_ms(), "boot": clocks.boot_id()}
        lists = ((index, json.dumps(each) if isinstance(each, list) else each) for index, each in enumerate(values, 1))
        return times | {str(index): each for index, each in lists}

    def query(self, op: Operation, sql: Sql, *values: Any) -> Rows:
        return self._component.engine.query(op, _text(sql), self._named(values))

    def write(self, op: Operation, steps: Callable[[], Steps]) -> None:
        def body(connection: sqlite3.Connection) -> None:
            flow = steps()
            calls = next(flow)
            try:
                while True:
                    calls = flow.send(
                        [connection.execute(_text(sql), self._named(values)).fetchall() for sql, values in calls]
                    )
            except StopIteration as end:
                task.channels = tuple(map(topic_channel, end.value or ()))

        task = WriteTask(body, durable=True, size=BATCH_BYTES)
        self._component.engine.run(task, op)

    def due_ms(self, deadline: int, boot: str) -> int:
        clocks = self._component.engine.clocks
        remaining = deadline - clocks.boot_ms()
        return clocks.wall_ms() + remaining if remaining > 0 and boot == clocks.boot_id() else 0

    def deadline(self, due_ms: int) -> int:
        clocks = self._component.engine.clocks
        remaining = due_ms - clocks.wall_ms()
        return clocks.boot_ms() + remaining if remaining > 0 else 0


@cache
def _text(sql: Sql) -> str:
    text = _LIST.sub(r"IN (SELECT value FROM json_each(\1))", sql.text)
    for name, value in (
        ("{schema}.", ""),
        ("{now}", "$now"),
        ("{boot}", "boot"),
        ("{and_boot}", ", boot"),
        ("{this_boot}", ", $boot"),
        ("{lasts}", "(deadline > $moment AND {current})"),
        ("{current}", "boot = $boot"),
        (" FOR UPDATE", ""),
    ):
        text = text.replace(name, value)
    return text


def names(component: SqliteComponent, op: Operation, service: str) -> list[str]:
    """Return the names of a service that have data."""
    if service not in NAMES or not (is_memory(component.path) or os.path.exists(component.path)):
        return []  # whoever only asks makes no database
    return [row[0] for row in DatabaseTables(component).query(op, NAMES[service])]


def portable(component: SqliteComponent, service: str, name: str) -> Portable:
    """Return the data of a name."""
    tables = DatabaseTables(component)
    if service == "state":
        return PortableState(tables, name, _RAISE_TOKENS)
    if service == "configuration":
        return stored_configuration(tables, name, SqliteConfiguration(component, name))
    if service == "pubsub":
        return PortableLog(tables, name, LOG)
    if service == "schedule":
        return PortableJobs(tables, name)
    raise UnsupportedError(f"{service} of the component 'sqlite' is not copied", service=service, component=name)
