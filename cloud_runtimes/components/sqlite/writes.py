"""Writes of a database: how a caller waits for one, how several become one transaction, and what is known of an interrupted one."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..._core.sqlite_failures import explain, is_busy
from ..._core.threads import Mutex
from ...errors import CloudRuntimesError, InternalError
from ...spi.change import Change
from ...spi.operation import Operation, mark_interrupted
from .log import insert_frames

if TYPE_CHECKING:
    import asyncio

_IDLE, _STATEMENT, _TRANSACTION, _COMMIT, _DONE = range(5)


class WriteTask:
    """Write for the writer thread.

    Args:
        body: does the write inside a transaction; its result is the result of the task.
        durable: commit with ``synchronous=FULL``.
        single: the body is one statement, so its failure changes nothing.
        size: approximate number of bytes it writes.
        channels: channels to notify after the commit; the body may set them.

    Attributes:
        rows: rows of ``frames``, an alternative to a body; stored together with those of other such tasks.
    """

    def __init__(
        self,
        body: Callable[[sqlite3.Connection], Any] | None,
        *,
        durable: bool,
        single: bool = False,
        size: int = 0,
        channels: tuple[str, ...] = (),
    ) -> None:
        self.body = body
        self.durable = durable
        self.single = single
        self.rows: list[tuple[Any, ...]] | None = None
        self.size = size
        self.channels = channels
        self.result: Any = None
        self.error: Exception | None = None
        self.done: threading.Lock | None = None
        self.future: asyncio.Future[Any] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._token = [None]

    def take(self) -> bool:
        """Take the task, to run it or to withdraw it; only one of all who try succeeds."""
        try:
            self._token.pop()
        except IndexError:
            return False
        return True

    def give_back(self) -> None:
        """Make a task that was taken and not applied free again."""
        self._token = [None]

    # -- waiting ----------------------------------------------------------

    @property
    def _grace(self) -> float:
        """Seconds that a task under way may take beyond its deadline. It ends with the commit, so a moment more mostly tells how."""
        return 0.1 + self.size / (2 * 1024 * 1024)

    def wait(self, op: Operation, path: str) -> None:
        """Wait for the writer thread, at most to the deadline; withdraws the task if it has not begun by then."""
        assert self.done is not None
        remaining = op.remaining()
        if not self.done.acquire(timeout=-1 if remaining is None else remaining):
            if self.take():
                raise op.timed_out(f"the turn to write {path}")
            if not self.done.acquire(timeout=self._grace):
                raise op.timed_out(f"the disk of {path}", maybe_applied=True)

    async def wait_async(self, op: Operation, path: str) -> Any:
        """Asynchronous `wait`; returns the result."""
        import asyncio

        assert self.future is not None
        assert self.loop is not None
        timer = None
        if op.deadline is not None:
            timer = self.loop.call_later(max(0.0, op.deadline - monotonic()), self._expire, op, path)
        try:
            return await self.future
        except asyncio.CancelledError as error:
            mark_interrupted(error, not self.take())
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, op: Operation, path: str) -> None:
        assert self.loop is not None
        if self.future is None or self.future.done():
            return
        if self.take():
            self.future.set_exception(op.timed_out(f"the turn to write {path}"))
        else:
            self.loop.call_later(self._grace, self._give_up, op, path)

    def _give_up(self, op: Operation, path: str) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_exception(op.timed_out(f"the disk of {path}", maybe_applied=True))

    def resolve(self) -> None:
        """Hand the outcome to the caller's future; in its loop."""
        if self.future is not None and not self.future.done():
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)


class SqliteChange(Change):
    """A change of this engine.

    Args:
        body: writes it, inside of a transaction, and returns the channels to notify.
    """

    def __init__(self, body: Callable[[sqlite3.Connection], tuple[str, ...]]) -> None:
        self._body = body
        self.channels: tuple[str, ...] = ()

    def apply(self, connection: sqlite3.Connection, /) -> None:
        self.channels = self._body(connection)


def apply_all(connection: sqlite3.Connection, changes: Sequence[Change]) -> tuple[str, ...]:
    """Write changes of this engine; returns the channels to notify."""
    channels: tuple[str, ...] = ()
    for change in changes:
        assert isinstance(change, SqliteChange)
        change.apply(connection)
        channels += change.channels
    return channels


