"""Requests of OTLP around the chunks of the kernel, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from .._native.otlp_py import Limits, attributes_into, bytes_field, text, varint
from .._native.telemetry_buffer_py import Chunk
from .._native.telemetry_text import frozen_attributes
from ..errors import CloudRuntimesError
from .json_records import records

__all__ = ["rejected", "request", "resource", "scope"]

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
    for number, chunk_bodies in bodies.items():
        head = scopes[number]
        parts += [b"\x12" + varint(len(head) + sum(map(len, chunk_bodies))), head, *chunk_bodies]
    return b"".join([b"\x0a" + varint(sum(map(len, parts))), *parts])


def rejected(response: bytes) -> int:
    """Return how many records a response says were rejected (``partial_success``); 0 where it is no protobuf."""
    try:
        return max(0, int(records("response", response).get("partialSuccess", {}).get("rejected", 0)))
    except CloudRuntimesError:
        return 0
