"""Files in the making, in the folder ``%%tmp`` of a store's root, and the sweeping of those that nobody holds any more.

Whoever makes one has an exclusive ``flock`` on it until it is published or given up. The kernel lets go of it when the process dies, so one that can be locked is an orphan. It is removed when a process opens the store.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from secrets import token_hex
from typing import Final

from ..._core import fork
from ...errors import AlreadyExistsError, UnsupportedError
from .names import TEMPORARIES

__all__ = ["FOLDER", "Temporary", "sweep"]

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
# of a lock that another has, a file that went by itself, or a file system that cannot tell
_NOT_OURS: Final = frozenset(
    {errno.EWOULDBLOCK, errno.ENOENT, errno.ENOLCK, errno.EOPNOTSUPP, errno.EROFS, errno.EACCES}
)


class Temporary:
    """A file that is open for reading and writing, and locked against the sweeper."""

    descriptor = _folder = -1
    _entry: str | None = None

    def __init__(self, root: int) -> None:
        try:
            while self._folder < 0:
                try:
                    self._folder = os.open(TEMPORARIES, FOLDER, dir_fd=root)
                except FileNotFoundError:
                    with suppress(FileExistsError):
                        os.mkdir(TEMPORARIES, 0o777, dir_fd=root)
            while self.descriptor < 0:
                self._make()
        except BaseException:
            self.close()
            raise
        fork.register(self)

    def _make(self) -> None:
        self._entry = token_hex(12)
        self.descriptor = os.open(self._entry, _FILE | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=self._folder)
        if not _hold(self.descriptor) or not os.fstat(self.descriptor).st_nlink:  # a sweeper came between
            os.close(self.descriptor)
            self.descriptor = -1

    def forked(self) -> None:
        """Close, in a forked child; the parent goes on with its own descriptor, and with the name."""
        self._entry = None
        self.close()

    def publish(self, folder: int, entry: str, *, overwrite: bool, path: str) -> None:
        """Give it its name, by one step; needs the write lock."""
        assert self._entry is not None
        if overwrite:
            os.rename(self._entry, entry, src_dir_fd=self._folder, dst_dir_fd=folder)
            self._entry = None
            return
        try:
            os.link(self._entry, entry, src_dir_fd=self._folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            raise AlreadyExistsError(f"{path} exists: give overwrite=True to replace it") from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise UnsupportedError(
                f"overwrite=False: the file system of {path} has no hard links ({error.strerror})"
            ) from error

    def close(self) -> None:
        """Let go of it, and of its name in ``%%tmp`` if it has one."""
        if self._entry is not None and self._folder >= 0:
            with suppress(OSError):  # the sweeper's then
                os.unlink(self._entry, dir_fd=self._folder)
        self._entry = None
        for name in ("descriptor", "_folder"):
            descriptor = getattr(self, name)
            setattr(self, name, -1)
            if descriptor >= 0:
                os.close(descriptor)

    __del__ = close


def _hold(descriptor: int) -> bool:
    """Lock a temporary; tells whether nobody else holds it, as far as the file system knows of locks."""
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def sweep(root: int) -> None:
    """Remove orphans. A store that cannot be written keeps them."""
    try:
        folder = os.open(TEMPORARIES, FOLDER, dir_fd=root)
    except OSError:
        return
    try:
        for entry in os.listdir(folder):
            _remove(folder, entry)
    finally:
        os.close(folder)


def _remove(folder: int, entry: str) -> None:
    try:
        descriptor = os.open(entry, _FILE, dir_fd=folder)
    except OSError:
        return
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
        os.unlink(entry, dir_fd=folder)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
    finally:
        os.close(descriptor)
