"""Engine of a process and file: connections, group commit, notifier. All clients of the process share it.

Closing any descriptor of a file drops the process's POSIX locks on it (fcntl(2)). A second SQLite handle, opened
and closed beside the first, could let another process delete the write-ahead log. Hence one engine, whose
connections are closed together, under the write lock. A forked child never closes what it inherited.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, TypeVar

from ..._core import fork
from ..._core.clocks import Clocks
from ..._core.home import is_memory
from ..._core.logs import logger
from ..._core.os_errors import explain_os_error
from ..._core.os_files import real_path
from ..._core.sqlite_failures import explain, is_busy
from ..._core.threads import Mutex
from ...errors import ClosedError, CloudRuntimesError, PermissionDeniedError, UnavailableError
from ...spi.operation import Operation, end_driver
from . import schema
from .connections import IMMUTABLE, REPLACING, Readers, keep_forever, open_file, open_memory
from .files import NoWriteLock, Watch, WriteLock, check_emptied
from .group_commit import GroupCommit
from .notifier import Notifier
from .writes import WriteTask

T = TypeVar("T")
Parameters = Sequence[Any] | Mapping[str, Any]

_REST: Final = 1.0
"""Seconds that a fork waits for calls under way, as does the close of a database whose files are gone."""
_LOOK_EVERY: Final = 0.005
"""Seconds for which readers believe that the files are in their places."""
_engines: dict[str, Engine] = {}
_engines_lock = Mutex()


def engines() -> list[Engine]:
    """Return those of this process."""
    with _engines_lock:
        return list(_engines.values())


def acquire(path: str, clocks: Clocks) -> Engine:
    """Return the process's engine for a database, made without I/O; each call needs one `Engine.release`."""
    key = path if is_memory(path) else real_path(path)
    with _engines_lock:
        engine = _engines[key] = _engines.get(key) or Engine(key, clocks)
        engine.users += 1
        return engine


