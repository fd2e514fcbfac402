"""Metadata of a file, stored in the same inode as its content, so that both change by one rename.

It is in an extended attribute (xattr(7); on NTFS a stream) where the file system supports them and has room.
Else it follows the content: JSON, then a footer of 24 bytes. An attribute takes precedence over a footer. A file
with neither, or with a footer that does not fit its size, was written by another program and is content alone.

The etag combines a number of ours with the inode's time and size, so an edit by another program changes it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from ..._core.os_files import attribute, pread, pwrite, set_attribute
from ...codec import json
from ...errors import PayloadError
from ...spi.file import FileInfo

ATTRIBUTE: Final = "user.cloud_runtimes"
_MAGIC: Final = b"\x89CRmeta\n"
_FOOTER: Final = struct.Struct(">QII8s")  # content's size, length and CRC-32 of the JSON, magic
_LARGEST: Final = 64 * 1024


class Meta(NamedTuple):
    """Metadata stored with a file."""

    size: int  # of the content
    number: str = ""  # of this version; empty for another program's file
    content_type: str | None = None
    metadata: Mapping[str, str] | None = None


def attach(descriptor: int, meta: Meta) -> None:
    """Store it with a file that is not visible yet and has its content."""
    data = json.encode([meta.number, meta.content_type, dict(meta.metadata or {})])
    if set_attribute(descriptor, ATTRIBUTE, data):
        return
    footer = memoryview(data + _FOOTER.pack(meta.size, len(data), zlib.crc32(data), _MAGIC))
    offset = meta.size
    while len(footer):
        count = pwrite(descriptor, footer, offset)
        footer, offset = footer[count:], offset + count


def look(descriptor: int, size: int) -> Meta:
    """Return what is stored with an open file, of which the inode has ``size`` bytes."""
    stored = attribute(descriptor, ATTRIBUTE)
    if stored is not None and (meta := _parse(stored, size)) is not None:
        return meta
    if size > _FOOTER.size:
        content, length, checksum, magic = _FOOTER.unpack(_exactly(descriptor, size - _FOOTER.size, _FOOTER.size))
        if magic == _MAGIC and length <= _LARGEST and content + length + _FOOTER.size == size:
            data = _exactly(descriptor, content, length)
            if zlib.crc32(data) == checksum:
                return _parse(data, content) or Meta(size)
    return Meta(size)


def _exactly(descriptor: int, offset: int, length: int) -> bytes:
    """Read; where another program has just cut the file, the rest is NULs."""
    return pread(descriptor, length, offset).ljust(length, b"\0")


def _parse(data: bytes, size: int) -> Meta | None:
    try:
        number, content_type, metadata = json.decode(data)
    except (PayloadError, ValueError, TypeError):
        return None
    if isinstance(number, str) and isinstance(content_type, str | None) and isinstance(metadata, dict):
        return Meta(size, number, content_type, metadata)
    return None


def info(name: str, status: os.stat_result, meta: Meta) -> FileInfo:
    """Return what callers see."""
    number: Any = meta.number or f"{status.st_ino:x}"
    return FileInfo(
        name,
        meta.size,
        datetime.fromtimestamp(status.st_mtime_ns / 1_000_000_000, UTC),
        f"{number}-{status.st_mtime_ns:x}-{meta.size:x}",
        meta.content_type,
        meta.metadata or {},
    )
