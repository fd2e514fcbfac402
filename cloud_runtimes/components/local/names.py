"""Names of files, the entries of folders that hold them, and listings in the byte order of names.

A segment of a name is an entry of the same name, so that people and other programs see plain files and folders. Entries that begin with ``%%`` are the exceptions:

* ``%%=SEGMENT``: a segment that begins with ``%%`` itself.
* ``%%+HEAD``, a folder: the first part of a segment of more than 255 bytes; the rest is an entry in it.
* ``%%fSEGMENT``: the file of a name that is a folder too.
* ``%%tmp`` in the store's root: temporaries.

Whatever else begins with ``%%`` is not ours and not listed, as is what is not UTF-8. Case is kept; whether it counts is the file system's affair.

For a listing, a folder's entries are read in rounds of the smallest so many, so that memory is bounded by the page asked for, not by the folder. Sorting a folder ``a`` as ``a/`` makes a walk in depth give whole names in order. UTF-8 has the order of its code points, so ``str`` compares as bytes would.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from ..._core.os_folders import Folder
from ...spi.file import FileInfo
from ...spi.operation import Operation
from .meta import Meta, info

if TYPE_CHECKING:
    from .tree import Tree

MARK: Final = "%%"
TEMPORARIES: Final = "%%tmp"
_LIMIT: Final = 255  # NAME_MAX of every file system of Linux (limits.h)
_HEAD: Final = 240
_LEAST: Final = 1000
_MOST: Final = 20_000


class Location(NamedTuple):
    """Where a file is."""

    folders: tuple[str, ...]  # from the root to the folder that holds it
    entry: str
    aside: tuple[str, ...]  # where it is instead once the entry is a folder, from the folder that holds that on


def _split(text: str) -> tuple[str, str]:
    """Part a long segment at a character's border."""
    head = text.encode()[:_HEAD].decode(errors="ignore")
    return head, text[len(head) :]


def _plain(text: str) -> tuple[str, ...]:
    size = len(text.encode())
    marked = text.startswith(MARK)
    if size + (3 if marked else 0) <= _LIMIT:
        return (f"%%={text}" if marked else text,)
    head, rest = _split(text)
    return (f"%%+{head}", *_plain(rest))


def aside(entry: str) -> tuple[str, ...]:
    """Return where the file of ``entry`` goes when a folder takes its place."""
    text = entry.removeprefix("%%=")
    if len(text.encode()) + 3 <= _LIMIT:
        return (f"%%f{text}",)
    head, rest = _split(text)
    return (f"%%+{head}", f"%%f{rest}")


def locate(name: str) -> Location:
    """Return the place of a checked name."""
    *folders, last = name.split("/")
    entries: list[str] = []
    for each in folders:
        entries += _plain(each)
    *heads, entry = _plain(last)
    return Location((*entries, *heads), entry, aside(entry))


def segment(entries: Sequence[str]) -> tuple[str, bool] | None:
    """Return the segment that entries stand for, heads before the last, and whether it is a file set aside; ``None`` where they are not ours."""
    text = "".join(each.removeprefix("%%+") for each in entries[:-1])
    last = entries[-1]
    try:
        last.encode()
    except UnicodeEncodeError:
        return None
    is_aside = last.startswith("%%f")
    text += last[3:] if last.startswith(("%%f", "%%=")) else last
    if is_aside:
        *heads, entry = _plain(text)
        return (text, True) if tuple(entries) == (*heads, *aside(entry)) else None
    return (text, False) if tuple(entries) == _plain(text) else None


class Entry(NamedTuple):
    """A file or folder in a folder, in the order of listings."""

    key: str  # its segment, a folder's with a slash behind it
    is_aside: bool  # set aside, so that another of the same key goes before
    entries: tuple[str, ...]  # where it is, from that folder on


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
        where = locate(f"{head}/x").folders if slash else ()
        with tree.folder(root, where) as folder:
            if folder is None:
                return []
            walk = _Walk(tree, op, prefix, recursive, after or "", limit)
            with closing(walk.files(folder, head + slash)) as entries:
                return list(islice(entries, limit))


class _Walk:
    def __init__(self, tree: Tree, op: Operation, prefix: str, recursive: bool, after: str, limit: int | None) -> None:
        self._tree = tree
        self._op = op
        self._prefix = prefix
        self._recursive = recursive
        self._after = after
        self._round = None if limit is None else min(max(limit + 1, _LEAST), _MOST)

    def files(self, folder: Folder, base: str) -> Generator[FileInfo, None, None]:
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

    def _one(self, folder: Folder, base: str, entry: Entry) -> Iterator[FileInfo]:
        tree, name = self._tree, base + entry.key
        *heads, last = entry.entries
        if not name.endswith("/"):
            with tree.folder(folder, heads) as holder:
                file = None if holder is None else tree.info(holder, last, name)
            if file is not None:
                yield file
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
                    yield info(name, below.status(), Meta(0))

    def _smallest(self, folder: Folder, base: str, floor: str) -> list[Entry]:
        wanted = self._entries(folder, (), base, floor)
        return sorted(wanted) if self._round is None else heapq.nsmallest(self._round, wanted)

    def _wants(self, name: str) -> bool:
        prefix, after = self._prefix, self._after
        if name.endswith("/"):
            if not name.startswith(prefix) and not prefix.startswith(name):
                return False
            return name > after or (self._recursive and after.startswith(name))
        return name > after and name.startswith(prefix)

    def _entries(self, folder: Folder, heads: tuple[str, ...], base: str, floor: str) -> Iterator[Entry]:
        with folder.scan() as children:
            for each in children:
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
                    parsed = segment((*heads, entry))
                    if parsed is None or (parsed[1] and is_folder):
                        continue
                    key, is_aside = parsed[0] + "/" * is_folder, parsed[1]
                if key > floor and self._wants(base + key) and (is_folder or each.is_file(follow_symlinks=False)):
                    yield Entry(key, is_aside, (*heads, entry))
