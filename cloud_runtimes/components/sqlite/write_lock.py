"""The write lock of a database: a fair lock between processes, taken before every write.

SQLite lets waiting writers poll, so that of two busy processes one starves. Here they queue on two ``flock`` files beside the database: whoever holds *turn* is next, whoever holds *gate* writes. The kernel releases both when a process dies.

Calls that do not wait keep the GIL. `fcntl.flock` hands it over each time, and getting it back from computing threads takes milliseconds, for a system call of one microsecond.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock

__all__ = ["NoWriteLock", "WriteLock"]


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
        """The inode of the database that was made here, ``None`` where there was none yet. The holder notes it, for `data_folder.prepare`."""
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
