"""Files on NATS' object store: a bucket for each store. See `.objects` for what is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

from ...errors import AlreadyExistsError, ClosedError, ConflictError, InternalError, UnavailableError, UnsupportedError
from ...spi import file as spi
from ...spi.file import Chunk, FileInfo, FileReader, FileWrite, FileWriter
from ...spi.flow import both_apis
from ...spi.operation import Operation
from .._file import ServerFiles
from .._net.engines import EngineDriver
from .._unreadable import skip
from . import NatsComponent
from .objects import Objects
from .requests import Flow
from .versions import WINDOW, Current, Gone, Reading, Stored, Upload, blank

_SWEEP: Final = 60.0
"""Seconds after which a store that is written to is swept again."""
_LISTED: Final = 500
"""Entries that are looked at together."""


class NatsFiles(EngineDriver[NatsComponent], ServerFiles):
    """File store in a bucket."""

    features = frozenset(
        {spi.CONTENT_TYPE, spi.COPY, spi.ETAG, spi.EXCLUSIVE, spi.LISTED, spi.METADATA, spi.MOVE, spi.RANGE, spi.SIZES}
    )

    def __init__(self, component: NatsComponent, name: str) -> None:
        super().__init__(component, name)
        self.bucket = Objects(component.engine, "file", name)
        self._sweep_at = 0.0

    # -- reading ----------------------------------------------------------

    def _stat(self, op: Operation, name: str, /) -> Flow[FileInfo | None]:
        stored = yield from self._readable(name)
        return None if stored is None else _info(name, stored)

    stat, stat_async = both_apis(_stat)

    def _readable(self, name: str) -> Flow[Stored | None]:
        (current,) = yield from self.bucket.find(name)
        if current.error is not None:
            raise current.error
        return current.stored

    def _read(self, op: Operation, name: str, start: int, length: int | None, /) -> Flow[bytes | None]:
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

    read, read_async = both_apis(_read)

    def find(self, name: str) -> Flow[Stored | None]:
        """Return what is to be read."""
        stored = yield from self._readable(name)
        if stored is not None and stored.link:
            raise UnsupportedError(f"{self.name}/{name} is a link to {stored.link}: read that one")
        return stored

    def gone(self, name: str, stored: Stored) -> Flow[Exception]:
        """Return why chunks of a version are missing."""
        (current,) = yield from self.bucket.find(name)
        if current.stored is not None and current.stored.nuid == stored.nuid:
            return UnavailableError(
                f"{self.name}/{name}: the server that was asked has not all of it yet, or lost some"
            )
        return ConflictError(f"{self.name}/{name} was replaced and its old content removed: open it again")

    def _open_read(self, op: Operation, name: str, /) -> Flow[FileReader | None]:
        stored = yield from self.find(name)
        return None if stored is None else _Reader(self, name, stored)

    open_read, open_read_async = both_apis(_open_read)

    # -- listing ----------------------------------------------------------

    def _list(
        self, op: Operation, prefix: str, recursive: bool, limit: int | None, after: str | None, /
    ) -> Flow[list[FileInfo]]:
        entries: dict[str, list[str]] = {}
        for name in (yield from self.bucket.names()):
            if name.startswith(prefix):
                folder, slash, _ = name[len(prefix) :].partition("/")
                entry = prefix + folder + slash if slash and not recursive else name
                if after is None or entry > after:
                    entries.setdefault(entry, []).append(name)
        listed: list[FileInfo] = []
        remaining = list(entries)
        while remaining and (limit is None or len(listed) < limit):
            some = remaining[: _LISTED if limit is None else min(_LISTED, limit - len(listed))]
            del remaining[: len(some)]
            firsts = yield from self.bucket.find(*[entries[entry][0] for entry in some])
            for entry, current in zip(some, firsts, strict=True):
                if entry.endswith("/"):
                    if (yield from self._holds_files(current, entries[entry])):
                        listed.append(FileInfo(entry, 0))
                elif current.error is not None:
                    skip(f"files {self.name!r}", entry, current.error)
                elif current.stored is not None:
                    listed.append(_info(entry, current.stored))
        return listed

    list_files, list_files_async = both_apis(_list)

    def _holds_files(self, first: Current, names: list[str]) -> Flow[bool]:
        """Return whether one of a folder's names is that of a file; the first has been looked at."""
        if first.stored is not None:
            return True
        for start in range(1, len(names), _LISTED):
            entries = yield from self.bucket.find(*names[start : start + _LISTED])
            if any(each.stored is not None for each in entries):
                return True
        return False

    # -- writing ----------------------------------------------------------

    def _open_write(self, op: Operation, name: str, how: FileWrite, /) -> Flow[FileWriter]:
        return _Writer(self, name, how, (yield from self._begin(name, how)))

    open_write, open_write_async = both_apis(_open_write)

    def _begin(self, name: str, how: FileWrite) -> Flow[Current]:
        """Return what is there now; what is wrong already need not be written first."""
        yield from self.bucket.writable()
        (current,) = yield from self.bucket.find(name)
        self._check(name, how.overwrite, current)
        return current

    def _check(self, name: str, overwrite: bool, current: Current) -> None:
        if current.exists and not overwrite:
            raise AlreadyExistsError(f"{self.name}/{name} exists: give overwrite=True to replace it")

    def commit(self, upload: Upload, document: Mapping[str, Any], overwrite: bool, current: Current) -> Flow[FileInfo]:
        """Have a name tell of an upload."""
        name: str = document["name"]
        rest = upload.rest()
        if rest or (current.stored is not None and current.stored.chunks):
            yield from self.bucket.send(upload, rest, current)
        document = upload.document(document)
        while (stored := (yield from self.bucket.store(upload, document, current))) is None:
            current = yield from self.bucket.seen_again(upload, name)
            self._check(name, overwrite, current)
        return _info(name, stored)

    def sweep(self) -> None:
        """Remove in the background what may go, from time to time."""
        if (now := monotonic()) >= self._sweep_at:
            self._sweep_at = now + _SWEEP
            self.component.in_background(self.bucket.sweep, (0.0,))

    def _delete(self, op: Operation, name: str, /) -> Flow[None]:
        yield from self.bucket.remove(name)
        self.sweep()

    delete, delete_async = both_apis(_delete)

    def _copy(self, op: Operation, source: str, target: str, /) -> Flow[FileInfo | None]:
        """Read and write piece by piece: a server has no way to do it itself."""
        stored = yield from self.find(source)
        if stored is None:
            return None
        current = yield from self._begin(target, FileWrite())
        content, upload = Content(self, source, stored), Upload()
        try:
            for start in range(0, stored.size, WINDOW):
                for piece in (yield from content.part(start, WINDOW)):
                    for chunks in upload.add(piece):
                        yield from self.bucket.send(upload, chunks, current)
        except Gone:
            raise (yield from self.gone(source, stored)) from None
        return (yield from self.commit(upload, {**stored.document, "name": target}, True, current))

    copy, copy_async = both_apis(_copy)

    def _move(self, op: Operation, source: str, target: str, /) -> Flow[FileInfo | None]:
        stored = yield from self.bucket.rename(source, target)
        return None if stored is None else _info(target, stored)

    move, move_async = both_apis(_move)


