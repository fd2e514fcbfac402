"""JSON: orjson where it is installed, else the standard library by the same rules (`_json_std.py`).

What differs from plain orjson: NaN and infinities are refused instead of written as null; results are copied, because a result of orjson keeps the 4 KB it was written into; dataclasses, dates and times are converted here and not by orjson, which skips fields that begin with an underscore, rounds UTC offsets to minutes and dies with the process when an attribute or a tzinfo fails.
"""

from __future__ import annotations

from builtins import type as _type
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .._native import hooks, json_backend
from .._native import payload as _kernel
from ..errors import PayloadError
from . import _json_std
from ._json_std import default

__all__ = ["backend", "decode", "encode"]

T = TypeVar("T")

# no functions of ours around the kernel's: each would cost a tenth of a small event
encode: Callable[[Any], bytes]
_decode: Callable[..., Any]


def reader() -> tuple[Any, ...]:
    """Return the arguments for `use` of a kernel, which sets how it writes and reads JSON."""
    import orjson

    options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
    return orjson.dumps, default, options, _explain, orjson.loads


def _plan(annotation: Any) -> Any:
    from ._plans import plan

    return plan(annotation)


def _shapes(cls: Any, known: dict[_type, Any]) -> None:
    from ._plans import shapes

    shapes(cls, known)


hooks.plan, hooks.shapes = _plan, _shapes


def _with_orjson() -> tuple[Callable[[Any], bytes], Callable[..., Any]]:
    _kernel.use(*reader())
    return _kernel.encode_json, _kernel.decode_json


def _explain(value: Any, error: Exception) -> BaseException:
    # orjson names a type at best. The reference encoder finds the place; it runs conversions again, which only an error pays for.
    cause = error.__cause__
    if cause is not None and not isinstance(cause, Exception):
        return cause  # KeyboardInterrupt and the like say nothing about the value
    try:
        _json_std.encode(value)
    except PayloadError as refusal:
        return refusal
    unexplained = PayloadError(f"the value: {cause or error}")
    unexplained.__cause__ = cause
    return unexplained


backend = json_backend()
"""Who does the work, e.g. ``"orjson 3.13.0"``."""

try:
    encode, _decode = _with_orjson()
except ImportError:
    encode, _decode = _json_std.encode, _json_std.decode_into


if TYPE_CHECKING:

    @overload
    def decode(data: bytes | bytearray | memoryview | str, *, type: _type[T]) -> T: ...

    @overload
    def decode(data: bytes | bytearray | memoryview | str, *, type: Any = None) -> Any: ...

    def decode(data: bytes | bytearray | memoryview | str, *, type: Any = None) -> Any:
        """Decode one JSON document (RFC 8259).

        An integer beyond 64 bits becomes a float; of equal keys the last wins. Refused are a byte order mark, NaN and Infinity, numbers beyond a double's range, lone surrogates, and what is beyond `cloud_runtimes.codec.limits`: by default deeper than 128 (though `encode` goes down to 254), of more than 1,000,000 items or longer than 64 MiB.

        Args:
            data: UTF-8 bytes, or a str.
            type: what to convert the result into, strictly (see `cloud_runtimes.codec.convert`); None leaves it.

        Raises:
            PayloadError: not JSON (with the position), beyond a limit, or not of `type` (with the path).
            InvalidArgumentError: `type` is no supported annotation.
        """

else:
    decode = _decode
