"""Listing a store by names: those that are keys and those that stand in hexadecimal are two listings, merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ...spi.file import FileInfo
from .bucket import Flow, Step
from .names import AREA, LAST, Names, before, cut

__all__ = ["list_files"]

_PAGE: Final = 1000
"""Keys of one answer of a bucket."""


def list_files(
    names: Names, prefix: str, recursive: bool, limit: int | None, after: str | None
) -> Flow[list[FileInfo]]:
    """Return what the SPI's ``list_files`` does, but of an entry only what a listing tells."""
    found = yield from _Plain(names, prefix, recursive, limit, after).entries()
    odd = yield from _odd(names, prefix, recursive, limit, after)
    merged = {entry.name: entry for entry in (*found, *odd)}
    return sorted(merged.values(), key=lambda entry: entry.name)[:limit]  # code points and UTF-8 have one order


def _file(name: str, meta: Mapping[str, Any]) -> FileInfo:
    return FileInfo(name, meta["size"], meta["last_modified"])


def _entry(name: str, prefix: str, recursive: bool, meta: Mapping[str, Any]) -> FileInfo:
    folder, slash, _ = name[len(prefix) :].partition("/")
    return FileInfo(prefix + folder + slash, 0) if slash and not recursive else _file(name, meta)


class _Plain:
    """The listing of names that are keys."""

    def __init__(self, names: Names, prefix: str, recursive: bool, limit: int | None, after: str | None) -> None:
        self._names = names
        self._prefix = prefix
        self._recursive = recursive
        self._limit = limit
        self._after = after
        self._found: list[FileInfo] = []
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
        return self._found

    def _level(self) -> Flow[list[FileInfo]]:
        """Have the store itself shorten the names."""
        level = yield Step("list_with_delimiter", (self._folder,))
        root = self._names.root
        for folder in level["common_prefixes"]:
            name = folder[len(root) :] + "/"
            if name.startswith(self._prefix) and name != AREA:
                self._found.append(FileInfo(name, 0))
        for meta in level["objects"]:
            name = meta["path"][len(root) :]
            if name.startswith(self._prefix):
                self._found.append(_file(name, meta))
        return self._found

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
        key = cut(self._names.root + low)
        stream = yield Step("list", (self._folder,), {"offset": key, "chunk_size": _PAGE})
        while chunk := (yield Step("next", on=stream)):
            for meta in chunk:
                name = meta["path"][len(self._names.root) :]
                if name.startswith(self._prefix):
                    self._add(_entry(name, self._prefix, self._recursive, meta))
                elif name > self._prefix:
                    return None
                if self._limit is not None and len(self._found) >= self._limit:
                    return None
            if self._found and self._found[-1].is_folder and len(chunk) == _PAGE:
                return self._found[-1].name + LAST
        return None

    def _add(self, entry: FileInfo) -> None:
        if entry.name.startswith(AREA) or (self._after is not None and entry.name <= self._after):
            return
        if not self._found or self._found[-1].name != entry.name:
            self._found.append(entry)


def _odd(names: Names, prefix: str, recursive: bool, limit: int | None, after: str | None) -> Flow[Iterable[FileInfo]]:
    """Return the entries of names in hexadecimal."""
    area = names.root + AREA
    low = prefix if after is None or after < prefix else after
    first = low.encode().hex()
    offset = area + (first if low is after else before(first))
    stream = yield Step("list", (area[:-1],), {"offset": cut(offset), "chunk_size": _PAGE})
    found: dict[str, FileInfo] = {}
    while chunk := (yield Step("next", on=stream)):
        for meta in chunk:
            name = names.name(meta["path"])
            if name is None or not name.startswith(prefix):
                if name is not None and name > prefix:
                    return found.values()
                continue
            entry = _entry(name, prefix, recursive, meta)
            if after is None or entry.name > after:
                found[entry.name] = entry
            if limit is not None and len(found) >= limit:
                return found.values()
    return found.values()
