"""Types of the file service."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias

__all__ = ["AsyncFileSource", "FileInfo", "FileMode", "FileSource", "Readable"]


class Readable(Protocol):
    """A binary file object."""

    def read(self, size: int, /) -> Any:
        """Return at most ``size`` bytes, none at the end."""


FileMode: TypeAlias = Literal["rb", "wb"]
FileSource: TypeAlias = (
    bytes | bytearray | memoryview | os.PathLike[str] | Readable | Iterable[bytes | bytearray | memoryview]
)
"""What `FileService.put_file` stores: bytes, the content of a path or file object, or an iterable of chunks."""
AsyncFileSource: TypeAlias = FileSource | AsyncIterable[bytes | bytearray | memoryview]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What is known of a file.

    Attributes:
        name: relative, ``/``-separated. In a listing with ``recursive=False`` one that ends with ``/`` is a folder.
        size: bytes; ``None`` in listings of a store that does not tell (``file.sizes``).
        modified: when its content was last written (UTC); ``None`` where the store does not tell.
        etag: names this version; new after every write, also one by another program. ``None`` where the store has none.
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