class Content:
    """The content of one version; its digest is checked once all of it was read in order."""

    def __init__(self, files: NatsFiles, name: str, stored: Stored) -> None:
        self._bucket = files.bucket
        self._what = f"{files.name}/{name}"
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
    """Reader of one version of a file."""

    def __init__(self, files: NatsFiles, name: str, stored: Stored) -> None:
        self.flows = files.flows
        self.info = _info(name, stored)
        self._files = files
        self._stored = stored
        self._content = Content(files, name, stored)
        self._closed = False

    def _read(self, op: Operation, offset: int, size: int, /) -> Flow[bytes]:
        if self._closed:
            raise ClosedError(f"{self._files.name}/{self.info.name} is closed: open it again")
        try:
            return b"".join((yield from self._content.part(offset, size)))
        except Gone:
            raise (yield from self._files.gone(self.info.name, self._stored)) from None

    read, read_async = both_apis(_read)

    def close(self, op: Operation, /) -> None:
        self._closed = True

    async def close_async(self, op: Operation, /) -> None:
        self._closed = True


class _Writer(FileWriter):
    """A version in the making. What was sent of one that is given up goes in the background; its note stays for a day, since more may be on its way."""

    def __init__(self, files: NatsFiles, name: str, how: FileWrite, current: Current) -> None:
        self.flows = files.flows
        self._files = files
        self._name = name
        self._how = how
        self._current = current
        self._upload = Upload()
        self._ended = False

    def _add(self, data: Chunk) -> Iterable[list[bytes]]:
        if self._ended:
            raise ClosedError(f"{self._files.name}/{self._name} is stored or given up: begin again")
        return self._upload.add(data)

    def _write(self, op: Operation, data: Chunk, /) -> Flow[None]:
        for chunks in self._add(data):
            yield from self._files.bucket.send(self._upload, chunks, self._current)

    write, write_async = both_apis(_write)

    def _commit(self, op: Operation, /) -> Flow[FileInfo]:
        self._add(b"")
        self._ended = True
        document = blank(self._name, self._how.content_type, self._how.metadata)
        info = yield from self._files.commit(self._upload, document, self._how.overwrite, self._current)
        self._files.sweep()
        return info

    commit, commit_async = both_apis(_commit)

    def abort(self, op: Operation, /) -> None:
        if not self._ended:
            self._ended = True
            if self._upload.due:
                self._files.component.in_background(lambda: self._files.bucket.purge([self._upload.nuid]))

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
