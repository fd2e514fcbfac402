"""Whether the files of an open database are still in their places.

A process keeps writing to files that were removed or replaced, and nobody ever reads what it writes. So the engine looks before each commit, and every few milliseconds before a read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from struct import Struct
from typing import Any, Final

__all__ = ["Watch"]

_FILES: Final = ("", "-wal", "-shm", "-turn", "-gate")
_GRAIN_NS: Final = 50_000_000
"""Grain of a folder's time stamp, at most."""
_AT_FDCWD, _INO_AND_CTIME = -100, 0x180
# of struct statx (statx(2)): inode, seconds and nanoseconds of the last change, device
_STATX: Final = Struct("=32xQ56xqI28xII")


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
        try:
            found = {suffix: _identity(self._path + suffix) for suffix in ("", "-wal", "-shm")}
        except OSError:
            return False
        known = self._files
        if found[""] != known[self._path]:
            return True
        return found["-wal"] is None and found["-shm"] in (None, known.get(self._path + "-shm"))

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
    """Return a function that reads a folder's inode and time of change; where it can, one that keeps the GIL (see `write_lock`)."""

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
    arguments = (
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(folder)),
        ctypes.c_int(0),
        ctypes.c_uint(_INO_AND_CTIME),
        ctypes.byref(buffer),
    )

    def stamp_at_once() -> Any:
        return None if statx(*arguments) else _STATX.unpack_from(buffer)

    return stamp if stamp_at_once() is None else stamp_at_once
