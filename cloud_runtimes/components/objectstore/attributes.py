"""Headers of an object: content type, metadata, and the nonce that distinguishes one write from another. No I/O.

A name in a header has lower-case letters, digits, underscores and hyphens, on Azure no hyphens. Any other
character is written as ``__0x4b__``, as Go CDK does. A value is printable ASCII; the rest is percent-encoded.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, unquote
from zlib import crc32

from ...errors import InvalidArgumentError, ResourceExhaustedError
from ...spi.file import FileInfo, FileWrite

_MARK: Final = "crwrite"
"""The header with the `Stamp` of a write."""
_BYTES: Final = 2048
"""Of all metadata: S3's limit."""
_ODD: Final = re.compile(r"[^a-z0-9_-]|^[^a-z]|_(?=_0x)")
_ODD_ON_AZURE: Final = re.compile(r"[^a-z0-9_]|^[^a-z]|_(?=_0x)")
_STAMP: Final = re.compile("(?P<ms>[0-9a-f]{1,11})-(?P<nonce>[0-9a-f]{16})-(?P<crc>[0-9a-f]{1,8})")
_STANDARD: Final = frozenset(
    ["Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Type", "Storage-Class"]
)
_ESCAPED: Final = re.compile(r"__0x([0-9a-f]{1,6})__")
_PRINTABLE: Final = "".join(map(chr, range(33, 127))).replace("%", "")


class Stamp:
    """Tells a write from all others, and when it was, since a digest of the content and a time in seconds do neither.

    A copy takes the stamp with it, under another name. It does not count there.
    """

    def __init__(self, name: str) -> None:
        self.ms = time.time_ns() // 1_000_000
        self.nonce = f"{random.getrandbits(64):016x}"
        self.text = f"{self.ms:x}-{self.nonce}-{crc32(name.encode()):x}"

    def etag(self, etag: str | None) -> str:
        """Return the etag of the version that this write makes."""
        return _etag(self.nonce, etag)


def _etag(nonce: str, etag: str | None) -> str:
    return f"{nonce}-{(etag or '').strip(chr(34))}"


def headers(how: FileWrite, stamp: Stamp, azure: bool) -> dict[str, str]:
    """Return the headers of a file.

    Raises:
        InvalidArgumentError: the content type cannot be one.
        ResourceExhaustedError: escaped, the metadata is more than a store takes.
    """
    content_type = how.content_type or "application/octet-stream"
    if not how.metadata and content_type == "application/octet-stream":
        return {_MARK: stamp.text, "Content-Type": content_type}
    if not (content_type.isascii() and content_type.isprintable()):
        raise InvalidArgumentError(f"content_type {content_type!r}: a bucket takes printable ASCII")
    fields = {_MARK: stamp.text}
    odd = _ODD_ON_AZURE if azure else _ODD
    for name, value in (how.metadata or {}).items():
        if name == _MARK:
            name = f"__0x{ord(name[0]):x}__{name[1:]}"
        else:
            name = odd.sub(lambda match: f"__0x{ord(match[0]):x}__", name)
        fields[name] = quote(value, safe=_PRINTABLE)
    size = sum(len(name) + len(value) for name, value in fields.items())
    if size > _BYTES:
        raise ResourceExhaustedError(
            f"the metadata needs {size} bytes in headers, where all but ASCII takes more; a bucket takes {_BYTES}: put it into a file"
        )
    fields["Content-Type"] = content_type
    return fields


def info(name: str, meta: Mapping[str, Any], attributes: Mapping[str, str]) -> FileInfo:
    """Return what is known of an object."""
    metadata = {}
    written: datetime = meta["last_modified"]
    etag = f"{(meta['e_tag'] or '').strip(chr(34))}-{round(written.timestamp() * 1000):x}"
    for key, value in attributes.items():
        if key == _MARK:
            stamp = _STAMP.fullmatch(value)
            if stamp and stamp["crc"] == f"{crc32(name.encode()):x}":
                written, etag = at(int(stamp["ms"], 16)), _etag(stamp["nonce"], meta["e_tag"])
        elif key not in _STANDARD:
            metadata[_ESCAPED.sub(_unescaped, key)] = unquote(value)
    return FileInfo(name, meta["size"], written, etag, attributes.get("Content-Type"), metadata)


def _unescaped(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    return chr(code) if code < 0x110000 else match[0]


def at(ms: int) -> datetime:
    """Return milliseconds since 1970 as a time."""
    return datetime.fromtimestamp(ms / 1000, UTC)
