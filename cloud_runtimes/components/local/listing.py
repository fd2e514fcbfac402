"""Listings in the byte order of names, however many files there are.

A folder's entries are read in rounds of the smallest so many, so that memory is bounded by the page asked for, not by the folder. Sorting a folder ``a`` as ``a/`` makes a walk in depth give whole names in order. UTF-8 has the order of its code points, so ``str`` compares as bytes would.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from ...spi.file import FileInfo
from ...spi.operation import Operation
from .meta import Meta, info
from .names import MARK, place, segment

if TYPE_CHECKING:
    from .tree import Tree

__all__ = ["list_files"]

_LEAST: Final = 1000
_MOST: Final = 20_000


class Entry(NamedTuple):
    """A file or folder in a folder.

    Attributes:
        key: its segment, a folder's with ``/`` behind it; the order.
        is_aside: set aside; ``entries`` without it goes before.
        entries: where it is, from that folder on.
    """

    key: str
    is_aside: bool
    entries: tuple[str, ...]


def list_files(
    tree: Tree, op: Operation, prefix: str, recursive: bool, limit: int | None, after: str | None
) -> list[FileInfo]:
    """See `FileDriver.list_files`."""
    head, slash, _ = prefix.rpartition("/")
    if any(part in ("", ".", "..") for part in head.split("/")) and slash:
        return []  # no name begins so
    with tree.root() as root:
        if root is None:
            return []
        where = place(f"{head}/x").folders if slash else ()
        with tree.folder(root, where) as folder:
            if folder is None:
                return []
            walk = _Walk(tree, op, prefix, recursive, after or "", limit)
            with closing(walk.files(folder, head + slash)) as found:
                return list(islice(found, limit))


class _Walk:
    def __init__(self, tree: Tree, op: Operation, prefix: str, recursive: bool, after: str, limit: int | None) -> None:
        self._tree = tree
        self._op = op
        self._prefix = prefix
        self._recursive = recursive
        self._after = after
        self._round = None if limit is None else min(max(limit + 1, _LEAST), _MOST)

    def files(self, folder: int, base: str) -> Generator[FileInfo, None, None]:
        """Give the files of a folder and, as asked for, below it."""
        floor, last = "", None
        while True:
            entries = self._smallest(folder, base, floor)
            for number, entry in enumerate(entries):
                if number % 256 == 0 and self._op.remaining() == 0:
                    raise self._op.timed_out("the listing")
                if entry.key == last:
                    continue  # set aside, and there is one in its place
                last = entry.key
                yield from self._one(folder, base, entry)
            if self._round is None or len(entries) < self._round:
                return
            floor = entries[-1].key

    def _one(self, folder: int, base: str, entry: Entry) -> Iterator[FileInfo]:
        tree, name = self._tree, base + entry.key
        *heads, last = entry.entries
        if not name.endswith("/"):
            with tree.folder(folder, heads) as holder:
                found = None if holder is None else tree.info(holder, last, name)
            if found is not None:
                yield found
            return
        with tree.folder(folder, entry.entries) as below:
            if below is None:
                return
            if self._recursive:
                yield from self.files(below, name)
                return
            # a folder is there only while there is a file in it
            inside = _Walk(tree, self._op, name, True, "", 1)
            with closing(inside.files(below, name)) as first:
                if next(first, None) is not None:
                    yield info(name, os.fstat(below), Meta(0))

    def _smallest(self, folder: int, base: str, floor: str) -> list[Entry]:
        wanted = self._entries(folder, (), base, floor)
        return sorted(wanted) if self._round is None else heapq.nsmallest(self._round, wanted)

    def _wants(self, name: str) -> bool:
        prefix, after = self._prefix, self._after
        if name.endswith("/"):
            if not name.startswith(prefix) and not prefix.startswith(name):
                return False
            return name > after or (self._recursive and after.startswith(name))
        return name > after and name.startswith(prefix)

    def _entries(self, folder: int, heads: tuple[str, ...], base: str, floor: str) -> Iterator[Entry]:
        with os.scandir(folder) as found:
            for each in found:
                entry = each.name
                is_folder = each.is_dir(follow_symlinks=False)
                if not heads and entry.isascii() and not entry.startswith(MARK):
                    # what nearly all are: told without being taken apart, since a page looks at all of a folder
                    key, is_aside = f"{entry}/" if is_folder else entry, False
                elif is_folder and entry.startswith("%%+"):
                    with self._tree.folder(folder, (entry,)) as below:
                        if below is not None:
                            yield from self._entries(below, (*heads, entry), base, floor)
                    continue
                else:
                    told = segment((*heads, entry))
                    if told is None or (told[1] and is_folder):
                        continue
                    key, is_aside = told[0] + "/" * is_folder, told[1]
                if key > floor and self._wants(base + key) and (is_folder or each.is_file(follow_symlinks=False)):
                    yield Entry(key, is_aside, (*heads, entry))
