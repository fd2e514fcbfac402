"""Reading MessagePack, for the reference twin (`msgpack_py.py`, which states the rules).

Mechanism: one loop without recursion, so that depth is a number and not the interpreter's stack. Longer input is checked first, by a loop that steps over scalars of a known size with one look into a table and makes nothing but the piece of text whose UTF-8 it looks at; it finds what the reading would find, and counts what the limits count.
"""

from __future__ import annotations

import struct
from codecs import utf_8_decode
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from ..codec._limits import DEFAULT, refuse
from ..errors import PayloadError

__all__ = ["CHECK_BYTES", "check", "decode_whole", "depth", "read", "set_limits", "whole"]

CHECK_BYTES = 8192
"""Longer input is checked before anything is made of it; of shorter input no value takes more than 1 MiB."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PIECE = 65_536  # of text, checked at once
_double = struct.Struct(">d")
_single = struct.Struct(">f")
_limits = DEFAULT
# up to here input can break no limit but the depth
_easy = CHECK_BYTES

# bytes of a scalar that is no bin and no long str, by its first byte; 0 where that does not tell
_FIXED = bytes(
    1 if first < 0x80 or first >= 0xE0 or first in (0xC0, 0xC2, 0xC3) else
    5 if first == 0xCA else 9 if first == 0xCB else
    1 + (1 << (first & 3)) if 0xCC <= first <= 0xD3 else
    1 + (first & 0x1F) if 0xA0 <= first < 0xC0 else 0
    for first in range(256)
)  # fmt: skip


def set_limits(depth: int, items: int, size: int) -> None:
    """Set what `cloud_runtimes.codec.limits` holds."""
    global _limits, _easy
    _limits = DEFAULT._replace(depth=depth, items=items, bytes=size)
    _easy = min(CHECK_BYTES, items, size)


def whole(data: bytes | bytearray | memoryview) -> bytes:
    """Return the bytes of what may be decoded.

    Raises:
        PayloadError: not contiguous bytes, or more than the limit.
    """
    try:
        view = memoryview(data)
        if not view.c_contiguous:
            raise BufferError
        size = view.nbytes
    except (TypeError, BufferError, ValueError):
        raise PayloadError(f"cannot decode {type(data).__name__}: give contiguous bytes") from None
    if size > _limits.bytes:
        refuse("MessagePack", "bytes", _limits.bytes)
    return data if type(data) is bytes else view.tobytes()


def decode_whole(data: bytes) -> Any:
    """Decode what `whole` gave.

    Raises:
        PayloadError: not one whole value, or beyond a limit.
    """
    if len(data) > _easy:
        check(data)
    return read(data)


def read(data: bytes) -> Any:
    """Decode what has been checked, or is short.

    Raises:
        PayloadError: not one whole value, or too deep.
    """
    return _Reader(data).read()


def depth() -> int:
    """How deep a value may be."""
    return _limits.depth


def _malformed(reason: str, at: int) -> NoReturn:
    raise PayloadError(f"not MessagePack: {reason} (at byte {at})")


def check(data: bytes) -> None:
    """Find what is wrong with the input, in the order of reading, and make nothing.

    Raises:
        PayloadError: not one whole value, or beyond a limit.
    """
    reader = _Reader(data)
    size, fixed = len(data), _FIXED
    most = _limits.depth
    room = _limits.items
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
        step = fixed[first]
        if step:
            begin = at
            at += step
            if at > size:
                reader.position = begin + 1
                reader.need(step - 1, begin)
            if 0xA0 <= first < 0xC0 and not data[begin + 1 : at].isascii():
                _check_text(data, begin + 1, at, begin)
            continue
        kind, count = reader.head(at)
        if kind is _ARRAY or kind is _MAP:
            _enter(at, len(outer), most, key)
            room -= count
            if room < 0:
                refuse("MessagePack", "items", _limits.items, at)
            outer.append((left, pairs))
            pairs = kind is _MAP
            left = 2 * count if pairs else count
        else:
            begin = reader.position
            reader.position += count
            if kind is _STR:
                _check_text(data, begin, begin + count, at)
            elif kind is _EXTENSION:
                reader.extension(begin, count, at)
        at = reader.position


def _enter(start: int, depth: int, most: int, key: bool) -> None:
    if key:
        _malformed("a map or an array cannot be a key", start)
    if depth >= most:
        refuse("MessagePack", "depth", most, start)


def _check_text(data: bytes, begin: int, end: int, start: int) -> None:
    try:
        while end - begin > _PIECE:
            # piece by piece: a long str may take four times its UTF-8
            begin += utf_8_decode(data[begin : begin + _PIECE], "strict", False)[1]
        data[begin:end].decode()
    except UnicodeDecodeError:
        _malformed("a str is not valid UTF-8", start)


_ARRAY, _MAP, _STR, _BIN, _EXTENSION = "array", "map", "str", "bin", "extension"
_NOTHING = object()


class _Reader:
    """One pass over the data."""

    __slots__ = ("code", "data", "position", "size")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.position = 0
        self.code = 0

    def need(self, count: int, start: int) -> None:
        missing = count - (self.size - self.position)
        if missing > 0:
            _malformed(f"the value that begins here needs {missing} bytes more than there are", start)

    def number(self, width: int, start: int, signed: bool = False) -> int:
        self.need(width, start)
        self.position += width
        return int.from_bytes(self.data[self.position - width : self.position], "big", signed=signed)

    def head(self, start: int) -> tuple[str, int]:
        """Read the head of what is no scalar of fixed size: its kind, and its bytes or entries, which are there."""
        self.position = start + 1
        first = self.data[start]
        if first < 0x90:
            kind, count = _MAP, first & 0x0F
        elif first < 0xA0:
            kind, count = _ARRAY, first & 0x0F
        elif first == 0xC1:
            _malformed("0xC1 is never used", start)
        elif first <= 0xC6:
            kind, count = _BIN, self.number(1 << (first - 0xC4), start)
        elif first <= 0xC9:
            kind, count = _EXTENSION, self.number(1 << (first - 0xC7), start)
        elif first <= 0xD8:
            kind, count = _EXTENSION, 1 << (first - 0xD4)
        elif first <= 0xDB:
            kind, count = _STR, self.number(1 << (first - 0xD9), start)
        elif first <= 0xDD:
            kind, count = _ARRAY, self.number(2 << (first - 0xDC), start)
        else:
            kind, count = _MAP, self.number(2 << (first - 0xDE), start)
        if kind is _EXTENSION:
            self.code = self.number(1, start, signed=True)
        self.need(2 * count if kind is _MAP else count, start)
        return kind, count

    def read(self) -> Any:
        """Return the value that fills the data."""
        most = _limits.depth
        outer: list[_Open] = []
        here: _Open | None = None
        while True:
            start = self.position
            value, count = self.value(start)
            if count >= 0:
                depth = len(outer) + (here is not None)
                _enter(start, depth, most, here is not None and here.wants_key())
                if here is not None:
                    outer.append(here)
                here = _Open(value, count)
                if count:
                    continue
            elif here is not None:
                here.take(value)
            # what is full is an entry of what is around it
            while here is not None and not here.left:
                value = here.container
                here = outer.pop() if outer else None
                if here is not None:
                    here.take(value)
            if here is None:
                break
        if self.position != self.size:
            _malformed(f"{self.size - self.position} bytes follow the value", self.position)
        return value

    def value(self, start: int) -> tuple[Any, int]:
        """Read a scalar, with -1, or the head of a container: an empty one, and how many entries it will have."""
        if start >= self.size:
            _malformed("the data ends where a value should begin", start)
        first = self.data[start]
        self.position = start + 1
        if 0xA0 <= first < 0xC0:
            kind, count = _STR, first & 0x1F
            self.need(count, start)
        elif _FIXED[first]:
            return self.scalar(first, start), -1
        else:
            kind, count = self.head(start)
        if kind is _ARRAY:
            return [], count
        if kind is _MAP:
            return {}, count
        begin = self.position
        self.position += count
        if kind is _EXTENSION:
            return self.extension(begin, count, start), -1
        data = self.data[begin : self.position]
        if kind is _BIN:
            return data, -1
        try:
            return data.decode(), -1
        except UnicodeDecodeError:
            _malformed("a str is not valid UTF-8", start)

    def scalar(self, first: int, start: int) -> Any:
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first == 0xC0:
            return None
        if first <= 0xC3:
            return first == 0xC3
        if first <= 0xCB:
            form = _single if first == 0xCA else _double
            self.need(form.size, start)
            self.position += form.size
            return form.unpack_from(self.data, start + 1)[0]
        return self.number(1 << (first & 3), start, signed=first >= 0xD0)

    def extension(self, begin: int, size: int, start: int) -> datetime:
        if self.code != -1:
            _malformed(f"extension type {self.code} is not known", start)
        data = self.data
        nanoseconds = 0
        if size == 4:
            seconds = int.from_bytes(data[begin : begin + 4], "big")
        elif size == 8:
            word = int.from_bytes(data[begin : begin + 8], "big")
            nanoseconds, seconds = word >> 34, word & 0x3FFFFFFFF
        elif size == 12:
            nanoseconds = int.from_bytes(data[begin : begin + 4], "big")
            seconds = int.from_bytes(data[begin + 4 : begin + 12], "big", signed=True)
        else:
            _malformed(f"a timestamp of {size} bytes", start)
        if nanoseconds > 999_999_999:
            _malformed(f"a timestamp with {nanoseconds} nanoseconds", start)
        try:
            return _EPOCH + timedelta(0, seconds, nanoseconds // 1000)
        except OverflowError:
            _malformed("a timestamp outside the years 1 to 9999", start)


class _Open:
    """A container that is being filled."""

    __slots__ = ("container", "key", "left")

    def __init__(self, container: Any, left: int) -> None:
        self.container = container
        self.left = left
        self.key = _NOTHING

    def wants_key(self) -> bool:
        return type(self.container) is dict and self.key is _NOTHING

    def take(self, value: Any) -> None:
        if type(self.container) is list:
            self.container.append(value)
        elif self.key is _NOTHING:
            self.key = value
            return
        else:
            self.container[self.key] = value
            self.key = _NOTHING
        self.left -= 1
