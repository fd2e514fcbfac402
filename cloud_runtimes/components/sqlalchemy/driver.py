"""The driver: a call waits for a permit, takes a connection, runs its statement and commits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit
from uuid import UUID

from ...spi import database as spi
from ...spi.database import DatabaseCursor, DatabaseDriver, DatabaseSession, Isolation, Outcome, Query, Statement
from ...spi.operation import Operation
from .calls import Call
from .runners import FlowContext
from .session import Cursor, Session

if TYPE_CHECKING:
    from .pool import ConnectionPool

__all__ = ["FEATURES", "SqlDatabase"]

FEATURES: Final = frozenset({spi.CANCEL, spi.EXECUTE_MANY, spi.ISOLATION, spi.SCHEMA, spi.STREAM, spi.TRANSACTION})
# OpenTelemetry's semantic conventions for databases, "db.system.name"
_SYSTEMS: Final = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}
_READING: Final = (spi.ListTables, spi.DescribeTable)


class SqlDatabase(DatabaseDriver):
    """A database of SQLAlchemy's."""

    features = FEATURES

    def __init__(self, pool: Callable[[], ConnectionPool], url: str) -> None:
        self._pool_of = pool
        dialect, _, driver = url.partition(":")[0].partition("+")
        self.mysql = dialect in ("mysql", "mariadb")
        self.system = _SYSTEMS.get(dialect, dialect)
        if dialect != "sqlite":  # there it is a path
            with suppress(ValueError):  # the first call refuses it
                self.namespace = unquote(urlsplit(url).path.removeprefix("/")) or None
        if dialect == "sqlite":
            self.lacks = frozenset({bool, Decimal, dict})
        elif self.mysql or dialect == "oracle":
            self.lacks = frozenset({bool, dict})
        elif driver == "asyncpg":
            self.lacks = frozenset({dict, UUID})

    # -- one statement ----------------------------------------------------

    @staticmethod
    async def _run(pool: ConnectionPool, statement: Statement, context: FlowContext, call: Call) -> Outcome:
        writing = not (statement.sql.reads if isinstance(statement, Query) else isinstance(statement, _READING))

        def work() -> Outcome:
            connection = pool.connect(call, writing=writing)
            try:
                if isinstance(statement, (spi.Query, spi.Execute, spi.ExecuteMany)) and statement.sql.alone:
                    connection.autocommit(call)
                elif writing:
                    connection.begin(call, None, writing=True)
                outcome = connection.run(call, statement)
                if writing:
                    connection.commit(call)
                return outcome
            finally:
                connection.close()

        await pool.permits.acquire(context.wait, call)
        return await context.call(call, work, pool.permits.release)

    def run(self, op: Operation, statement: Statement, /) -> Outcome:
        pool = self._pool_of()
        return pool.runner.run(op, partial(self._run, pool, statement))

    async def run_async(self, op: Operation, statement: Statement, /) -> Outcome:
        pool = self._pool_of()
        return await pool.runner.run_async(op, partial(self._run, pool, statement))

    # -- several ----------------------------------------------------------

    def begin(self, op: Operation, isolation: Isolation | None, /) -> DatabaseSession:
        session = Session(self._pool_of(), isolation, writing=True)
        session.runner.run(op, session.open, session)
        return session

    async def begin_async(self, op: Operation, isolation: Isolation | None, /) -> DatabaseSession:
        session = Session(self._pool_of(), isolation, writing=True)
        await session.runner.run_async(op, session.open, session)
        return session

    def stream(self, op: Operation, query: Query, /) -> DatabaseCursor:
        session = Session(self._pool_of(), None, writing=not query.sql.reads)
        cursor = Cursor(session, query, owns=True)
        session.runner.run(op, cursor.open, session)
        return cursor

    async def stream_async(self, op: Operation, query: Query, /) -> DatabaseCursor:
        session = Session(self._pool_of(), None, writing=not query.sql.reads)
        cursor = Cursor(session, query, owns=True)
        await session.runner.run_async(op, cursor.open, session)
        return cursor
