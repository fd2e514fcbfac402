"""The driver, transactions and cursors: what threads of the pool are to do, and waiting for it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from decimal import Decimal
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit
from uuid import UUID

from ...errors import ClosedError
from ...spi import database as spi
from ...spi.change import Change, database_of
from ...spi.database import DatabaseCursor, DatabaseDriver, DatabaseSession, Isolation, Outcome, Query, Statement
from ...spi.operation import Operation
from .calls import Call

if TYPE_CHECKING:
    from .connection import Connection
    from .pool import ConnectionPool

R = TypeVar("R")

FEATURES: Final = frozenset(
    {spi.CANCEL, spi.EXECUTE_MANY, spi.ISOLATION, spi.OUTBOX, spi.SCHEMA, spi.STREAM, spi.TRANSACTION}
)
# OpenTelemetry's semantic conventions for databases, "db.system.name"
_SYSTEMS: Final = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}
_READING: Final = (spi.ListTables, spi.DescribeTable)


class SqlDatabase(DatabaseDriver):
    """A database of SQLAlchemy's."""

    features = FEATURES
    _engine: Hashable = None

    def __init__(
        self, pool: Callable[[], ConnectionPool], url: str, apart: Callable[[], ConnectionPool] | None = None
    ) -> None:
        self._pool_of = pool
        self._apart = None if apart is None else SqlDatabase(apart, url)
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

        if dialect == "postgresql" and driver in ("psycopg", "psycopg_async"):
            self._engine = database_of(url)

    @property
    def engine(self) -> Hashable:
        return self._engine

    @property
    def apart(self) -> DatabaseDriver:
        return self._apart or self

    def run(self, op: Operation, statement: Statement, /) -> Outcome:
        pool = self._pool_of()
        return pool.run(op, _alone(pool, statement))

    async def run_async(self, op: Operation, statement: Statement, /) -> Outcome:
        pool = self._pool_of()
        return await pool.run_async(op, _alone(pool, statement))

    def begin(self, op: Operation, isolation: Isolation | None, /) -> DatabaseSession:
        session = Session(self._pool_of(), isolation, writing=True)
        session.pool.run(op, session.steps.begin, session)
        return session

    async def begin_async(self, op: Operation, isolation: Isolation | None, /) -> DatabaseSession:
        session = Session(self._pool_of(), isolation, writing=True)
        await session.pool.run_async(op, session.steps.begin, session)
        return session

    def stream(self, op: Operation, query: Query, /) -> DatabaseCursor:
        cursor = Cursor(Session(self._pool_of(), None, writing=not query.sql.reads), query, owns=True)
        return cursor.open(op)

    async def stream_async(self, op: Operation, query: Query, /) -> DatabaseCursor:
        cursor = Cursor(Session(self._pool_of(), None, writing=not query.sql.reads), query, owns=True)
        return await cursor.open_async(op)


def _alone(pool: ConnectionPool, statement: Statement) -> Callable[[Call[Outcome]], Outcome]:
    """Return what runs a statement in a transaction of its own."""
    writing = not (statement.sql.reads if isinstance(statement, Query) else isinstance(statement, _READING))

    def work(call: Call[Outcome]) -> Outcome:
        while True:
            with closing(pool.connection(call)) as connection:
                try:
                    return alone(call, connection)
                except Exception as error:
                    from .failures import has_stale_plan  # by now SQLAlchemy is there

                    if call.committing or not has_stale_plan(error):
                        raise
                    connection.soil()  # in the end a new connection has no plans

    def alone(call: Call[Outcome], connection: Connection) -> Outcome:
        if isinstance(statement, (spi.Query, spi.Execute, spi.ExecuteMany)) and statement.sql.alone:
            connection.autocommit(call)
        elif writing:
            connection.begin(call, None, writing=True)
        outcome = connection.run(call, statement)
        if writing:
            connection.commit(call)
        return outcome

    def run(call: Call[Outcome]) -> Outcome:
        with pool.writing(call) if writing else nullcontext():
            return pool.library(call, work, call)

    return run


class _Steps:
    """The thread of a transaction: it has the connection, and takes one call after the other from a queue; ``None`` there rolls back."""

    def __init__(self, pool: ConnectionPool, isolation: Isolation | None, *, writing: bool) -> None:
        self.queue: SimpleQueue[Call[Any] | None] = SimpleQueue()
        self.ended: str | None = None
        self._pool = pool
        self._isolation = isolation
        self._writing = writing
        self._over = False
        self._held = ExitStack()
        self._connection: Connection | None = None

    def submit(self, call: Call[Any]) -> None:
        """Have it run a call; the first one starts it."""
        self.queue.put(call)
        if self._over:
            self._refuse()

    def serve(self) -> None:
        """Run calls to the end of the transaction."""
        while self.ended is None and (call := self.queue.get()) is not None:
            call.run()
            del call  # what it refers to must not live until the next one
        self.end("a call was given up")
        self._over = True
        self._refuse()

    def _refuse(self) -> None:
        """Let calls that came too late find out that it has ended."""
        with suppress(Empty):
            while True:
                if (call := self.queue.get_nowait()) is not None:
                    call.run()

    def begin(self, call: Call[Any]) -> None:
        """Begin."""

        if self._writing:
            self._held.enter_context(self._pool.writing(call))
        self._pool.library(call, self._begin, call)

    def _begin(self, call: Call[Any]) -> None:
        self._connection = self._pool.connection(call)
        self._connection.begin(call, self._isolation, writing=self._writing)

    def step(self, work: Callable[[Call[Any], Any], R], call: Call[R]) -> R:
        """Do something in it; what fails ends it."""
        if self.ended is not None:
            raise ClosedError(f"this transaction was rolled back, since {self.ended}")
        try:
            return self._pool.library(call, work, call, self._connection)
        except BaseException as error:
            self.end(f"a statement failed: {type(error).__name__}")
            raise

    def commit(self, call: Call[Any]) -> None:
        """Commit, and end it."""
        self.step(lambda call, connection: connection.commit(call), call)
        self.end("it was committed")

    def end(self, reason: str) -> None:
        """Roll back, unless it was committed, and give the connection back; does nothing once it has ended."""
        if self.ended is None:
            self.ended = reason
            connection, self._connection = self._connection, None
            with self._held:
                if connection is not None:
                    self._pool.library(None, connection.close)


