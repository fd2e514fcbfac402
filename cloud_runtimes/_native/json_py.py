"""Just as much JSON as events need, in Python.

Mechanism: a value is checked token by token without building anything (RFC 8259), its offset behind is the result. Strings are unescaped only where their text is wanted. The functions take UTF-8 that has been checked.
"""

from __future__ import annotations

import re
from typing import NoReturn

from ..errors import PayloadError

__all__ = [
    "bad",
    "integer",
    "is_value",
    "skip_name",
    "skip_space",
    "skip_string",
    "skip_value",
    "unescape",
]

DEPTH_MAX = 128

_SPACE = re.compile(rb"[ \t\n\r]*+")
_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"')
_SCALAR = re.compile(rb"true|false|null|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]{0,9})")
_UNESCAPE = re.compile(rb"\\u[dD][89abAB]([0-9a-fA-F]{2})\\u[dD][c-fC-F]([0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\(.)")
_PLAIN = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def bad(at: int, what: str) -> NoReturn:
    raise PayloadError(f"CloudEvent: {what} at byte {at}")


def skip_space(data: bytes, at: int) -> int:
    found = _SPACE.match(data, at)
    return found.end() if found else at


def skip_string(data: bytes, at: int) -> int:
    found = _STRING.match(data, at)
    if found is None:
        bad(at, "no complete JSON string")
    return found.end()


def skip_name(data: bytes, at: int) -> int:
    """Skip ``"name" :`` and the spaces behind."""
    at = skip_space(data, skip_string(data, at))
    if data[at : at + 1] != b":":
        bad(at, "no colon")
    return skip_space(data, at + 1)


def skip_value(data: bytes, at: int) -> int:
    """The offset behind the JSON value at `at`, at most 128 arrays and objects deep. Raises `PayloadError`: there is no complete value."""
    closers: list[int] = []
    while True:
        first = data[at : at + 1]
        if first in (b"{", b"["):
            if len(closers) == DEPTH_MAX:
                bad(at, f"data nested deeper than {DEPTH_MAX}")
            closer = 0x7D if first == b"{" else 0x5D
            at = skip_space(data, at + 1)
            if at >= len(data) or data[at] != closer:
                closers.append(closer)
                if closer == 0x7D:
                    at = skip_name(data, at)
                continue
            at += 1
        elif first == b'"':
            at = skip_string(data, at)
        else:
            found = _SCALAR.match(data, at)
            if found is None:
                bad(at, "no JSON value")
            at = found.end()
        while closers:
            at = skip_space(data, at)
            if at >= len(data):
                bad(at, "the end")
            if data[at] == 0x2C:
                at = skip_space(data, at + 1)
                if closers[-1] == 0x7D:
                    at = skip_name(data, at)
                break
            if data[at] != closers.pop():
                bad(at, "no comma or closing bracket")
            at += 1
        else:
            return at


def _replacement(found: re.Match[bytes]) -> bytes:
    if found[1] is not None:
        high = int(found[0][2:6], 16) - 0xD800
        low = int(found[0][8:12], 16) - 0xDC00
        return chr(0x10000 + (high << 10) + low).encode()
    if found[3] is not None:
        # a lone surrogate cannot be encoded
        return chr(int(found[3], 16)).encode()
    return _PLAIN.get(found[4], found[4])


def unescape(data: bytes, at: int, end: int, name: str) -> bytes:
    """The UTF-8 of the JSON string token ``data[at:end]``."""
    text = data[at + 1 : end - 1]
    if b"\\" not in text:
        return text
    try:
        return _UNESCAPE.sub(_replacement, text)
    except UnicodeEncodeError:
        raise PayloadError(f"CloudEvent: {name} has an unpaired surrogate at byte {at}") from None


def integer(data: bytes, at: int, name: str) -> tuple[int, int]:
    found = _INTEGER.match(data, at)
    value = int(found[0]) if found else 1 << 31
    if found is None or not -(1 << 31) <= value < 1 << 31 or data[found.end() : found.end() + 1] in b".eE0123456789":
        raise PayloadError(f"CloudEvent: {name} is no string, boolean or 32-bit integer, at byte {at}")
    return value, found.end()


def is_value(data: bytes) -> bool:
    """Whether bytes are one JSON value in UTF-8, with spaces around."""
    try:
        data.decode()
        return skip_space(data, skip_value(data, skip_space(data, 0))) == len(data)
    except (UnicodeDecodeError, PayloadError):
        return False
