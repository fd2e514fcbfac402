"""A file in the making, and the one step that makes it visible.

Where the file system can (``O_TMPFILE``, open(2)) it has no name, so nothing is left of it when its process dies. It gets one by ``linkat``; only to replace a file, which ``linkat`` cannot, it is named in ``%%tmp`` for the moment before the ``rename``.
"""

from __future__ import annotations

import errno
import os
from fcntl import LOCK_EX, LOCK_NB, flock
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from ..._core import fork
from ...errors import AlreadyExistsError, UnsupportedError
from .names import TEMPORARIES

if TYPE_CHECKING:
    from .tree import Tree

__all__ = ["Temporary"]

# what kernels and file systems without O_TMPFILE answer
_NAMED_ONLY: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class Temporary:
    """An open file that nobody else sees.

    Attributes:
        descriptor: open for reading and writing, locked against the sweeper; -1 once closed.
    """

    def __init__(self, tree: Tree, root: int) -> None:
        self._tree = tree
        self.descriptor = -1
        self._folder = -1  # of %%tmp
        self._entry: str | None = None
        try:
            if tree.nameless:
                try:
                    self.descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666, dir_fd=root)
                    self._hold()
                except OSError as error:
                    if error.errno not in _NAMED_ONLY:
                        raise
                    tree.nameless = False
            while self.descriptor < 0:
                self._named(root)
        except BaseException:
            self.close()
            raise
        fork.register(self)

    def _named(self, root: int) -> None:
        self._make_folder(root)
        entry = token_hex(12)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._entry = entry
        self.descriptor = os.open(entry, flags, 0o666, dir_fd=self._folder)
        if not self._hold() or not os.fstat(self.descriptor).st_nlink:
            # a sweeper came between
            os.close(self.descriptor)
            self.descriptor = -1

    def _hold(self) -> bool:
        try:
            flock(self.descriptor, LOCK_EX | LOCK_NB)
        except OSError as error:
            return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        return True

    def _make_folder(self, root: int) -> None:
        if self._folder < 0:
            try:
                os.mkdir(TEMPORARIES, 0o777, dir_fd=root)
            except FileExistsError:
                pass
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._folder = os.open(TEMPORARIES, flags, dir_fd=root)

    def forked(self) -> None:
        """Close, in a forked child; the parent goes on with its own descriptor, and with the name."""
        self._entry = None
        self.close()

    def publish(self, root: int, folder: int, entry: str, *, overwrite: bool, path: str) -> None:
        """Give it its name; needs a turn.

        Raises:
            AlreadyExistsError: the name is taken, and ``overwrite`` is false.
            UnsupportedError: ``overwrite`` is false on a file system without hard links.
        """
        if self._entry is None or not overwrite:
            try:
                self._link(folder, entry)
                return
            except FileExistsError:
                if not overwrite:
                    raise AlreadyExistsError(f"{path} exists: give overwrite=True to replace it") from None
            except OSError as error:
                if not overwrite and self._entry is not None and error.errno in _NO_LINKS:
                    raise UnsupportedError(
                        f"overwrite=False: the file system of {path} has no hard links ({error.strerror})"
                    ) from error
                raise
        if self._entry is None:
            self._make_folder(root)
            self._entry = token_hex(12)
            self._link(self._folder, self._entry, named=False)
        os.rename(self._entry, entry, src_dir_fd=self._folder, dst_dir_fd=folder)
        self._entry = None

    def _link(self, folder: int, entry: str, *, named: bool = True) -> None:
        if named and self._entry is not None:
            os.link(self._entry, entry, src_dir_fd=self._folder, dst_dir_fd=folder, follow_symlinks=False)
        else:
            os.link(f"/proc/self/fd/{self.descriptor}", entry, dst_dir_fd=folder, follow_symlinks=True)

    def close(self) -> None:
        """Let go of it, and of its name in ``%%tmp`` if it has one."""
        entry, self._entry = self._entry, None
        if entry is not None and self._folder >= 0:
            try:
                os.unlink(entry, dir_fd=self._folder)
            except OSError:
                pass  # the sweeper's then
        for name in ("descriptor", "_folder"):
            descriptor = getattr(self, name)
            setattr(self, name, -1)
            if descriptor >= 0:
                os.close(descriptor)
