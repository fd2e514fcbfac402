"""Checks MessagePack before it is decoded, for the twin `msgpack_py.py`, which states the rules.

Mechanism: one loop over the heads, without recursion and without making values. It finds the first fault in the order of reading, with its offset, and counts what the limits count. It steps over scalars of a known size with one look into a table.
"""

from __future__ import annotations

from codecs import utf_8_decode
from typing import NoReturn

from ..errors import PayloadError
from .limits import Limits, refuse

__all__ = ["check"]

_PIECE = 65_536  # of text, checked at once
_ARRAY, _MAP, _STR, _BIN, _EXTENSION = "array", "map", "str", "bin", "extension"
_SECONDS = range(-62_135_596_800, 253_402_300_800)  # since 1970, of the years 1 to 9999

# bytes of a scalar that is no bin and no long str, by its first byte; 0 where that does not tell
_FIXED = bytes(
    1 if first < 0x80 or first >= 0xE0 or first in (0xC0, 0xC2, 0xC3) else
    5 if first == 0xCA else 9 if first == 0xCB else
    1 + (1 << (first & 3)) if 0xCC <= first <= 0xD3 else
    1 + (first & 0x1F) if 0xA0 <= first < 0xC0 else 0
    for first in range(256)
)  # fmt: skip
# of what begins with 0xC4 … 0xC9 and 0xD9 … 0xDF: its kind, and the width of the count behind that byte
_KINDS = (_BIN,) * 3 + (_EXTENSION,) * 3 + (_STR,) * 3 + (_ARRAY,) * 2 + (_MAP,) * 2
_WIDTHS = (1, 2, 4) * 3 + (2, 4) * 2


def check(data: bytes, limits: Limits) -> None:
    """Find the first fault. Raises `PayloadError`: not one whole value, or beyond a limit."""
    size, fixed = len(data), _FIXED
    room = limits.items
    outer: list[tuple[int, bool]] = []
    left, pairs = 1, False  # values still to come in the innermost container, and whether each second is a key
    at = 0
    while True:
        while left == 0:
            if not outer:
                if at != size:
                    _malformed(f"{size - at} bytes follow the value", at)
                return
            left, pairs = outer.pop()
        key = pairs and not left & 1
        left -= 1
        if at >= size:
            _malformed("the data ends where a value should begin", at)
        first = data[at]
        start, step = at, fixed[first]
        if step:
            at = _behind(data, at, step, start)
            if 0xA0 <= first < 0xC0 and not data[start + 1 : at].isascii():
                _check_text(data, start + 1, at, start)
            continue
        kind, count, at = _head(data, start)
        if kind is _ARRAY or kind is _MAP:
            if key:
                _malformed("a map or an array cannot be a key", start)
            if len(outer) >= limits.depth:
                refuse("MessagePack", "depth", limits.depth, start)
            room -= count
            if room < 0:
                refuse("MessagePack", "items", limits.items, start)
            outer.append((left, pairs))
            pairs = kind is _MAP
            left = 2 * count if pairs else count
            continue
        if kind is _STR:
            _check_text(data, at, at + count, start)
        elif kind is _EXTENSION:
            _check_extension(data, at, count, start)
        at += count


def _malformed(reason: str, at: int) -> NoReturn:
    raise PayloadError(f"not MessagePack: {reason} (at byte {at})")


def _behind(data: bytes, at: int, count: int, start: int) -> int:
    """The offset behind so many bytes, which must be there."""
    missing = at + count - len(data)
    if missing > 0:
        _malformed(f"the value that begins here needs {missing} bytes more than there are", start)
    return at + count


def _head(data: bytes, start: int) -> tuple[str, int, int]:
    """Read the head of what is no scalar of fixed size: its kind, its bytes or entries, which are there, and where they begin."""
    first, at = data[start], start + 1
    if first < 0xA0:
        kind, count = _MAP if first < 0x90 else _ARRAY, first & 0x0F
    elif first == 0xC1:
        _malformed("0xC1 is never used", start)
    elif 0xD4 <= first <= 0xD8:
        kind, count = _EXTENSION, 1 << (first - 0xD4)
    else:
        index = first - (0xC4 if first < 0xD0 else 0xD3)
        kind, width = _KINDS[index], _WIDTHS[index]
        at = _behind(data, at, width, start)
        count = int.from_bytes(data[at - width : at], "big")
    if kind is _EXTENSION:
        at = _behind(data, at, 1, start)  # its code
    _behind(data, at, 2 * count if kind is _MAP else count, start)
    return kind, count, at


def _check_text(data: bytes, begin: int, end: int, start: int) -> None:
    try:
        while end - begin > _PIECE:
            # piece by piece: a long str may take four times its UTF-8
            begin += utf_8_decode(data[begin : begin + _PIECE], "strict", False)[1]
        data[begin:end].decode()
    except UnicodeDecodeError:
        _malformed("a str is not valid UTF-8", start)


def _check_extension(data: bytes, begin: int, size: int, start: int) -> None:
    code = int.from_bytes(data[begin - 1 : begin], "big", signed=True)
    if code != -1:
        _malformed(f"extension type {code} is not known", start)
    if size == 4:
        return  # seconds from 1970 to 2106
    if size == 8:
        word = int.from_bytes(data[begin : begin + 8], "big")
        nanoseconds, seconds = word >> 34, word & 0x3FFFFFFFF
    elif size == 12:
        nanoseconds = int.from_bytes(data[begin : begin + 4], "big")
        seconds = int.from_bytes(data[begin + 4 : begin + 12], "big", signed=True)
    else:
        _malformed(f"a timestamp of {size} bytes", start)
    if nanoseconds > 999_999_999:
        _malformed(f"a timestamp with {nanoseconds} nanoseconds", start)
    if seconds not in _SECONDS:
        _malformed("a timestamp outside the years 1 to 9999", start)
