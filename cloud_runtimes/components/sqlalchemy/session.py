"""Transactions and cursors: what lives longer than one call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import ClosedError
from ...spi.database import DatabaseCursor, DatabaseSession, Isolation, Outcome, Query, Statement
from ...spi.operation import Operation
from .calls import Call
from .locks import FairSemaphore
from .runners import Flow, FlowContext

if TYPE_CHECKING:
    from .connection import Connection
    from .pool import ConnectionPool

__all__ = ["Cursor", "Session"]

R = TypeVar("R")


class Session(DatabaseSession):
    """A connection in a transaction, from its beginning to its end.

    Its steps run one after the other. A step that fails ends it, as does one whose caller gave up.
    """

    def __init__(self, pool: ConnectionPool, isolation: Isolation | None, *, writing: bool) -> None:
        self.runner = pool.runner
        self._pool = pool
        self._isolation = isolation
        self._writing = writing
        self._connection: Connection | None = None
        self._disown: Callable[[], Any] | None = None
        self._has_permit = False
        self._turn = FairSemaphore(1, "another call of this transaction")
        self._given_up = False
        self._ended: str | None = None

    # -- flows ------------------------------------------------------------

    async def open(self, context: FlowContext, call: Call) -> None:
        """Begin."""
        await self._turn.acquire(context.wait, call)
        try:
            if self._ended is not None:  # given up before it began
                raise ClosedError(call.reason)
            await self._pool.permits.acquire(context.wait, call)
        except BaseException:
            self._ended = "its beginning failed"
            self._turn.release()
            raise
        self._has_permit = True
        await context.call(call, partial(self._guarded, call, self._begin), self._turn.release)

    def _begin(self, call: Call, connection: None) -> None:
        self._connection = self._pool.connect(call, writing=self._writing)
        self._disown = self._pool.watchdog.own(self, self._connection)
        self._connection.begin(call, self._isolation, writing=self._writing)

    async def step(self, context: FlowContext, call: Call, work: Callable[[Call, Any], R]) -> R:
        """Do something in it, after what is under context."""
        await self._turn.acquire(context.wait, call)
        return await context.call(call, partial(self._guarded, call, work), self._turn.release)

    def _guarded(self, call: Call, work: Callable[[Call, Any], R]) -> R:
        if self._given_up:
            self._end("a call was given up")
        if self._ended is not None:
            raise ClosedError(f"this transaction was rolled back, since {self._ended}")
        try:
            return work(call, self._connection)
        except BaseException as error:
            self._end(f"a statement failed: {type(error).__name__}")
            raise

    def _end(self, reason: str) -> None:
        """Roll back, unless it was committed, and give the connection back; does nothing once it has ended."""
        if self._ended is None:
            self._ended = reason
            try:
                if self._connection is not None and self._disown is not None:
                    self._disown()
                    self._connection.close()
            finally:
                self._connection = None
                if self._has_permit:  # also one that never began is ended
                    self._pool.permits.release()

    async def _rollback(self, context: FlowContext, call: Call) -> None:
        if self._ended is None:
            try:
                await self.step(context, call, lambda call, connection: self._end("it was rolled back"))
            except ClosedError:
                if self._ended is None:  # else it has ended meanwhile
                    raise

    def commit_step(self, call: Call, connection: Connection) -> None:
        """Commit, and end it."""
        connection.commit(call)
        self._end("it was committed")

    # -- calls ------------------------------------------------------------

    def give_up(self) -> None:
        """End it behind what is under context: the caller of a step got an error, perhaps when that was done already."""
        if self._ended is None:
            self._given_up = True
            self.runner.post(self._rollback)

    def run(self, op: Operation, statement: Statement, /) -> Outcome:
        return self.runner.run(op, self._statement(statement), self)

    async def run_async(self, op: Operation, statement: Statement, /) -> Outcome:
        return await self.runner.run_async(op, self._statement(statement), self)

    def _statement(self, statement: Statement) -> Flow[Outcome]:
        return partial(self.step, work=lambda call, connection: connection.run(call, statement))

    def stream(self, op: Operation, query: Query, /) -> DatabaseCursor:
        cursor = Cursor(self, query, owns=False)
        self.runner.run(op, cursor.open, self)
        return cursor

    async def stream_async(self, op: Operation, query: Query, /) -> DatabaseCursor:
        cursor = Cursor(self, query, owns=False)
        await self.runner.run_async(op, cursor.open, self)
        return cursor

    def commit(self, op: Operation, /) -> None:
        self.runner.run(op, partial(self.step, work=self.commit_step), self)

    async def commit_async(self, op: Operation, /) -> None:
        await self.runner.run_async(op, partial(self.step, work=self.commit_step), self)

    def rollback(self, op: Operation, /) -> None:
        self.runner.run(op, self._rollback, self)

    async def rollback_async(self, op: Operation, /) -> None:
        await self.runner.run_async(op, self._rollback, self)


class Cursor(DatabaseCursor):
    """Rows of a session; one that ``owns`` its session ends it."""

    def __init__(self, session: Session, query: Query, *, owns: bool) -> None:
        self._session = session
        self._query = query
        self._owns = owns
        self._result: Any = None

    async def open(self, context: FlowContext, call: Call) -> None:
        """Begin to read."""
        if self._owns:
            await self._session.open(context, call)
        await self._session.step(context, call, self._begin)

    def _begin(self, call: Call, connection: Connection) -> None:
        self._result, self.columns = connection.open_cursor(call, self._query)

    async def _fetch(self, context: FlowContext, call: Call) -> list[tuple[Any, ...]]:
        if self._result is None:
            return []
        return await self._session.step(context, call, self._next)

    def _next(self, call: Call, connection: Connection) -> list[tuple[Any, ...]]:
        found = [] if self._result is None else connection.fetch(call, self._result)
        if not found:
            self._result = None
            if self._owns and not self._query.sql.reads:
                self._session.commit_step(call, connection)
            elif self._owns:
                self._session._end("all rows were read")
        return found

    async def _close(self, context: FlowContext, call: Call) -> None:
        result, self._result = self._result, None
        if self._owns:
            await self._session._rollback(context, call)
        elif result is not None and self._session._ended is None:
            try:
                await self._session.step(context, call, lambda call, connection: connection.step(call, result.close))
            except ClosedError:
                return  # the transaction has ended meanwhile, and this with it

    def fetch(self, op: Operation, /) -> list[tuple[Any, ...]]:
        return self._session.runner.run(op, self._fetch, self._session)

    async def fetch_async(self, op: Operation, /) -> list[tuple[Any, ...]]:
        return await self._session.runner.run_async(op, self._fetch, self._session)

    def close(self, op: Operation, /) -> None:
        self._session.runner.run(op, self._close, self._session)

    async def close_async(self, op: Operation, /) -> None:
        await self._session.runner.run_async(op, self._close, self._session)
