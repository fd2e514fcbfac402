"""Files in a bucket: an object each, under its own name."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from obstore import exceptions

from ...errors import AlreadyExistsError, ClosedError, ConflictError
from ...spi import file as spi
from ...spi.file import Chunk, FileInfo, FileReader, FileWrite, FileWriter
from ...spi.flow import FlowDriver, both_apis
from ...spi.operation import Operation
from .._file import ServerFiles
from .attributes import info
from .bucket import Flow, Step
from .failures import bucket_gone, out_of_range
from .listing import list_files
from .names import Names
from .pages import look
from .upload import Upload

if TYPE_CHECKING:
    from . import ObjectstoreComponent

_FIRST: Final = 1024 * 1024
_BLOCK: Final = 8 * 1024 * 1024
"""Bytes that a reader holds: few first, more as it goes on."""


class ObjectFiles(FlowDriver, ServerFiles):
    """File store below a prefix."""

    features = frozenset(
        {spi.CONTENT_TYPE, spi.COPY, spi.ETAG, spi.EXCLUSIVE, spi.METADATA, spi.RANGE, spi.SIZES, spi.URL}
    )
    alternatives = {  # noqa: RUF012  # nobody changes it
        spi.MOVE: "a bucket cannot rename: copy_file, then delete_file, and have readers bear with both names for a moment"
    }

    def __init__(self, component: ObjectstoreComponent, name: str) -> None:
        settings = component.settings
        self.component = component
        self.flows = self.bucket = component.bucket
        self.name = name
        self.names = Names(name, settings.root(name), settings.scheme == "az")

    # -- reading ----------------------------------------------------------

    def _stat(self, op: Operation, name: str, /) -> Flow[FileInfo | None]:
        return self.find(name)

    stat, stat_async = both_apis(_stat)

    def find(self, name: str) -> Flow[FileInfo | None]:
        """Return what is known of a file."""
        try:
            result = yield Step("get", (self.names.key(name),), {"options": {"head": True}})
        except FileNotFoundError as error:
            yield from self.absent(error)
            return None
        return info(name, result.meta, result.attributes)

    def absent(self, error: BaseException) -> Flow[None]:
        """Look whether it is only the object that is not there: the answer to a HEAD does not tell."""
        if bucket_gone(error):
            raise error
        if "<Code>" not in str(error):
            yield from look(self.bucket)

    def _read(self, op: Operation, name: str, start: int, length: int | None, /) -> Flow[bytes | None]:
        if length == 0:
            return None if (yield from self.find(name)) is None else b""
        options: dict[str, Any] = {}
        if start or length is not None:
            options["range"] = {"offset": start} if length is None else (start, start + length)
        try:
            result = yield Step("get", (self.names.key(name),), {"options": options} if options else {})
            data: bytes = yield Step("bytes", on=result)
            return data
        except FileNotFoundError as error:
            yield from self.absent(error)
            return None
        except exceptions.BaseError as error:
            if options and out_of_range(error):
                return b""
            raise

    read, read_async = both_apis(_read)

    def _open_read(self, op: Operation, name: str, /) -> Flow[FileReader | None]:
        reader = _Reader(self)
        return reader if (yield from reader.open(name)) else None

    open_read, open_read_async = both_apis(_open_read)

    def _list_files(
        self, op: Operation, prefix: str, recursive: bool, limit: int | None, after: str | None, /
    ) -> Flow[list[FileInfo]]:
        return list_files(self.bucket, self.names, prefix, recursive, limit, after)

    list_files, list_files_async = both_apis(_list_files)

    # -- writing ----------------------------------------------------------

    def write(self, op: Operation, name: str, chunks: Iterable[Chunk], how: FileWrite, /) -> FileInfo:
        if (data := _only(chunks)) is None:
            return super().write(op, name, chunks, how)
        return self.flows.run(op, Upload(self, name, how).whole(data))

    async def write_async(self, op: Operation, name: str, chunks: Iterable[Chunk], how: FileWrite, /) -> FileInfo:
        if (data := _only(chunks)) is None:
            return await super().write_async(op, name, chunks, how)
        return await self.flows.run_async(op, Upload(self, name, how).whole(data))

    def open_write(self, op: Operation, name: str, how: FileWrite, /) -> FileWriter:
        return Upload(self, name, how)

    async def open_write_async(self, op: Operation, name: str, how: FileWrite, /) -> FileWriter:
        return Upload(self, name, how)

    def exists(self, name: str) -> AlreadyExistsError:
        """Return why a file cannot be made."""
        return AlreadyExistsError(f"{self.name}/{name} exists: give overwrite=True to replace it")

    def _delete(self, op: Operation, name: str, /) -> Flow[None]:
        try:
            yield Step("delete", (self.names.key(name),))
        except FileNotFoundError as error:
            if bucket_gone(error):
                raise

    delete, delete_async = both_apis(_delete)

    def _copy(self, op: Operation, source: str, target: str, /) -> Flow[FileInfo | None]:
        if source != target:  # which S3 refuses
            try:
                yield Step("copy", (self.names.key(source), self.names.key(target)))
            except FileNotFoundError as error:
                yield from self.absent(error)
                return None
        return (yield from self.find(target))

    copy, copy_async = both_apis(_copy)

    def move(self, op: Operation, source: str, target: str, /) -> FileInfo | None:
        raise NotImplementedError

    # -- signed URLs ------------------------------------------------------

    def _url(self, op: Operation, name: str, method: str, expires: float, /) -> Flow[str]:
        url: str = yield Step("sign", (method, self.names.key(name), timedelta(seconds=expires)))
        return url

    url, url_async = both_apis(_url)


def _only(chunks: Iterable[Chunk]) -> Chunk | None:
    """Return the only chunk of content in memory, which need not be copied; ``None``: there are several, or who knows."""
    head = list(islice(chunks, 2)) if getattr(chunks, "repeatable", False) else [b"", b""]
    return None if len(head) > 1 else head[0] if head else b""


class _Reader(FileReader):
    """Reader of one version of a file, a block at a time.

    Once the file is replaced, further reads are refused, unless the bucket keeps versions."""

    def __init__(self, files: ObjectFiles) -> None:
        self.flows = files.flows
        self._files = files
        self._block = memoryview(b"")
        self._start = 0
        self._pin: dict[str, Any] = {}
        self._closed = False

    def open(self, name: str) -> Flow[bool]:
        """Read the first block, and return whether there is a file."""
        try:
            result = yield Step("get", (self._files.names.key(name),), {"options": {"range": (0, _FIRST)}})
            self._block = memoryview((yield Step("bytes", on=result)))
        except FileNotFoundError as error:
            yield from self._files.absent(error)
            return False
        except exceptions.BaseError as error:
            if not out_of_range(error):
                raise
            empty = yield from self._files.find(name)
            if empty is not None:
                self.info = empty
            return empty is not None
        self.info = info(name, result.meta, result.attributes)
        version = result.meta["version"]
        self._pin = {"if_match": result.meta["e_tag"]} if version is None else {"version": version}
        return True

    def _read(self, op: Operation, offset: int, size: int, /) -> Flow[bytes]:
        name = self.info.name
        if self._closed:
            raise ClosedError(f"{self._files.name}/{name} is closed: open it again")
        end = min(offset + size, self.info.size or 0)
        pieces = []
        while offset < end:
            held = offset - self._start
            if not 0 <= held < len(self._block):
                yield from self._fetch(offset, end - offset, held == len(self._block))
                held = 0
            pieces.append(bytes(self._block[held : held + end - offset]))
            offset += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    read, read_async = both_apis(_read)

    def _fetch(self, offset: int, size: int, goes_on: bool) -> Flow[None]:
        """Hold the block that begins at an offset."""
        name = self.info.name
        want = max(size, min(2 * len(self._block), _BLOCK) if goes_on else _FIRST)
        options = {"range": (offset, min(offset + want, self.info.size or 0)), **self._pin}
        self._block = memoryview(b"")  # not two at once
        try:
            result = yield Step("get", (self._files.names.key(name),), {"options": options})
            self._block = memoryview((yield Step("bytes", on=result)))
        except (FileNotFoundError, exceptions.PreconditionError) as error:
            if bucket_gone(error):
                raise
            message = f"{self._files.name}/{name} was replaced or deleted while it was read: open it again"
            raise ConflictError(message) from None
        self._start = offset

    def close(self, op: Operation, /) -> None:
        self._closed = True
        self._block = memoryview(b"")

    async def close_async(self, op: Operation, /) -> None:
        self.close(op)
