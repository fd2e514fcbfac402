"""Files in a folder."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from ..._core.os_folders import Folder
from ...errors import AlreadyExistsError, CloudRuntimesError
from ...spi import file as spi
from ...spi.file import Chunk, FileDriver, FileInfo, FileReader, FileWrite, FileWriter
from ...spi.operation import Operation
from .failures import explain
from .names import Location, list_files, locate
from .streams import Guard, LocalReader, LocalWriter, change

if TYPE_CHECKING:
    from . import LocalComponent
    from .tree import Tree

P = ParamSpec("P")
R = TypeVar("R")


def _map_error(
    method: Callable[Concatenate[LocalFiles, Operation, str, P], R],
) -> Callable[Concatenate[LocalFiles, Operation, str, P], R]:
    """Make the operating system's errors ours; the name is the first argument."""

    @functools.wraps(method)
    def call(self: LocalFiles, op: Operation, name: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, op, name, *args, **kwargs)
        except OSError as error:
            if isinstance(error, CloudRuntimesError):
                raise
            raise explain(error, self.path_of(name)) from error

    return call


class LocalFiles(FileDriver):
    """File store in a folder."""

    features = frozenset(
        {spi.CONTENT_TYPE, spi.COPY, spi.ETAG, spi.EXCLUSIVE, spi.LISTED, spi.METADATA, spi.MOVE, spi.RANGE, spi.SIZES}
    )

    def __init__(self, component: LocalComponent, tree: Tree) -> None:
        self.executor = component.executor
        self.tree = tree

    def path_of(self, name: str) -> str:
        """Return what to call a file in messages."""
        return f"{self.tree.path}/{name}"

    # -- reading ----------------------------------------------------------

    @_map_error
    def stat(self, op: Operation, name: str, /) -> FileInfo | None:
        with self.tree.root() as root:
            return None if root is None else self.tree.stat(root, locate(name), name)

    @_map_error
    def read(self, op: Operation, name: str, start: int, length: int | None, /) -> bytes | None:
        reader = self.open_read(op, name)
        if reader is None:
            return None
        try:
            size = max(0, (reader.info.size or 0) - start)
            wanted = size if length is None else min(size, length)
            parts, done = [], 0
            while done < wanted and (data := reader.read(op, start + done, wanted - done)):  # at most 2 GiB each
                parts.append(data)
                done += len(data)
            return b"".join(parts)
        finally:
            reader.close(op)

    @_map_error
    def open_read(self, op: Operation, name: str, /) -> FileReader | None:
        with self.tree.root() as root:
            opened = None if root is None else self.tree.open(root, locate(name), name)
        return None if opened is None else LocalReader(self, *opened)

    @_map_error
    def list_files(
        self, op: Operation, prefix: str, recursive: bool, limit: int | None, after: str | None, /
    ) -> list[FileInfo]:
        return list_files(self.tree, op, prefix, recursive, limit, after)

    # -- writing ----------------------------------------------------------

    @_map_error
    def open_write(self, op: Operation, name: str, how: FileWrite, /) -> FileWriter:
        return self._begin(name, how)

    def _begin(self, name: str, how: FileWrite) -> LocalWriter:
        where = locate(name)
        with self.tree.root(make=True) as root:
            assert root is not None
            # what is wrong already need not be written first; that it still holds in the end is `store`'s to see
            with self.tree.slot(root, where) as slot:
                if slot is not None and not how.overwrite:
                    raise AlreadyExistsError(f"{self.path_of(name)} exists: give overwrite=True to replace it")
            return LocalWriter(self, root, name, where, how)

    def _write(self, op: Operation, guard: Guard, name: str, chunks: Iterable[Chunk], how: FileWrite, /) -> FileInfo:
        guard.path = self.path_of(name)
        writer = self._begin(name, how)
        try:
            for chunk in chunks:
                writer.write(op, chunk)
                guard.check()
            return writer.store(op, guard)
        finally:
            writer.abort()

    write, write_async = change(_write)

    # -- the name space ---------------------------------------------------

    def _delete(self, op: Operation, guard: Guard, name: str, /) -> None:
        guard.path = self.path_of(name)
        where = locate(name)
        with self.tree.root() as root:
            if root is None:
                return
            with self.tree.slot(root, where) as slot:
                if slot is None:
                    return
            with self.tree.writing(op, root):
                guard.begin()
                self._unlink(root, where, guard)
                self.tree.prune(root, where.folders)

    delete, delete_async = change(_delete)

    def _unlink(self, root: Folder, where: Location, guard: Guard) -> None:
        # a file set aside first: it must not come back when the one before it is gone
        removed = False
        for entry_only in (False, True):
            with self.tree.folder(root, where.folders) as folder:
                if folder is None:
                    return
                *heads, last = (where.entry,) if entry_only else where.aside
                with self.tree.folder(folder, heads) as holder:
                    try:
                        if holder is None:
                            continue
                        holder.unlink(last)
                    except OSError as error:
                        if error.errno in (errno.ENOENT, errno.EISDIR):
                            continue
                        guard.begun = removed
                        raise
                    removed = True
                    self.tree.flush(holder)

    def _copy(self, op: Operation, guard: Guard, source: str, target: str, /) -> FileInfo | None:
        guard.path = self.path_of(target)
        with self.tree.root() as root:
            opened = None if root is None else self.tree.open(root, locate(source), source)
        if opened is None:
            return None
        descriptor, known = opened
        try:
            writer = self._begin(target, FileWrite(known.content_type, known.metadata))
            try:
                writer.take(op, descriptor, known.size or 0)
                return writer.store(op, guard)
            finally:
                writer.abort()
        finally:
            os.close(descriptor)

    copy, copy_async = change(_copy)

    def _move(self, op: Operation, guard: Guard, source: str, target: str, /) -> FileInfo | None:
        guard.path = self.path_of(target)
        if source == target:
            return self.stat(op, source)
        here, there = locate(source), locate(target)
        with self.tree.root() as root:
            if root is None:
                return None
            with self.tree.writing(op, root):
                with self.tree.slot(root, here) as slot:
                    if slot is None:
                        return None
                try:
                    return self._rename(root, here, there, target, guard)
                finally:
                    self.tree.prune(root, there.folders)
                    self.tree.prune(root, here.folders)

    move, move_async = change(_move)

    def _rename(self, root: Folder, here: Location, there: Location, target: str, guard: Guard) -> FileInfo | None:
        with self.tree.free(root, there) as (folder, entry):
            # looked for again: room for the target's folder may have been made by setting it aside
            with self.tree.slot(root, here) as slot:
                if slot is None:
                    return None
                twins = _are_twins(slot, (folder, entry))
                guard.begin()
                try:
                    if twins:
                        slot[0].unlink(slot[1])
                    else:
                        slot[0].rename(slot[1], folder, entry)
                except OSError:
                    guard.begun = False  # one system call, and it has said no
                    raise
                self.tree.flush(folder)
                self.tree.flush(slot[0])
                return self.tree.info(folder, entry, target)


def _are_twins(one: tuple[Folder, str], other: tuple[Folder, str]) -> bool:
    """Return whether two entries are names of one inode, which rename(2) would leave both."""
    try:
        mine, its = (folder.stat(entry) for folder, entry in (one, other))
    except FileNotFoundError:
        return False
    # where case does not count one name can be spelt twice
    return os.path.samestat(mine, its) and mine.st_nlink > 1
