"""Files on NATS' object store: a bucket for each store. See `.objects` for what is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ...errors import AlreadyExistsError, ClosedError, ConflictError, InternalError, UnavailableError, UnsupportedError
from ...spi import file as spi
from ...spi.file import Chunk, FileInfo, FileReader, FileWrite, FileWriter
from ...spi.operation import Operation
from .._files import ServerFiles
from .._unreadable import skip
from .objects import Objects
from .requests import Flow
from .versions import WINDOW, Found, Gone, Reading, Stored, Upload, blank

if TYPE_CHECKING:
    from . import NatsComponent

__all__ = ["NatsFiles"]

_SWEEP: Final = 60.0
"""Seconds after which a store that is written to is swept again."""
_LISTED: Final = 500
"""Entries that are looked at together."""


class NatsFiles(ServerFiles):
    """One store: a bucket."""

    features = frozenset(
        {spi.CONTENT_TYPE, spi.COPY, spi.ETAG, spi.EXCLUSIVE, spi.LISTED, spi.METADATA, spi.MOVE, spi.RANGE, spi.SIZES}
    )

    def __init__(self, component: NatsComponent, name: str) -> None:
        self.component = component
        self.store = name
        self.bucket = Objects(component.engine, "file", name)
        self._sweep_at = 0.0

    # -- reading ----------------------------------------------------------

    def stat(self, op: Operation, name: str, /) -> FileInfo | None:
        return self.component.engine.run(op, self._stat(name))

    async def stat_async(self, op: Operation, name: str, /) -> FileInfo | None:
        return await self.component.engine.run_async(op, self._stat(name))

    def _stat(self, name: str) -> Flow[FileInfo | None]:
        stored = yield from self._readable(name)
        return None if stored is None else _info(name, stored)

    def _readable(self, name: str) -> Flow[Stored | None]:
        (found,) = yield from self.bucket.find(name)
        if found.error is not None:
            raise found.error
        return found.stored

    def read(self, op: Operation, name: str, start: int, length: int | None, /) -> bytes | None:
        return self.component.engine.run(op, self._read(name, start, length))

    async def read_async(self, op: Operation, name: str, start: int, length: int | None, /) -> bytes | None:
        return await self.component.engine.run_async(op, self._read(name, start, length))

    def _read(self, name: str, start: int, length: int | None) -> Flow[bytes | None]:
        before = None
        while True:
            stored = yield from self.find(name)
            if stored is None:
                return None
            reader = Content(self, name, stored)
            try:
                return b"".join((yield from reader.part(start, stored.size if length is None else length)))
            except Gone:  # another was quicker than this one is long
                if before == stored.nuid:
                    raise (yield from self.gone(name, stored)) from None
                before = stored.nuid

    def find(self, name: str) -> Flow[Stored | None]:
        """Return what is to be read."""
        stored = yield from self._readable(name)
        if stored is not None and stored.link:
            raise UnsupportedError(f"{self.store}/{name} is a link to {stored.link}: read that one")
        return stored

    def gone(self, name: str, stored: Stored) -> Flow[Exception]:
        """Return why chunks of a version are missing."""
        (found,) = yield from self.bucket.find(name)
        if found.stored is not None and found.stored.nuid == stored.nuid:
            return UnavailableError(
                f"{self.store}/{name}: the server that was asked has not all of it yet, or lost some"
            )
        return ConflictError(f"{self.store}/{name} was replaced and its old content removed: open it again")

    def open_read(self, op: Operation, name: str, /) -> FileReader | None:
        found = self.component.engine.run(op, self.find(name))
        return None if found is None else _Reader(self, name, found)

    async def open_read_async(self, op: Operation, name: str, /) -> FileReader | None:
        found = await self.component.engine.run_async(op, self.find(name))
        return None if found is None else _Reader(self, name, found)

    # -- listing ----------------------------------------------------------

    def list_files(
        self, op: Operation, prefix: str, recursive: bool, limit: int | None, after: str | None, /
    ) -> list[FileInfo]:
        return self.component.engine.run(op, self._list(prefix, recursive, limit, after))

    async def list_files_async(
        self, op: Operation, prefix: str, recursive: bool, limit: int | None, after: str | None, /
    ) -> list[FileInfo]:
        return await self.component.engine.run_async(op, self._list(prefix, recursive, limit, after))

    def _list(self, prefix: str, recursive: bool, limit: int | None, after: str | None) -> Flow[list[FileInfo]]:
        entries: dict[str, list[str]] = {}
        for name in (yield from self.bucket.names()):
            if name.startswith(prefix):
                folder, slash, _ = name[len(prefix) :].partition("/")
                entry = prefix + folder + slash if slash and not recursive else name
                if after is None or entry > after:
                    entries.setdefault(entry, []).append(name)
        listed: list[FileInfo] = []
        left = list(entries)
        while left and (limit is None or len(listed) < limit):
            some = left[: _LISTED if limit is None else min(_LISTED, limit - len(listed))]
            del left[: len(some)]
            firsts = yield from self.bucket.find(*[entries[entry][0] for entry in some])
            for entry, found in zip(some, firsts, strict=True):
                if entry.endswith("/"):
                    if (yield from self._holds_files(found, entries[entry])):
                        listed.append(FileInfo(entry, 0))
                elif found.error is not None:
                    skip(f"files {self.store!r}", entry, found.error)
                elif found.stored is not None:
                    listed.append(_info(entry, found.stored))
        return listed

    def _holds_files(self, first: Found, names: list[str]) -> Flow[bool]:
        """Tell whether one of a folder's names is that of a file; the first has been looked at."""
        if first.stored is not None:
            return True
        for start in range(1, len(names), _LISTED):
            found = yield from self.bucket.find(*names[start : start + _LISTED])
            if any(each.stored is not None for each in found):
                return True
        return False

    # -- writing ----------------------------------------------------------

    def open_write(self, op: Operation, name: str, how: FileWrite, /) -> FileWriter:
        return _Writer(self, name, how, self.component.engine.run(op, self._begin(name, how)))

    async def open_write_async(self, op: Operation, name: str, how: FileWrite, /) -> FileWriter:
        return _Writer(self, name, how, await self.component.engine.run_async(op, self._begin(name, how)))

    def _begin(self, name: str, how: FileWrite) -> Flow[Found]:
        """Return what is there now; what is wrong already need not be written first."""
        yield from self.bucket.writable()
        (found,) = yield from self.bucket.find(name)
        self._check(name, how.overwrite, found)
        return found

    def _check(self, name: str, overwrite: bool, found: Found) -> None:
        if found.exists and not overwrite:
            raise AlreadyExistsError(f"{self.store}/{name} exists: give overwrite=True to replace it")

    def commit(self, upload: Upload, document: Mapping[str, Any], overwrite: bool, found: Found) -> Flow[FileInfo]:
        """Have a name tell of an upload."""
        name: str = document["name"]
        rest = upload.rest()
        if rest or (found.stored is not None and found.stored.chunks):
            yield from self.bucket.send(upload, rest, found)
        document = upload.document(document)
        while (stored := (yield from self.bucket.store(upload, document, found))) is None:
            found = yield from self.bucket.seen_again(upload, name)
            self._check(name, overwrite, found)
        return _info(name, stored)

    def sweep(self) -> None:
        """Remove in the background what may go, from time to time."""
        if (now := monotonic()) >= self._sweep_at:
            self._sweep_at = now + _SWEEP
            self.component.behind(self.bucket.sweep())

    def delete(self, op: Operation, name: str, /) -> None:
        self.component.engine.run(op, self.bucket.remove(name))
        self.sweep()

    async def delete_async(self, op: Operation, name: str, /) -> None:
        await self.component.engine.run_async(op, self.bucket.remove(name))
        self.sweep()

    def copy(self, op: Operation, source: str, target: str, /) -> FileInfo | None:
        return self.component.engine.run(op, self._copy(source, target))

    async def copy_async(self, op: Operation, source: str, target: str, /) -> FileInfo | None:
        return await self.component.engine.run_async(op, self._copy(source, target))

    def _copy(self, source: str, target: str) -> Flow[FileInfo | None]:
        """Read and write piece by piece: a server has no way to do it itself."""
        stored = yield from self.find(source)
        if stored is None:
            return None
        found = yield from self._begin(target, FileWrite())
        content, upload = Content(self, source, stored), Upload()
        try:
            for start in range(0, stored.size, WINDOW):
                for piece in (yield from content.part(start, WINDOW)):
                    for chunks in upload.add(piece):
                        yield from self.bucket.send(upload, chunks, found)
        except Gone:
            raise (yield from self.gone(source, stored)) from None
        return (yield from self.commit(upload, {**stored.document, "name": target}, True, found))

    def move(self, op: Operation, source: str, target: str, /) -> FileInfo | None:
        return self.component.engine.run(op, self._move(source, target))

    async def move_async(self, op: Operation, source: str, target: str, /) -> FileInfo | None:
        return await self.component.engine.run_async(op, self._move(source, target))

    def _move(self, source: str, target: str) -> Flow[FileInfo | None]:
        stored = yield from self.bucket.rename(source, target)
        return None if stored is None else _info(target, stored)


