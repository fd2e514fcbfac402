"""MessagePack, the reference twin of the compiled kernel `_msgpack`: what this file does, that one does, byte for byte and error for error.

Rules (github.com/msgpack/msgpack/blob/master/spec.md):

* Everything is written in its shortest form. An int lies in -2**63 … 2**64-1; a float is written as 64 bits, NaN and infinities too.
* What is no builtin is first turned into one by `codec/_plain.py`. An aware datetime is the extension type -1 (timestamp).
* Containers that are encoded nest up to 128 deep; that also ends what contains itself. A conversion of `_plain` is no level of its own. What is decoded keeps to `codec.limits`, by default as deep.
* A container whose size changes while its items are encoded (only code of the user's own can do that) is refused.
* Input is one whole value. Nothing is allocated for a length that the rest of the data cannot hold. Longer input (`CHECK_BYTES`) is gone through before the first object is made: what is refused then has cost its length at most.
* Of equal keys the last wins. A timestamp becomes an aware datetime in UTC, cut to microseconds.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

from ..codec._plain import Refused, located, payload_error, plain, plain_key
from .msgpack_read import CHECK_BYTES, decode_whole, set_limits, whole

__all__ = ["CHECK_BYTES", "decode", "encode", "set_limits"]

_MAX_DEPTH = 128
_MAX_COUNT = 0xFFFFFFFF
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_double = struct.Struct(">d")


def encode(value: Any) -> bytes:
    """Encode a value as MessagePack, every part in its shortest form.

    Besides MessagePack's own types: dataclasses (all fields), pydantic models, enum members (their value), aware datetimes (the timestamp extension), date and time (ISO 8601), UUID and Decimal (their str), tuples. Keys are None, bool, int, float, str or bytes. Containers nest up to 128 deep.

    Raises:
        PayloadError: an int outside -2**63 … 2**64-1, a lone surrogate, a datetime without tzinfo, a set or another type; the message gives the path. What code of the user's own raised is its cause.
    """
    out = bytearray()
    try:
        _write(out, value, 0)
    except Exception as error:
        refused = payload_error(error)
        raise refused from refused.__cause__
    return bytes(out)


def _write(out: bytearray, value: Any, depth: int) -> None:
    kind = type(value)
    if kind is str:
        _write_str(out, value)
    elif value is None:
        out.append(0xC0)
    elif kind is bool:
        out.append(0xC3 if value else 0xC2)
    elif kind is int:
        _write_int(out, value)
    elif kind is float:
        out.append(0xCB)
        out += _double.pack(value)
    elif kind is dict:
        _write_dict(out, value, depth)
    elif kind is list or kind is tuple:
        _write_sequence(out, value, depth)
    elif kind is bytes:
        _write_bin(out, value)
    elif kind is datetime:
        _write_timestamp(out, value)
    elif kind is bytearray or kind is memoryview:
        view = memoryview(value)
        if not view.c_contiguous:
            raise Refused("a memoryview that is not contiguous cannot be encoded")
        _write_bin(out, view.tobytes())
    else:
        _write(out, plain(value), depth)


def _write_int(out: bytearray, value: int) -> None:
    if -32 <= value < 128:
        out.append(value & 0xFF)
        return
    # tag, bytes, lowest and highest of each form, the narrowest first
    for tag, width, low, high in _INT_FORMS:
        if low <= value <= high:
            out.append(tag)
            out += value.to_bytes(width, "big", signed=value < 0)
            return
    raise Refused("an int outside -2**63 ... 2**64-1 cannot be encoded")


_INT_FORMS = [(0xCC + i, 1 << i, 0, (1 << (8 << i)) - 1) for i in range(4)]
_INT_FORMS += [(0xD0 + i, 1 << i, -(1 << ((8 << i) - 1)), -1) for i in range(4)]


def _write_str(out: bytearray, value: str) -> None:
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise Refused("a str with a lone surrogate is not valid UTF-8") from None
    size = len(data)
    if size < 32:
        out.append(0xA0 | size)
    else:
        _write_length(out, size, 0xD9)
    out += data


def _write_bin(out: bytearray, data: bytes) -> None:
    _write_length(out, len(data), 0xC4)
    out += data


def _write_length(out: bytearray, size: int, tag: int) -> None:
    # str and bin: three tags in a row, for 8, 16 and 32 bits
    if size > _MAX_COUNT:
        raise Refused("longer than 2**32-1 bytes")
    index = 0 if size <= 0xFF else 1 if size <= 0xFFFF else 2
    out.append(tag + index)
    out += size.to_bytes(1 << index, "big")


def _write_head(out: bytearray, count: int, fix: int, wide: int, depth: int) -> None:
    if depth >= _MAX_DEPTH:
        raise Refused(f"nested deeper than {_MAX_DEPTH} containers (or it contains itself)")
    if count > _MAX_COUNT:
        raise Refused("more than 2**32-1 items")
    if count < 16:
        out.append(fix | count)
    elif count <= 0xFFFF:
        out.append(wide)
        out += count.to_bytes(2, "big")
    else:
        out.append(wide + 1)
        out += count.to_bytes(4, "big")


def _write_dict(out: bytearray, value: dict[Any, Any], depth: int) -> None:
    count = len(value)
    written = 0
    key: Any = None
    _write_head(out, count, 0x80, 0xDE, depth)
    try:
        for key, item in list(value.items()):
            if type(key) is str:
                _write_str(out, key)
            else:
                _write(out, plain_key(key), _MAX_DEPTH)
            _write(out, item, depth + 1)
            written += 1
            if len(value) != count:
                break
    except Exception as error:
        raise located(error, key) from error.__cause__
    if written != count or len(value) != count:
        raise Refused("the dict changed its size while it was encoded")


def _write_sequence(out: bytearray, value: list[Any] | tuple[Any, ...], depth: int) -> None:
    count = len(value)
    index = 0
    _write_head(out, count, 0x90, 0xDC, depth)
    try:
        while index < count and index < len(value):
            _write(out, value[index], depth + 1)
            index += 1
    except Exception as error:
        raise located(error, index) from error.__cause__
    if index != count or len(value) != count:
        raise Refused("the list changed its size while it was encoded")


def _write_timestamp(out: bytearray, value: datetime) -> None:
    if value.utcoffset() is None:
        raise Refused("a datetime without tzinfo names no moment: give it one, e.g. tzinfo=timezone.utc")
    delta = value - _EPOCH
    seconds = delta.days * 86400 + delta.seconds
    nanoseconds = delta.microseconds * 1000
    if 0 <= seconds <= 0xFFFFFFFF and nanoseconds == 0:
        out += b"\xd6\xff" + seconds.to_bytes(4, "big")
    elif 0 <= seconds < 1 << 34:
        out += b"\xd7\xff" + (nanoseconds << 34 | seconds).to_bytes(8, "big")
    else:
        out += b"\xc7\x0c\xff" + nanoseconds.to_bytes(4, "big") + seconds.to_bytes(8, "big", signed=True)


def decode(data: bytes | bytearray | memoryview, *, type: Any = None) -> Any:
    """Decode one MessagePack value that fills `data`.

    Args:
        data: contiguous bytes.
        type: what to convert the result into, strictly (see `cloud_runtimes.codec._convert`); None leaves it.

    Raises:
        PayloadError: not one whole MessagePack value (with the offset), beyond `cloud_runtimes.codec.limits`, or not of `type` (with the path).
        InvalidArgumentError: `type` is no supported annotation.
    """
    value = decode_whole(whole(data))
    if type is not None:
        from ..codec._convert import convert

        return convert(value, type)
    return value
