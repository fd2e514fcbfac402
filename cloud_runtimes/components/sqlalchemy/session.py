"""Transactions and cursors: what lives longer than one call."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ...errors import ClosedError, CloudRuntimesError
from ...spi.database import DatabaseCursor, DatabaseSession, Isolation, Outcome, Query, Statement
from ...spi.flow import run_sync
from ...spi.operation import Method, Operation
from .calls import Call
from .holds import Holds
from .lanes import DIRECT, LOOP, Lane, run, run_async
from .turns import Turns

if TYPE_CHECKING:
    from .link import Link
    from .store import Store

__all__ = ["Cursor", "Session", "enter"]

R = TypeVar("R")

_ROLLBACK: Final = Method("database", "rollback", repeatable=False, writes=False)


async def enter(store: Store, lane: Lane, op: Operation, holds: Holds, *, writing: bool) -> None:
    """Wait for a connection's place and, to write an SQLite file, for the turn."""
    await lane.enter(store.places, op, holds)
    if store.fresh:
        await _make(store, lane, op)
    if writing and store.writer is not None:
        await lane.enter(store.writer, op, holds)


async def _make(store: Store, lane: Lane, op: Operation) -> None:
    """Make a file of SQLite and its log of writes, in turn with all who do the same; one that is made already is only opened."""
    store.prepare()
    assert store.writer is not None
    holds, first, call = store.holds(in_loop=lane.in_loop), Call(op), Call(op)

    def look() -> None:
        looking = store.holds(in_loop=lane.in_loop)
        try:
            store.connect(first, looking, in_loop=lane.in_loop).soiled = store.fresh
        finally:
            looking.leave()

    await lane.call(store, first, look)
    if not store.fresh:
        return

    def work() -> None:
        store.making = True
        try:
            store.connect(call, holds, in_loop=lane.in_loop)
        finally:
            store.making = False
            holds.leave()

    try:
        await lane.enter(store.writer, op, holds)
        await lane.call(store, call, work)
    except BaseException:
        if call.claim():
            holds.leave()
        raise


