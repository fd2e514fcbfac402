"""The file of the embedded store: made, made anew, or found emptied."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ..._core.home import make_private
from ..._core.logs import logger
from ...errors import InternalError

if TYPE_CHECKING:
    from .write_lock import WriteLock

__all__ = ["DATABASE", "check_emptied", "prepare"]

DATABASE: Final = "cloud_runtimes.db"


def prepare(path: str, write_lock: WriteLock) -> None:
    """Ensure that SQLite opens a database with its own log, or makes one. The caller holds the write lock.

    Raises:
        InternalError: the database has lost what it held.
    """
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
    try:
        os.replace(f"{path}-wal", f"{path}-wal.left")
        logger().warning("%s was replaced and its last log left behind: that is %s-wal.left now", path, path)
    except FileNotFoundError:
        pass
    try:
        os.unlink(f"{path}-shm")
    except FileNotFoundError:
        pass


def check_emptied(path: str) -> None:
    """Refuse a database that was emptied. SQLite would take it as new, and delete its log.

    Raises:
        InternalError: it has lost what it held.
    """
    # the file ``gate`` is empty until the database has been made
    if os.stat(path).st_size == 0 and os.path.exists(f"{path}-gate") and os.stat(f"{path}-gate").st_size > 0:
        raise InternalError(
            f"{path} has 0 bytes, but held a database before: restore it from a copy, or delete it to start anew",
            code="DATA_LOSS",
        )
