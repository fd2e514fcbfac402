"""Values as sidecars keep them, which have no content type.

JSON stands plain where that keeps it exact. Over HTTP numbers beyond 2⁵³ and fractions are decoded by Dapr into floats and by some stores into six digits; they, and whatever is no JSON, stand in a wrapper of JSON.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

from ...codec import json
from ...codec.payload import JSON, OCTETS
from ...errors import PayloadError

__all__ = ["MARK", "is_exact", "is_wrapped", "unwrap", "wrap", "wrapper"]

MARK: Final = "cloud_runtimes"
_MARK_BYTES: Final = b'"cloud_runtimes"'
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?')  # one without an end is looked for once
_INEXACT: Final = re.compile(rb"[0-9][.eE]|[0-9]{16}")


def is_exact(data: bytes) -> bool:
    """Tell whether JSON is the same after Dapr has decoded its numbers into floats."""
    return _INEXACT.search(_STRING.sub(b"", data)) is None


def is_wrapped(data: bytes, content_type: str | None, *, exact: bool = False) -> bool:
    """Tell whether a value stands in a wrapper; ``exact``: the transport leaves numbers as they are."""
    return content_type != JSON or _MARK_BYTES in data or not (exact or is_exact(data))


def wrapper(data: bytes, content_type: str | None) -> dict[str, Any]:
    """Return the JSON object that holds a value."""
    return {MARK: 1, "datacontenttype": content_type or OCTETS, "data_base64": base64.b64encode(data).decode()}


def wrap(data: bytes, content_type: str | None, *, exact: bool = False) -> bytes:
    """Return the JSON that stands for a value; ``exact``: the transport leaves its numbers as they are."""
    if is_wrapped(data, content_type, exact=exact):
        return json.encode(wrapper(data, content_type))
    return bytes(data)


def unwrap(data: bytes) -> tuple[bytes, str]:
    """Return a value and its content type: what `wrap` made, other JSON, or bytes."""
    try:
        value: Any = json.decode(data)
    except PayloadError:
        return data, OCTETS
    if isinstance(value, dict) and value.get(MARK) == 1 and len(value) == 3:
        content_type, text = value.get("datacontenttype"), value.get("data_base64")
        if isinstance(content_type, str) and isinstance(text, str):
            try:
                return base64.b64decode(text, validate=True), content_type
            except binascii.Error:
                pass
    return data, JSON
