"""The values of a state store, which knows content types, for callers who know none.

Dapr keeps bytes alone. Over HTTP a value is any JSON, kept as its encoding; over gRPC it is bytes. What our own client has saved has a content type, and must read sensibly for both.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from ...codec import json, msgpack
from ...codec.payload import JSON, OCTETS, content_kind
from ...errors import CloudRuntimesError
from ...state.types import StateItem


def raw(item: StateItem[Any]) -> bytes:
    """Return a value as bytes: those that were saved, MessagePack as JSON."""
    data: bytes = item.value
    if _kind(item.content_type) == "msgpack":
        try:
            return json.encode(msgpack.decode(data))
        except CloudRuntimesError:
            return data  # bytes in it, which JSON has no form for
    return data


def as_json(item: StateItem[Any]) -> bytes:
    """Return a value as one JSON document: text that is none as a string, other bytes as a string of base64."""
    data = raw(item)
    if _kind(item.content_type) == "text":
        try:
            return json.encode(str(data, "utf-8"))
        except UnicodeDecodeError:
            return _base64(data)
    try:
        json.decode(data)
    except CloudRuntimesError:
        return _base64(data)
    return data


def _base64(data: bytes) -> bytes:
    return json.encode(base64.b64encode(data).decode())


def reply_type(item: StateItem[Any]) -> str:
    """Return the content type of a value over HTTP: JSON, as Dapr says of all that it keeps, but for text."""
    return item.content_type if item.content_type is not None and _kind(item.content_type) == "text" else JSON


def content_type_of(data: bytes, metadata: Mapping[str, str]) -> str:
    """Return as what bytes that came over gRPC are kept.

    ``contentType`` counts where the bytes come back the same: for text, and for JSON that is some.
    """
    given = metadata.get("contentType")
    kind = None if given is None else _kind(given)
    if given is None or kind not in ("json", "text"):
        return OCTETS
    if kind == "json":
        try:
            json.decode(data)
        except CloudRuntimesError:
            return OCTETS
    return given


def metadata_of(item: StateItem[Any]) -> dict[str, str]:
    """Return the metadata of a reply: ``ttlExpireTime`` (RFC 3339) of what expires."""
    if item.expires_at is None:
        return {}
    return {"ttlExpireTime": item.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ")}


def _kind(content_type: str | None) -> str:
    if content_type is None:
        return "bytes"
    try:
        return content_kind(content_type)
    except CloudRuntimesError:
        return "bytes"
