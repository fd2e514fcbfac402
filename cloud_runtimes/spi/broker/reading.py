"""Reading a message of a broker as a frame. It is total: a topic is shared with neighbours, and no message of theirs may stop a group.

A message is an event in structured or binary mode, a frame with many events (``docs/log-format.md``), or a payload without an envelope. Whatever cannot be read as one of the first three is a payload. Only a frame of a later version is not, since a newer member of the group can read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..._native import events as kernel
from ..._native.record_py import read_varint
from ...codec.payload import OCTETS
from ...errors import CloudRuntimesError, PayloadError
from ..events import EVENT_TYPE, pack_binary

_MAGIC: Final = b"CRF"
_LATER: Final = range(2, 32)
"""Versions that a frame may have one day; above them are texts that happen to begin with the magic."""
_CLOUDEVENTS: Final = "application/cloudevents"
_DIGITS: Final = 13
"""Digits of a count or a time in a header: milliseconds until the year 2286."""


class LaterVersionError(Exception):
    """The message is a frame of a version that this package does not read."""


def is_frame(data: bytes) -> bool:
    """Return whether a message begins as a frame does."""
    return data[:3] == _MAGIC


def read_message(
    data: bytes, content_type: str | None, headers: Mapping[str, str], *, topic: str, id: str, prefix: str
) -> bytes:
    """Return the events of a message as a frame.

    Args:
        data: the body.
        content_type: of the body; ``None`` or empty: not known.
        headers: of the message, with names in lower case; those of an event in binary mode begin with ``prefix``.
        topic: it was first published to.
        id: of a payload without an envelope; the same for every delivery.
        prefix: see `read_binary`.

    Raises:
        LaterVersionError: it is a frame that a later version of this package wrote.
    """
    if f"{prefix}specversion" in headers:
        try:
            return pack_binary(headers, data, topic, prefix=prefix)
        except CloudRuntimesError:
            return pack_payload(data, content_type, topic, id)
    if content_type and not content_type.startswith(_CLOUDEVENTS):
        return pack_payload(data, content_type, topic, id)
    try:
        if not is_frame(data):
            parsed: bytes = kernel.parse_cloudevent(data, topic)
            return parsed
        kernel.Frame(data)
        return data
    except PayloadError as error:
        if _is_later(data):
            raise LaterVersionError(str(error)) from error
        return pack_payload(data, None, topic, id)


def pack_payload(data: bytes, content_type: str | None, topic: str, id: str | None) -> bytes:
    """Return a frame of an event without an envelope. A content type or an id that an event must not have is replaced."""
    record: bytes | None = None
    for kind, name in ((content_type or OCTETS, id or None), (OCTETS, id or None), (OCTETS, None)):
        try:
            record = kernel.encode_record(data, kind, id=name, raw=True)
            break
        except CloudRuntimesError:
            pass
    assert record is not None
    frame: bytes = kernel.build_frame(topic, EVENT_TYPE, topic, (record,))
    return frame


def _is_later(data: bytes) -> bool:
    """Return whether bytes have the header of a frame of a later version, which is that of version 1."""
    if not is_frame(data) or len(data) < 8 or data[3] not in _LATER:
        return False
    at = 8
    try:
        for _ in ("source", "type", "topic"):
            size, at = read_varint(data, at, len(data))
            data[at : at + size].decode()
            at += size
    except (PayloadError, UnicodeDecodeError):
        return False
    return at <= len(data)


def text_of(value: Any, default: str) -> str:
    """Return a header as the topic of an event; ``default`` where it cannot be one."""
    try:
        kernel.build_frame("source", "type", value, ())
    except (CloudRuntimesError, TypeError):
        return default
    return value or default


def read_count(value: Any) -> int:
    """Return a header that is a count or a time; 0 where it is none."""
    if isinstance(value, int):
        return value if 0 <= value < 10**_DIGITS else 0
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS:
        return int(value)
    return 0
