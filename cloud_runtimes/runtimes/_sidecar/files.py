"""Files of a sidecar, which are gathered here and sent whole: what fails before has stored nothing."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from typing import IO, Any, Final, NoReturn

from ...errors import ClosedError, UnsupportedError
from ...spi.file import Chunk, FileDriver, FileInfo, FileWrite, FileWriter
from ...spi.operation import Operation

_IN_MEMORY: Final = 1 << 20
"""Bytes of a file that are kept without a temporary one."""


class SidecarFiles(FileDriver):
    """The files of one store of the sidecar."""

    def open_write(self, op: Operation, name: str, how: FileWrite, /) -> FileWriter:
        return _Writer(self, name)

    def check(self, name: str, size: int) -> None:
        """Refuse what is too large for the sidecar, before it is sent."""

    @abstractmethod
    def store(self, op: Operation, name: str, size: int, content: IO[bytes]) -> FileInfo:
        """Store a file whose content stands in a temporary one."""

    def copy(self, op: Operation, source: str, target: str, /) -> NoReturn:
        raise UnsupportedError("a sidecar cannot copy files: get and put them")

    def move(self, op: Operation, source: str, target: str, /) -> NoReturn:
        raise UnsupportedError("a sidecar cannot move files: get, put and delete them")


class _Writer(FileWriter):
    """A file in the making, in a temporary one."""

    def __init__(self, files: SidecarFiles, name: str) -> None:
        self.executor = files.executor
        self._files = files
        self._name = name
        self._content: Any = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115

    def write(self, op: Operation, data: Chunk, /) -> None:
        if self._content is None:
            raise ClosedError("this file was given up")
        self._files.check(self._name, self._content.tell() + len(data))
        self._content.write(data)

    def commit(self, op: Operation, /) -> FileInfo:
        content, self._content = self._content, None
        if content is None:
            raise ClosedError("this file was given up")
        with content:
            size = content.tell()
            content.seek(0)
            return self._files.store(op, self._name, size, content)

    def abort(self, op: Operation, /) -> None:
        content, self._content = self._content, None
        if content is not None:
            content.close()


def listing(
    infos: list[FileInfo], prefix: str, recursive: bool, limit: int | None, after: str | None
) -> list[FileInfo]:
    """Return what `FileDriver.list_files` was asked for, out of the files that begin with the prefix."""
    names: dict[str, FileInfo] = {}
    for info in infos:
        head, slash, _ = info.name.removeprefix(prefix).partition("/")
        if slash and not recursive:
            names.setdefault(f"{prefix}{head}/", FileInfo(f"{prefix}{head}/", 0))
        else:
            names[info.name] = info
    ordered = sorted(names, key=str.encode)
    return [names[name] for name in ordered if after is None or name.encode() > after.encode()][:limit]
