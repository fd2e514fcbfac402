"""The data of a home on PostgreSQL, for copying it to another home and from one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from ...errors import UnsupportedError
from ...spi.operation import Operation
from ...spi.portable import BATCH_BYTES, BATCH_RECORDS, Portable, Slice
from .._copy.log import LogSql, PortableLog
from .._copy.sql import NAMES, PortableJobs, PortableState, Rows, Sql, Steps, Tables, stored_configuration
from . import PostgresComponent
from .claim import UNSEEN
from .configuration import PostgresConfiguration
from .connection import Connection, Flow
from .failures import SqlFailure
from .member import channel
from .notifier import notification
from .schema import NO_PARTITION, make_partitions
from .statement import BEGIN, COMMIT, ROLLBACK, Statement

_FILES: Final = Sql("SELECT DISTINCT store FROM {schema}.files ORDER BY store")
_RAISE_TOKENS: Final = Sql(
    "SELECT setval('{schema}.lock_token', greatest(last_value, {now}, $1)) FROM {schema}.lock_token", "int8"
)


def _part(
    group: Sequence[Any], position: tuple[int, int], count: int, claims: Sequence[Slice] | None
) -> tuple[Slice, ...] | None:
    """Return what a group has not settled of a frame, by its snapshots (see `claim`)."""
    *_, past, present, xid, frame = group
    if _sees(past, position[0]) or (present is not None and _sees(present, position[0]) and position <= (xid, frame)):
        return tuple(claims or ())
    # a transaction that committed late has frames in between that are new
    is_last = position[0] >= int(past.split(":")[1])
    return None if is_last else (Slice(0, count, None, 0, 0),)


def _sees(snapshot: str, xid: int) -> bool:
    """Return whether a transaction is visible in a snapshot (PostgreSQL manual, "Transaction ID and Snapshot Information Functions")."""
    low, high, between = snapshot.split(":")
    return xid < int(low) or (xid < int(high) and str(xid) not in between.split(","))


LOG: Final = LogSql(
    frames_after=Sql(
        "SELECT f.id, f.xid, f.count, f.body FROM "
        "(SELECT id, xid, created, sum(size) OVER (ORDER BY xid, id) - size AS before FROM "
        "(SELECT id, xid, created, length(body) AS size FROM {schema}.frames WHERE topic = $1 AND (xid, id) > ($2::xid8, $3) "
        f"ORDER BY xid, id LIMIT {BATCH_RECORDS}) AS a) AS part "
        "JOIN {schema}.frames f ON f.id = part.id AND f.created = part.created "
        f"WHERE part.before < {BATCH_BYTES} ORDER BY f.xid, f.id",
        "int8 text int8",
    ),
    groups=Sql(
        "SELECT id, topic, name, past::text, present::text, xid, frame FROM {schema}.groups WHERE topic = ANY ($1)",
        "int8[]",
    ),
    part=_part,
    has_copied=Sql("SELECT to_regclass('{schema}.copied') IS NOT NULL"),
    make_group=Sql(
        "INSERT INTO {schema}.groups (topic, name, past, xid, frame, seen, parts) VALUES ($1, $2, '1:1:', '0', 0, {now}, $3) "
        "ON CONFLICT DO NOTHING",
        "int8 text int4",
    ),
    catch_up=(
        Sql(
            "INSERT INTO {schema}.claims (grp, xid, frame, created, start, count, member, deadline, deliveries) "
            "SELECT g.id, f.xid, f.id, f.created, 0, f.count, '', 0, 0 FROM {schema}.groups g JOIN {schema}.frames f "
            f"ON f.topic = g.topic AND {UNSEEN} WHERE g.id = ANY ($1)",
            "int8[]",
        ),
    ),
    put_frame=Sql(
        "INSERT INTO {schema}.frames (topic, count, body) VALUES ($1, $2, $3) RETURNING id, xid, created",
        "int8 int4 bytea",
    ),
    put_claim=Sql(
        "INSERT INTO {schema}.claims (grp, frame, start, count, member, deadline, deliveries, settled, xid, created) "
        "VALUES ($1, $2, $3, $4, '', $5, $6, $7, $8::text::xid8, $9)",
        "int8 int8 int4 int4 int8 int4 bytea int8 int8",
    ),
    # what is visible now, and what this transaction has written itself, was claimed up to this frame
    move_cursor=Sql(
        "UPDATE {schema}.groups SET frame = $2, xid = $3::text::xid8, seen = {now}, present = (SELECT "
        "format('%s:%s:%s', coalesce(min(open), top), top, string_agg(open::text, ',' ORDER BY open))::pg_snapshot FROM "
        "(SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8 AS next, "
        "greatest(pg_snapshot_xmax(pg_current_snapshot())::text::int8, $3 + 1) AS top) AS n LEFT JOIN LATERAL "
        "(SELECT x::text::int8 AS open FROM pg_snapshot_xip(pg_current_snapshot()) x UNION SELECT generate_series(next, $3 - 1)) AS o "
        "ON open <> $3 GROUP BY top) WHERE id = $1",
        "int8 int8 int8",
    ),
    held=Sql(
        "SELECT count(*) FROM {schema}.claims c JOIN {schema}.groups g ON g.id = c.grp JOIN {schema}.topics t ON t.id = g.topic "
        "WHERE t.pubsub = $1 AND c.member <> '' AND c.deadline > {now}",
        "text",
    ),
)


@cache
def _statement(sql: Sql) -> Statement:
    text = sql.text
    for name, value in (
        ("{lasts}", "(deadline > {now})"),
        ("{current}", "true"),
        ("{now}", "{schema}.now_ms()"),
        ("{boot}", "''"),
        ("{and_boot}", ""),
        ("{this_boot}", ""),
    ):
        text = text.replace(name, value)
    return Statement(text, sql.types)


class DatabaseTables(Tables):
    """The tables of a schema."""

    def __init__(self, component: PostgresComponent) -> None:
        self._component = component

    def query(self, op: Operation, sql: Sql, *values: Any) -> Rows:
        statement = _statement(sql)
        return self._component.engine.run(op, lambda connection: connection.execute(statement, *values)).rows

    def write(self, op: Operation, steps: Callable[[], Steps]) -> None:
        self._component.engine.run(op, lambda connection: self._write(connection, steps))

    def _write(self, connection: Connection, steps: Callable[[], Steps]) -> Flow[None]:
        try:
            yield from self._transaction(connection, steps())
        except SqlFailure as error:
            if error.state != NO_PARTITION:
                raise
            yield from connection.execute(ROLLBACK)
            yield from make_partitions(connection, self._component.settings.retention)
            yield from self._transaction(connection, steps())

    def _transaction(self, connection: Connection, flow: Steps) -> Flow[None]:
        yield from connection.execute(BEGIN)
        calls = next(flow)
        while True:
            results = yield from connection.pipeline([(_statement(sql), values) for sql, values in calls])
            try:
                calls = flow.send([result.rows for result in results])
            except StopIteration as end:
                channels = [channel(topic) for topic in end.value or ()]
                break
        if channels:
            statement, values = notification(self._component.settings.schema, channels)
            yield from connection.execute(statement, *values)
        yield from connection.execute(COMMIT)

    def due_ms(self, deadline: int, boot: str) -> int:
        return deadline

    def deadline(self, due_ms: int) -> int:
        return due_ms


def names(component: PostgresComponent, op: Operation, service: str) -> list[str]:
    """Return the names of a service that have data."""
    sql = _FILES if service == "file" else NAMES.get(service)
    return [] if sql is None else [row[0] for row in DatabaseTables(component).query(op, sql)]


def portable(component: PostgresComponent, service: str, name: str) -> Portable:
    """Return the data of a name."""
    tables = DatabaseTables(component)
    if service == "state":
        return PortableState(tables, name, _RAISE_TOKENS)
    if service == "configuration":
        return stored_configuration(tables, name, PostgresConfiguration(component, name))
    if service == "pubsub":
        return PortableLog(tables, name, LOG)
    if service == "schedule":
        return PortableJobs(tables, name)
    raise UnsupportedError(f"{service} of the component 'postgres' is not copied", service=service, component=name)
