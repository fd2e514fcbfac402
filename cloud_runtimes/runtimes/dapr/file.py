"""Files by the binding ``bindings.localstorage`` (dapr/components-contrib ``bindings/localstorage``), the only way of Dapr's API to them.

A file travels whole, as base64: the component would take any other content that happens to be base64 for it. It tells names and content, and nothing else.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NoReturn
from uuid import uuid4

from ...codec import json
from ...errors import InternalError, ResourceExhaustedError, UnsupportedError
from ...spi.file import Chunk, FileDriver, FileInfo, FileReader, FileWrite, FileWriter
from ...spi.operation import Operation
from .._sidecar.stores import listing
from .._sidecar.transport import Flow, SidecarDriver, operation
from .transport import DaprSidecarError, DaprTransport

__all__ = ["DaprFile"]

_KIND: Final = "bindings.localstorage"
_ROOM: Final = 64 << 10
"""Bytes that a message has for all but content."""
_ABSENT: Final = re.compile(
    r"not found|no such|not a directory|is a directory|directory not empty|there is no ", re.IGNORECASE
)
_ROOT: Final = re.compile(r"file not found: (/.*)/([0-9a-f-]{36})$")


class DaprFile(SidecarDriver, FileDriver):
    """The files of one binding of the sidecar."""

    _transport: DaprTransport
    features = frozenset()

    def __init__(self, transport: DaprTransport, name: str) -> None:
        super().__init__(transport, name)
        # the folder before the names of listings, once it is known, and whether the binding is one for files
        self._root: str | None = None
        self._checked = False
        self._most = max(1, (transport.largest - _ROOM) // 4 * 3)

    def _do(self, operation: str, name: str, data: bytes | None = None) -> Flow[bytes | None]:
        """Ask the binding; return the reply's data, ``None``: there is no such file or folder."""
        if not self._checked:
            kind = yield from self._transport.component_type(self._name)
            if kind not in ("", _KIND):
                raise UnsupportedError(f"{self._name!r} is {kind}: files need a binding that is {_KIND}")
            self._checked = True
        try:
            found, _ = yield from self._transport.invoke_binding(self._name, operation, data, {"fileName": name})
        except DaprSidecarError as refused:
            # Dapr has no code for it
            error_reply = refused.error_reply.message
            if name and _ABSENT.search(name):
                error_reply = error_reply.replace(name, "")
            if (
                operation == "create"
                or "couldn't find output binding" in error_reply
                or not _ABSENT.search(error_reply)
            ):
                raise
            return None
        return found

    # -- reading ------------------------------------------------------------

    @operation
    def stat(self, op: Operation, name: str, /) -> Flow[FileInfo | None]:
        found = yield from self._do("get", name)
        return None if found is None else FileInfo(name, len(found))

    @operation
    def read(self, op: Operation, name: str, start: int, length: int | None, /) -> Flow[bytes | None]:
        return (yield from self._do("get", name))

    @operation
    def open_read(self, op: Operation, name: str, /) -> Flow[FileReader | None]:
        found = yield from self._do("get", name)
        return None if found is None else _Reader(name, found)

    @operation
    def list_files(
        self, op: Operation, prefix: str, recursive: bool, limit: int | None, after: str | None, /
    ) -> Flow[list[FileInfo]]:
        return listing(
            [FileInfo(name, None) for name in (yield from self._list(prefix))], prefix, recursive, limit, after
        )

    def _list(self, prefix: str) -> Flow[list[str]]:
        folder = prefix.rpartition("/")[0]
        if any(part in ("", ".", "..") for part in folder.split("/")) and folder:
            return []  # no name begins so
        if prefix.startswith("/"):
            return []
        found = yield from self._do("list", folder)
        names = json.decode(found) if found else None
        if not isinstance(names, list | None) or not all(isinstance(each, str) for each in names or ()):
            raise InternalError("the sidecar's answer is no list of names")
        if not names:
            return []
        if names[0].startswith("/"):  # Dapr tells them as its machine has them
            root = yield from self._find_root()
            names = [each.removeprefix(f"{root}/") for each in names if each.startswith(f"{root}/")]
        return [each for each in names if each.startswith(prefix)]

    def _find_root(self) -> Flow[str]:
        """Return the folder of the binding, which is told by the failure to get what is surely absent."""
        if self._root is None:
            try:
                yield from self._transport.invoke_binding(self._name, "get", None, {"fileName": str(uuid4())})
            except DaprSidecarError as refused:
                found = _ROOT.search(refused.error_reply.message)
                if found is None:
                    raise
                self._root = found[1]
            else:
                raise InternalError("the sidecar has a file that was never stored")
        return self._root

    # -- writing ------------------------------------------------------------

    def write(self, op: Operation, name: str, chunks: Iterable[Chunk], how: FileWrite, /) -> FileInfo:
        return self.put(op, name, self.gather(name, chunks))

    async def write_async(self, op: Operation, name: str, chunks: Iterable[Chunk], how: FileWrite, /) -> FileInfo:
        import asyncio

        return await self.put_async(op, name, await asyncio.to_thread(self.gather, name, chunks))

    def gather(self, name: str, chunks: Iterable[Chunk]) -> bytes:
        """Return content that fits into a message."""
        data = bytearray()
        for chunk in chunks:
            self.check(name, len(data) + len(chunk))
            data += chunk
        return bytes(data)

    def check(self, name: str, size: int) -> None:
        """Refuse what does not fit into a message."""
        if size > self._most:
            raise ResourceExhaustedError(
                f"file {name!r}: a binding takes at most {self._most:,} bytes, in one message: raise max_message in [dapr], and the sidecar's own limit"
            )

    @operation
    def put(self, op: Operation, name: str, data: Chunk, /) -> Flow[FileInfo]:
        """Store a file."""
        yield from self._do("create", name, base64.b64encode(data))
        return FileInfo(name, len(data))

    put_async: Callable[[Operation, str, Chunk], Awaitable[FileInfo]]

    def open_write(self, op: Operation, name: str, how: FileWrite, /) -> FileWriter:
        return _Writer(self, name)

    async def open_write_async(self, op: Operation, name: str, how: FileWrite, /) -> FileWriter:
        return _Writer(self, name)

    @operation
    def delete(self, op: Operation, name: str, /) -> Flow[None]:
        yield from self._do("delete", name)

    # -- what the binding has not -------------------------------------------------

    def copy(self, op: Operation, source: str, target: str, /) -> NoReturn:
        raise UnsupportedError("the binding has no copy_file")

    def move(self, op: Operation, source: str, target: str, /) -> NoReturn:
        raise UnsupportedError("the binding has no move_file")


