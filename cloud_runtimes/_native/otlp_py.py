"""OTLP's protobuf for spans, log records and their attributes, in Python: what `src_ext/otlp.pxd` does in C.

The messages are those of opentelemetry-proto 1.x (``common/v1``, ``trace/v1``, ``logs/v1``). Fields stand in the order of their numbers, one that has its default value is left out (proto3), and every length is a varint as short as it can be, so there is one encoding of a record and the kernel's must equal it.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

__all__ = ["MAX_DEPTH", "Limits", "attributes_into", "bytes_field", "fixed32_field", "fixed64_field", "text", "varint"]

MAX_DEPTH: Final = 16
"""Arrays and maps nested deeper become the text ``<nested too deeply>``; a list may hold itself."""

_DOUBLE: Final = struct.Struct("<d")
_INT64_MIN: Final = -(1 << 63)
_INT64_MAX: Final = (1 << 63) - 1


class Limits(NamedTuple):
    """Limits of the OpenTelemetry specification (Common, "Attribute limits"; Trace SDK, "Span limits").

    Attributes:
        attributes: of a span, a log record, an event or a link; more are dropped and counted.
        value_length: characters of a text value and bytes of a binary one, also in arrays; longer ones are cut. -1: no limit.
        events, links: of a span; more are dropped and counted.
    """

    attributes: int = 128
    value_length: int = -1
    events: int = 128
    links: int = 128


def varint(value: int) -> bytes:
    """Encode an unsigned integer, or a negative one as 64 bits in two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def bytes_field(out: bytearray, tag: int, data: bytes | bytearray) -> None:
    """Append a field with a length; `tag` is the byte before it."""
    out.append(tag)
    out += varint(len(data))
    out += data


def fixed64_field(out: bytearray, tag: int, value: int) -> None:
    """Append a field of eight bytes."""
    out.append(tag)
    out += value.to_bytes(8, "little")


def fixed32_field(out: bytearray, tag: bytes, value: int) -> None:
    """Append a field of four bytes, whose tag may take two."""
    out += tag
    out += value.to_bytes(4, "little")


def text(value: str) -> bytes:
    """Return UTF-8; what UTF-8 cannot hold, a lone surrogate, is written as its escape, so that no text breaks a batch."""
    return value.encode("utf-8", "backslashreplace")


def value_into(out: bytearray, value: Any, limit: int, depth: int) -> None:
    """Append the fields of an ``AnyValue``. Whatever is no type of OTLP is written as ``str(value)``."""
    if isinstance(value, bool):
        out += b"\x10\x01" if value else b"\x10\x00"
    elif isinstance(value, int) and _INT64_MIN <= value <= _INT64_MAX:
        out.append(0x18)
        out += varint(value)
    elif isinstance(value, float):
        out.append(0x21)
        out += _DOUBLE.pack(value)
    elif isinstance(value, (bytes, bytearray)):
        bytes_field(out, 0x3A, value if limit < 0 else value[:limit])
    elif value is None:
        pass
    elif isinstance(value, (list, tuple, dict)) and depth < MAX_DEPTH:
        inner = bytearray()
        if isinstance(value, dict):
            for key, each in list(value.items()):
                key_value_into(inner, 0x0A, key if isinstance(key, str) else str(key), each, limit, depth + 1)
            bytes_field(out, 0x32, inner)
        else:
            for each in value:
                item = bytearray()
                value_into(item, each, limit, depth + 1)
                bytes_field(inner, 0x0A, item)
            bytes_field(out, 0x2A, inner)
    else:
        if isinstance(value, (list, tuple, dict)):
            value = "<nested too deeply>"
        elif not isinstance(value, str):
            value = str(value)
        bytes_field(out, 0x0A, text(value if limit < 0 else value[:limit]))


def key_value_into(out: bytearray, tag: int, key: str, value: Any, limit: int, depth: int) -> None:
    """Append a ``KeyValue`` as a field."""
    inner = bytearray()
    bytes_field(inner, 0x0A, text(key))
    item = bytearray()
    value_into(item, value, limit, depth)
    bytes_field(inner, 0x12, item)
    bytes_field(out, tag, inner)


def attributes_into(out: bytearray, tag: int, attributes: dict[Any, Any] | None, limits: Limits) -> int:
    """Append attributes as fields, in their order; return how many were dropped.

    Dropped are those beyond the limit, those whose key is no text or empty, and those whose ``str`` fails. ``None`` as a value says that there is no attribute.
    """
    dropped = written = 0
    if not attributes:
        return 0
    for key, value in list(attributes.items()):
        if value is None:
            continue
        if written >= limits.attributes or not isinstance(key, str) or not key:
            dropped += 1
            continue
        try:
            key_value_into(out, tag, key, value, limits.value_length, 0)
        except Exception:
            dropped += 1
        else:
            written += 1
    return dropped
