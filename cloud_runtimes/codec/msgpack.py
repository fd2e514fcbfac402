"""MessagePack: the kernel's bytes, with conversion into a type.

The rules (forms, limits, timestamps) stand in `cloud_runtimes/_native/msgpack_py.py`, what values become in `plain.py` beside it.
"""

from __future__ import annotations

from builtins import type as _type
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .._native import hooks
from .._native import msgpack as _kernel
from . import json  # noqa: F401  has what `type` is converted by

__all__ = ["decode", "encode"]

T = TypeVar("T")

# no function of ours around it: that would cost a fifth of what a small event takes
encode = _kernel.encode


def _layout(cls: Any) -> tuple[Any, ...] | None:
    from ._plans import layout

    return layout(cls)


hooks.layout = _layout

if TYPE_CHECKING:

    @overload
    def decode(data: bytes | bytearray | memoryview, *, type: _type[T]) -> T: ...

    @overload
    def decode(data: bytes | bytearray | memoryview, *, type: Any = None) -> Any: ...

    def decode(data: bytes | bytearray | memoryview, *, type: Any = None) -> Any: ...

else:
    decode = _kernel.decode