class _Reader(FileReader):
    """A file that came whole."""

    def __init__(self, name: str, data: bytes) -> None:
        self._data = memoryview(data)
        self.info = FileInfo(name, len(data))

    def read(self, op: Operation, offset: int, size: int, /) -> bytes:
        return bytes(self._data[offset : offset + size])

    async def read_async(self, op: Operation, offset: int, size: int, /) -> bytes:
        return bytes(self._data[offset : offset + size])

    def close(self, op: Operation, /) -> None:
        """There is nothing to let go of."""

    async def close_async(self, op: Operation, /) -> None:
        """There is nothing to let go of."""


class _Writer(FileWriter):
    """A file that is gathered here and sent whole."""

    def __init__(self, driver: DaprFile, name: str) -> None:
        self._driver = driver
        self._name = name
        self._data = bytearray()

    def write(self, op: Operation, data: Chunk, /) -> None:
        self._driver.check(self._name, len(self._data) + len(data))
        self._data += data

    async def write_async(self, op: Operation, data: Chunk, /) -> None:
        self.write(op, data)

    def commit(self, op: Operation, /) -> FileInfo:
        return self._driver.put(op, self._name, self._data)

    async def commit_async(self, op: Operation, /) -> FileInfo:
        return await self._driver.put_async(op, self._name, self._data)

    def abort(self, op: Operation, /) -> None:
        """Nothing was sent."""

    async def abort_async(self, op: Operation, /) -> None:
        """Nothing was sent."""
