"""Types of the file service."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Iterable
from typing import Any, Literal, Protocol, TypeAlias


class Readable(Protocol):
    """A binary file object."""

    def read(self, size: int, /) -> Any:
        """Return at most ``size`` bytes, none at the end."""


FileMode: TypeAlias = Literal["rb", "wb"]
UrlMethod: TypeAlias = Literal["GET", "PUT"]
FileSource: TypeAlias = (
    bytes | bytearray | memoryview | os.PathLike[str] | Readable | Iterable[bytes | bytearray | memoryview]
)
"""What `FileService.put_file` stores: bytes, the content of a path or file object, or an iterable of chunks."""
AsyncFileSource: TypeAlias = FileSource | AsyncIterable[bytes | bytearray | memoryview]
