"""The SPI of the file service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from .driver import Driver
from .executor import Blocking, in_thread
from .operation import Operation

__all__ = [
    "CONTENT_TYPE",
    "COPY",
    "ETAG",
    "EXCLUSIVE",
    "LISTED",
    "METADATA",
    "MOVE",
    "RANGE",
    "SIZES",
    "URL",
    "Chunk",
    "FileDriver",
    "FileInfo",
    "FileReader",
    "FileWrite",
    "FileWriter",
]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Metadata of a file.

    Attributes:
        name: relative, ``/``-separated. In a listing with ``recursive=False`` one that ends with ``/`` is a folder.
        size: bytes; ``None`` in listings of a store that does not report it (``file.sizes``).
        modified: when its content was last written (UTC); ``None`` where the store does not report it.
        etag: names this version; new after every write, also one by another program. ``None`` where the store has
            none.
        content_type: as it was stored, ``None`` where it is not known.
        metadata: as it was stored.
    """

    name: str
    size: int | None
    modified: datetime | None = None
    etag: str | None = None
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_folder(self) -> bool:
        """Whether this stands for all files below a folder."""
        return self.name.endswith("/")


CONTENT_TYPE: Final = "content_type"
"""Files keep their content type."""
COPY: Final = "copy"
"""``copy_file``, inside the store."""
ETAG: Final = "etag"
"""Files have etags."""
EXCLUSIVE: Final = "exclusive"
"""``overwrite=False`` only creates."""
LISTED: Final = "listed"
"""Listings tell content types, metadata and etags."""
METADATA: Final = "metadata"
"""Files keep metadata."""
MOVE: Final = "move"
"""``move_file``, in one step."""
RANGE: Final = "range"
"""Any part of a file can be read alone."""
SIZES: Final = "sizes"
"""Listings tell sizes."""
URL: Final = "url"
"""``url``, with which anybody reads or writes a file for some time."""

Chunk = bytes | bytearray | memoryview


class FileWrite(NamedTuple):
    """How to store a file.

    Attributes:
        content_type: of the content.
        metadata: of the file; replaces what an earlier one had.
        overwrite: else an existing file is `AlreadyExistsError`.
    """

    content_type: str | None = None
    metadata: Mapping[str, str] | None = None
    overwrite: bool = True


class FileReader(Blocking, ABC):
    """Version of a file, open for reading; ``info`` is of that version. A later write does not change it."""

    info: FileInfo

    @abstractmethod
    def read(self, op: Operation, offset: int, size: int, /) -> bytes:
        """Return at most ``size`` bytes from ``offset`` on, none only at the end. Offsets go forward without gaps unless the driver declares `RANGE`."""

    read_async = in_thread(read)

    @abstractmethod
    def close(self, op: Operation, /) -> None:
        """Let go; twice is fine."""

    close_async = in_thread(close)


class FileWriter(Blocking, ABC):
    """A file in the making. Nobody sees it before `commit` has returned, and after `abort` nobody ever does."""

    @abstractmethod
    def write(self, op: Operation, data: Chunk, /) -> None:
        """Append all of ``data``."""

    write_async = in_thread(write)

    @abstractmethod
    def commit(self, op: Operation, /) -> FileInfo:
        """Store the file, in one step: whoever reads finds the old content with the old metadata or the new with the new."""

    commit_async = in_thread(commit)

    @abstractmethod
    def abort(self, op: Operation, /) -> None:
        """Store nothing and let go; twice, or after `commit`, is fine. May come while another thread is in `write`."""

    abort_async = in_thread(abort)


class FileDriver(Driver, ABC):
    """Files of one store. Names are checked and compared byte for byte; a file and a folder may have the same name; folders are not made or deleted, they are there while they hold files."""

    @abstractmethod
    def stat(self, op: Operation, name: str, /) -> FileInfo | None:
        """Return what is known of a file, ``None`` where it is absent."""

    stat_async = in_thread(stat)

    @abstractmethod
    def read(self, op: Operation, name: str, start: int, length: int | None, /) -> bytes | None:
        """Return ``length`` bytes from ``start`` on, fewer where the file ends before; ``None`` where it is absent."""

    read_async = in_thread(read)

    def write(self, op: Operation, name: str, chunks: Iterable[Chunk], how: FileWrite, /) -> FileInfo:
        """Store a file, here by a `FileWriter`. ``chunks`` may block, so its ``_async`` takes them from a thread, unless they have ``repeatable``: those are in memory. An error that they raise passes."""
        writer = self.open_write(op, name, how)
        try:
            for chunk in chunks:
                writer.write(op, chunk)
            return writer.commit(op)
        finally:
            writer.abort(op)

    write_async = in_thread(write)

    @abstractmethod
    def open_read(self, op: Operation, name: str, /) -> FileReader | None:
        """Open a file, ``None`` where it is absent."""

    open_read_async = in_thread(open_read)

    @abstractmethod
    def open_write(self, op: Operation, name: str, how: FileWrite, /) -> FileWriter:
        """Begin a file; what can be refused now is."""

    open_write_async = in_thread(open_write)

    @abstractmethod
    def list_files(
        self, op: Operation, prefix: str, recursive: bool, limit: int | None, after: str | None, /
    ) -> list[FileInfo]:
        """Return files whose names begin with ``prefix`` (literally), in byte order, those behind ``after`` only, at most ``limit``.

        Not recursive: names with another ``/`` behind the prefix are shortened to end with it, each once.
        """

    list_files_async = in_thread(list_files)

    @abstractmethod
    def delete(self, op: Operation, name: str, /) -> None:
        """Delete a file; an absent one is fine."""

    delete_async = in_thread(delete)

    @abstractmethod
    def copy(self, op: Operation, source: str, target: str, /) -> FileInfo | None:
        """Store ``source`` with its metadata as ``target`` too; ``None`` where it is absent."""

    copy_async = in_thread(copy)

    @abstractmethod
    def move(self, op: Operation, source: str, target: str, /) -> FileInfo | None:
        """Rename a file, over another if need be, in one step; ``None`` where it is absent."""

    move_async = in_thread(move)

    def url(self, op: Operation, name: str, method: str, expires: float, /) -> str:
        """Return a URL with which whoever has it may ``GET`` or ``PUT`` a file for ``expires`` seconds (`URL`)."""
        raise NotImplementedError

    url_async = in_thread(url)