class Content:
    """The content of one version; its digest is checked once all of it was read in order."""

    def __init__(self, files: NatsFiles, name: str, stored: Stored) -> None:
        self._bucket = files.bucket
        self._what = f"{files.store}/{name}"
        self._stored = stored
        self._reading = Reading(stored)
        self._digest = hashlib.sha256()
        self._digested = 0

    def part(self, start: int, size: int) -> Flow[list[bytes]]:
        """Return some bytes, in pieces.

        Raises:
            InternalError: the content is not what was stored.
            Gone: chunks of it are missing.
        """
        stored = self._stored
        pieces = []
        for begin in range(start, min(start + size, stored.size), WINDOW):
            pieces += yield from self._bucket.part(self._reading, begin, min(WINDOW, start + size - begin))
        if start == self._digested and pieces:
            for piece in pieces:
                self._digest.update(piece)
                self._digested += len(piece)
            if self._digested == stored.size and stored.digest not in (None, self._digest.digest()):
                raise InternalError(f"{self._what}: the content does not have the digest that was stored with it")
        return pieces


class _Reader(FileReader):
    """One version of a file."""

    def __init__(self, files: NatsFiles, name: str, stored: Stored) -> None:
        self.executor = files.executor
        self.info = _info(name, stored)
        self._files = files
        self._stored = stored
        self._content = Content(files, name, stored)
        self._closed = False

    def read(self, op: Operation, offset: int, size: int, /) -> bytes:
        return self._files.component.engine.run(op, self._read(offset, size))

    async def read_async(self, op: Operation, offset: int, size: int, /) -> bytes:
        return await self._files.component.engine.run_async(op, self._read(offset, size))

    def _read(self, offset: int, size: int) -> Flow[bytes]:
        if self._closed:
            raise ClosedError(f"{self._files.store}/{self.info.name} is closed: open it again")
        try:
            return b"".join((yield from self._content.part(offset, size)))
        except Gone:
            raise (yield from self._files.gone(self.info.name, self._stored)) from None

    def close(self, op: Operation, /) -> None:
        self._closed = True

    async def close_async(self, op: Operation, /) -> None:
        self._closed = True


