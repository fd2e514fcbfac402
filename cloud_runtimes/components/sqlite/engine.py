"""One engine per (process, file): connections, rounds, bells. All clients of the process share it.

Closing any descriptor of a file drops the process's POSIX locks on it (fcntl(2)), so a second SQLite handle opened and closed beside the first could let another process delete the write-ahead log. Hence one engine, connections closed only together, under the gate; and a forked child never closes what it inherited.
"""

from __future__ import annotations

import gc
import os
import sqlite3
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from ..._core import fork
from ..._core.clocks import Clocks
from ..._core.home import check_file_system, is_memory, make_home
from ..._core.logs import logger, repeated
from ..._core.os_errors import explain_os_error
from ..._core.sqlite_failures import explain
from ..._core.threads import Mutex
from ...errors import ClosedError, CloudRuntimesError, PermissionDeniedError, UnavailableError
from ...spi.operation import Operation
from . import schema
from .bell import Bells
from .gate import Gate, NoGate
from .job import Job
from .place import check_emptied, prepare
from .rounds import Rounds
from .watch import Watch

__all__ = ["Engine", "acquire"]

Parameters = Sequence[Any] | Mapping[str, Any]

_PRAGMAS: Final = (
    "PRAGMA busy_timeout = 0",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA temp_store = MEMORY",
)
# The log's frames are up to a megabyte. With SQLite's 4 KiB storing them takes a third longer, in calls of the kernel; with 16 KiB
# single reads and publishes take a quarter longer. A database that there is keeps its own.
_PAGE_BYTES: Final = 8192
_CHECKPOINT_BYTES: Final = 16 << 20
_REST: Final = 1.0
"""Seconds that a fork waits for calls under way."""
_IDLE_READERS: Final = 4
"""Readers that stay open without use."""
_MOST_READERS: Final = 16
_READER_WAIT: Final = 0.25
"""Seconds to wait for one of so many; then there are more, since each of them is in a long query."""
_LEAVING: Final = 1.0
"""Seconds to close a database whose files are gone."""
_LOOK_EVERY: Final = 0.005
"""Seconds for which readers believe that the files are in their places."""
_engines: dict[str, Engine] = {}
_engines_lock = Mutex()
# connections that must not be closed: a forked child inherited them, or a write still waits
_inherited: list[Any] = []


def acquire(path: str, clocks: Clocks) -> Engine:
    """Return the process's engine for a database, made without I/O; each call needs one `Engine.release`."""
    key = path if is_memory(path) else os.path.realpath(path)
    with _engines_lock:
        engine = _engines.get(key)
        if engine is None:
            engine = _engines[key] = Engine(key, clocks)
        engine.users += 1
        return engine


class _Gone(Exception):
    """The database's files are not in their places any more."""


class _Reader(sqlite3.Connection):
    """A reading connection; unlike its base it can be referred to weakly.

    Attributes:
        immutable: it was opened on a file that nobody writes, and sees no change.
    """

    immutable = False


