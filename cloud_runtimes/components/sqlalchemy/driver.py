"""The driver: a call is a place, a turn, a connection, and one hop where the lane has one."""

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
from .holds import Holds
from .lanes import Lane, run, run_async
from .session import Cursor, Session, enter

if TYPE_CHECKING:
    from .store import Store

__all__ = ["FEATURES", "SqlDatabase"]

FEATURES: Final = frozenset({spi.CANCEL, spi.EXECUTE_MANY, spi.ISOLATION, spi.SCHEMA, spi.STREAM, spi.TRANSACTION})
# OpenTelemetry's semantic conventions for databases, "db.system.name"
_SYSTEMS: Final = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}
_READING: Final = (spi.ListTables, spi.DescribeTable)


def _leave_unless_working(holds: Holds, call: Call) -> None:
    if call.is_forgone():
        holds.leave()


class SqlDatabase(DatabaseDriver):
    """A database of SQLAlchemy's."""

    features = FEATURES

    def __init__(self, store: Callable[[], Store], url: str) -> None:
        self._store_of = store
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

    async def _run(self, store: Store, call: Call, statement: Statement, lane: Lane) -> Outcome:
        holds = store.holds(in_loop=lane.in_loop)
        call.abandon = partial(_leave_unless_working, holds)
        writing = not (statement.sql.reads if isinstance(statement, Query) else isinstance(statement, _READING))
        try:
            await enter(store, lane, call.op, holds, writing=writing)
            return await lane.call(
                store, call, partial(self._once, store, call, holds, statement, writing, lane.in_loop)
            )
        except BaseException:
            _leave_unless_working(holds, call)
            raise

    @staticmethod
    def _once(store: Store, call: Call, holds: Holds, statement: Statement, writing: bool, in_loop: bool) -> Outcome:
        try:
            link = store.connect(call, holds, in_loop=in_loop)
            if isinstance(statement, (spi.Query, spi.Execute, spi.ExecuteMany)) and statement.sql.alone:
                link.autocommit(call)
            elif writing:
                link.begin(call, None, writing=True)
            outcome = link.run(call, statement)
            if writing:
                link.commit(call)
            return outcome
        finally:
            holds.leave()

    def run(self, op: Operation, statement: Statement, /) -> Outcome:
        store, call = self._store_of(), Call(op)
        return run(store, call, lambda lane: self._run(store, call, statement, lane))

    async def run_async(self, op: Operation, statement: Statement, /) -> Outcome:
        store, call = self._store_of(), Call(op)
        return await run_async(store, call, lambda lane: self._run(store, call, statement, lane))

    # -- several ----------------------------------------------------------

    def begin(self, op: Operation, isolation: Isolation | None, /) -> DatabaseSession:
        store, call = self._store_of(), Call(op)
        return run(store, call, lambda lane: Session(store).open(lane, call, isolation, writing=True))

    async def begin_async(self, op: Operation, isolation: Isolation | None, /) -> DatabaseSession:
        store, call = self._store_of(), Call(op)
        return await run_async(store, call, lambda lane: Session(store).open(lane, call, isolation, writing=True))

    @staticmethod
    async def _stream(store: Store, call: Call, query: Query, lane: Lane) -> DatabaseCursor:
        session = Session(store)
        await session.open(lane, call, None, writing=not query.sql.reads)
        second = Call(call.op)
        call.follow(second)
        return await Cursor(session, owns=True).open(lane, second, query)

    def stream(self, op: Operation, query: Query, /) -> DatabaseCursor:
        store, call = self._store_of(), Call(op)
        return run(store, call, lambda lane: self._stream(store, call, query, lane))

    async def stream_async(self, op: Operation, query: Query, /) -> DatabaseCursor:
        store, call = self._store_of(), Call(op)
        return await run_async(store, call, lambda lane: self._stream(store, call, query, lane))
