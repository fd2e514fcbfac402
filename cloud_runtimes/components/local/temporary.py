"""Files in the making, in the folder ``%%tmp`` of a store's root, and the sweeping of those that nobody holds any more.

Whoever makes one has a lock on it until it is published or given up. The system lets go of it when the process dies, so one that can be locked is an orphan. It is removed when a process opens the store.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from secrets import token_hex
from typing import Final

from ..._core import fork
from ..._core.os_folders import Folder
from ..._core.os_locks import try_lock
from ...errors import AlreadyExistsError, UnsupportedError
from .names import TEMPORARIES

_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
# of a file that went by itself, or a file system that cannot tell who has a lock
_NOT_OURS: Final = frozenset({errno.ENOENT, errno.ENOLCK, errno.EOPNOTSUPP, errno.EROFS, errno.EACCES})


class Temporary:
    """A file that is open for reading and writing, and locked against the sweeper."""

    descriptor = -1
    _folder: Folder | None = None
    _entry: str | None = None

    def __init__(self, root: Folder) -> None:
        try:
            while self._folder is None:
                try:
                    self._folder = root.enter(TEMPORARIES)
                except FileNotFoundError:
                    with suppress(FileExistsError):
                        root.make(TEMPORARIES)
            while self.descriptor < 0:
                self._make(self._folder)
        except BaseException:
            self.close()
            raise
        fork.register(self)

    def _make(self, folder: Folder) -> None:
        self._entry = token_hex(12)
        self.descriptor = folder.open(self._entry, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        if not _hold(self.descriptor) or not os.fstat(self.descriptor).st_nlink:  # a sweeper came between
            os.close(self.descriptor)
            self.descriptor = -1

    def forked(self) -> None:
        """Close, in a forked child; the parent goes on with its own descriptor, and with the name."""
        self._entry = None
        self.close()

    def publish(self, folder: Folder, entry: str, *, overwrite: bool, path: str) -> None:
        """Give it its name, by one step; needs the write lock."""
        assert self._entry is not None
        assert self._folder is not None
        if overwrite:
            self._folder.rename(self._entry, folder, entry)
            self._entry = None
            return
        try:
            self._folder.name_new(self._entry, folder, entry)
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
        entry, self._entry = self._entry, None
        folder, self._folder = self._folder, None
        if folder is not None:
            if entry is not None:
                with suppress(OSError):  # the sweeper's then
                    folder.unlink(entry)
            folder.close()
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close


def _hold(descriptor: int) -> bool:
    """Lock a temporary; returns whether nobody else holds it, as far as the file system knows of locks."""
    try:
        return try_lock(descriptor)
    except OSError:
        return True


def sweep(root: Folder) -> None:
    """Remove orphans. A store that cannot be written keeps them."""
    try:
        folder = root.enter(TEMPORARIES)
    except OSError:
        return
    try:
        with folder.scan() as children:
            entries = [each.name for each in children]
        for entry in entries:
            _remove(folder, entry)
    finally:
        folder.close()


def _remove(folder: Folder, entry: str) -> None:
    try:
        descriptor = folder.open(entry, os.O_RDWR)
    except OSError:
        return
    try:
        if try_lock(descriptor):
            folder.unlink(entry)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
    finally:
        os.close(descriptor)
