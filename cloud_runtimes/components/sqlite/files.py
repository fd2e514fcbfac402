"""The files of a database: the write lock between processes, whether they are still in their places, and a folder made or found emptied.

SQLite lets waiting writers poll, so that of two busy processes one starves. Here they queue on two ``flock`` files beside the database: whoever holds *turn* is next, whoever holds *gate* writes. The kernel releases both when a process dies.

A process keeps writing to files that were removed or replaced, and nobody ever reads what it writes. So the engine looks before each commit, and every few milliseconds before a read.

Both use calls that keep the GIL where the C library can be reached. Getting the GIL back from computing threads takes milliseconds, for a system call of one microsecond.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from struct import Struct
from typing import Any, Final

from ..._core.home import make_private
from ..._core.logs import logger
from ...errors import InternalError

__all__ = ["DATABASE", "NoWriteLock", "Watch", "WriteLock", "check_emptied", "prepare"]

DATABASE: Final = "cloud_runtimes.db"
_FILES: Final = ("", "-wal", "-shm", "-turn", "-gate")
_GRAIN_NS: Final = 50_000_000
"""Grain of a folder's time stamp, at most."""
_AT_FDCWD, _INO_AND_CTIME = -100, 0x180
# of struct statx (statx(2)): inode, seconds and nanoseconds of the last change, device
_STATX: Final = Struct("=32xQ56xqI28xII")


# -- the write lock -----------------------------------------------------------


def _with_the_gil() -> Callable[[int, int], None]:
    """Return a `flock` that keeps the GIL, where the C library can be reached."""
    try:
        import ctypes

        call = ctypes.PyDLL(None, use_errno=True).flock
    except (AttributeError, ImportError, OSError):
        return flock

    def at_once(file: int, operation: int) -> None:
        if call(file, operation):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return at_once


_at_once = _with_the_gil()


def _try(file: int) -> bool:
    try:
        _at_once(file, LOCK_EX | LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return False
    return True


class WriteLock:
    """The two files beside a database. One thread of a process uses it at a time, which the mutex of `GroupCommit` ensures."""

    def __init__(self, database: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._turn = os.open(f"{database}-turn", flags, 0o600)
        try:
            self._gate = os.open(f"{database}-gate", flags, 0o600)
        except BaseException:
            os.close(self._turn)
            raise

    @property
    def database(self) -> int | None:
        """The inode of the database that was made here, ``None`` where there was none yet. The holder notes it, for `prepare`."""
        own, _, noted = os.pread(self._gate, 64, 0).partition(b" ")
        if not noted:
            return None
        # in a copy of the folder every file has another inode
        return int(noted) if int(own) == os.fstat(self._gate).st_ino else 0

    @database.setter
    def database(self, inode: int | None) -> None:
        if inode != self.database:
            os.ftruncate(self._gate, 0)
            if inode is not None:
                os.pwrite(self._gate, b"%d %d" % (os.fstat(self._gate).st_ino, inode), 0)

    def try_acquire(self) -> bool:
        """Take it if nobody holds it or waits for it. Never waits."""
        if not _try(self._turn):
            return False
        try:
            return _try(self._gate)
        finally:
            _at_once(self._turn, LOCK_UN)

    def acquire(self) -> None:
        """Wait for it. The wait cannot be given up, so only the writer thread waits here."""
        if self.try_acquire():
            return
        flock(self._turn, LOCK_EX)
        try:
            flock(self._gate, LOCK_EX)
        finally:
            _at_once(self._turn, LOCK_UN)

    def release(self) -> None:
        """Release it; does nothing where it is not held."""
        _at_once(self._gate, LOCK_UN)

    def reset(self) -> None:
        """Release both files, wherever an interrupt came."""
        _at_once(self._turn, LOCK_UN)
        _at_once(self._gate, LOCK_UN)

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
        self._stamp = _stamper(self._folder)
        self._unchanged: Any = None

    def look(self) -> str | None:
        """Return what happened to the files; ``None``: nothing, as far as can be told."""
        stamp = self._stamp()
        if stamp is not None and stamp == self._unchanged:
            return None
        try:
            changed = os.stat(self._folder).st_ctime_ns
            for file, known in self._files.items():
                if (found := _identity(file)) != known:
                    return f"{file} was {'removed' if found is None else 'replaced'}"
        except (FileNotFoundError, NotADirectoryError):
            return f"{self._folder} was removed"
        except OSError:
            return None
        # a change in the moment of this look may leave the same time stamp
        self._unchanged = stamp if time.time_ns() - changed > _GRAIN_NS else None
        return None

    def log_is_ours(self) -> bool:
        """Tell whether the open log may still be written into the open database, which nobody uses with another log."""
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


def _stamper(folder: str) -> Callable[[], Any]:
    """Return a function that reads a folder's inode and time of change; where it can, one that keeps the GIL."""

    def stamp() -> Any:
        try:
            status = os.stat(folder)
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_ctime_ns

    try:
        import ctypes

        statx = ctypes.PyDLL(None).statx
        buffer = ctypes.create_string_buffer(256)
    except (AttributeError, ImportError, OSError):
        return stamp
    path, mask = ctypes.c_char_p(os.fsencode(folder)), ctypes.c_uint(_INO_AND_CTIME)
    arguments = (ctypes.c_int(_AT_FDCWD), path, ctypes.c_int(0), mask, ctypes.byref(buffer))

    def stamp_at_once() -> Any:
        return None if statx(*arguments) else _STATX.unpack_from(buffer)

    return stamp if stamp_at_once() is None else stamp_at_once


# -- the folder ---------------------------------------------------------------


def prepare(path: str, write_lock: WriteLock) -> None:
    """Ensure that SQLite opens a database with its own log, or makes one. The caller holds the write lock."""
    made = write_lock.database
    if not os.path.exists(path):
        write_lock.database = None
        make_private(path)
    elif made is not None:
        check_emptied(path)
        if made in (0, os.stat(path).st_ino):
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
