"""Listing a store by names: those that are keys and those that stand in hexadecimal are two listings, merged."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import PayloadError
from ...spi.file import FileInfo
from .._unreadable import skip
from .bucket import Bucket, Flow
from .names import AREA, LAST, Names, before
from .pages import Listed, Pages


def list_files(
    bucket: Bucket, names: Names, prefix: str, recursive: bool, limit: int | None, after: str | None
) -> Flow[list[FileInfo]]:
    """Return what the SPI's ``list_files`` does, but of an entry only what a listing tells."""
    plain = yield from _Plain(bucket, names, prefix, recursive, limit, after).entries()
    odd = yield from _odd(bucket, names, prefix, recursive, limit, after)
    merged = {entry.name: entry for entry in (*plain, *odd)}
    return sorted(merged.values(), key=lambda entry: entry.name)[:limit]  # code points and UTF-8 have one order


def _entry(name: str, prefix: str, recursive: bool, listed: Listed) -> FileInfo:
    folder, slash, _ = name[len(prefix) :].partition("/")
    if slash and not recursive:
        return FileInfo(prefix + folder + slash, 0)
    return FileInfo(name, listed.size, listed.modified)


class _Plain:
    """The listing of names that are keys."""

    def __init__(
        self, bucket: Bucket, names: Names, prefix: str, recursive: bool, limit: int | None, after: str | None
    ) -> None:
        self._bucket = bucket
        self._names = names
        self._prefix = prefix
        self._recursive = recursive
        self._limit = limit
        self._after = after
        self._infos: list[FileInfo] = []
        folder = prefix[: prefix.rfind("/") + 1]
        self._folder = (names.root + folder)[:-1] or None
        self._possible = not folder or names.plain(folder[:-1])

    def entries(self) -> Flow[list[FileInfo]]:
        """Return them."""
        if not self._possible:
            return []
        if not self._recursive and self._limit is None and self._after is None:
            return (yield from self._level())
        low: str | None = self._first()
        while low is not None:
            low = yield from self._from(low)
        return self._infos

    def _level(self) -> Flow[list[FileInfo]]:
        """Have the store itself shorten the names."""
        pages = Pages(self._bucket, self._folder, level=True)
        root = self._names.root
        while page := (yield from pages.next()):
            for folder in page.folders:
                name = folder[len(root) :]
                if name.startswith(self._prefix) and name != AREA and self._is_name(name[:-1]):
                    self._infos.append(FileInfo(name, 0))
            for listed in page.objects:
                name = listed.key[len(root) :]
                if name.startswith(self._prefix) and self._is_name(name):
                    self._infos.append(FileInfo(name, listed.size, listed.modified))
        return self._infos

    def _is_name(self, name: str) -> bool:
        """Return whether a file can have a name; else skip the key, which is another program's."""
        if self._names.plain(name) or name.startswith(AREA):
            return True
        if name and not (name.endswith("/") and self._names.plain(name[:-1])):  # else it stands for a folder
            skip(self._bucket.where, self._names.root + name, PayloadError("no file has such a name"))
        return False

    def _first(self) -> str:
        """Return a text before all that are wanted, as near to them as can be."""
        prefix, after = self._prefix, self._after
        if after is None or after < prefix:
            return before(prefix)
        folder, slash, _ = after[len(prefix) :].partition("/")
        if slash and not self._recursive and after.startswith(prefix):
            return prefix + folder + slash + LAST
        return after

    def _from(self, low: str) -> Flow[str | None]:
        """List from a text on, until there is enough; inside a long folder return how to go on behind it."""
        pages = Pages(self._bucket, self._folder, self._names.root + low)
        while page := (yield from pages.next()):
            for listed in page.objects:
                name = listed.key[len(self._names.root) :]
                if name.startswith(self._prefix):
                    if self._is_name(name):
                        self._add(_entry(name, self._prefix, self._recursive, listed))
                elif name > self._prefix:
                    return None
                if self._limit is not None and len(self._infos) >= self._limit:
                    return None
            if self._infos and self._infos[-1].is_folder and not pages.ended:
                return self._infos[-1].name + LAST
        return None

    def _add(self, entry: FileInfo) -> None:
        if entry.name.startswith(AREA) or (self._after is not None and entry.name <= self._after):
            return
        if not self._infos or self._infos[-1].name != entry.name:
            self._infos.append(entry)


def _odd(
    bucket: Bucket, names: Names, prefix: str, recursive: bool, limit: int | None, after: str | None
) -> Flow[Iterable[FileInfo]]:
    """Return the entries of names in hexadecimal."""
    area = names.root + AREA
    low = prefix if after is None or after < prefix else after
    first = low.encode().hex()
    pages = Pages(bucket, area[:-1], area + (first if low is after else before(first)))
    entries: dict[str, FileInfo] = {}
    while page := (yield from pages.next()):
        for listed in page.objects:
            name = names.name(listed.key)
            if name is None or not name.startswith(prefix):
                if name is not None and name > prefix:
                    return entries.values()
                continue
            entry = _entry(name, prefix, recursive, listed)
            if after is None or entry.name > after:
                entries[entry.name] = entry
            if limit is not None and len(entries) >= limit:
                return entries.values()
    return entries.values()
