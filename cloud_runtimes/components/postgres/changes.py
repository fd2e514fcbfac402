"""Changes: the parts of a transaction. Each driver prepares its own; whoever commits runs them together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import psycopg

from ...errors import CloudRuntimesError
from ...spi.change import Change
from ...spi.operation import Method, Operation
from . import PostgresComponent
from .connection import Connection, Flow
from .failures import SqlFailure
from .notifier import notification
from .schema import NO_PARTITION, make_partitions
from .statement import BEGIN, COMMIT, RELAXED, ROLLBACK, Result, Statement

Call: TypeAlias = tuple[Statement, Sequence[Any]]
_PREPARE: Final = Method("postgres", "prepare", repeatable=True)
_TIMEOUT: Final = 10.0


class PostgresChange(Change):
    """Statements that are part of a transaction.

    Attributes:
        channels: to notify once it is committed; known after `calls`.
    """

    channels: Sequence[str] = ()

    def __init__(self, component: PostgresComponent) -> None:
        self._component = component

    @property
    def conditional(self) -> bool:
        """Whether `check` may refuse the transaction."""
        return False

    @abstractmethod
    def calls(self, connection: Connection) -> Flow[list[Call]]:
        """Return the statements. What they need to know, such as the number of a topic, is asked for or made before the transaction."""

    def check(self, connection: Connection, results: Sequence[Result]) -> Flow[None]:
        """Take in the results; an error undoes the transaction."""
        yield from ()

    def apply(self, connection: psycopg.Connection, /) -> None:
        database = self._component.engine
        settings = self._component.settings
        calls = database.run(Operation(_PREPARE, "postgres", _TIMEOUT), self.calls)
        borrowed = _Borrowed(connection, settings.schema)
        try:
            try:
                borrowed.run_all(calls)
            except SqlFailure as error:
                if error.state != NO_PARTITION:
                    raise
                for _ in make_partitions(borrowed, settings.retention):
                    pass  # it waits for nothing
                borrowed.run_all(calls)
            if self.channels:
                borrowed.run_all([notification(settings.schema, list(self.channels))])
        except SqlFailure as error:
            raise error.map_error(database.where, standby=False) from error


class _Borrowed(Connection):
    """A connection of psycopg's, in a transaction of somebody else, for the flows of this component."""

    __slots__ = ("_borrowed",)

    def __init__(self, connection: psycopg.Connection, schema: str) -> None:
        super().__init__(schema, prepares=False)
        self._borrowed = connection

    def execute(self, statement: Statement, *values: Any) -> Flow[Result]:
        yield from ()
        return self.run_all([(statement, values)])

    def run_all(self, calls: Sequence[Call]) -> Result:
        """Run statements and return the result of the last one; after a failure the transaction goes on as it was before them."""
        try:
            with self._borrowed.transaction():
                cursor = psycopg.RawCursor(self._borrowed)
                for statement, values in calls:
                    cursor.execute(self._sql(statement), values, binary=True)
                return Result(cursor.fetchall() if cursor.description else [], cursor.rowcount)
        except psycopg.Error as error:
            if error.pgresult is None:
                raise
            raise SqlFailure(error.pgresult, 0) from error


def commit(
    connection: Connection,
    changes: Sequence[PostgresChange],
    *,
    schema: str,
    retention: float,
    relaxed: bool = False,
) -> Flow[None]:
    """Apply changes in one transaction, in one round trip where none is conditional.

    Args:
        connection: not in a transaction.
        changes: in order.
        schema: of the tables.
        retention: of events, in seconds.
        relaxed: do not wait for the server's disk.
    """
    parts = []
    for change in changes:
        parts.append((yield from change.calls(connection)))
    if len(parts) == 1 and len(parts[0]) == 1 and not relaxed and not changes[0].channels:
        # the transaction is the statement; where its condition does not hold it has changed nothing
        ((statement, values),) = parts[0]
        result = yield from connection.execute(statement, *values)
        yield from changes[0].check(connection, [result])
        return
    calls = [call for part in parts for call in part]
    if not calls:
        return
    channels = [channel for change in changes for channel in change.channels]
    after = [notification(schema, channels)] if channels else []
    checked = any(change.conditional for change in changes)
    before = [(BEGIN, ())] if checked else []
    if relaxed:
        before.append((RELAXED, ()))
    now = [] if checked else after
    try:
        results = yield from connection.pipeline([*before, *calls], now)
    except SqlFailure as error:
        if checked:
            yield from connection.execute(ROLLBACK)
        if error.state != NO_PARTITION:
            raise
        yield from make_partitions(connection, retention)
        results = yield from connection.pipeline([*before, *calls], now)
    offset = len(before)
    try:
        for change, part in zip(changes, parts, strict=True):
            yield from change.check(connection, results[offset : offset + len(part)])
            offset += len(part)
    except CloudRuntimesError:
        if checked:
            yield from connection.execute(ROLLBACK)
        raise
    if checked:
        yield from connection.pipeline([(COMMIT, ())], after)
