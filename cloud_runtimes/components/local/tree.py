"""One store's folder: what is beneath it is reached entry by entry from an open descriptor, no link is ever followed.

Whatever changes the name space (a file appears, is renamed or removed, a folder is made or pruned) happens under the *write lock*: a lock of the process and a ``flock`` on the root, which every process that uses the store takes. It is held for a few system calls; content is written and flushed before. Readers do not take it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path
from typing import Final

from ..._core import fork
from ..._core.home import make_home
from ..._core.threads import Mutex
from ...errors import InvalidArgumentError, UnavailableError
from ...spi.file import FileInfo
from ...spi.operation import Operation
from .failures import refusal
from .meta import Meta, info, look
from .names import Place, aside
from .temporary import FOLDER, sweep

__all__ = ["Tree"]

_PROBE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL, errno.ENOSYS})
# what is left of a folder that another process has removed, or of a name that is now a file
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


def is_plain(folder: int, entry: str, path: str) -> bool | None:
    """Tell whether an entry is a file (``True``) or a folder (``False``); ``None`` where it is absent. Anything else is refused."""
    try:
        mode = os.stat(entry, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISREG(mode):
        return True
    if stat.S_ISDIR(mode):
        return False
    raise refusal(path, mode)


def enter(folder: int, entry: str, path: str) -> int | None:
    """Open a folder in a folder, ``None`` where it is absent or a file."""
    try:
        return os.open(entry, FOLDER, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
    is_plain(folder, entry, path)
    return None


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
        self._root: int | None = None
        fork.register(self)

    def before_fork(self) -> None:
        """Let turns end: a child that inherits one would keep it if the parent died."""
        self._rests = self._write_lock.acquire(timeout=1.0)

    def after_fork(self) -> None:
        """Let turns begin again."""
        if self._rests:
            self._write_lock.release()

    def forked(self) -> None:
        """Let go of the parent's descriptor: a lock through it would be the parent's own."""
        root, self._root = self._root, None
        if root is not None:
            os.close(root)
        self._lock, self._write_lock, self._inside = Mutex(), Mutex(), False

    def close(self) -> None:
        """Let go of the root; calls under way have descriptors of their own."""
        with self._lock:
            root, self._root = self._root, None
        if root is not None:
            os.close(root)

    @contextmanager
    def root(self, *, make: bool = False) -> Iterator[int | None]:
        """Give the root's descriptor; ``None`` where it does not exist and is not to be made."""
        with self._lock:
            descriptor = os.dup(self._root) if self._find_root(make) else None  # type: ignore[arg-type]
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _find_root(self, make: bool) -> bool:
        """Open the root if it is not open; tells whether it is now."""
        if self._root is not None and not self._is_root(self._root):  # removed or replaced since
            os.close(self._root)
            self._root = None
        if self._root is None:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC  # the root itself may be reached by a link
            try:
                self._root = os.open(self.path, flags)
            except NotADirectoryError as error:
                raise InvalidArgumentError(f"{self.path} is no folder: give the store another path") from error
            except FileNotFoundError:
                if not make:
                    return False
                if self._home != self.path:
                    make_home(Path(self._home))
                os.makedirs(self.path, mode=0o777 if self._home == self.path else 0o700, exist_ok=True)
                self._root = os.open(self.path, flags)
                self._flush_above()
            sweep(self._root)
        return True

    def _is_root(self, descriptor: int) -> bool:
        """Tell whether an open folder is the one that others find as the store's root."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(descriptor))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _flush_above(self) -> None:
        """Have a root just made survive a power cut: it is an entry of its parent, which may be as new."""
        for above in Path(self.path).parents if self.durable else ():
            try:
                descriptor = os.open(above, FOLDER)
            except OSError:
                return  # not readable for us, so not made by us
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @contextmanager
    def writing(self, op: Operation, root: int) -> Iterator[None]:
        """Change the name space, alone among all threads and processes."""
        delay = 0.0002
        while True:
            with self._write_lock:
                outer = self._inside  # true in a signal handler that came while its own thread has the lock
                try:
                    self._inside = True
                    if outer or self._flock(root, LOCK_EX | LOCK_NB):
                        if not self._is_root(root):  # nobody would find what is put there
                            raise UnavailableError(
                                f"{self.path} was removed or replaced during this call, and nothing was changed: try again"
                            )
                        yield
                        return
                finally:
                    self._inside = outer
                    if not outer:
                        self._flock(root, LOCK_UN)
            if op.remaining() == 0:
                raise op.timed_out("the lock of the store")
            time.sleep(delay)
            delay = min(delay * 1.5, 0.01)

    @staticmethod
    def _flock(root: int, operation: int) -> bool:
        """Call `flock`; tells whether it did not have to wait. On a file system without it, turns hold inside this process."""
        try:
            flock(root, operation)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            if error.errno not in _NO_LOCKS:
                raise
        return True

    # -- folders ----------------------------------------------------------

    @contextmanager
    def folder(self, root: int, folders: Sequence[str], *, make: bool = False) -> Iterator[int | None]:
        """Give the descriptor of a folder beneath the root; ``None`` where there is none. Making needs the write lock."""
        current: int | None
        current = os.dup(root)
        try:
            for depth, entry in enumerate(folders):
                assert current is not None
                path = self._path(folders[: depth + 1])
                below = self._made(current, entry, path) if make else enter(current, entry, path)
                above, current = current, below
                os.close(above)
                if current is None:
                    break
            yield current
        finally:
            if current is not None:
                os.close(current)

    def _path(self, entries: Sequence[str]) -> str:
        return "/".join((self.path, *entries))

    def _made(self, folder: int, entry: str, path: str) -> int:
        while True:
            below = enter(folder, entry, path)
            if below is not None:
                return below
            if is_plain(folder, entry, path):
                self._set_aside(folder, entry)
            try:
                os.mkdir(entry, 0o777, dir_fd=folder)
            except FileExistsError:
                continue
            self.flush(folder)

    def _set_aside(self, folder: int, entry: str) -> None:
        """Make room for a folder where a file is. Readers look here first and there second, so they never miss it."""
        *heads, last = aside(entry)
        with self.folder(folder, heads, make=True) as target:
            os.rename(entry, last, src_dir_fd=folder, dst_dir_fd=target)
            if target is not None and self.durable:
                os.fsync(target)

    def prune(self, root: int, folders: Sequence[str]) -> None:
        """Remove folders that have become empty, from the deepest up; needs the write lock."""
        for depth in range(len(folders), 0, -1):
            try:
                with self.folder(root, folders[: depth - 1]) as above:
                    if above is None:
                        continue
                    os.rmdir(folders[depth - 1], dir_fd=above)
            except OSError:
                return

    def flush(self, folder: int) -> None:
        """Have what changed in a folder survive a power cut, if the store is to."""
        if self.durable:
            os.fsync(folder)

    # -- files ------------------------------------------------------------

    @contextmanager
    def slot(self, root: int, place: Place) -> Iterator[tuple[int, str] | None]:
        """Give the folder and the entry of a file; ``None`` where it is absent."""
        with self.folder(root, place.folders) as folder:
            if folder is None:
                yield None
            elif is_plain(folder, place.entry, self._path((*place.folders, place.entry))):
                yield folder, place.entry
            else:
                *heads, last = place.aside
                with self.folder(folder, heads) as below:
                    path = self._path((*place.folders, *place.aside))
                    yield (below, last) if below is not None and is_plain(below, last, path) else None

    @contextmanager
    def free(self, root: int, place: Place) -> Iterator[tuple[int, str]]:
        """Give the folder and the entry that a file is to get, or has; needs the write lock."""
        with self.slot(root, place) as found:
            if found is not None:  # perhaps set aside for a folder that is gone since: it stays there
                yield found
                return
        with self.folder(root, place.folders, make=True) as folder:
            assert folder is not None
            if is_plain(folder, place.entry, self._path((*place.folders, place.entry))) is None:
                yield folder, place.entry
                return
            *heads, last = place.aside
            with self.folder(folder, heads, make=True) as below:
                assert below is not None
                yield below, last

    def open(self, root: int, place: Place, name: str, *, unreadable: bool = False) -> tuple[int, FileInfo] | None:
        """Open a file for reading; what is known of it is of the same version. One that may be ``unreadable`` has the descriptor -1 then."""
        while True:
            with self.slot(root, place) as found:
                if found is None:
                    return None
                opened = self._open(*found, name, unreadable=unreadable)
                if opened is not None:
                    return opened
            # replaced by a folder or removed just now: look again

    def _open(self, folder: int, entry: str, name: str, *, unreadable: bool = False) -> tuple[int, FileInfo] | None:
        """Open a file in a folder; ``None`` where it is absent or a folder."""
        with self._probe(folder, entry) as probed:
            if probed is None:
                return None
            probe, status = probed
            descriptor = -1
            try:
                descriptor = os.open(f"/proc/self/fd/{probe}", os.O_RDONLY | os.O_CLOEXEC)
                return descriptor, info(name, status, look(descriptor, status.st_size))
            except BaseException as error:
                if descriptor >= 0:
                    os.close(descriptor)
                if not unreadable or not isinstance(error, PermissionError):
                    raise
            # another user's: that it is there does not depend on what may be read of it
            return -1, info(name, status, Meta(status.st_size))

    @contextmanager
    def _probe(self, folder: int, entry: str) -> Iterator[tuple[int, os.stat_result] | None]:
        """Take hold of a plain file without opening it: a pipe would wait, a device might act."""
        try:
            probe = os.open(entry, _PROBE, dir_fd=folder)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            probe = -1
        try:
            status = None if probe < 0 else os.fstat(probe)
            if status is None or stat.S_ISDIR(status.st_mode):
                yield None
            elif stat.S_ISREG(status.st_mode):
                yield probe, status
            else:
                raise refusal(self._path(("…", entry)), status.st_mode)
        finally:
            if probe >= 0:
                os.close(probe)

    def stat(self, root: int, place: Place, name: str) -> FileInfo | None:
        """Return what is known of a file; ``None`` where it is absent."""
        return _let_go(self.open(root, place, name, unreadable=True))

    def info(self, folder: int, entry: str, name: str) -> FileInfo | None:
        """Return what is known of a file in a folder; ``None`` where it is absent or a folder."""
        return _let_go(self._open(folder, entry, name, unreadable=True))


def _let_go(opened: tuple[int, FileInfo] | None) -> FileInfo | None:
    if opened is None:
        return None
    descriptor, found = opened
    if descriptor >= 0:
        os.close(descriptor)
    return found