class _Writer(FileWriter):
    """A version in the making. What was sent of one that is given up goes in the background; its note stays for a day, since more may be on its way."""

    def __init__(self, files: NatsFiles, name: str, how: FileWrite, found: Found) -> None:
        self.executor = files.executor
        self._files = files
        self._name = name
        self._how = how
        self._found = found
        self._upload = Upload()
        self._ended = False

    def _add(self, data: Chunk) -> Iterable[list[bytes]]:
        if self._ended:
            raise ClosedError(f"{self._files.store}/{self._name} is stored or given up: begin again")
        return self._upload.add(data)

    def write(self, op: Operation, data: Chunk, /) -> None:
        for chunks in self._add(data):
            self._files.component.engine.run(op, self._files.bucket.send(self._upload, chunks, self._found))

    async def write_async(self, op: Operation, data: Chunk, /) -> None:
        for chunks in self._add(data):
            await self._files.component.engine.run_async(op, self._files.bucket.send(self._upload, chunks, self._found))

    def commit(self, op: Operation, /) -> FileInfo:
        info = self._files.component.engine.run(op, self._commit())
        self._files.sweep()
        return info

    async def commit_async(self, op: Operation, /) -> FileInfo:
        info = await self._files.component.engine.run_async(op, self._commit())
        self._files.sweep()
        return info

    def _commit(self) -> Flow[FileInfo]:
        self._add(b"")
        self._ended = True
        document = blank(self._name, self._how.content_type, self._how.metadata)
        return (yield from self._files.commit(self._upload, document, self._how.overwrite, self._found))

    def abort(self, op: Operation, /) -> None:
        if not self._ended:
            self._ended = True
            if self._upload.due:
                self._files.component.behind(self._files.bucket.purge([self._upload.nuid]))

    async def abort_async(self, op: Operation, /) -> None:
        self.abort(op)


def _info(name: str, stored: Stored) -> FileInfo:
    document = stored.document
    types = (document.get("headers") or {}).get("Content-Type")
    return FileInfo(
        name,
        stored.size,
        datetime.fromtimestamp(stored.modified_ms / 1000, UTC),
        stored.nuid,
        types[0] if types and isinstance(types, list) else types or None,
        dict(document.get("metadata") or {}),
    )
