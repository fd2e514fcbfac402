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

# no function of ours around it: that would cost a fifth of what a small event takes
encode = _kernel.encode
_decode = _kernel.decode


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
    value = _decode(data)
    return value if type is None else convert(value, type)
