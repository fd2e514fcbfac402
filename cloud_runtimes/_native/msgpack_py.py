"""MessagePack over the package `msgpack`: the reference twin of the compiled kernel `_msgpack`, and what runs where that is not.

The package writes and reads. This module adds what differs here (github.com/msgpack/msgpack/blob/master/spec.md leaves it open):

* Everything is written in its shortest form. An int lies in -2**63 … 2**64-1; a float is written as 64 bits, NaN and infinities too.
* `plain.py` turns what is no builtin into one. An aware datetime is the extension type -1 (timestamp). `msgpack.Timestamp` and `msgpack.ExtType` are what the package makes of them.
* A key is a scalar: None, bool, int, float, str, bytes or a memoryview.
* Containers that are encoded nest up to 128 deep, which also ends what contains itself. A conversion is no level of its own. What is decoded keeps to `codec.limits`, by default as deep.
* A container whose size changes while its items are encoded is refused; only code of the user's own can change it.
* Input is one whole value. Nothing is allocated for a length that the rest of the data cannot hold. Input of more than 8 KiB is checked before the first object is made.
* Of equal keys the last wins. A timestamp becomes an aware datetime in UTC, cut to microseconds. Other extension types are refused.

The short way is one call of the package. The long way converts in Python first (`msgpack_plain.py`), and finds the path or the offset of what is refused.
"""

from __future__ import annotations

import sysconfig
from builtins import type as type_of
from codecs import utf_8_decode
from datetime import datetime
from typing import Any, NoReturn

from ..errors import PayloadError
from . import hooks
from .limits import DEFAULT, Limits, refuse
from .msgpack_plain import MAX_DEPTH, converted
from .plain import Packed

__all__ = ["backend", "decode", "encode", "set_limits"]

backend: str
"""Who does the work, e.g. ``"msgpack 1.2.4"``."""

try:
    from msgpack import Packer, unpackb, version

    backend = f"msgpack {'.'.join(map(str, version))}"
except ImportError:  # installed without dependencies: the rest works

    def _missing(*arguments: Any, **options: Any) -> NoReturn:
        raise ImportError("MessagePack needs the package msgpack: pip install msgpack")

    backend = "nothing (msgpack is not installed)"
    Packer = unpackb = _missing

_CHECK_BYTES = 8192  # of shorter input no value takes more than 1 MiB
# The package sizes a list before it reads the items. So many places a level, by the levels that there can be, stay below 1 MiB.
_PLACES, _PLACES_IF_DEEP = 512, 64
# bytes that begin no container: a value is at most as deep as it has others
_NO_HEADS = bytes(byte for byte in range(256) if not (0x80 <= byte < 0xA0 or 0xDC <= byte < 0xE0))

# without a GIL another thread could change a list while the package writes it
_SHORT_WAY = not sysconfig.get_config_var("Py_GIL_DISABLED")
_packers: list[Packer] = []  # each is used by one call at a time
_MAX_KEPT = 65_536  # a packer keeps the memory of the longest value that it wrote

_limits = DEFAULT
# up to here input can break no limit but the depth, and with so few heads not that
_easy = _CHECK_BYTES
_few = DEFAULT.depth


def set_limits(depth: int, items: int, size: int) -> None:
    """Set what `cloud_runtimes.codec.limits` holds."""
    global _easy, _few, _limits
    _limits = Limits(depth, items, size)
    _easy = min(_CHECK_BYTES, items, size)
    _few = min(DEFAULT.depth, depth)


def encode(value: Any) -> bytes:
    """Encode a value as MessagePack, every part in its shortest form.

    Besides MessagePack's own types: dataclasses, attrs classes and pydantic models (all fields, by alias), ``msgspec.Struct``, enum members (their value), aware datetimes (the timestamp extension), date and time (ISO 8601), UUID and Decimal (their str), tuples, sets (lists). Keys are scalars. Containers nest up to 128 deep.

    Raises:
        PayloadError: an int outside -2**63 … 2**64-1, a lone surrogate, a datetime without tzinfo, a set or another type; the message gives the path. What code of the user's own raised is its cause.
    """
    if _SHORT_WAY:
        try:
            packer = _packers.pop() if _packers else Packer(strict_types=True)
            short: bytes = packer.pack(value)
            if len(short) <= _MAX_KEPT:
                _packers.append(packer)
            if len(short.translate(None, _NO_HEADS)) <= MAX_DEPTH or _is_shallow(value, MAX_DEPTH):
                return short
        except Exception:  # the long way converts it, or says what is wrong
            pass
    packer = Packer(strict_types=True, default=_unpacked)
    long: bytes = packer.pack(converted(value))
    return long


