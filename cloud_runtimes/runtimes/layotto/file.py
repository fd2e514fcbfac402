"""Files over Layotto: streamed both ways in chunks.

Whether a reader can see one that is half on its way is the component's: object stores do not show it, ``local`` does. Listings have two ways: ``local`` lists a folder, object stores what begins with a prefix.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from queue import Empty, Full, Queue
from typing import IO, Any, Final

from ...errors import CloudRuntimesError
from ...protocols.layotto.messages import messages
from ...spi import file as spi
from ...spi.file import FileInfo, FileReader
from ...spi.operation import Operation
from .._sidecar.files import SidecarFiles, listing
from .._sidecar.transport import Flow
from .transport import LayottoSidecarError, LayottoTransport

_HOW: Final = {"FileMode": "420", "FileFlag": "578"}
"""Of ``local``: 0644, and O_RDWR | O_CREATE | O_TRUNC of Linux, both as decimals; other components do not read them."""
_SIZES: Final = ("fileSize", "filesize")
"""Of ``minio``, and of ``hdfs`` and ``qiniu.oss``: the bytes to come, without which ``minio`` sends parts of half a gibibyte out of its memory."""
_CHUNK: Final = 256 << 10
"""Bytes of one message that is sent."""
_AHEAD: Final = 8
"""Messages that are received and not yet taken, beyond which the sidecar has to wait."""
_LOOK: Final = 0.1
_PAGE: Final = 1000


class LayottoFiles(SidecarFiles):
    """The files of one store of the sidecar."""

    features = frozenset({spi.SIZES})

    def __init__(self, transport: LayottoTransport, name: str) -> None:
        self._transport = transport
        self._store = name
        root = (transport.own.file_roots or {}).get(name, "").rstrip("/")
        self._root = f"{root}/" if root else ""

    def stat(self, op: Operation, name: str, /) -> FileInfo | None:
        return self._transport.run(op, self._stat(name))

    def _stat(self, name: str) -> Flow[FileInfo | None]:
        reply = yield from self._meta(self._root + name)
        if reply is None or _is_folder(reply):
            return None
        metadata = {key: ", ".join(each.value) for key, each in reply.response.metadata.items()}
        return FileInfo(name, reply.size, _moment(reply.last_modified), metadata=metadata)

    def _meta(self, path: str) -> Flow[Any]:
        """Return what the sidecar knows of a name of its own, ``None``: nothing."""
        pb = messages()
        request = pb.GetFileMetaRequest(request=pb.FileRequest(store_name=self._store, name=path))
        try:
            return (yield from self._transport.ask("GetFileMeta", request, "GetFileMetaResponse"))
        except LayottoSidecarError as refused:
            if refused.status != "NOT_FOUND":
                raise
            return None

    def list_files(
        self, op: Operation, prefix: str, recursive: bool, limit: int | None, after: str | None, /
    ) -> list[FileInfo]:
        return listing(self._transport.run(op, self._listed(prefix, recursive)), prefix, recursive, limit, after)

    def _listed(self, prefix: str, recursive: bool) -> Flow[list[FileInfo]]:
        infos: list[FileInfo] = []
        try:
            known = yield from self._meta(self._root.rstrip("/") or ".")
        except LayottoSidecarError as refused:
            if refused.status != "INTERNAL":
                raise
            known = None  # a bucket is no name of a file to object stores
        if known is not None and _is_folder(known):
            yield from self._walk(prefix.rpartition("/")[0], prefix, recursive, infos)
            return infos
        # the first segment of the root is the bucket, which the names of objects do not have
        inside = self._root.partition("/")[2]
        for entry in (yield from self._entries(self._root + prefix)):
            name = str(entry.file_name)
            if name.startswith(inside + prefix):
                infos.append(FileInfo(name[len(inside) :], entry.size, _moment(entry.last_modified)))
        return infos

    def _walk(self, folder: str, prefix: str, recursive: bool, infos: list[FileInfo]) -> Flow[None]:
        """Add the files of a folder and, where they can be meant, of those in it."""
        try:
            entries = yield from self._entries((self._root + folder).rstrip("/") or ".")
        except LayottoSidecarError as refused:
            if refused.status != "INTERNAL" or (yield from self._meta(self._root + folder)) is not None:
                raise
            return  # there is no such folder
        for entry in entries:
            name = f"{folder}/{entry.file_name}" if folder else str(entry.file_name)
            if not (name.startswith(prefix) or prefix.startswith(f"{name}/")):
                continue
            known = yield from self._meta(self._root + name)
            if known is not None and _is_folder(known):
                yield from self._walk(name, prefix, recursive, infos)
            elif known is not None:
                infos.append(FileInfo(name, known.size, _moment(known.last_modified)))

    def _entries(self, path: str) -> Flow[list[Any]]:
        """Return all entries of a listing, page by page."""
        pb = messages()
        entries: list[Any] = []
        marker = ""
        while True:
            request = pb.ListFileRequest(
                request=pb.FileRequest(store_name=self._store, name=path), page_size=_PAGE, marker=marker
            )
            answer = yield from self._transport.ask("ListFile", request, "ListFileResp")
            entries += answer.files
            if not answer.is_truncated or not answer.files or answer.marker == marker:
                return entries
            marker = answer.marker

    def read(self, op: Operation, name: str, start: int, length: int | None, /) -> bytes | None:
        down = self.download(name)
        parts = []
        try:
            while data := down.take(op):
                parts.append(data)
        except LayottoSidecarError as refused:
            # a missing file is told like any other failure; only its metadata tell that it is missing
            if refused.status == "INTERNAL" and self.stat(op, name) is None:
                return None
            raise refused.error(applied=False) from None
        finally:
            down.leave()
        return b"".join(parts)

    def open_read(self, op: Operation, name: str, /) -> FileReader | None:
        info = self.stat(op, name)
        return None if info is None else _Reader(self, info)

    def download(self, name: str) -> _Download:
        return _Download(self._transport, messages().GetFileRequest(store_name=self._store, name=self._root + name))

    def store(self, op: Operation, name: str, size: int, content: IO[bytes]) -> FileInfo:
        metadata = _HOW | dict.fromkeys(_SIZES, str(size))
        first = messages().PutFileRequest(store_name=self._store, name=self._root + name, metadata=metadata)
        self._transport.run(op, self._transport.ask("PutFile", _requests(first, content)))
        try:
            info = self.stat(op, name)
        except CloudRuntimesError:
            info = None  # it is stored all the same
        return info or FileInfo(name, size)

    def delete(self, op: Operation, name: str, /) -> None:
        self._transport.run(op, self._delete(self._root + name))

    def _delete(self, path: str) -> Flow[None]:
        pb = messages()
        request = pb.DelFileRequest(request=pb.FileRequest(store_name=self._store, name=path))
        try:
            yield from self._transport.ask("DelFile", request)
        except LayottoSidecarError as refused:
            if refused.status == "NOT_FOUND":
                return
            # local says the same of a missing file as of any other failure
            if refused.status != "INTERNAL" or (yield from self._meta(path)) is not None:
                raise


class _Reader(FileReader):
    """A file that is read from its start on."""

    def __init__(self, files: LayottoFiles, info: FileInfo) -> None:
        self.executor = files.executor
        self.info = info
        self._files = files
        self._down: _Download | None = None
        self._rest = b""

    def read(self, op: Operation, offset: int, size: int, /) -> bytes:
        if self._down is None:
            self._down = self._files.download(self.info.name)
        parts, have = [self._rest], len(self._rest)
        try:
            while have < size and (data := self._down.take(op)):
                parts.append(data)
                have += len(data)
        except LayottoSidecarError as refused:
            raise refused.error(applied=False) from None
        whole = b"".join(parts)
        self._rest = whole[size:]
        return whole[:size]

    def close(self, op: Operation, /) -> None:
        down, self._down = self._down, None
        if down is not None:
            down.leave()


class _Download:
    """A file that comes, received ahead by a few messages."""

    def __init__(self, transport: LayottoTransport, request: Any) -> None:
        # None ends it
        self._parts: Queue[bytes | None] = Queue(_AHEAD)
        self._closed = False
        self._end: Exception | None = None
        self._stream = transport.open_alone("get", request, self._received, self._ended)

    def _received(self, message: Any) -> None:
        if message.data:
            self._put(bytes(message.data))

    def _ended(self, failure: Exception | None) -> None:
        self._end = failure
        self._put(None)

    def _put(self, part: bytes | None) -> None:
        while not self._closed:
            try:
                return self._parts.put(part, timeout=_LOOK)
            except Full:
                pass

    def take(self, op: Operation) -> bytes:
        """Return the next bytes, ``b""`` at the end, or raise what it ended by."""
        try:
            part = self._parts.get(timeout=op.remaining())
        except Empty:
            raise op.timed_out("the sidecar") from None
        if part is not None:
            return part
        self._parts.put(None)
        if self._end is not None:
            raise self._end
        return b""

    def leave(self) -> None:
        self._closed = True
        self._stream.cancel()


def _requests(first: Any, content: IO[bytes]) -> Iterator[Any]:
    first.data = content.read(_CHUNK)
    yield first
    while data := content.read(_CHUNK):
        yield type(first)(data=data)


def _is_folder(reply: Any) -> bool:
    """Return whether what is known of a name is that of a folder of ``local``."""
    return "IsDir" in reply.response.metadata and list(reply.response.metadata["IsDir"].value) == ["true"]


def _moment(text: str) -> datetime | None:
    """Return a time as the components write it, in Go's way or as RFC 3339; ``None``: in another."""
    day, _, rest = text.partition(" ")
    time, _, zone = rest.partition(" ")
    if zone:  # 2025-01-15 09:30:12.123456789 +0000 UTC
        zone = zone.partition(" ")[0]
        text = f"{day}T{time[:15]}{zone[:3]}:{zone[3:]}"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