class Batches:
    """Runs batches on one connection, which is for writing only and autocommit; the caller excludes all others."""

    def __init__(
        self, connection: sqlite3.Connection, path: str, gone: Callable[[], CloudRuntimesError | None]
    ) -> None:
        self._connection = connection
        self._path = path
        self._gone = gone  # returns the error to refuse with once the database's files are not in their places
        self.working = Mutex()  # held while SQLite works, so that a fork can wait for its end
        self._synchronous: bool | None = None
        # for an interrupted caller: whose task was being written, and how far that was
        self._writing: WriteTask | None = None
        self._stage = _IDLE
        self._changes = 0

    def commit(self, tasks: list[WriteTask]) -> None:
        """Run tasks in one transaction; sets their results and errors. An `sqlite3.OperationalError` says that another program has it locked, and nothing was applied."""
        self._stage = _IDLE
        with self.working:
            self._commit(tasks)
        self._stage = _DONE

    def _commit(self, tasks: list[WriteTask]) -> None:
        connection = self._connection
        self._rollback()  # what an interrupted call left whose rollback was interrupted too
        durable = any(task.durable for task in tasks)
        if durable is not self._synchronous:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._synchronous = durable
        self._stage, self._changes, self._writing = _STATEMENT, connection.total_changes, tasks[0]
        if self._refused(tasks):
            return
        try:
            if all(task.rows is not None for task in tasks):
                insert_frames(connection, [row for task in tasks for row in task.rows or ()])
            elif len(tasks) == 1 and tasks[0].single and tasks[0].body is not None:
                tasks[0].result = tasks[0].body(connection)
            else:
                self._stage = _TRANSACTION
                connection.execute("BEGIN IMMEDIATE")
                for task in tasks:
                    self._step(connection, task, alone=len(tasks) == 1)
                if self._refused(tasks):  # it may have taken a while
                    self._rollback()
                    return
                self._stage = _COMMIT
                connection.execute("COMMIT")
        except Exception as error:
            self._rollback()
            if isinstance(error, sqlite3.OperationalError) and is_busy(error):
                raise
            self.fail(tasks, error)

    def _refused(self, tasks: list[WriteTask]) -> bool:
        """Refuse tasks where the database's files are gone; returns whether it did."""
        error = self._gone()
        if error is None:
            return False
        for task in tasks:
            task.error = error
            error = self._gone()  # an exception each: its caller may change it
        return True

    def _step(self, connection: sqlite3.Connection, task: WriteTask, alone: bool) -> None:
        """Run one task. Of several, each fails alone, unless SQLite gave up the transaction."""
        task.error = None
        if task.rows is not None:
            insert_frames(connection, task.rows)
            return
        assert task.body is not None
        guarded = not task.single and not alone
        if guarded:
            connection.execute("SAVEPOINT task")
        try:
            task.result = task.body(connection)
        except Exception as error:
            if alone or not connection.in_transaction:
                raise
            if guarded:
                connection.execute("ROLLBACK TO task")
            task.error = self._map_error(error)
        if guarded:
            connection.execute("RELEASE task")

    def _rollback(self) -> None:
        """Undo the open transaction, if there is one."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def applied(self, task: WriteTask) -> bool:
        """Return whether the interrupted write of a single task was committed; else undo it."""
        if self._writing is not task or self._connection.in_transaction:
            applied = False
        elif self._stage == _STATEMENT:
            applied = self._connection.total_changes != self._changes
        else:
            applied = self._stage in (_COMMIT, _DONE)
        self._rollback()
        return applied

    def _map_error(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.Error):
            failure = explain(error, self._path)
            failure.__cause__ = error
            return failure
        return error

    def fail(self, tasks: list[WriteTask], error: Exception) -> None:
        for task in tasks:  # an exception each: its caller may change it
            task.error = self._map_error(error)
            if task.error is error and len(tasks) > 1:
                task.error = InternalError(f"writing to {self._path} failed: {type(error).__name__}: {error}")
                task.error.__cause__ = error
