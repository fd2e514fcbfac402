"""Files over Layotto: streamed both ways in chunks.

A file goes in one piece once all of it is here, out of a temporary file: what fails before has stored nothing. Whether a reader can see one that is half on its way is the component's: object stores do not show it, ``local`` does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import IO, Any, Final

from ...errors import ClosedError, CloudRuntimesError, UnsupportedError
from ...protocols.layotto.messages import messages
from ...spi import file as spi
from ...spi.file import Chunk, FileDriver, FileInfo, FileReader, FileWrite, FileWriter
from ...spi.operation import Operation
from .._sidecar.transport import Flow
from .failures import LayottoSidecarError
from .listing import is_folder, listed, moment
from .transfer import Download, Upload
from .transport import LayottoTransport

__all__ = ["LayottoFiles"]

_IN_MEMORY: Final = 1 << 20
"""Bytes of a file that is stored, which are kept without a temporary file."""
_HOW: Final = {"FileMode": "420", "FileFlag": "578"}
"""Of ``local``: 0644, and O_RDWR | O_CREATE | O_TRUNC of Linux, both as decimals; other components do not read them."""
_SIZES: Final = ("fileSize", "filesize")
"""Of ``minio``, and of ``hdfs`` and ``qiniu.oss``: the bytes to come, without which ``minio`` sends parts of half a gibibyte out of its memory."""


class LayottoFiles(FileDriver):
    """The files of one store of the sidecar."""

    features = frozenset({spi.SIZES})

    def __init__(self, transport: LayottoTransport, name: str) -> None:
        self.executor = transport.executor
        self.transport = transport
        self.store = name
        root = (transport.own.file_roots or {}).get(name, "").rstrip("/")
        self._root = f"{root}/" if root else ""

    def place(self, name: str) -> str:
        """Return the sidecar's name of a file."""
        return self._root + name

    # -- what is known ------------------------------------------------------

    def stat(self, op: Operation, name: str, /) -> FileInfo | None:
        return self.transport.run(op, self._stat(name))

    def _stat(self, name: str) -> Flow[FileInfo | None]:
        found = yield from self.meta(self.place(name))
        if found is None or is_folder(found):
            return None
        metadata = {key: ", ".join(each.value) for key, each in found.response.metadata.items()}
        return FileInfo(name, found.size, moment(found.last_modified), metadata=metadata)

    def meta(self, place: str) -> Flow[Any]:
        """Return what the sidecar knows of a name, ``None``: nothing."""
        pb = messages()
        request = pb.GetFileMetaRequest(request=pb.FileRequest(store_name=self.store, name=place))
        try:
            return (yield from self.transport.ask("GetFileMeta", request, "GetFileMetaResponse"))
        except LayottoSidecarError as refused:
            if refused.status != "NOT_FOUND":
                raise
            return None

    def list_files(
        self, op: Operation, prefix: str, recursive: bool, limit: int | None, after: str | None, /
    ) -> list[FileInfo]:
        return self.transport.run(op, listed(self, self._root, prefix, recursive, limit, after))

    # -- reading ------------------------------------------------------------

    def read(self, op: Operation, name: str, start: int, length: int | None, /) -> bytes | None:
        down = Download(self.transport, self.store, self.place(name))
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

    # -- writing ------------------------------------------------------------

    def write(self, op: Operation, name: str, chunks: Iterable[Chunk], how: FileWrite, /) -> FileInfo:
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as content:
            for chunk in chunks:
                content.write(chunk)
            return self.store_content(op, name, content)

    def open_write(self, op: Operation, name: str, how: FileWrite, /) -> FileWriter:
        return _Writer(self, name)

    def store_content(self, op: Operation, name: str, content: IO[bytes]) -> FileInfo:
        """Store a file whose content stands in a temporary one."""
        size = content.tell()
        content.seek(0)
        try:
            metadata = _HOW | dict.fromkeys(_SIZES, str(size))
            Upload(self.transport, self.store, self.place(name), content, metadata).wait(op)
        except LayottoSidecarError as refused:
            raise refused.error(applied=True) from None
        try:
            found = self.stat(op, name)
        except CloudRuntimesError:
            found = None  # it is stored all the same
        return found or FileInfo(name, size)

    def delete(self, op: Operation, name: str, /) -> None:
        self.transport.run(op, self._delete(name))

    def _delete(self, name: str) -> Flow[None]:
        pb = messages()
        request = pb.DelFileRequest(request=pb.FileRequest(store_name=self.store, name=self.place(name)))
        try:
            yield from self.transport.ask("DelFile", request)
        except LayottoSidecarError as refused:
            if refused.status == "NOT_FOUND":
                return
            # local says the same of a missing file as of any other failure
            if refused.status != "INTERNAL" or (yield from self.meta(self.place(name))) is not None:
                raise

    # -- what Layotto has not -------------------------------------------------

    def copy(self, op: Operation, source: str, target: str, /) -> FileInfo | None:
        raise UnsupportedError("Layotto cannot copy files: get and put them")

    def move(self, op: Operation, source: str, target: str, /) -> FileInfo | None:
        raise UnsupportedError("Layotto cannot move files: get, put and delete them")


class _Reader(FileReader):
    """A file that is read from its start on."""

    def __init__(self, files: LayottoFiles, info: FileInfo) -> None:
        self.executor = files.executor
        self.info = info
        self._files = files
        self._down: Download | None = None
        self._rest = b""

    def read(self, op: Operation, offset: int, size: int, /) -> bytes:
        if self._down is None:
            self._down = Download(self._files.transport, self._files.store, self._files.place(self.info.name))
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


class _Writer(FileWriter):
    """A file in the making, in a temporary one."""

    def __init__(self, files: LayottoFiles, name: str) -> None:
        self.executor = files.executor
        self._files = files
        self._name = name
        self._content: Any = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115

    def write(self, op: Operation, data: Chunk, /) -> None:
        if self._content is None:
            raise ClosedError("this file was given up")
        self._content.write(data)

    def commit(self, op: Operation, /) -> FileInfo:
        content, self._content = self._content, None
        if content is None:
            raise ClosedError("this file was given up")
        with content:
            return self._files.store_content(op, self._name, content)

    def abort(self, op: Operation, /) -> None:
        content, self._content = self._content, None
        if content is not None:
            content.close()
