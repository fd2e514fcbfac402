"""Open files of the local store, and how a call that was given up tells whether it wrote."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Coroutine
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

from ..._core import fork
from ..._core.os_files import copy_range, pread
from ..._core.os_folders import Folder
from ..._core.threads import Background, Mutex
from ...errors import ClosedError, CloudRuntimesError
from ...spi.executor import Blocking
from ...spi.file import Chunk, FileInfo, FileReader, FileWrite, FileWriter
from ...spi.operation import Operation, mark_interrupted
from .failures import explain
from .meta import Meta, attach, info
from .names import Location
from .temporary import Temporary

if TYPE_CHECKING:
    from .files import LocalFiles

S = TypeVar("S", bound=Blocking)
T = TypeVar("T")
P = ParamSpec("P")
PIECE: Final = 64 * 1024 * 1024


class Guard:
    """Between a call in a thread and the task that awaits it: either the change begins or it is withdrawn, never both."""

    def __init__(self) -> None:
        self.path = ""  # what is changed, for messages
        self._token = [None]  # whoever takes it decides
        self.begun = False
        self.withdrawn = False

    def check(self) -> None:
        """Refuse to go on once it was withdrawn: nobody waits any more."""
        if self.withdrawn:
            raise ClosedError("the call was given up")

    def begin(self) -> None:
        """Say that the change begins, once; it is refused where it was withdrawn."""
        try:
            self._token.pop()
        except IndexError:
            raise ClosedError("the call was given up") from None
        self.begun = True

    def withdraw(self) -> bool:
        """Return whether the change has not begun and now never will."""
        try:
            self._token.pop()
        except IndexError:
            return self.withdrawn
        self.withdrawn = True
        return True

    def says(self, error: BaseException) -> None:
        """Write on an error whether the change may have been made."""
        if isinstance(error, CloudRuntimesError):
            error.maybe_applied = self.begun
        elif not isinstance(error, Exception):
            mark_interrupted(error, self.begun)


def change(
    method: Callable[Concatenate[S, Operation, Guard, P], T],
) -> tuple[Callable[Concatenate[S, Operation, P], T], Callable[Concatenate[S, Operation, P], Coroutine[Any, Any, T]]]:
    """Return a method that gets a `Guard` in both APIs. What it raises is ours, and says whether the change may have been made."""

    def guarded(self: S, op: Operation, guard: Guard, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, op, guard, *args, **kwargs)
        except BaseException as error:
            if isinstance(error, OSError) and not isinstance(error, CloudRuntimesError):
                raise explain(error, guard.path, maybe_applied=guard.begun) from error
            guard.says(error)
            raise

    def call(self: S, op: Operation, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return guarded(self, op, Guard(), *args, **kwargs)

    async def call_async(self: S, op: Operation, /, *args: P.args, **kwargs: P.kwargs) -> T:
        guard = Guard()
        try:
            return await self.executor.in_thread(functools.partial(guarded, self, op, guard, *args, **kwargs), op)
        except BaseException as error:
            if guard.withdraw():  # else an error of the call itself has said it already
                guard.says(error)
            raise

    return call, call_async


class LocalReader(FileReader):
    """A descriptor of an inode that nobody changes: files are replaced, not rewritten."""

    def __init__(self, files: LocalFiles, descriptor: int, info: FileInfo) -> None:
        self.executor = files.executor
        self.info = info
        self._path = files.path_of(info.name)
        self._descriptor = descriptor
        self._lock = Mutex()
        fork.register(self)

    def forked(self) -> None:
        """Close the child's descriptor."""
        self.close()

    def read(self, op: Operation, offset: int, size: int, /) -> bytes:
        with self._lock:  # a close from another thread waits, else the number might already be another file's
            if self._descriptor < 0:
                raise ClosedError(f"{self._path} is closed: open it again")
            try:
                return pread(self._descriptor, max(0, min(size, (self.info.size or 0) - offset)), offset)
            except OSError as error:
                raise explain(error, self._path) from error

    def close(self, op: Operation | None = None, /) -> None:
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)


class LocalWriter(FileWriter):
    """A temporary that gets its name in the end."""

    def __init__(self, files: LocalFiles, root: Folder, name: str, location: Location, how: FileWrite) -> None:
        self.executor = files.executor
        self._tree = files.tree
        self._name = name
        self._path = files.path_of(name)
        self._location = location
        self._how = how
        self._size = 0
        self._lock = Mutex()
        self._root = root.again()
        self.temporary: Temporary | None = None
        try:
            self.temporary = Temporary(root)
        except BaseException:
            self._root.close()
            raise
        fork.register(self)

    def forked(self) -> None:
        """Close the child's descriptors; its temporary does so itself."""
        self.temporary = None
        self._root.close()

    def _held(self) -> Temporary:
        if self.temporary is None:
            raise ClosedError(f"{self._path} is stored or given up: begin again")
        return self.temporary

    def write(self, op: Operation, data: Chunk, /) -> None:
        rest = memoryview(data)
        with self._lock:
            try:
                while len(rest):
                    count = os.write(self._held().descriptor, rest)
                    self._size += count
                    rest = rest[count:]
            except OSError as error:
                if isinstance(error, CloudRuntimesError):
                    raise
                raise explain(error, self._path) from error
        if op.remaining() == 0:
            raise op.timed_out("the disk")

    def take(self, op: Operation, source: int, size: int) -> None:
        """Append ``size`` bytes of a file."""
        done = 0
        with self._lock:
            while done < size:
                target, length = self._held().descriptor, min(PIECE, size - done)
                count = copy_range(source, target, length, done)
                if not count:
                    return  # cut by another program
                self._size += count
                done += count
                if op.remaining() == 0:
                    raise op.timed_out("the disk")

    def store(self, op: Operation, guard: Guard) -> FileInfo:
        """Make it visible."""
        guard.path = self._path
        with self._lock:
            tree, temporary = self._tree, self._held()
            try:
                meta = Meta(self._size, token_hex(8), self._how.content_type, self._how.metadata)
                attach(temporary.descriptor, meta)
                if tree.durable:
                    os.fsync(temporary.descriptor)
                stored = info(self._name, os.fstat(temporary.descriptor), meta)
                folder: Folder | None = None
                try:
                    with tree.writing(op, self._root):
                        guard.check()
                        folder = self._publish(temporary, guard)
                    tree.flush(folder)
                finally:
                    if folder is not None:
                        folder.close()
                return stored
            finally:
                self._end()

    commit, commit_async = change(store)

    def _publish(self, temporary: Temporary, guard: Guard) -> Folder:
        """Give it its name, and return its folder."""
        location, overwrite = self._location, self._how.overwrite
        try:
            with self._tree.free(self._root, location) as (folder, entry):
                held = folder.again()
                try:
                    guard.begin()
                    try:
                        temporary.publish(folder, entry, overwrite=overwrite, path=self._path)
                    except Exception:
                        guard.begun = False  # one system call, and it has said no
                        raise
                except BaseException:
                    held.close()
                    raise
                return held
        except Exception:
            self._tree.prune(self._root, location.folders)
            raise

    def abort(self, op: Operation | None = None, /) -> None:
        with self._lock:
            self._end()

    async def abort_async(self, op: Operation, /) -> None:
        if self.temporary is None:
            return
        try:
            await self.executor.in_thread(self.abort, Operation(op.method, op.component, None))
        except ClosedError:  # the client's pool is gone
            Background(self.abort, "cloud-runtimes-close").start()

    def _end(self) -> None:
        temporary, self.temporary = self.temporary, None
        if temporary is not None:
            temporary.close()
        self._root.close()