def _unpacked(value: Packed) -> Any:
    return unpackb(value)


def _is_shallow(value: Any, limit: int) -> bool:
    """Whether a value nests no deeper than that; an error where it holds more than dicts, lists and leaves."""
    level = [value]
    for _ in range(limit + 1):
        level = [each for each in level if type_of(each) not in _LEAVES]
        if not level:
            return True
        level = [each for one in level for each in (one if type_of(one) is list else one.values())]
    return False


_SCALARS = frozenset({type_of(None), bool, int, float, str, bytes, bytearray})
_LEAVES = _SCALARS | {datetime}


def decode(data: bytes | bytearray | memoryview, *, type: Any = None) -> Any:
    """Decode one MessagePack value that fills `data`.

    Args:
        data: contiguous bytes.
        type: what to convert the result into, strictly (see `cloud_runtimes.codec.convert`); None leaves it.

    Raises:
        PayloadError: not one whole MessagePack value (with the offset), beyond `cloud_runtimes.codec.limits`, or not of `type` (with the path).
        InvalidArgumentError: `type` is no supported annotation.
    """
    is_read = False
    try:
        if len(data) <= _easy and len(data.translate(None, _NO_HEADS)) <= _few:  # type: ignore[union-attr]
            value = unpackb(data, strict_map_key=False, timestamp=3, ext_hook=_no_extension, max_array_len=_PLACES)
            is_read = True
    except Exception:  # a memoryview, or input whose fault the long way finds
        pass
    if not is_read:
        value = _decode_long(data)
    return value if type is None else hooks.convert(value, type)


def _contiguous(data: Any) -> bytes:
    try:
        view = memoryview(data)
        if not view.c_contiguous:
            raise BufferError
        return view.tobytes()
    except (TypeError, BufferError, ValueError):
        raise PayloadError(f"cannot decode {type_of(data).__name__}: give contiguous bytes") from None


def _no_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError(code)


def _decode_long(data: Any) -> Any:
    if type_of(data) is not bytes:
        return decode(_contiguous(data))
    if len(data) <= _easy:
        try:
            limit = _PLACES_IF_DEEP
            value = unpackb(data, strict_map_key=False, timestamp=3, ext_hook=_no_extension, max_array_len=limit)
            if _is_shallow(value, _limits.depth):
                return value
        except Exception:  # the check has the offset
            pass
    elif len(data) > _limits.bytes:
        refuse("MessagePack", "bytes", _limits.bytes)
    _check(data, _limits)
    try:
        return unpackb(data, strict_map_key=False, timestamp=3)
    except ValueError as error:  # the package's pure form has the interpreter's stack as a limit of its own
        raise PayloadError(f"not MessagePack: {error}") from error


# ---- checking, before anything is decoded: one loop over the heads, without recursion and without making values. It finds the first fault in the order of reading, with its offset, and counts what the limits count ----

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


def _check(data: bytes, limits: Limits) -> None:
    """Find the first fault. Raises `PayloadError`: not one whole value, or beyond a limit."""
    size, fixed = len(data), _FIXED
    room = limits.items
    outer: list[tuple[int, bool]] = []
    remaining, pairs = 1, False  # values still to come in the innermost container, and whether each second is a key
    at = 0
    while True:
        while remaining == 0:
            if not outer:
                if at != size:
                    _malformed(f"{size - at} bytes follow the value", at)
                return
            remaining, pairs = outer.pop()
        key = pairs and not remaining & 1
        remaining -= 1
        if at >= size:
            _malformed("the data ends where a value should begin", at)
        first = data[at]
        start, step = at, fixed[first]
        if step:
            at = _advance(data, at, step, start)
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
            outer.append((remaining, pairs))
            pairs = kind is _MAP
            remaining = 2 * count if pairs else count
            continue
        if kind is _STR:
            _check_text(data, at, at + count, start)
        elif kind is _EXTENSION:
            _check_extension(data, at, count, start)
        at += count


def _malformed(reason: str, at: int) -> NoReturn:
    raise PayloadError(f"not MessagePack: {reason} (at byte {at})")


def _advance(data: bytes, at: int, count: int, start: int) -> int:
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
        at = _advance(data, at, width, start)
        count = int.from_bytes(data[at - width : at], "big")
    if kind is _EXTENSION:
        at = _advance(data, at, 1, start)  # its code
    _advance(data, at, 2 * count if kind is _MAP else count, start)
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
