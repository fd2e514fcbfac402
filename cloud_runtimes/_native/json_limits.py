"""Whether a JSON document keeps to `codec.limits`, in Python: before it is parsed, and without parsing it.

Mechanism: what a document holds shows in its brackets and commas outside of strings. Few brackets and a short document can break no limit. Else strings are taken out, and what is left comes down to brackets, from which the innermost pairs are removed until none is left: as often as it is deep. A document that is no JSON may be refused here or by the parser: what is cut off here.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import PayloadError
from .limits import DEFAULT, Limits, refuse

__all__ = ["LOOKED_AT", "check", "set_limits"]

# Longer documents are always looked at: orjson reads into a tree of its own, up to nine times as large, before it refuses one that is cut off.
LOOKED_AT = 131_072
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
# a text up to a string that has no end in it: otherwise each quote in that string would be tried as a beginning
_WHOLE = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_PIECE = 16_384  # `re.sub` keeps an object for each string
_SHAPE = bytes(
    0x5B if byte in b"[{" else 0x5D if byte in b"]}" else 0x2C if byte == 0x2C else 0x30 for byte in range(256)
)
_limits = DEFAULT


def set_limits(depth: int, items: int, size: int) -> None:
    """Set what `cloud_runtimes.codec.limits` holds."""
    global _limits
    _limits = Limits(depth, items, size)


def check(data: Any) -> None:
    """Refuse a document beyond a limit; what is no document is left to the parser. Raises `PayloadError`: with the limit and the remedy."""
    limits = _limits
    if isinstance(data, str):
        size = len(data)  # characters, which have one byte to four each
        if size <= limits.bytes < 4 * size and not data.isascii():
            size = len(data.encode("utf-8", "surrogatepass"))
    elif isinstance(data, memoryview):
        size = data.nbytes
    elif isinstance(data, (bytes, bytearray)):
        size = len(data)
    else:
        return
    if size > limits.bytes:
        refuse("JSON", "bytes", limits.bytes)
    if size <= 2 * min(limits.depth, limits.items):
        return
    text: Any = data
    if isinstance(data, str):
        text = data.encode("utf-8", "surrogatepass")
    elif isinstance(data, memoryview):
        if not data.c_contiguous:
            return
        text = data.tobytes()
    if size > 2 * limits.items or size > LOOKED_AT or text.count(b"[") + text.count(b"{") > limits.depth:
        _check_shape(text, limits)


def _shape(text: bytes | bytearray) -> bytearray:
    """Return brackets and commas, and a 0 for whatever else is no space."""
    shape = bytearray()
    at = 0
    while at < len(text):
        match = _WHOLE.match(text, at, at + _PIECE)
        assert match is not None
        rest = match.group()
        if not rest:  # a string that the piece does not hold whole
            match = _STRING.match(text, at)
            if match is None:
                break  # nor does the document
        at = match.end()
        shape += (_STRING.sub(b"0", rest) or b"0").translate(_SHAPE, b" \t\r\n")
    return shape


def _check_shape(text: bytes | bytearray, limits: Limits) -> None:
    shape = _shape(text)
    # each comma is followed by an entry, each bracket too, unless it closes at once
    if shape.count(b",") + shape.count(b"[") - shape.count(b"[]") > limits.items:
        refuse("JSON", "items", limits.items)
    shape = shape.translate(None, b"0,")
    for _ in range(limits.depth):
        inner = shape.replace(b"[]", b"")
        if len(inner) == len(shape):
            break
        shape = inner
    if b"[]" in shape or shape.count(b"[") > limits.depth:
        refuse("JSON", "depth", limits.depth)
    if shape:
        raise PayloadError("not JSON: a bracket that is not closed, or not opened")
