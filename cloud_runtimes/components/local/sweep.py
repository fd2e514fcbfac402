"""Temporaries that nobody holds any more: removed when a process opens the store.

Whoever makes a temporary has an exclusive ``flock`` on it until it is published or given up. The kernel lets go of it when the process dies, so a temporary that can be locked is an orphan.
"""

from __future__ import annotations

import errno
import os
from fcntl import LOCK_EX, LOCK_NB, flock

from .names import TEMPORARIES

__all__ = ["sweep"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def sweep(root: int) -> int:
    """Remove orphans; returns how many. A store that cannot be written keeps them."""
    try:
        folder = os.open(TEMPORARIES, _FOLDER, dir_fd=root)
    except OSError:
        return 0
    removed = 0
    try:
        for entry in os.listdir(folder):
            removed += _remove(folder, entry)
    finally:
        os.close(folder)
    return removed


def _remove(folder: int, entry: str) -> bool:
    try:
        descriptor = os.open(entry, _FILE, dir_fd=folder)
    except OSError:
        return False
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
        os.unlink(entry, dir_fd=folder)
        return True
    except OSError as error:
        # held, gone by itself, or not to be told
        if error.errno in (errno.EWOULDBLOCK, errno.ENOENT, errno.ENOLCK, errno.EOPNOTSUPP, errno.EROFS, errno.EACCES):
            return False
        raise
    finally:
        os.close(descriptor)
