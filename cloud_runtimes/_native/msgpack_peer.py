"""MessagePack on the fallback: a short way through the C code of other packages, in front of the reference `msgpack_py.py`.

What comes out is what the reference gives, or the reference runs. The packages are imported on first use, and softly; what they do not take (tuples, dataclasses, encoding datetimes; when decoding, keys that are no text) or refuse goes to the reference, which has the errors.

Encoding. `ormsgpack` with all its options to pass types through takes exact builtins with keys of text, in their shortest forms and without running a line of Python, so that nothing changes in between. Beyond the reference it takes its own `Ext` and `Fragment`, and values nested deeper. What `orjson` takes as well holds neither; and what it writes with two spaces a level is long where it is deep, each level on a line of its own, and has a line that begins so far to the right. Where it refuses (bytes) or that line is there, a look at the value tells; as it does for keys that are no text.

Decoding. `ormsgpack` says nothing of bytes behind the value. So it decodes a list of two, the document and a mark that nobody outside knows: if that is the second item, the first was whole. Longer documents (`CHECK_BYTES`) go through the reference's check first, which leaves no such question. The depth is bounded by the bytes that could be the head of a container.
"""

from __future__ import annotations

import builtins
import os
import sysconfig
from builtins import type as type_of
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from . import msgpack_py, msgpack_read

__all__ = ["backend", "decode", "encode", "set_limits"]

# before, each document that was refused left its values in memory, and a long list could end the process
_OLDEST = (1, 13)

_reference = msgpack_py.encode
_pack: Any = None
_unpack: Any = None
_plain = _plain_keys = _moments = _moments_keys = _indented = 0  # options of the packages
_backend = ""
_few = 128
_easy = msgpack_read.CHECK_BYTES

_NO_HEADS = bytes(byte for byte in range(256) if not (0x80 <= byte < 0xA0 or 0xDC <= byte < 0xE0))
_SHALLOW = sum(range(0, 2 * 128, 2))  # bytes of JSON with indentation: 129 levels take more
_DEEP = b"\n" + b" " * 256  # what is in 128 containers
_MARK = os.urandom(16)
_END = b"\xc4\x10" + _MARK

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_ENCODED = _SCALARS | {bytearray, memoryview, dict, list}
_DECODED = _SCALARS | {dict, list, datetime}


def _no_dumps(value: Any, default: Any, option: int) -> NoReturn:
    raise TypeError("orjson is not installed")


_dumps: Callable[[Any, Any, int], bytes] = _no_dumps


class _NotC(Exception):
    """The package is there, but not as this module needs it."""


def _load() -> None:
    """Import the packages, once, and see that they do what this module builds on."""
    global _backend, _dumps, _indented, _moments, _moments_keys, _pack, _plain, _plain_keys, _unpack
    try:
        import ormsgpack

        if tuple(map(int, ormsgpack.__version__.split(".")[:2])) < _OLDEST:
            raise _NotC(f"ormsgpack {ormsgpack.__version__} is too old: it needs {'.'.join(map(str, _OLDEST))}")
        plain = 0
        for kind in ("BIG_INT", "DATACLASS", "DATETIME", "ENUM", "SUBCLASS", "TUPLE", "UUID"):
            plain |= getattr(ormsgpack, f"OPT_PASSTHROUGH_{kind}")
        moments = ormsgpack.OPT_DATETIME_AS_TIMESTAMP_EXT
    except (ImportError, _NotC) as error:
        _backend = f"Python ({'ormsgpack is not installed' if isinstance(error, ImportError) else error})"
        return
    _plain, _plain_keys = plain, plain | ormsgpack.OPT_NON_STR_KEYS
    _moments, _moments_keys = moments, moments | ormsgpack.OPT_NON_STR_KEYS
    _unpack = ormsgpack.unpackb
    _backend = f"ormsgpack {ormsgpack.__version__}"
    # without a GIL another thread could change a list after it was packed; frozendict is one type more than the reference takes
    if not sysconfig.get_config_var("Py_GIL_DISABLED") and not hasattr(builtins, "frozendict"):
        _pack = ormsgpack.packb
        try:
            import orjson
        except ImportError:
            return
        _dumps, _indented = orjson.dumps, orjson.OPT_INDENT_2


def backend() -> str:
    """Who does the work, e.g. ``"ormsgpack 1.13.1"``."""
    if not _backend:
        _load()
    return _backend


