"""Commit batches: how write tasks become one transaction, and what is known of an interrupted one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from ..._core.sqlite_failures import explain, is_busy
from ..._core.threads import Mutex
from ...errors import CloudRuntimesError, InternalError
from .log import insert_frames
from .write_task import WriteTask

__all__ = ["Batches"]

_IDLE, _STATEMENT, _TRANSACTION, _COMMIT, _DONE = range(5)


class Batches:
    """Runs batches on one connection; the caller excludes all others.

    Args:
        connection: for writing only, autocommit.
        path: for messages.
        gone: returns the error to refuse with where the database's files are not in their places any more.

    Attributes:
        working: held while SQLite works, so that a fork can wait for its end.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: str, gone: Callable[[], CloudRuntimesError | None]
    ) -> None:
        self._connection = connection
        self._path = path
        self._gone = gone
        self.working = Mutex()
        self._synchronous: bool | None = None
        # for an interrupted caller: whose task was being written, and how far that was
        self._writing: WriteTask | None = None
        self._stage = _IDLE
        self._changes = 0

    def commit(self, tasks: list[WriteTask]) -> None:
        """Run tasks in one transaction; sets their results and errors.

        Raises:
            sqlite3.OperationalError: locked by another program; nothing was applied.
        """
        self._stage = _IDLE
        with self.working:
            self._commit(tasks)
        self._stage = _DONE

    def _commit(self, tasks: list[WriteTask]) -> None:
        connection = self._connection
        if connection.in_transaction:  # left by an interrupted call whose rollback was interrupted too
            connection.execute("ROLLBACK")
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
        except sqlite3.OperationalError as error:
            self._rollback()
            if is_busy(error):
                raise
            self.fail(tasks, error)
        except Exception as error:
            self._rollback()
            self.fail(tasks, error)

    def _refused(self, tasks: list[WriteTask]) -> bool:
        """Refuse tasks where the database's files are gone; tells whether it did."""
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
            task.error = self._explained(error)
        if guarded:
            connection.execute("RELEASE task")

    def _rollback(self) -> None:
        """Undo the open transaction, if there is one."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _committed(self) -> bool:
        """Tell whether a write that was interrupted is in the file."""
        if self._connection.in_transaction:
            return False
        if self._stage == _STATEMENT:
            return self._connection.total_changes != self._changes
        return self._stage in (_COMMIT, _DONE)

    def applied(self, task: WriteTask) -> bool:
        """Tell whether the interrupted write of a single task was committed; else undo it."""
        applied = self._writing is task and self._committed()
        self._rollback()
        return applied

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.Error):
            explained = explain(error, self._path)
            explained.__cause__ = error
            return explained
        return error

    def fail(self, tasks: list[WriteTask], error: Exception) -> None:
        for task in tasks:  # an exception each: its caller may change it
            task.error = self._explained(error)
            if task.error is error and len(tasks) > 1:
                task.error = InternalError(f"writing to {self._path} failed: {type(error).__name__}: {error}")
                task.error.__cause__ = error
