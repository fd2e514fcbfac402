"""Mapping of SQLite's errors to errors for a caller.

Result codes: sqlite.org/rescode.html; the low byte of an extended code is the primary one.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Final

from ..errors import (
    CloudRuntimesError,
    InternalError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
    UnsupportedError,
)
from .os_errors import resource_exhausted

_FILES: Final = 6
"""The database, its journal, its log, the index of that, and the two of the write lock."""


def _cannot_open_files() -> CloudRuntimesError | None:
    """Return an error if the process cannot open the files of one connection. SQLite does not say why it could not."""
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(_FILES))
    except OSError as error:
        return resource_exhausted(error)
    finally:
        for each in opened:
            os.close(each)
    return None


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another program has the database locked."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def explain(error: sqlite3.Error, path: str, *, maybe_applied: bool = False) -> CloudRuntimesError:
    """Return our error for one of SQLite's; the caller raises it ``from`` the native one."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    text = str(error)
    if primary == sqlite3.SQLITE_FULL:
        return ResourceExhaustedError(f"the disk of {path} is full; nothing was written: free space, then try again")
    if primary == sqlite3.SQLITE_TOOBIG:
        return ResourceExhaustedError(f"{path}: the value is larger than SQLite stores in one row")
    if primary == sqlite3.SQLITE_NOMEM:
        return ResourceExhaustedError(f"{path}: out of memory")
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return PermissionDeniedError(
            f"{path} cannot be written ({text}): check its owner and mode, or set CLOUD_RUNTIMES_HOME to another folder"
        )
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return InternalError(
            f"{path} is damaged or no database ({text}): restore it from a copy, or move it away to start anew",
            code="DATA_LOSS",
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
        return UnavailableError(
            f"{path} is locked by a program that does not take turns (a shell, a backup?): close it",
            maybe_applied=maybe_applied,
        )
    if primary == sqlite3.SQLITE_CANTOPEN:
        if (exhausted := _cannot_open_files()) is not None:
            return exhausted
        return UnavailableError(f"{path} cannot be opened ({text}): is its folder there?")
    if primary == sqlite3.SQLITE_IOERR:
        return UnavailableError(
            f"{path}: the disk failed ({text}, {getattr(error, 'sqlite_errorname', '')})",
            retryable=False,
            maybe_applied=maybe_applied,
        )
    if text.startswith("no such table"):  # a file is migrated when it is opened, unless it can only be read
        return UnsupportedError(
            f"{path} was written by an older release and can only be read here ({text}): open it once where it can be "
            "written, so that it is migrated"
        )
    return InternalError(f"{path}: SQLite failed: {text}", maybe_applied=maybe_applied)