class Engine:
    """See the module; made by `acquire`.

    Attributes:
        path: of the database, or ``:memory:…``.
        memory: whether it lives in this process only.
        clocks: that rules about time use.
        gone: what happened to the database's files, once they were removed or replaced. The engine is of no use then; `acquire` makes another.
        bells: wake-up of waiters.
        sweepers: called on the writer thread now and then; each does a little tidying and tells whether there is more.
    """

    def __init__(self, path: str, clocks: Clocks) -> None:
        self.path = path
        self.memory = is_memory(path)
        self.clocks = clocks
        self.users = 0
        self.read_only = False
        self.gone: str | None = None
        self.sweepers: list[Callable[[], bool]] = []
        self.bells = Bells(None if self.memory else Path(path).parent / "wake", clocks, self._news)
        self._lock = Mutex()
        self._rounds: Rounds | None = None
        self._gate: Gate | NoGate = NoGate()
        self._readers: list[_Reader] = []
        self._immutable = False
        self._watch: Watch | None = None
        self._look_at = 0.0
        self._is_open = self._closed = False
        # readers there are, in the pool or in use, less those that an interrupt lost; what a fork holds while it happens
        self._all_readers: weakref.WeakSet[_Reader] = weakref.WeakSet()
        self._resting: list[Any] = []
        self._held: list[_Reader] = []
        fork.register(self)

    # -- opening and closing ----------------------------------------------

    def open(self, op: Operation | None = None) -> None:
        """Open the database, making and migrating it if need be. Waits for the gate, at most to the operation's deadline.

        Raises:
            CloudRuntimesError: it cannot be used; names the path and the remedy.
        """
        if self._is_open:
            return
        if self._lock._is_owned():
            raise UnavailableError(
                f"a signal handler or __del__ uses {self.path} while its own thread opens it: later", retryable=False
            )
        left = None if op is None else op.remaining()
        try:
            if not self._lock.acquire(timeout=-1 if left is None else left):
                assert op is not None
                raise op.timed_out(f"another thread to open {self.path}")
            if self._is_open:
                return
            if self._closed:
                raise self._over()
            if self.memory:
                self._open_memory()
            else:
                self._open_file(op)
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        except CloudRuntimesError:
            raise
        except OSError as error:
            raise explain_os_error(error, Path(self.path)) from error
        finally:
            if self._lock._is_owned():
                self._lock.release()

    def _open_memory(self) -> None:
        connection = self._connect("file::memory:")
        schema.migrate(connection, 0)
        self._set_open(self._make_rounds(connection, self._gate), self._gate, None)

    def _open_file(self, op: Operation | None) -> None:
        folder = Path(self.path).parent
        make_home(folder)
        check_file_system(folder)
        try:
            gate = Gate(self.path)
        except OSError as error:
            refusal = explain_os_error(error, Path(self.path))
            if isinstance(refusal, PermissionDeniedError) and os.path.exists(self.path):
                self._open_read_only()
                return
            raise refusal from error
        connection = None
        try:
            # asked again and again, since a wait for the gate cannot be given up
            while not gate.try_enter():
                if op is not None and op.remaining() == 0.0:
                    raise op.timed_out(f"the turn to open {self.path}")
                sleep(0.005)
            prepare(self.path, gate)
            connection = self._connect(Path(self.path).as_uri() + "?mode=rwc")
            version = schema.check(connection, self.path)
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            pages = _CHECKPOINT_BYTES // connection.execute("PRAGMA page_size").fetchone()[0]
            connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
            connection.execute("PRAGMA journal_size_limit = 67108864")
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            schema.migrate(connection, version)
            gate.database = os.stat(self.path).st_ino
            watch = Watch(self.path)
            rounds = self._make_rounds(connection, gate)
            gate.leave()
            self._set_open(rounds, gate, watch)
        except BaseException:
            if not self._is_open:
                gate.try_enter()  # who else is in it has the file open, so that ours is not the last to close it
                if connection is not None:
                    connection.close()
                gate.close()
            raise

    def _make_rounds(self, connection: sqlite3.Connection, gate: Gate | NoGate) -> Rounds:
        return Rounds(connection, gate, self.path, gone=self._look, ring=self.bells.ring, sweep=self._sweep)

    def _set_open(self, rounds: Rounds | None, gate: Gate | NoGate, watch: Watch | None) -> None:
        """Become open; no call in here, so that an interrupt finds all of it or nothing."""
        self._gate = gate
        self._watch = watch
        self._rounds = rounds
        self._is_open = True

    def _open_read_only(self) -> None:
        """Open what cannot be written, for reading. Without a log beside it nobody writes it, so no locks are needed."""
        self.read_only = True
        check_emptied(self.path)
        self._immutable = not os.path.exists(f"{self.path}-wal")
        reader = self._reader()
        try:
            schema.check(reader, self.path)
            watch = Watch(self.path)
        except BaseException:
            reader.close()
            raise
        self._readers.append(reader)
        self._set_open(None, self._gate, watch)

    def _connect(self, uri: str, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=0.0, factory=factory
        )
        try:
            for pragma in _PRAGMAS:
                connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    def _reader(self) -> _Reader:
        """Open another reader; the caller holds the lock."""
        mode = ("?mode=ro&immutable=1" if self._immutable else "?mode=ro") if self.read_only else "?mode=rw"
        reader = self._connect(Path(self.path).as_uri() + mode, _Reader)
        assert isinstance(reader, _Reader)
        reader.immutable = self._immutable
        self._all_readers.add(reader)
        return reader

    def _can_be_written(self) -> bool:
        """Tell whether what was opened for reading only could be written by now: after a remount, or a change of its mode."""
        return self.read_only and os.access(self.path, os.W_OK) and os.access(os.path.dirname(self.path), os.W_OK)

    def _reopen(self, op: Operation | None) -> None:
        """Open for writing what was opened for reading only; where that is still so, it stays as it was."""
        with self._lock:
            if not self.read_only or self._closed:
                return
            readers, self._readers = self._readers, []
            self._is_open = self.read_only = self._immutable = False
        for reader in readers:
            reader.close()
        self.open(op)

    def is_inside(self) -> bool:
        """Tell whether the thread is in a write already: this is a signal handler or a ``__del__``."""
        return self._rounds is not None and self._rounds.is_inside()

    def release(self, timeout: float | None) -> None:
        """Give up one use; the last one closes the engine."""
        with _engines_lock:
            self.users -= 1
            if self.users > 0:
                return
            if _engines.get(self.path) is self:
                del _engines[self.path]
        self._close(timeout)

    def _close(self, timeout: float | None) -> None:
        with self._lock:
            first, self._closed, self._is_open = not self._closed, True, False
            rounds = self._rounds
        if first and self.gone is not None:
            logger().warning("%s while %s was in use: it is opened anew", self.gone, self.path)
        if rounds is not None:
            # without the lock, for which the writer thread may be waiting: its sweep wants a reader
            rounds.close(timeout)
        with self._lock:
            if self._rounds is not rounds:
                return  # another thread has closed it meanwhile
            self._rounds = None
            readers, self._readers = self._readers, []
            if rounds is not None:
                self._close_connections(rounds, readers, timeout)
                if self._watch is not None:
                    self._watch.closed()
            else:
                for connection in readers:
                    connection.close()
            self._gate = NoGate()
        self.bells.close()

    def _close_connections(self, rounds: Rounds, readers: list[_Reader], timeout: float | None) -> None:
        """Close all, under the gate: the last one to close checkpoints and deletes the log, never beside another writer."""
        end = None if timeout is None else monotonic() + timeout
        if rounds.is_inside() or not rounds.mutex.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            repeated(f"close {self.path}", "%s: a write is still waiting for its turn; left open to the end", self.path)
            _inherited.extend((*readers, rounds.connection))
            return
        # whoever holds the gate so long has the file open, so that nothing of ours is the last
        while not (entered := self._gate.try_enter()) and (end is None or monotonic() < end):
            sleep(0.005)
        try:
            if self.gone is not None and self._watch is not None and entered and self._watch.log_is_ours():
                rounds.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            for connection in (*readers, rounds.connection):
                connection.close()
        finally:
            if entered:
                self._gate.leave()
            self._gate.close()
            rounds.mutex.release()

    # -- files that went away -----------------------------------------------

    def _look(self) -> CloudRuntimesError | None:
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
        error._ends_driver = True
        return error

    def _leave(self) -> None:
        """Close an engine whose files are gone; the next `acquire` makes another."""
        with _engines_lock:
            if _engines.get(self.path) is self:
                del _engines[self.path]
        self._close(_LEAVING)

    def holds(self) -> bool:
        """Tell whether what was stored by this engine is still where other processes find it."""
        return self._look() is None

    def before_fork(self) -> None:
        """Bring SQLite to rest: a child inherits its mutexes, and one that a thread holds is locked there for ever."""
        locks: list[Any] = [self._lock]
        if self._rounds is not None:
            locks += [self._rounds.mutex, self._rounds.working] if self.memory else [self._rounds.working]
        end = monotonic() + _REST
        # whoever forks in the middle of a call of ours (a signal handler) would wait for itself: not for long
        self._resting = [lock for lock in locks if lock.acquire(timeout=max(0.0, end - monotonic()))]
        look = end - 0.95 * _REST
        while len(self._held) < len(list(self._all_readers)) and (now := monotonic()) < end:
            try:
                self._held.append(self._readers.pop())
            except IndexError:
                if now > look:
                    # a reader that an interrupt took from everybody keeps itself alive, by its cache of statements
                    gc.collect()  # does nothing while another thread collects
                    look = now + _REST / 4
                sleep(0.0002)

    def after_fork(self) -> None:
        """In the parent: go on."""
        self._readers.extend(self._held)
        self._held.clear()
        for lock in reversed(self._resting):
            lock.release()
        self._resting = []

    def forked(self) -> None:
        """In a forked child: forget everything; close only the gate's descriptors, which would keep the parent's lock alive."""
        if isinstance(self._gate, Gate):
            self._gate.close()
        if self._rounds is not None:
            _keep_forever(self._rounds.connection)
        for reader in (*self._readers, *self._held):
            _keep_forever(reader)
        self._gate = NoGate()
        self._rounds, self._readers, self._lock = None, [], Mutex()
        self._resting, self._held = [], []
        self._all_readers = weakref.WeakSet()
        self._is_open, self._closed = False, True
        self.bells.forked()
        global _engines_lock
        _engines_lock = Mutex()
        _engines.pop(self.path, None)

    # -- reading ----------------------------------------------------------

    def query(self, op: Operation | None, sql: str, parameters: Parameters = ()) -> list[Any]:
        """Run one SELECT and return its rows; no read transaction stays open."""
        while True:
            try:
                return self._query(op, sql, parameters)
            except _Gone:
                self._leave()
                raise self._over() from None
            except sqlite3.Error as error:
                # a WAL reader waits for nobody but recovery after a crash
                if not _is_busy(error) or (op is not None and op.remaining() == 0.0):
                    raise self._look() or explain(error, self.path) from error
            sleep(0.002)

    async def query_async(
        self, op: Operation, sql: str, parameters: Parameters = (), *, inline: bool = True
    ) -> list[Any]:
        """Asynchronous `query`: a point read runs on the loop; one that would wait, or a long one, in a thread."""
        # where there are too many readers, getting another may wait
        if inline and self._is_open and (self._readers or len(self._all_readers) < _MOST_READERS):
            try:
                return self._query(op, sql, parameters)
            except _Gone:
                pass  # closing it may wait
            except sqlite3.Error as error:
                if not _is_busy(error):
                    raise self._look() or explain(error, self.path) from error
        import asyncio

        return await asyncio.to_thread(self.query, op, sql, parameters)

    def _query(self, op: Operation | None, sql: str, parameters: Parameters) -> list[Any]:
        if self.memory:
            rounds = self._rounds or self._opened(op)
            with rounds.mutex:
                return rounds.connection.execute(sql, parameters).fetchall()
        if monotonic() >= self._look_at:
            if self._look() is not None:
                raise _Gone
            self._look_at = monotonic() + _LOOK_EVERY
            if self._immutable and self._can_be_written():
                self._reopen(op)  # others may write it now, which those readers would not see
        try:
            reader = self._readers.pop()
        except IndexError:
            reader = self._another(op)
        try:
            return reader.execute(sql, parameters).fetchall()
        finally:
            if self._closed or reader.immutable is not self._immutable:
                reader.close()
            else:
                self._readers.append(reader)

    def _another(self, op: Operation | None) -> _Reader:
        """Return a reader, though there is none in the pool now."""
        self.open(op)
        # SQLite keeps a descriptor of each that was ever open: where there are many, one comes back sooner than another is made
        end = monotonic() + _READER_WAIT
        while True:
            with self._lock:  # a fork holds it, and has the readers
                if len(self._all_readers) < _MOST_READERS or monotonic() >= end:
                    return self._reader()
            try:
                return self._readers.pop()
            except IndexError:
                sleep(0.0005)

    # -- writing ----------------------------------------------------------

    def _opened(self, op: Operation | None = None) -> Rounds:
        self.open(op)
        if self._rounds is None and self._can_be_written():
            self._reopen(op)
        if self._rounds is None:
            raise PermissionDeniedError(
                f"{self.path} can only be read: set CLOUD_RUNTIMES_HOME to a folder that can be written"
            )
        return self._rounds

    def run(self, job: Job, op: Operation) -> Any:
        """Run a write; see `Rounds.run`."""
        try:
            return (self._rounds or self._opened(op)).run(job, op)
        except UnavailableError:
            if self.gone is not None:
                self._leave()
            raise

    async def run_async(self, job: Job, op: Operation) -> Any:
        """Asynchronous `run`."""
        rounds = self._rounds
        if rounds is None:
            import asyncio

            rounds = await asyncio.to_thread(self._opened, op)
        try:
            return await rounds.run_async(job, op)
        except UnavailableError:
            if self.gone is not None:
                import asyncio

                await asyncio.to_thread(self._leave)
            raise

    def submit(self, job: Job) -> None:
        """Leave a write to the writer thread and do not wait; its error is logged."""
        (self._rounds or self._opened()).submit(job)

    def _sweep(self) -> float:
        self._trim()
        more = False
        for sweeper in tuple(self.sweepers):
            more = sweeper() or more
        return 0.05 if more else 30.0

    def _news(self) -> bool:
        """Tell whether other processes have written since the last time, or the files are gone; where that is not known, they may have."""
        self._trim()
        rounds = self._rounds
        return rounds is None or self._look() is not None or rounds.others_wrote()

    def _trim(self) -> None:
        """Close some of the readers that many calls at once have left."""
        if len(self._readers) <= _IDLE_READERS or not self._lock.acquire(blocking=False):  # a fork holds it
            return
        try:
            for _ in range((len(self._readers) - _IDLE_READERS + 1) // 2):
                self._readers.pop(0).close()
        except IndexError:
            return  # others have taken them
        finally:
            self._lock.release()

    def ring(self, bells: Iterable[str]) -> None:
        """Wake waiters of this and other processes."""
        self.bells.ring(bells)


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _keep_forever(connection: sqlite3.Connection) -> None:
    """Keep a connection from ever being closed, the end of the interpreter included."""
    _inherited.append(connection)
    try:
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    except (ImportError, AttributeError):  # no C API: the list above is what there is
        return