class Session(DatabaseSession):
    """A transaction. Its thread ends it when nobody refers to it any longer, or a call was given up."""

    def __init__(self, pool: ConnectionPool, isolation: Isolation | None, *, writing: bool) -> None:
        self.pool = pool
        self.steps = _Steps(pool, isolation, writing=writing)
        self._started = False
        # the put of a SimpleQueue is safe in a garbage collection (docs.python.org, queue)
        weakref.finalize(self, self.steps.queue.put, None).atexit = False

    def submit(self, call: Call[Any]) -> None:
        """Have a call run behind earlier ones."""
        self.steps.submit(call)
        if not self._started:
            self._started = True
            call.waiting_for = "a free connection"
            self.pool.start(self.steps.serve)

    def give_up(self) -> None:
        """End it behind what is under way: a call failed, or its caller gave it up."""
        self.steps.queue.put(None)

    def _end(self, call: Call[None]) -> None:
        self.steps.end("it was rolled back")

    def run(self, op: Operation, statement: Statement, /) -> Outcome:
        return self.pool.run(op, self._statement(statement), self)

    async def run_async(self, op: Operation, statement: Statement, /) -> Outcome:
        return await self.pool.run_async(op, self._statement(statement), self)

    def _statement(self, statement: Statement) -> Callable[[Call[Outcome]], Outcome]:
        return partial(self.steps.step, lambda call, connection: connection.run(call, statement))

    def stream(self, op: Operation, query: Query, /) -> DatabaseCursor:
        return Cursor(self, query, owns=False).open(op)

    async def stream_async(self, op: Operation, query: Query, /) -> DatabaseCursor:
        return await Cursor(self, query, owns=False).open_async(op)

    def apply(self, op: Operation, changes: Sequence[Change], /) -> None:
        self.pool.run(op, self._changes(changes), self)

    async def apply_async(self, op: Operation, changes: Sequence[Change], /) -> None:
        await self.pool.run_async(op, self._changes(changes), self)

    def _changes(self, changes: Sequence[Change]) -> Callable[[Call[None]], None]:
        return partial(self.steps.step, lambda call, connection: connection.apply(call, changes))

    def commit(self, op: Operation, /) -> None:
        self.pool.run(op, self.steps.commit, self)

    async def commit_async(self, op: Operation, /) -> None:
        await self.pool.run_async(op, self.steps.commit, self)

    def rollback(self, op: Operation, /) -> None:
        if self.steps.ended is None:
            self.pool.run(op, self._end, self)

    async def rollback_async(self, op: Operation, /) -> None:
        if self.steps.ended is None:
            await self.pool.run_async(op, self._end, self)


class Cursor(DatabaseCursor):
    """Rows of a session; one that ``owns`` its session ends it."""

    def __init__(self, session: Session, query: Query, *, owns: bool) -> None:
        self._session = session
        self._query = query
        self._owns = owns
        self._result: Any = None

    def open(self, op: Operation) -> Cursor:
        """Begin to read."""
        self._result, self.columns = self._session.pool.run(op, self._begin, self._session)
        return self

    async def open_async(self, op: Operation) -> Cursor:
        """Begin to read."""
        self._result, self.columns = await self._session.pool.run_async(op, self._begin, self._session)
        return self

    def _begin(self, call: Call[Any]) -> Any:
        steps = self._session.steps
        if self._owns:
            steps.begin(call)
        return steps.step(lambda call, connection: connection.open_cursor(call, self._query), call)

    def _next(self, call: Call[list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
        if self._result is None:
            return []
        steps = self._session.steps
        rows = steps.step(lambda call, connection: connection.fetch(call, self._result), call)
        if not rows:
            self._result = None
            if self._owns and not self._query.sql.reads:
                steps.commit(call)
            elif self._owns:
                steps.end("all rows were read")
        return rows

    def _close(self, call: Call[None]) -> None:
        result, self._result = self._result, None
        if result is not None and self._session.steps.ended is None:
            self._session.steps.step(lambda call, connection: connection.step(call, result.close), call)

    def fetch(self, op: Operation, /) -> list[tuple[Any, ...]]:
        return self._session.pool.run(op, self._next, self._session)

    async def fetch_async(self, op: Operation, /) -> list[tuple[Any, ...]]:
        return await self._session.pool.run_async(op, self._next, self._session)

    def close(self, op: Operation, /) -> None:
        if self._owns:
            self._session.rollback(op)
        elif self._result is not None:
            self._session.pool.run(op, self._close, self._session)

    async def close_async(self, op: Operation, /) -> None:
        if self._owns:
            await self._session.rollback_async(op)
        elif self._result is not None:
            await self._session.pool.run_async(op, self._close, self._session)
