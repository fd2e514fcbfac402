"""Conversion of what MessagePack cannot write as it is.

`leaf` converts one value. `converted` converts a whole document, and names the path of a value that is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from ..errors import PayloadError
from .plain import Packed, Unencodable, located, payload_error, plain, plain_key

__all__ = ["MAX_DEPTH", "converted", "leaf", "moment"]

MAX_DEPTH = 128
_MAX_COUNT = 0xFFFFFFFF
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def converted(value: Any) -> Any:
    """Return a copy of a value that consists of builtins and `Packed`. Raises `PayloadError`: it cannot be encoded; the message gives the path."""
    try:
        return _converted(value, 0)
    except Exception as error:
        refused = payload_error(error)
        raise refused from refused.__cause__


def _converted(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        try:
            size = len(value) if value.isascii() else len(value.encode())
        except UnicodeEncodeError:
            raise Unencodable("a str with a lone surrogate is not valid UTF-8") from None
        _check_size(size)
        return value
    if value is None or kind is bool or kind is float or kind is Packed:
        return value
    if kind is int:
        if not -(1 << 63) <= value < 1 << 64:
            raise Unencodable("an int outside -2**63 ... 2**64-1 cannot be encoded")
        return value
    if kind is dict or kind is list or kind is tuple:
        return _converted_container(value, depth)
    if kind is bytes:
        _check_size(len(value))
        return value
    return _converted(leaf(value), depth)


def leaf(value: Any) -> Any:
    """Return what stands for a value that is no builtin of MessagePack, one level deep. Raises `Unencodable`: nothing stands for it."""
    value = plain(value)
    kind = type(value)
    if kind is datetime:
        if value.utcoffset() is None:
            raise Unencodable("a datetime without tzinfo names no moment: give it one, e.g. tzinfo=timezone.utc")
        delta = value - _EPOCH
        return _packed_time(delta.days * 86400 + delta.seconds, delta.microseconds * 1000)
    if kind is memoryview:
        if not value.c_contiguous:
            raise Unencodable("a memoryview that is not contiguous cannot be encoded")
        return value.tobytes()
    return bytes(value) if kind is bytearray else value


def _check_size(size: int) -> None:
    if size > _MAX_COUNT:
        raise Unencodable("longer than 2**32-1 bytes")


def _converted_container(value: Any, depth: int) -> Any:
    count = len(value)
    is_dict = type(value) is dict
    if depth >= MAX_DEPTH:
        raise Unencodable(f"nested deeper than {MAX_DEPTH} containers (or it contains itself)")
    if count > _MAX_COUNT:
        raise Unencodable("more than 2**32-1 items")
    keys: list[Any] = []
    items: list[Any] = []
    step: Any = None
    try:
        for step, item in list(value.items()) if is_dict else enumerate(islice(value, count)):
            if is_dict:
                keys.append(_converted(step if type(step) is str else plain_key(step), MAX_DEPTH))
            items.append(_converted(item, depth + 1))
            if is_dict and len(value) != count:
                break
    except Exception as error:
        raise located(error, step) from error.__cause__
    if len(items) != count or len(value) != count:
        raise Unencodable(f"the {'dict' if is_dict else 'list'} changed its size while it was encoded")
    return dict(zip(keys, items, strict=True)) if is_dict else items


def _packed_time(seconds: int, nanoseconds: int) -> Packed:
    """Return the extension type -1 in the shortest form that holds it."""
    if not nanoseconds and not seconds >> 32:
        return Packed(b"\xd6\xff" + seconds.to_bytes(4))
    if not seconds >> 34:
        return Packed(b"\xd7\xff" + (nanoseconds << 34 | seconds).to_bytes(8))
    return Packed(b"\xc7\x0c\xff" + nanoseconds.to_bytes(4) + seconds.to_bytes(8, signed=True))


def moment(code: int, data: bytes, at: int) -> datetime:
    """Return the time that an extension holds, cut to microseconds; `at` is its offset. Raises `PayloadError`: it holds none."""
    nanoseconds = 0
    if code != -1:
        reason = f"extension type {code} is not known"
    elif len(data) not in (4, 8, 12):
        reason = f"a timestamp of {len(data)} bytes"
    else:
        seconds = int.from_bytes(data[-8:], signed=len(data) == 12)
        if len(data) == 8:
            nanoseconds, seconds = seconds >> 34, seconds & (1 << 34) - 1
        elif len(data) == 12:
            nanoseconds = int.from_bytes(data[:4])
        if nanoseconds <= 999_999_999:
            try:
                return _EPOCH + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
            except OverflowError:
                reason = "a timestamp outside the years 1 to 9999"
        else:
            reason = f"a timestamp with {nanoseconds} nanoseconds"
    raise PayloadError(f"not MessagePack: {reason} (at byte {at})")
