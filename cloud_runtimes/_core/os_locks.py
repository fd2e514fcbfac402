"""Locks of files between processes. The system releases them when a process dies.

A lock belongs to the opening of a file: two openings exclude each other in one process too, and a copy of a descriptor has the lock of the original.

Where there is flock(2), what does not wait keeps the GIL: getting it back from computing threads takes milliseconds, for a system call of one microsecond. Windows locks a byte far beyond the data, since its locks also keep others from reading.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from time import sleep
from typing import Any, Final

from ..errors import UnsupportedError
from .backoff import NONE, Backoff

if sys.platform != "win32" and find_spec("fcntl") is not None:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock

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

    _at_once: Final = _with_the_gil()

    def try_lock(file: int) -> bool:
        """Lock an open file unless it is locked; returns whether it did. Never waits."""
        try:
            _at_once(file, LOCK_EX | LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            return False
        return True

    def lock(file: int) -> None:
        """Lock an open file, and wait for it."""
        flock(file, LOCK_EX)

    def unlock(file: int) -> None:
        """Unlock an open file; does nothing where it is not locked."""
        _at_once(file, LOCK_UN)

else:
    try:
        _locking: Any = import_module("msvcrt").locking
    except ImportError:
        _locking = None
    _UNLOCK, _LOCK = 0, 2  # LK_UNLCK, LK_NBLCK
    _BYTE: Final = 1 << 30

    def _byte(file: int, mode: int) -> bool:
        """Lock or unlock the byte, and leave the file's position as it was."""
        if _locking is None:
            raise UnsupportedError(
                "this system's Python locks no files, which a home in a folder needs: set CLOUD_RUNTIMES_HOME to :memory:, or to a server"
            )
        position = os.lseek(file, 0, os.SEEK_CUR)
        try:
            os.lseek(file, _BYTE, os.SEEK_SET)
            _locking(file, mode, 1)
        except OSError as error:
            if error.errno in (errno.EBADF, errno.EINVAL):
                raise
            return False  # another has it; which number says so depends on the C library
        finally:
            os.lseek(file, position, os.SEEK_SET)
        return True

    def try_lock(file: int) -> bool:
        """Lock an open file unless it is locked; returns whether it did. Never waits."""
        return _byte(file, _LOCK)

    def lock(file: int) -> None:
        """Lock an open file, and wait for it."""
        pauses = Backoff(0.0005, 0.004, growth=1.5, jitter=NONE)
        while not try_lock(file):
            sleep(pauses.next())

    def unlock(file: int) -> None:
        """Unlock an open file; does nothing where it is not locked."""
        _byte(file, _UNLOCK)