def set_limits(depth: int, items: int, size: int) -> None:
    """Set what `cloud_runtimes.codec.limits` holds."""
    global _easy, _few
    msgpack_py.set_limits(depth, items, size)
    _few = min(128, depth)
    _easy = min(msgpack_read.CHECK_BYTES, items, size)


def encode(value: Any) -> bytes:
    """Encode a value as MessagePack, every part in its shortest form.

    Besides MessagePack's own types: dataclasses (all fields), pydantic models, enum members (their value), aware datetimes (the timestamp extension), date and time (ISO 8601), UUID and Decimal (their str), tuples. Keys are None, bool, int, float, str or bytes. Containers nest up to 128 deep.

    Raises:
        PayloadError: an int outside -2**63 … 2**64-1, a lone surrogate, a datetime without tzinfo, a set or another type; the message gives the path. What code of the user's own raised is its cause.
    """
    out: bytes | None = None
    try:
        out = _pack(value, None, _plain)
        text = _dumps(value, None, _indented)
        if len(text) <= _SHALLOW or _DEEP not in text:
            return out
    except Exception:  # whatever it is, the reference says it better
        pass
    return _encode_other(value, out)


def _encode_other(value: Any, out: bytes | None) -> bytes:
    """Encode what not both packages took, or what may be deep; `out` is the result if it is plain."""
    if not _backend:
        _load()
        return encode(value)
    if _pack is None or not _is_plain(value, 128, _ENCODED):
        return _reference(value)
    if out is None:
        try:
            out = _pack(value, None, _plain_keys)
        except Exception:
            return _reference(value)
    return out


def _is_plain(value: Any, depth: int, kinds: frozenset[type]) -> bool:
    """Whether all parts are of these types, keys are scalars, and it is no deeper than that."""
    level = [value]
    try:
        for _ in range(depth + 1):
            found = set(map(type_of, level))
            if not found <= kinds:
                return False
            if dict not in found and list not in found:
                return True
            inner: list[Any] = []
            for each in level:
                kind = type_of(each)
                if kind is dict:
                    if not _SCALARS.issuperset(map(type_of, each)):
                        return False
                    inner += each.values()
                elif kind is list:
                    inner += each
            level = inner
    except RuntimeError:  # another thread changes it
        pass
    return False


def decode(data: bytes | bytearray | memoryview, *, type: Any = None) -> Any:
    """Decode one MessagePack value that fills `data`.

    Args:
        data: contiguous bytes.
        type: what to convert the result into, strictly (see `cloud_runtimes.codec._convert`); None leaves it.

    Raises:
        PayloadError: not one whole MessagePack value (with the offset), beyond `cloud_runtimes.codec.limits`, or not of `type` (with the path).
        InvalidArgumentError: `type` is no supported annotation.
    """
    if type_of(data) is bytes and len(data) <= _easy and _unpack is not None:
        try:
            value, mark = _unpack(b"\x92" + data + _END, option=_moments)
            whole = mark == _MARK and (
                len(data.translate(None, _NO_HEADS)) <= _few or _is_plain(value, msgpack_read.depth(), _DECODED)
            )
        except Exception:  # whatever it is, the reference says it better
            whole = False
        if not whole:
            value = _decode_keys(data)
    else:
        value = _decode_other(data)
    if type is not None:
        from ..codec._convert import convert

        return convert(value, type)
    return value


def _decode_keys(data: bytes) -> Any:
    """Decode what was not taken: its keys may be numbers or bytes."""
    try:
        value, mark = _unpack(b"\x92" + data + _END, option=_moments_keys)
        if mark == _MARK and _is_plain(value, msgpack_read.depth(), _DECODED):
            return value
    except Exception:
        pass
    return msgpack_read.decode_whole(data)


def _decode_other(given: bytes | bytearray | memoryview) -> Any:
    data = msgpack_read.whole(given)
    if not _backend:
        _load()
    if len(data) <= _easy:
        return msgpack_read.decode_whole(data) if _unpack is None else decode(data)
    msgpack_read.check(data)
    if _unpack is None:
        return msgpack_read.read(data)
    try:
        return _unpack(data, option=_moments)
    except Exception:
        pass
    try:
        value = _unpack(data, option=_moments_keys)
        if _is_plain(value, msgpack_read.depth(), _DECODED):
            return value
    except Exception:
        pass
    return msgpack_read.read(data)
