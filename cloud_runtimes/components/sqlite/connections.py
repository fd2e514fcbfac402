"""Connections to one database: how they are opened, the pool of those that read, and those that must never be closed."""

from __future__ import annotations

import os
import sqlite3
import weakref
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from ..._core.home import check_file_system, is_memory, make_home
from ..._core.os_errors import explain_os_error
from ..._core.threads import Mutex
from ...spi.operation import Operation
from . import schema
from .files import Watch, WriteLock, prepare

_PRAGMAS: Final = (
    "PRAGMA busy_timeout = 0",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA temp_store = MEMORY",
)
# The log's frames are up to a megabyte. With SQLite's 4 KiB storing them takes a third longer, in calls of the kernel; with 16 KiB
# single reads and publishes take a quarter longer. An existing database keeps its own.
_PAGE_BYTES: Final = 8192
_CHECKPOINT_BYTES: Final = 16 << 20
IMMUTABLE: Final = "ro&immutable=1"
"""The mode of readers of a file that nobody writes."""
REPLACING: Final = partial(str, encoding="utf-8", errors="replace")
"""Reads damaged text, which must not fail the rows beside it."""
_IDLE: Final = 4
"""Readers that stay open without use."""
_MOST: Final = 16
_WAIT: Final = 0.25
"""Seconds to wait for one of so many; then there are more, since each of them is in a long query."""
# a forked child inherited them, or a write still waits
_kept: list[Any] = []


class Connection(sqlite3.Connection):
    """A connection that can be referred to weakly. A reader has the mode of its pool."""

    mode = ""


def _connect(uri: str) -> Connection:
    """Open a connection in autocommit mode, for any thread."""
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=0.0, factory=Connection
    )
    connection.text_factory = REPLACING
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma).close()
    except BaseException:
        connection.close()
        raise
    return connection


def keep_forever(connection: sqlite3.Connection) -> None:
    """Keep a connection from ever being closed, the end of the interpreter included."""
    _kept.append(connection)
    try:
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    except (ImportError, AttributeError):  # no C API: the list above has to do
        return


def open_memory() -> sqlite3.Connection:
    """Open a database of this process alone."""
    connection = _connect("file::memory:")
    schema.migrate(connection, 0)
    return connection


def open_file(path: str, op: Operation | None) -> tuple[sqlite3.Connection, WriteLock, Watch]:
    """Open a database for writing, making and migrating it if need be. One that can perhaps be read is `PermissionDeniedError`."""
    make_home(Path(path).parent)
    check_file_system(Path(path).parent)
    try:
        write_lock = WriteLock(path)
    except OSError as error:
        raise explain_os_error(error, Path(path)) from error
    connection = None
    try:
        # asked again and again, since a wait for the write lock cannot be given up
        while not write_lock.try_acquire():
            if op is not None and op.remaining() == 0.0:
                raise op.timed_out(f"the turn to open {path}")
            sleep(0.005)
        prepare(path, write_lock)
        connection = _connect(Path(path).as_uri() + "?mode=rwc")
        version = schema.check(connection, path)
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        pages = _CHECKPOINT_BYTES // connection.execute("PRAGMA page_size").fetchone()[0]
        # each answers with a row; without counts of references that would keep the statement open, and nothing could be committed
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}").close()
        connection.execute("PRAGMA journal_size_limit = 67108864").close()
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL").close()
        schema.migrate(connection, version)
        write_lock.database = os.stat(path).st_ino
        watch = Watch(path)
        write_lock.release()
        return connection, write_lock, watch
    except BaseException:
        write_lock.try_acquire()  # another holder has the file open, so that ours is not the last to close it
        if connection is not None:
            connection.close()
        write_lock.close()
        raise


class Readers:
    """The pool of one database.

    Attributes:
        mode: how they are opened; in `IMMUTABLE` one sees no change.
        idle: those not in use. Taking and returning one is one step, so it needs no lock.
        lock: held while one is opened; a fork holds it, and has the readers.
    """

    def __init__(self, path: str) -> None:
        self._uri = Path(path).as_uri() if not is_memory(path) else ""
        self.mode = "rw"
        self.idle: list[Connection] = []
        self.all: weakref.WeakSet[Connection] = weakref.WeakSet()
        self.lock = Mutex()
        self._held: list[Connection] = []

    def open(self) -> Connection:
        """Open another; the caller holds the lock."""
        reader = _connect(f"{self._uri}?mode={self.mode}")
        reader.mode = self.mode
        reader.text_factory = str  # far cheaper, until one meets damaged text
        self.all.add(reader)
        return reader

    def is_at_once(self) -> bool:
        """Return whether a reader can be had without a wait."""
        return bool(self.idle) or len(self.all) < _MOST

    def another(self) -> Connection:
        """Return a reader, though none is idle now."""
        # SQLite keeps a descriptor of each that was ever open: where there are many, one comes back sooner than another is made
        end = monotonic() + _WAIT
        while True:
            with self.lock:
                if len(self.all) < _MOST or monotonic() >= end:
                    return self.open()
            try:
                return self.idle.pop()
            except IndexError:
                sleep(0.0005)

    def trim(self) -> None:
        """Close some of those that many calls at once have left."""
        if len(self.idle) <= _IDLE or not self.lock.acquire(blocking=False):  # a fork holds it
            return
        try:
            for _ in range((len(self.idle) - _IDLE + 1) // 2):
                self.idle.pop(0).close()
        except IndexError:
            return  # others have taken them
        finally:
            self.lock.release()

    def take_all(self) -> list[Connection]:
        """Take those that are idle out of the pool."""
        taken, self.idle[:] = self.idle[:], []
        return taken

    def hold(self, end: float) -> None:
        """Before a fork: take all readers, waiting for their queries until ``end``."""
        while len(self._held) < len(self.all) and monotonic() < end:
            try:
                self._held.append(self.idle.pop())
            except IndexError:
                sleep(0.0002)

    def release(self) -> None:
        """After a fork, in the parent."""
        self.idle.extend(self._held)
        self._held.clear()

    def forget(self) -> None:
        """After a fork, in the child: never close what is the parent's."""
        for reader in (*self.idle, *self._held):
            keep_forever(reader)
