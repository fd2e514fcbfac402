"""The files of a database: the write lock between processes, whether they are still in their places, and a folder made or found emptied.

SQLite lets waiting writers poll, so that of two busy processes one starves. Here they queue on two locked files beside the database: whoever holds *turn* is next, whoever holds *gate* writes. The system releases both when a process dies.

A process keeps writing to files that were removed or replaced, and nobody ever reads what it writes. So the engine looks before each commit, and every few milliseconds before a read.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any, Final

from ..._core.home import make_private
from ..._core.logs import logger
from ..._core.os_files import BINARY, changed_ns, pread, pwrite, stamper
from ..._core.os_locks import lock, try_lock, unlock
from ...errors import InternalError

DATABASE: Final = "cloud_runtimes.db"
_FILES: Final = ("", "-wal", "-shm", "-turn", "-gate")
_GRAIN_NS: Final = 50_000_000
"""Grain of a folder's time stamp, at most."""

# -- the write lock -----------------------------------------------------------


class WriteLock:
    """The two files beside a database. One thread of a process uses it at a time, which the mutex of `GroupCommit` ensures."""

    def __init__(self, database: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | BINARY
        self._turn = os.open(f"{database}-turn", flags, 0o600)
        try:
            self._gate = os.open(f"{database}-gate", flags, 0o600)
        except BaseException:
            os.close(self._turn)
            raise

    @property
    def database(self) -> int | None:
        """The inode of the database that was made here, ``None`` where there was none yet. The holder notes it, for `prepare`."""
        own, _, noted = pread(self._gate, 64, 0).partition(b" ")
        if not noted:
            return None
        # in a copy of the folder every file has another inode
        return int(noted) if int(own) == os.fstat(self._gate).st_ino else 0

    @database.setter
    def database(self, inode: int | None) -> None:
        if inode != self.database:
            os.ftruncate(self._gate, 0)
            if inode is not None:
                pwrite(self._gate, b"%d %d" % (os.fstat(self._gate).st_ino, inode), 0)

    def try_acquire(self) -> bool:
        """Take it if nobody holds it or waits for it. Never waits."""
        if not try_lock(self._turn):
            return False
        try:
            return try_lock(self._gate)
        finally:
            unlock(self._turn)

    def acquire(self) -> None:
        """Wait for it. The wait cannot be given up, so only the writer thread waits here."""
        if self.try_acquire():
            return
        lock(self._turn)
        try:
            lock(self._gate)
        finally:
            unlock(self._turn)

    def release(self) -> None:
        """Release it; does nothing where it is not held."""
        unlock(self._gate)

    def reset(self) -> None:
        """Release both files, wherever an interrupt came."""
        unlock(self._turn)
        unlock(self._gate)

    def close(self) -> None:
        """Close the descriptors. In a forked child this does not unlock, since the parent has them open too."""
        os.close(self._turn)
        os.close(self._gate)


class NoWriteLock:
    """For a database that no other process can reach."""

    def try_acquire(self) -> bool:
        return True

    def acquire(self) -> None:
        return

    release = reset = close = acquire


# -- files that went away -----------------------------------------------------


class Watch:
    """The files of a database as they were when it was opened. Processes with different ones do not exclude each other.

    One look at the folder is enough as long as nothing was made, renamed or removed in it. No file is opened here: closing a descriptor of the database would drop SQLite's locks (fcntl(2)).
    """

    def __init__(self, path: str) -> None:
        self._folder = os.path.dirname(path)
        self._path = path
        self._files = {path + suffix: _identity(path + suffix) for suffix in _FILES}
        self._stamp = stamper(self._folder)
        self._unchanged: Any = None

    def look(self) -> str | None:
        """Return what happened to the files; ``None``: nothing, as far as can be told."""
        stamp = self._stamp()
        if stamp is not None and stamp == self._unchanged:
            return None
        try:
            changed = changed_ns(os.stat(self._folder))
            for file, known in self._files.items():
                if (identity := _identity(file)) != known:
                    return f"{file} was {'removed' if identity is None else 'replaced'}"
        except (FileNotFoundError, NotADirectoryError):
            return f"{self._folder} was removed"
        except OSError:
            return None
        # a change in the moment of this look may leave the same time stamp
        self._unchanged = stamp if time.time_ns() - changed > _GRAIN_NS else None
        return None

    def log_is_ours(self) -> bool:
        """Return whether the open log may still be written into the open database, which nobody uses with another log."""
        path, known = self._path, self._files
        try:
            if _identity(path) != known[path]:
                return True
            return _identity(f"{path}-wal") is None and _identity(f"{path}-shm") in (None, known.get(f"{path}-shm"))
        except OSError:
            return False

    def closed(self) -> None:
        """Look for the database alone from now on, since SQLite removes the other files with the last close."""
        self._files = {self._path: self._files[self._path]}
        self._unchanged = None


def _identity(path: str) -> tuple[int, int] | None:
    """Return a file's device and inode; ``None`` where there is no file."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


# -- the folder ---------------------------------------------------------------


def prepare(path: str, write_lock: WriteLock) -> None:
    """Ensure that SQLite opens a database with its own log, or makes one. The caller holds the write lock."""
    inode = write_lock.database
    if not os.path.exists(path):
        write_lock.database = None
        make_private(path)
    elif inode is not None:
        check_emptied(path)
        if inode in (0, os.stat(path).st_ino):
            return
    else:
        return
    # the log that is left is of another file: SQLite would write it into this one
    with suppress(FileNotFoundError):
        os.replace(f"{path}-wal", f"{path}-wal.left")
        logger().warning("%s was replaced and its last log left behind: that is %s-wal.left now", path, path)
    with suppress(FileNotFoundError):
        os.unlink(f"{path}-shm")


def check_emptied(path: str) -> None:
    """Refuse a database that was emptied. SQLite would take it as new, and delete its log."""
    # the file ``gate`` is empty until the database has been made
    if os.stat(path).st_size == 0 and os.path.exists(f"{path}-gate") and os.stat(f"{path}-gate").st_size > 0:
        raise InternalError(
            f"{path} has 0 bytes, but held a database before: restore it from a copy, or delete it to start anew",
            code="DATA_LOSS",
        )
