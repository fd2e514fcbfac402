"""MessagePack: the kernel's bytes, with conversion into a type.

The rules (forms, limits, timestamps) stand in `cloud_runtimes/_native/msgpack_py.py`, what values become in `_plain.py`.
"""

from __future__ import annotations

from builtins import type as _type
from typing import Any, TypeVar, overload

from .._native import msgpack as _kernel
from ._convert import convert

__all__ = ["decode", "encode"]

T = TypeVar("T")


def encode(value: Any) -> bytes:
    """Encode a value as MessagePack, every part in its shortest form.

    Besides MessagePack's own types: dataclasses (all fields), pydantic models, enum members (their value), aware datetimes (the timestamp extension), date and time (ISO 8601), UUID and Decimal (their str), tuples. Keys are None, bool, int, float, str or bytes. Containers nest up to 128 deep.

    Raises:
        PayloadError: an int outside -2**63 … 2**64-1, a lone surrogate, a datetime without tzinfo, a set or another type; the message gives the path. What code of the user's own raised is its cause.
    """
    encoded: bytes = _kernel.encode(value)
    return encoded


@overload
def decode(data: bytes | bytearray | memoryview, *, type: _type[T]) -> T: ...


@overload
def decode(data: bytes | bytearray | memoryview, *, type: Any = None) -> Any: ...


def decode(data: bytes | bytearray | memoryview, *, type: Any = None) -> Any:
    """Decode one MessagePack value that fills `data`.

    Args:
        data: contiguous bytes.
        type: what to convert the result into, strictly (see `cloud_runtimes.codec._convert`); None leaves it.

    Raises:
        PayloadError: not one whole MessagePack value (with the offset), or not of `type` (with the path).
        InvalidArgumentError: `type` is no supported annotation.
    """
    value = _kernel.decode(data)
    return value if type is None else convert(value, type)