class Engine:
    """See the module; made by `acquire`.

    Attributes:
        path: of the database, or ``:memory:…``.
        memory: whether it lives in this process only.
        clocks: that rules about time use.
        gone: what happened to the database's files, once they were removed or replaced. The engine is of no use then; `acquire` makes another.
        notifier: wakes waiters after a commit.
        sweepers: called on the writer thread now and then; each sweeps a little and returns whether there is more.
    """

    def __init__(self, path: str, clocks: Clocks) -> None:
        self.path = path
        self.memory = is_memory(path)
        self.clocks = clocks
        self.users = 0
        self.gone: str | None = None
        self.sweepers: list[Callable[[], bool]] = []
        self.notifier = Notifier(None if self.memory else Path(path).parent / "wake", self._changed)
        self._readers = Readers(path)
        self._idle, self._lock = self._readers.idle, self._readers.lock
        self._group_commit: GroupCommit | None = None
        self._write_lock: WriteLock | NoWriteLock = NoWriteLock()
        self._watch: Watch | None = None
        self._look_at = 0.0
        self._is_open = self._closed = False
        self._resting: list[Any] = []
        fork.register(self)

    # -- opening ----------------------------------------------------------

    def open(self, op: Operation | None = None) -> None:
        """Open the database, making and migrating it if need be. Waits for the write lock, at most to the operation's deadline."""
        if self._is_open:
            return
        if self._lock._is_owned():
            raise UnavailableError(
                f"a signal handler or __del__ uses {self.path} while its own thread opens it: later", retryable=False
            )
        remaining = None if op is None else op.remaining()
        try:
            if not self._lock.acquire(timeout=-1 if remaining is None else remaining) and op is not None:
                raise op.timed_out(f"another thread to open {self.path}")
            if self._is_open:
                return
            if self._closed:
                raise self._over()
            if self.memory:
                self._set_open(open_memory(), self._write_lock, None)
                return
            try:
                opened = open_file(self.path, op)
            except PermissionDeniedError:
                if not os.path.exists(self.path):
                    raise
                self._open_read_only()
            else:
                self._set_open(*opened)
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        except OSError as error:
            if isinstance(error, CloudRuntimesError):
                raise
            raise explain_os_error(error, Path(self.path)) from error
        finally:
            if self._lock._is_owned():
                self._lock.release()

    def _set_open(
        self, connection: sqlite3.Connection | None, write_lock: WriteLock | NoWriteLock, watch: Watch | None
    ) -> None:
        """Become open, for writing by a connection."""
        group_commit = None if connection is None else GroupCommit(self, connection, write_lock)
        # no call from here on, so that an interrupt finds all of it or nothing
        self._write_lock = write_lock
        self._watch = watch
        self._group_commit = group_commit
        self._is_open = True

    def _open_read_only(self) -> None:
        """Open what cannot be written, for reading. Without a log beside it nobody writes it, so no locks are needed."""
        readers = self._readers
        check_emptied(self.path)
        readers.mode = "ro" if os.path.exists(f"{self.path}-wal") else IMMUTABLE
        reader = readers.open()
        try:
            schema.check(reader, self.path)
            watch = Watch(self.path)
        except BaseException:
            reader.close()
            raise
        self._idle.append(reader)
        self._set_open(None, self._write_lock, watch)

    def _reopen(self, op: Operation | None) -> None:
        """Open for writing what could only be read, if its mode or its mount is another by now."""
        readers = self._readers
        if readers.mode == "rw" or not all(
            os.access(each, os.W_OK) for each in (self.path, os.path.dirname(self.path))
        ):
            return
        with self._lock:
            if readers.mode == "rw" or self._closed:
                return
            idle = readers.take_all()
            self._is_open, readers.mode = False, "rw"
        for reader in idle:
            reader.close()
        self.open(op)

    # -- closing ----------------------------------------------------------

    def is_inside(self) -> bool:
        """Return whether the thread is in a write already: this is a signal handler or a ``__del__``."""
        return self._group_commit is not None and self._group_commit.is_inside()

    def release(self, timeout: float | None) -> None:
        """Give up one use; the last one closes the engine."""
        with _engines_lock:
            self.users -= 1
            if self.users > 0:
                return
            self._forget()
        self._close(timeout)

    def _forget(self) -> None:
        """Let the next `acquire` make another engine."""
        with _engines_lock:
            if _engines.get(self.path) is self:
                del _engines[self.path]

    def _close(self, timeout: float | None) -> None:
        self._forget()
        with self._lock:
            first, self._closed, self._is_open = not self._closed, True, False
            group_commit = self._group_commit
        if first and self.gone is not None:
            logger().warning("%s while %s was in use: it is opened anew", self.gone, self.path)
        if group_commit is not None:
            # without the lock, for which the writer thread may be waiting: its sweep wants a reader
            group_commit.close(timeout)
        with self._lock:
            if self._group_commit is not group_commit:
                return  # another thread has closed it meanwhile
            self._group_commit = None
            if group_commit is not None:
                group_commit.close_connections(self._readers.take_all(), timeout, self._watch)
            for reader in self._readers.take_all():
                reader.close()
            self._write_lock = NoWriteLock()
        self.notifier.close()

    # -- files that went away ---------------------------------------------

    def look(self) -> CloudRuntimesError | None:
        """Look whether the files are in their places; returns the error to refuse with if they are not."""
        if self.gone is None:
            if self._watch is None or (gone := self._watch.look()) is None:
                return None
            self.gone = gone
        return self._over()

    def _over(self) -> CloudRuntimesError:
        """Return why an engine that was closed takes no call."""
        if self.gone is None:
            return ClosedError(f"{self.path} is closed: its last client has closed it")
        error = UnavailableError(
            f"{self.gone} while {self.path} was in use; this call was not carried out. The next one opens what is there "
            "then: put the files back first if they are needed",
            retryable=False,
        )
        end_driver(error)
        return error

    def unless_gone(self, call: Callable[[], T], again: Callable[[], T]) -> T:
        """Return ``call()``, or ``again()`` once the database's files are gone, and with them what the caller had in there."""
        if self.gone is None:
            try:
                return call()
            except UnavailableError:
                if self.gone is None:
                    raise
        return again()

    def holds(self) -> bool:
        """Return whether what was stored by this engine is still where other processes find it."""
        return self.look() is None

    # -- forks ------------------------------------------------------------

    def before_fork(self) -> None:
        """Bring SQLite to rest: a child inherits its mutexes, and one that a thread holds is locked there for ever."""
        locks: list[Any] = [self._lock]
        if (commits := self._group_commit) is not None:
            locks += [commits.mutex, commits.working] if self.memory else [commits.working]
        end = monotonic() + _REST
        # whoever forks in the middle of a call of ours (a signal handler) would wait for itself: not for long
        self._resting = [lock for lock in locks if lock.acquire(timeout=max(0.0, end - monotonic()))]
        self._readers.hold(end)

    def after_fork(self) -> None:
        """In the parent: go on."""
        self._readers.release()
        for lock in reversed(self._resting):
            lock.release()
        self._resting = []

    def forked(self) -> None:
        """In a forked child: forget everything; close only the descriptors of the write lock, which would keep the parent's lock alive."""
        if isinstance(self._write_lock, WriteLock):
            self._write_lock.close()
        if self._group_commit is not None:
            keep_forever(self._group_commit.connection)
        self._readers.forget()
        self._readers = Readers(self.path)
        self._idle, self._lock = self._readers.idle, self._readers.lock
        self._write_lock = NoWriteLock()
        self._group_commit = None
        self._resting = []
        self._is_open, self._closed = False, True
        self.notifier.forked()
        _engines.pop(self.path, None)

    # -- reading ----------------------------------------------------------

    def query(self, op: Operation | None, sql: str, parameters: Parameters = ()) -> list[Any]:
        """Run one SELECT and return its rows; no read transaction stays open."""
        while True:
            try:
                return self._query(op, sql, parameters)
            except UnavailableError:
                if self.gone is not None:
                    self._close(_REST)
                raise
            except sqlite3.Error as error:
                # a WAL reader waits for nobody but recovery after a crash
                if not is_busy(error) or (op is not None and op.remaining() == 0.0):
                    raise self.look() or explain(error, self.path) from error
            sleep(0.002)

    async def query_async(self, op: Operation, sql: str, parameters: Parameters = ()) -> list[Any]:
        """Asynchronous `query` for point reads: on the loop, or in a thread where it would wait."""
        if self._is_open and self._readers.is_at_once():
            try:
                return self._query(op, sql, parameters)
            except UnavailableError:
                if self.gone is None:
                    raise  # else it is to be closed, which may wait
            except sqlite3.Error as error:
                if not is_busy(error):
                    raise self.look() or explain(error, self.path) from error
        import asyncio

        return await asyncio.to_thread(self.query, op, sql, parameters)

    def _query(self, op: Operation | None, sql: str, parameters: Parameters) -> list[Any]:
        if self.memory:
            group_commit = self._group_commit or self._opened(op)
            with group_commit.mutex:
                return group_commit.connection.execute(sql, parameters).fetchall()
        if monotonic() >= self._look_at:
            if (error := self.look()) is not None:
                raise error
            self._look_at = monotonic() + _LOOK_EVERY
            if self._readers.mode == IMMUTABLE:
                self._reopen(op)  # others may write it now, which those readers would not see
        try:
            reader = self._idle.pop()
        except IndexError:
            self.open(op)
            reader = self._readers.another()
        try:
            return reader.execute(sql, parameters).fetchall()
        except sqlite3.OperationalError as error:
            if reader.text_factory is REPLACING or "UTF-8" not in str(error):
                raise
            reader.text_factory = REPLACING
            return reader.execute(sql, parameters).fetchall()
        finally:
            if self._closed or reader.mode != self._readers.mode:
                reader.close()
            else:
                self._idle.append(reader)

    # -- writing ----------------------------------------------------------

    def _opened(self, op: Operation | None = None) -> GroupCommit:
        self.open(op)
        if self._group_commit is None:
            self._reopen(op)
        if self._group_commit is None:
            raise PermissionDeniedError(
                f"{self.path} can only be read: set CLOUD_RUNTIMES_HOME to a folder that can be written"
            )
        return self._group_commit

    def run(self, task: WriteTask, op: Operation) -> Any:
        """Run a write; see `GroupCommit.run`."""
        try:
            return (self._group_commit or self._opened(op)).run(task, op)
        except UnavailableError:
            if self.gone is not None:
                self._close(_REST)
            raise

    async def run_async(self, task: WriteTask, op: Operation) -> Any:
        """Asynchronous `run`."""
        group_commit = self._group_commit
        if group_commit is None:
            import asyncio

            group_commit = await asyncio.to_thread(self._opened, op)
        try:
            return await group_commit.run_async(task, op)
        except UnavailableError:
            if self.gone is not None:
                import asyncio

                await asyncio.to_thread(self._close, _REST)
            raise

    def submit(self, task: WriteTask) -> None:
        """Leave a write to the writer thread and do not wait; its error is logged."""
        (self._group_commit or self._opened()).submit(task)

    def sweep(self) -> float:
        """Sweep a little; returns seconds until the next time."""
        self._readers.trim()
        more = False
        for sweeper in tuple(self.sweepers):
            more = sweeper() or more
        return 0.05 if more else 30.0

    def _changed(self) -> bool:
        """Return whether other processes have written since the last time, or the files are gone; where that is not known, they may have."""
        self._readers.trim()
        group_commit = self._group_commit
        return group_commit is None or self.look() is not None or group_commit.others_wrote()