class Session(DatabaseSession):
    """A connection in a transaction, from its beginning to its end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._holds = store.holds(in_loop=False)
        self._link: Link | None = None
        self._turns = Turns(1, "another call of this transaction")
        self._ended: str | None = None
        self._doomed = False
        self._in_loop = False
        self._begun = False

    # -- begin ------------------------------------------------------------

    async def open(self, lane: Lane, call: Call, isolation: Isolation | None, *, writing: bool) -> Session:
        """Begin."""
        self._in_loop = lane.in_loop
        self._holds = self._store.holds(in_loop=lane.in_loop)
        call.abandon = self._abandon_opening
        try:
            await enter(self._store, lane, call.op, self._holds, writing=writing)
            await lane.call(self._store, call, partial(self._begin, call, isolation, writing))
        except BaseException:
            if call.is_forgone():
                self._finish()
            raise
        return self

    def _begin(self, call: Call, isolation: Isolation | None, writing: bool) -> None:
        try:
            self._link = self._store.connect(call, self._holds, in_loop=self._in_loop)
            self._link.begin(call, isolation, writing=writing)
            self._begun = call.end()
        except BaseException:
            self._end("its beginning failed")
            raise

    def _abandon_opening(self, call: Call) -> None:
        """Nobody will have it."""
        if call.is_forgone():
            self._finish()
        elif self._begun:  # else the thread that begins it sees that
            self._abandon()

    def _abandon(self) -> None:
        """End it after what is under way, by others."""
        call = Call(Operation(_ROLLBACK, self._store.name, None))
        if not self._in_loop:
            self._store.workers.post(lambda: run_sync(self.rollback_in(DIRECT, call)))
            return
        try:
            self._store.submit(self.rollback_in(LOOP, call))
        except CloudRuntimesError:
            return  # the client is closed, and its connections with it

    # -- steps ------------------------------------------------------------

    async def step(self, lane: Lane, call: Call, work: Callable[[Call, Link], R]) -> R:
        """Do something in it, after what is under way; any failure ends it."""
        holds = Holds(self._store.debts)
        call.abandon = partial(self._abandon_step, holds)
        try:
            await lane.enter(self._turns, call.op, holds)
            return await lane.call(self._store, call, partial(self._guarded, call, holds, work))
        except BaseException:
            if call.is_forgone():
                self._doomed = True
                holds.leave()
            raise

    def _abandon_step(self, holds: Holds, call: Call) -> None:
        """Whoever called has given up, which ends the transaction, also where the step itself was done by then."""
        if call.is_forgone():
            holds.leave()
        if self._ended is None:
            self._doomed = True
            self._abandon()

    def _guarded(self, call: Call, holds: Holds, work: Callable[[Call, Link], R]) -> R:
        try:
            if self._doomed:
                self._end("a call was given up")
            if self._ended is not None or self._link is None:
                raise ClosedError(f"this transaction was rolled back, since {self._ended or 'it has ended'}")
            try:
                return work(call, self._link)
            except BaseException as error:
                self._end(f"a statement failed: {type(error).__name__}")
                raise
        finally:
            holds.leave()

    def _end(self, reason: str) -> None:
        """Roll back; does nothing once it has ended."""
        if self._ended is None:
            self._ended = reason
            try:
                if self._link is not None:
                    self._link.rollback()
            finally:
                self._finish()

    def _finish(self) -> None:
        self._holds.leave()
        self._link = None

    def _commit(self, call: Call, link: Link) -> None:
        link.commit(call)
        self._ended = "it was committed"
        self._finish()

    async def commit_in(self, lane: Lane, call: Call) -> None:
        """Commit, and end."""
        await self.step(lane, call, self._commit)

    async def rollback_in(self, lane: Lane, call: Call) -> None:
        """Roll back, and end."""
        if self._ended is None:
            try:
                await self.step(lane, call, lambda call, link: self._end("it was rolled back"))
            except ClosedError:
                if self._ended is None:  # else it has ended meanwhile
                    raise

    # -- the SPI ----------------------------------------------------------

    def run(self, op: Operation, statement: Statement, /) -> Outcome:
        call = Call(op)
        return self._run(call, partial(self._statement, call, statement))

    async def run_async(self, op: Operation, statement: Statement, /) -> Outcome:
        call = Call(op)
        return await self._run_async(call, partial(self._statement, call, statement))

    async def _statement(self, call: Call, statement: Statement, lane: Lane) -> Outcome:
        return await self.step(lane, call, lambda call, link: link.run(call, statement))

    def stream(self, op: Operation, query: Query, /) -> DatabaseCursor:
        call = Call(op)
        return self._run(call, lambda lane: Cursor(self, owns=False).open(lane, call, query))

    async def stream_async(self, op: Operation, query: Query, /) -> DatabaseCursor:
        call = Call(op)
        return await self._run_async(call, lambda lane: Cursor(self, owns=False).open(lane, call, query))

    def commit(self, op: Operation, /) -> None:
        call = Call(op)
        self._run(call, lambda lane: self.commit_in(lane, call))

    async def commit_async(self, op: Operation, /) -> None:
        call = Call(op)
        await self._run_async(call, lambda lane: self.commit_in(lane, call))

    def rollback(self, op: Operation, /) -> None:
        call = Call(op)
        self._run(call, lambda lane: self.rollback_in(lane, call))

    async def rollback_async(self, op: Operation, /) -> None:
        call = Call(op)
        await self._run_async(call, lambda lane: self.rollback_in(lane, call))

    def _run(self, call: Call, flow: Callable[[Lane], Coroutine[Any, Any, R]]) -> R:
        call.abandon = partial(self._abandon_step, Holds(self._store.debts))  # before its step begins, too
        return run(self._store, call, flow, in_loop=self._in_loop)

    async def _run_async(self, call: Call, flow: Callable[[Lane], Coroutine[Any, Any, R]]) -> R:
        call.abandon = partial(self._abandon_step, Holds(self._store.debts))  # before its step begins, too
        return await run_async(self._store, call, flow, in_loop=self._in_loop)


class Cursor(DatabaseCursor):
    """Rows of a session; one that ``owns`` its session ends it."""

    def __init__(self, session: Session, *, owns: bool) -> None:
        self._session = session
        self._owns = owns
        self._result: Any = None
        self._commits = False

    async def open(self, lane: Lane, call: Call, query: Query) -> Cursor:
        """Begin to read."""

        def work(call: Call, link: Link) -> None:
            self._result, self.columns = link.open_cursor(call, query)

        self._commits = self._owns and not query.sql.reads
        await self._session.step(lane, call, work)
        return self

    async def _fetch(self, lane: Lane, call: Call) -> list[tuple[Any, ...]]:
        def work(call: Call, link: Link) -> list[tuple[Any, ...]]:
            found = [] if self._result is None else link.fetch(call, self._result)
            if not found:
                self._result = None
                if self._commits:
                    self._session._commit(call, link)
                elif self._owns:
                    self._session._end("all rows were read")
            return found

        if self._result is None:
            return []
        return await self._session.step(lane, call, work)

    async def _close(self, lane: Lane, call: Call) -> None:
        if self._owns:
            self._result = None
            await self._session.rollback_in(lane, call)
        elif self._result is not None and self._session._ended is None:
            result, self._result = self._result, None
            try:
                await self._session.step(lane, call, lambda call, link: link.step(call, result.close))
            except ClosedError:
                return  # the transaction has ended meanwhile, and this with it

    def fetch(self, op: Operation, /) -> list[tuple[Any, ...]]:
        call = Call(op)
        return self._session._run(call, lambda lane: self._fetch(lane, call))

    async def fetch_async(self, op: Operation, /) -> list[tuple[Any, ...]]:
        call = Call(op)
        return await self._session._run_async(call, lambda lane: self._fetch(lane, call))

    def close(self, op: Operation, /) -> None:
        call = Call(op)
        self._session._run(call, lambda lane: self._close(lane, call))

    async def close_async(self, op: Operation, /) -> None:
        call = Call(op)
        await self._session._run_async(call, lambda lane: self._close(lane, call))
