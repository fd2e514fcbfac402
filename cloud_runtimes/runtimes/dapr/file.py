"""Files by the binding ``bindings.localstorage`` (dapr/components-contrib ``bindings/localstorage``), the only way of Dapr's API to them.

A file travels whole, as base64: the component would take any other content that happens to be base64 for it. It tells names and content, and nothing else.
"""

from __future__ import annotations

import base64
import re
from typing import IO, Final
from uuid import uuid4

from ...codec import json
from ...errors import InternalError, ResourceExhaustedError, UnsupportedError
from ...spi.file import FileInfo, FileReader
from ...spi.flow import both_apis
from ...spi.operation import Operation
from .._sidecar.files import SidecarFiles, listing
from .._sidecar.transport import Flow, SidecarDriver
from .grpc_transport import GrpcTransport
from .transport import DaprSidecarError

_KIND: Final = "bindings.localstorage"
_ROOM: Final = 64 << 10
"""Bytes that a message has for all but content."""
_ABSENT: Final = re.compile(
    r"not found|no such|not a directory|is a directory|directory not empty|there is no ", re.IGNORECASE
)
_ROOT: Final = re.compile(r"file not found: (/.*)/([0-9a-f-]{36})$")


class DaprFile(SidecarDriver, SidecarFiles):
    """The files of one binding of the sidecar."""

    _transport: GrpcTransport
    features = frozenset()

    def __init__(self, transport: GrpcTransport, name: str) -> None:
        super().__init__(transport, name)
        # the folder before the names of listings, once it is known, and whether the binding is one for files
        self._root: str | None = None
        self._checked = False
        self._limit = max(1, (transport.largest - _ROOM) // 4 * 3)

    def _do(self, operation: str, name: str, data: bytes | None = None) -> Flow[bytes | None]:
        """Ask the binding; return the reply's data, ``None``: there is no such file or folder."""
        if not self._checked:
            kind = (yield from self._transport.components()).get(self._name, "")
            if kind not in ("", _KIND):
                raise UnsupportedError(f"{self._name!r} is {kind}: files need a binding that is {_KIND}")
            self._checked = True
        try:
            content, _ = yield from self._transport.invoke_binding(self._name, operation, data, {"fileName": name})
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
        return content

    def _stat(self, op: Operation, name: str, /) -> Flow[FileInfo | None]:
        content = yield from self._do("get", name)
        return None if content is None else FileInfo(name, len(content))

    stat, stat_async = both_apis(_stat)

    def _read(self, op: Operation, name: str, start: int, length: int | None, /) -> Flow[bytes | None]:
        return (yield from self._do("get", name))

    read, read_async = both_apis(_read)

    def _open_read(self, op: Operation, name: str, /) -> Flow[FileReader | None]:
        content = yield from self._do("get", name)
        return None if content is None else _Reader(self, name, content)

    open_read, open_read_async = both_apis(_open_read)

    def _list_files(
        self, op: Operation, prefix: str, recursive: bool, limit: int | None, after: str | None, /
    ) -> Flow[list[FileInfo]]:
        return listing(
            [FileInfo(name, None) for name in (yield from self._list(prefix))], prefix, recursive, limit, after
        )

    list_files, list_files_async = both_apis(_list_files)

    def _list(self, prefix: str) -> Flow[list[str]]:
        folder = prefix.rpartition("/")[0]
        if any(part in ("", ".", "..") for part in folder.split("/")) and folder:
            return []  # no name begins so
        if prefix.startswith("/"):
            return []
        content = yield from self._do("list", folder)
        names = json.decode(content) if content else None
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
                match = _ROOT.search(refused.error_reply.message)
                if match is None:
                    raise
                self._root = match[1]
            else:
                raise InternalError("the sidecar has a file that was never stored")
        return self._root

    def check(self, name: str, size: int) -> None:
        if size > self._limit:
            raise ResourceExhaustedError(
                f"file {name!r}: a binding takes at most {self._limit:,} bytes, in one message: raise max_message in [dapr], and the sidecar's own limit"
            )

    def store(self, op: Operation, name: str, size: int, content: IO[bytes]) -> FileInfo:
        self._transport.run(op, self._do("create", name, base64.b64encode(content.read())))
        return FileInfo(name, size)

    def _delete(self, op: Operation, name: str, /) -> Flow[None]:
        yield from self._do("delete", name)

    delete, delete_async = both_apis(_delete)


class _Reader(FileReader):
    """A file that came whole."""

    def __init__(self, files: DaprFile, name: str, data: bytes) -> None:
        self.executor = files.executor
        self.info = FileInfo(name, len(data))
        self._data = memoryview(data)

    def read(self, op: Operation, offset: int, size: int, /) -> bytes:
        return bytes(self._data[offset : offset + size])

    def close(self, op: Operation, /) -> None:
        """There is nothing to let go of."""
