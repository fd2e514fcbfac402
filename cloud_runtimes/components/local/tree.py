"""Folder of a store. Its entries are reached one by one from an open folder, and no link is ever followed.

Every change of the name space (a file appears, is renamed or removed, a folder is made or pruned) happens under
the *write lock*. It is a lock of the process and one on the root, which every process that uses the store takes.
It is held for a few system calls; content is written and flushed before. Readers do not take it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..._core import fork
from ..._core.backoff import NONE, Backoff
from ..._core.home import make_home
from ..._core.os_folders import Folder, open_folder
from ..._core.threads import Mutex
from ...errors import InvalidArgumentError, UnavailableError
from ...spi.file import FileInfo
from ...spi.operation import Operation
from .failures import refusal
from .meta import Meta, info, look
from .names import Location, aside
from .temporary import sweep

# no locks here, or no folder any more, which is looked at next
_NO_LOCKS: Final = frozenset({errno.ENOENT, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL, errno.ENOSYS})
# what is left of a folder that another process has removed, or of a name that is now a file
_PAUSES: Final = Backoff(0.0002, 0.01, growth=1.5, jitter=NONE)
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
# the same, and of a name that is now a link or a socket
_CHANGED: Final = _GONE | {errno.ELOOP, errno.ENXIO}


def is_plain(folder: Folder, entry: str, path: str) -> bool | None:
    """Return whether an entry is a file (``True``) or a folder (``False``); ``None`` where it is absent. Anything else is refused."""
    try:
        mode = folder.stat(entry).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISREG(mode):
        return True
    if stat.S_ISDIR(mode):
        return False
    raise refusal(path, mode)


def enter(folder: Folder, entry: str, path: str) -> Folder | None:
    """Open a folder in a folder, ``None`` where it is absent or a file."""
    try:
        return folder.enter(entry)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
    is_plain(folder, entry, path)
    return None


@contextmanager
def _where_there_are_locks() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


class Tree:
    """A store's root, opened by its first use."""

    def __init__(self, path: str, home: str, durable: bool) -> None:
        self.path = path
        self._home = home  # or the path itself
        self.durable = durable
        self._lock = Mutex()
        self._write_lock = Mutex()
        self._inside = False
        self._rests = False
        self._root: Folder | None = None
        fork.register(self)

    def before_fork(self) -> None:
        """Let turns end: a child that inherits one would keep it if the parent died."""
        self._rests = self._write_lock.acquire(timeout=1.0)

    def after_fork(self) -> None:
        """Let turns begin again."""
        if self._rests:
            self._write_lock.release()

    def forked(self) -> None:
        """Let go of the parent's root: a lock through it would be the parent's own."""
        root, self._root = self._root, None
        if root is not None:
            root.close()
        self._inside = False
        self.after_fork()

    def close(self) -> None:
        """Let go of the root; calls under way have it open themselves."""
        with self._lock:
            root, self._root = self._root, None
        if root is not None:
            root.close()

    @contextmanager
    def root(self, *, make: bool = False) -> Iterator[Folder | None]:
        """Give the root; ``None`` where it does not exist and is not to be made."""
        with self._lock:
            self._find_root(make)
            root = None if self._root is None else self._root.again()
        try:
            yield root
        finally:
            if root is not None:
                root.close()

    def _find_root(self, make: bool) -> None:
        """Open the root if it is not open."""
        if self._root is not None and not self._is_root(self._root):  # removed or replaced since
            self._root.close()
            self._root = None
        if self._root is None:
            try:
                self._root = open_folder(self.path)  # which itself may be reached by a link
            except NotADirectoryError as error:
                raise InvalidArgumentError(f"{self.path} is no folder: give the store another path") from error
            except FileNotFoundError:
                if not make:
                    return
                if self._home != self.path:
                    make_home(Path(self._home))
                os.makedirs(self.path, mode=0o777 if self._home == self.path else 0o700, exist_ok=True)
                self._root = open_folder(self.path)
                self._flush_above()
            sweep(self._root)

    def _is_root(self, root: Folder) -> bool:
        """Return whether an open folder is the one that others find as the store's root."""
        try:
            return os.path.samestat(os.stat(self.path), root.status())
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _flush_above(self) -> None:
        """Have a root just made survive a power cut: it is an entry of its parent, which may be as new."""
        for above in Path(self.path).parents if self.durable else ():
            try:
                folder = open_folder(str(above), follow=False)
            except OSError:
                return  # not readable for us, so not made by us
            try:
                folder.flush()
            finally:
                folder.close()

    @contextmanager
    def writing(self, op: Operation, root: Folder) -> Iterator[None]:
        """Change the name space, alone among all threads and processes."""
        tries = 0
        while True:
            with self._write_lock:
                outer = self._inside  # true in a signal handler that came while its own thread has the lock
                try:
                    self._inside = True
                    if outer or self._try_lock(root):
                        if not self._is_root(root):  # nobody would find what is put there
                            raise UnavailableError(
                                f"{self.path} was removed or replaced during this call, and nothing was changed: try again"
                            )
                        yield
                        return
                finally:
                    self._inside = outer
                    if not outer:
                        with _where_there_are_locks():
                            root.unlock()
            if op.remaining() == 0:
                raise op.timed_out("the lock of the store")
            tries += 1
            time.sleep(_PAUSES.after(tries))

    @staticmethod
    def _try_lock(root: Folder) -> bool:
        """Lock the root unless it is locked. On a file system without locks, turns hold inside this process."""
        with _where_there_are_locks():
            return root.try_lock()
        return True

    # -- folders ----------------------------------------------------------

    @contextmanager
    def folder(self, root: Folder, folders: Sequence[str], *, make: bool = False) -> Iterator[Folder | None]:
        """Give a folder beneath the root; ``None`` where there is none. Making needs the write lock."""
        current: Folder | None
        current = root.again()
        try:
            for depth, entry in enumerate(folders):
                assert current is not None
                path = self._path(folders[: depth + 1])
                below = self._enter(current, entry, path) if make else enter(current, entry, path)
                above, current = current, below
                above.close()
                if current is None:
                    break
            yield current
        finally:
            if current is not None:
                current.close()

    def _path(self, entries: Sequence[str]) -> str:
        return "/".join((self.path, *entries))

    def _enter(self, folder: Folder, entry: str, path: str) -> Folder:
        while True:
            below = enter(folder, entry, path)
            if below is not None:
                return below
            if is_plain(folder, entry, path):
                self._set_aside(folder, entry)
            try:
                folder.make(entry)
            except FileExistsError:
                continue
            self.flush(folder)

    def _set_aside(self, folder: Folder, entry: str) -> None:
        """Make room for a folder where a file is. Readers look here first and there second, so they never miss it."""
        *heads, last = aside(entry)
        with self.folder(folder, heads, make=True) as target:
            assert target is not None
            folder.rename(entry, target, last)
            self.flush(target)

    def prune(self, root: Folder, folders: Sequence[str]) -> None:
        """Remove folders that have become empty, from the deepest up; needs the write lock."""
        for depth in range(len(folders), 0, -1):
            try:
                with self.folder(root, folders[: depth - 1]) as above:
                    if above is None:
                        continue
                    above.remove(folders[depth - 1])
            except OSError:
                return

    def flush(self, folder: Folder) -> None:
        """Have what changed in a folder survive a power cut, if the store is to."""
        if self.durable:
            folder.flush()

    # -- files ------------------------------------------------------------

    @contextmanager
    def slot(self, root: Folder, location: Location) -> Iterator[tuple[Folder, str] | None]:
        """Give the folder and the entry of a file; ``None`` where it is absent."""
        with self.folder(root, location.folders) as folder:
            if folder is None:
                yield None
            elif is_plain(folder, location.entry, self._path((*location.folders, location.entry))):
                yield folder, location.entry
            else:
                *heads, last = location.aside
                with self.folder(folder, heads) as below:
                    path = self._path((*location.folders, *location.aside))
                    yield (below, last) if below is not None and is_plain(below, last, path) else None

    @contextmanager
    def free(self, root: Folder, location: Location) -> Iterator[tuple[Folder, str]]:
        """Give the folder and the entry that a file is to get, or has; needs the write lock."""
        with self.slot(root, location) as slot:
            if slot is not None:  # perhaps set aside for a folder that is gone since: it stays there
                yield slot
                return
        with self.folder(root, location.folders, make=True) as folder:
            assert folder is not None
            if is_plain(folder, location.entry, self._path((*location.folders, location.entry))) is None:
                yield folder, location.entry
                return
            *heads, last = location.aside
            with self.folder(folder, heads, make=True) as below:
                assert below is not None
                yield below, last

    def open(
        self, root: Folder, location: Location, name: str, *, unreadable: bool = False
    ) -> tuple[int, FileInfo] | None:
        """Open a file for reading; what is known of it is of the same version. One that may be ``unreadable`` has the descriptor -1 then."""
        while True:
            with self.slot(root, location) as slot:
                if slot is None:
                    return None
                opened = self._open(*slot, name, unreadable=unreadable)
                if opened is not None:
                    return opened
            # replaced by a folder or removed just now: look again

    def _open(self, folder: Folder, entry: str, name: str, *, unreadable: bool = False) -> tuple[int, FileInfo] | None:
        """Open a file in a folder; ``None`` where it is absent or a folder, or became something else just now."""
        try:
            status = folder.stat(entry)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return None
        if stat.S_ISDIR(status.st_mode):
            return None
        if not stat.S_ISREG(status.st_mode):
            raise refusal(self._path(("…", entry)), status.st_mode)
        descriptor = -1
        try:
            descriptor = folder.open(entry)
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                return descriptor, info(name, status, look(descriptor, status.st_size))
            os.close(descriptor)
        except BaseException as error:
            if descriptor >= 0:
                os.close(descriptor)
            if isinstance(error, OSError) and error.errno in _CHANGED:
                return None
            if not unreadable or not isinstance(error, PermissionError):
                raise
            # another user's: that it is there does not depend on what may be read of it
            return -1, info(name, status, Meta(status.st_size))
        return None

    def stat(self, root: Folder, location: Location, name: str) -> FileInfo | None:
        """Return what is known of a file; ``None`` where it is absent."""
        return _let_go(self.open(root, location, name, unreadable=True))

    def info(self, folder: Folder, entry: str, name: str) -> FileInfo | None:
        """Return what is known of a file in a folder; ``None`` where it is absent or a folder."""
        return _let_go(self._open(folder, entry, name, unreadable=True))


def _let_go(opened: tuple[int, FileInfo] | None) -> FileInfo | None:
    if opened is None:
        return None
    descriptor, info = opened
    if descriptor >= 0:
        os.close(descriptor)
    return info
