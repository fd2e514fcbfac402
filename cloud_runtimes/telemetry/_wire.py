"""Requests of OTLP around the chunks of the kernel, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from .._native.otlp_py import Limits, attributes_into, bytes_field, text, varint
from .._native.telemetry_buffer_py import Chunk
from .._native.telemetry_text import frozen_attributes

__all__ = ["fields", "rejected", "request", "resource", "scope"]

_UNLIMITED: Final = Limits(1 << 20)


def resource(attributes: Mapping[str, Any]) -> bytes:
    """Encode a ``Resource``."""
    out = bytearray()
    attributes_into(out, 0x0A, dict(attributes), _UNLIMITED)
    return bytes(out)


def scope(
    name: str, version: str | None, schema_url: str | None = None, attributes: Mapping[str, Any] | None = None
) -> bytes:
    """Encode what stands before the records of ``ScopeSpans``, ``ScopeLogs`` and ``ScopeMetrics``: an ``InstrumentationScope``, and the URL of its schema."""
    inner = bytearray()
    if name:
        bytes_field(inner, 0x0A, text(name))
    if version:
        bytes_field(inner, 0x12, text(version))
    dropped = attributes_into(inner, 0x1A, frozen_attributes(attributes), Limits())
    if dropped:
        inner.append(0x20)
        inner += varint(dropped)
    out = bytearray()
    bytes_field(out, 0x0A, inner)
    if schema_url:
        bytes_field(out, 0x1A, text(schema_url))
    return bytes(out)


def request(resource: bytes, scopes: list[bytes], chunks: Iterable[Chunk]) -> bytes:
    """Return an ``Export…ServiceRequest``: one resource, and each scope once with all its records, in order."""
    bodies: dict[int, list[bytes]] = {}
    for chunk in chunks:
        bodies.setdefault(chunk.scope, []).append(chunk.body)
    parts = [b"\x0a" + varint(len(resource)) + resource]
    for number, records in bodies.items():
        head = scopes[number]
        parts += [b"\x12" + varint(len(head) + sum(map(len, records))), head, *records]
    return b"".join([b"\x0a" + varint(sum(map(len, parts))), *parts])


def fields(data: bytes) -> Iterable[tuple[int, int | bytes]]:
    """Yield the fields of a message: number, and an integer or bytes.

    Raises:
        ValueError: no protobuf.
    """
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(kind, -1)
        if size < 0 or at + size > len(data):
            raise ValueError("no protobuf")
        raw = data[at : at + size]
        yield tag >> 3, raw if kind == 2 else int.from_bytes(raw, "little")
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7
    raise ValueError("no protobuf")


def rejected(response: bytes) -> int:
    """Return how many records a response says were rejected (``partial_success``); 0 where it is no protobuf."""
    try:
        for number, value in fields(response):
            if number == 1 and isinstance(value, bytes):
                for inner, count in fields(value):
                    if inner == 1 and isinstance(count, int):
                        return count if count < 1 << 63 else 0
    except ValueError:
        pass
    return 0
