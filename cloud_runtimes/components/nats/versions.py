"""Versions of files on NATS' object store, without I/O: what their messages tell, one in the making, and how far a reader is."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from ...errors import InternalError
from .entries import Entry
from .protocol import Message

CHUNK: Final = 128 * 1024
WINDOW: Final = 8 * CHUNK
"""Bytes of a file that are under way, and in memory."""
_EVEN: Final = "even_chunks"
"""Tells that all chunks but the last have one size. Others write shorter ones where their source gave less."""
_DIGEST: Final = "SHA-256="
_NUID: Final = re.compile(r"[A-Za-z0-9_-]+")


class Gone(Exception):
    """Chunks of a version are not there any more."""


class Stored(NamedTuple):
    """Metadata of a file, read from the message of its name.

    Attributes:
        document: the whole metadata.
        nuid: of the version.
        size: bytes.
        chunks: their number.
        chunk_size: of each but the last; 0: they differ.
        digest: SHA-256 of the content; ``None``: unknown.
        modified_ms: when it was stored, milliseconds since 1970 UTC.
        last: sequence of that message.
    """

    document: Mapping[str, Any]
    nuid: str
    size: int
    chunks: int
    chunk_size: int
    digest: bytes | None
    modified_ms: int
    last: int

    @property
    def link(self) -> str | None:
        """The file that this one stands for, or the bucket; ``None``: it stands for itself."""
        link = (self.document.get("options") or {}).get("link")
        return None if not link else f"{link.get('bucket')}/{link.get('name') or ''}"


class Current(NamedTuple):
    """Current state of a name.

    Attributes:
        sequence: of its message; 0: there is none.
        stored: ``None``: no file, or a deleted one.
        error: why the message cannot be read; the file can be replaced and deleted.
    """

    sequence: int
    stored: Stored | None
    error: InternalError | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a file, though perhaps an unreadable one."""
        return self.stored is not None or self.error is not None


class Upload:
    """A version in the making, in memory as far as it was not sent.

    Attributes:
        nuid: of the version.
        size, chunks: of what was given.
        due: when it is swept, milliseconds since 1970 UTC; 0: nothing was sent.
    """

    def __init__(self) -> None:
        self.nuid = secrets.token_hex(11)
        self.size = self.chunks = self.due = 0
        self._digest = hashlib.sha256()
        self._rest = bytearray()

    def add(self, data: bytes | bytearray | memoryview) -> Iterable[list[bytes]]:
        """Take some content; yields the chunks that are to be sent now. Something always stays for the end."""
        view = memoryview(data).cast("B")
        self.size += len(view)
        for start in range(0, len(view), WINDOW):
            some = view[start : start + WINDOW]
            self._digest.update(some)
            if len(self._rest) + len(some) > WINDOW:
                room = WINDOW - len(self._rest)
                self._rest += some[:room]
                yield self.rest()
                some = some[room:]
            self._rest += some

    def rest(self) -> list[bytes]:
        """Return the chunks of what was not yet sent."""
        whole = bytes(self._rest)
        self._rest.clear()
        chunks = [whole[start : start + CHUNK] for start in range(0, len(whole), CHUNK)]
        self.chunks += len(chunks)
        return chunks

    def document(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the message of the name tells, with further entries."""
        digest = base64.urlsafe_b64encode(self._digest.digest()).decode()
        return {
            **{name: value for name, value in base.items() if name != "mtime"}, "options": {"max_chunk_size": CHUNK}, "nuid": self.nuid, "size": self.size, "chunks": self.chunks,
            "digest": _DIGEST + digest, _EVEN: True,
        }  # fmt: skip


class Reading:
    """How far a reader is in a version.

    Attributes:
        number, offset: of the chunk that comes next.
        sequence: where to look for it.
        chunk, chunk_offset: the last one that was read.
    """

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.number = self.offset = self.chunk_offset = 0
        self.sequence = stored.last - stored.chunks  # where nobody else wrote meanwhile
        self.chunk = b""

    def seek(self, start: int) -> None:
        """Go to the chunk with an offset, or to the first one where nobody can tell which that is."""
        size = self.stored.chunk_size
        if size:
            number = start // size
            self.sequence += number - self.number
            self.number, self.offset = number, number * size
        elif start < self.offset:
            self.number, self.offset, self.sequence = 0, 0, 1

    def take(self, message: Message) -> None:
        """Take in the next chunk.

        Raises:
            Gone: it is no such chunk.
        """
        stored, data = self.stored, message.data
        self.number += 1
        self.chunk_offset, self.chunk = self.offset, data
        self.offset += len(data)
        if self.number == stored.chunks or stored.chunk_size:
            whole = stored.size if self.number == stored.chunks else self.number * stored.chunk_size
            if self.offset != whole:
                raise Gone
        self.sequence = int(message.headers["Nats-Sequence"]) + 1


def blank(name: str, content_type: str | None, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Return what the message of a name tells beside its content."""
    document: dict[str, Any] = {"name": name}
    if content_type is not None:
        document["headers"] = {"Content-Type": [content_type]}
    if metadata:
        document["metadata"] = dict(metadata)
    return document


def read_message(name: str, entry: Entry) -> Current:
    """Return what a message tells; never raises."""
    if entry.deleted:
        return Current(entry.sequence, None)
    try:
        document = json.loads(entry.data)
        return Current(entry.sequence, None if document.get("deleted") else read_meta(document, entry))
    except Exception as error:
        text = f"what the bucket tells of the file {name!r} is not in the layout of NATS' objects: store it again, or delete it"
        refused = InternalError(text)
        refused.__cause__ = error
        return Current(entry.sequence, None, refused)


def read_meta(document: Mapping[str, Any], entry: Entry) -> Stored:
    """Return what a document tells; one that is in another layout raises what it may."""
    nuid, size, chunks = document["nuid"], int(document["size"]), int(document["chunks"])
    for headers in ("headers", "metadata", "options"):
        if not isinstance(document.get(headers) or {}, dict):
            raise TypeError(f"{headers} is no object")
    options = document.get("options") or {}
    kind, _, digest = (document.get("digest") or "").partition("=")
    known = None if f"{kind}=".upper() != _DIGEST else base64.b64decode(digest + "=" * (-len(digest) % 4), b"-_")
    if not _NUID.fullmatch(nuid) and not options.get("link"):
        raise ValueError(nuid)
    even = int(options.get("max_chunk_size") or 0) if document.get(_EVEN) else 0
    return Stored(document, nuid, size, chunks, even, known, entry.written_ms, entry.sequence)
