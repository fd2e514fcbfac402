"""MessagePack on the fallback: a short way through the C code of the `msgpack` package, in front of the reference `msgpack_py.py`.

What comes out is what the reference gives, or the reference runs. The package is imported on first use, and softly; what it does not take (tuples, dataclasses, datetimes; when it decodes, keys that are numbers) or refuses goes to the reference, which has the errors.

Encoding. A packer with `strict_types` takes exact builtins alone, in their shortest forms and without running a line of Python, so that nothing changes in between. Beyond the reference it takes values nested deeper, a memoryview as a key, and its own ExtType and Timestamp. Each of these leaves heads in the bytes: of containers, of bin, of extensions. So one pass of `bytes.translate` keeps the bytes that could be such a head; if few enough of containers and none of the others are left, the value is a plain one, and else a look at it tells.

Decoding. Heads that may stand for much (`CHECK_BYTES`, lists of 16 or 32 bits, which the package makes at once) go through the reference's check first. Depth again is bounded by the bytes that could be a container's head.

A packer is taken out of the pool while it works: a signal handler, `__del__` or another thread finds another or makes one.
"""

from __future__ import annotations

import builtins
import sysconfig
from builtins import type as type_of
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from ..errors import PayloadError
from . import msgpack_py, msgpack_read

__all__ = ["backend", "decode", "encode", "set_limits"]

_WIDE_LISTS = 4

_reference = msgpack_py.encode
_packs: list[Callable[[Any], bytes]] = []  # bound methods of packers that nobody uses
_take = _packs.pop
_packer: Any = None
_unpack: Any = None
_backend = ""
_few = 128
_easy = msgpack_read.CHECK_BYTES

# For `bytes.translate`: the bytes that cannot be a head that matters go, but for those that are rare anyway (each costs). The others
# become 0xFF where one is one too many: of bin, fixext, and of ext up to 255 bytes, and ASCII where not: nothing is asked faster.
# (0xC8, of longer ext, is so often the number 200 that it is looked for where it has room for its bytes: it has 4 and 256 at least.)
_CONTAINERS = frozenset(range(0x80, 0xA0)) | frozenset(range(0xDC, 0xE0))
_FREQUENT = bytes(range(0x20, 0x7F)) + bytes(range(0xA0, 0xC0)) + b"\x00\x01\x02\x3f\x40\xc0\xc2\xc3\xcb\xcc\xcd\xce"
_MARKS = bytes(
    0xFF if byte in (0xC4, 0xC5, 0xC7) or 0xD4 <= byte <= 0xD8 else
    1 if byte in _CONTAINERS else 0
    for byte in range(256)
)  # fmt: skip
_HEADS = bytes(0xFF if byte in (0xDC, 0xDD) else 1 if byte in _CONTAINERS else 0 for byte in range(256))

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_BUILTINS = _SCALARS | {bytearray, memoryview, dict, list, datetime}


def _no_dumps(value: Any) -> NoReturn:
    raise TypeError("orjson is not installed")


_dumps: Callable[[Any], bytes] = _no_dumps


class _NotC(Exception):
    """The package is there, but not as this module needs it."""


def _load() -> None:
    """Import the package, once, and see that it does what this module builds on."""
    global _backend, _dumps, _packer, _unpack
    try:
        import msgpack

        if msgpack.Packer.__module__ != "msgpack._cmsgpack":
            raise _NotC("msgpack has no C code here")
        _try_out(msgpack)
    except (ImportError, _NotC) as error:
        _backend = f"Python ({'msgpack is not installed' if isinstance(error, ImportError) else error})"
        return
    _unpack = msgpack.unpackb
    _backend = f"msgpack {'.'.join(map(str, msgpack.version))}"
    # without a GIL another thread could change a list while it is packed; frozendict is one type more than the reference takes
    if not sysconfig.get_config_var("Py_GIL_DISABLED") and not hasattr(builtins, "frozendict"):
        _packer = msgpack.Packer
        try:
            from orjson import dumps
        except ImportError:
            return
        _dumps = dumps


def _try_out(msgpack: Any) -> None:
    far = b"\xc7\x0c\xff" + bytes(4) + (86_400 << 32).to_bytes(8, "big")  # as many days as an int of C holds, and one
    try:
        if msgpack.Packer(strict_types=True, buf_size=64).pack({"a": [-1, b""]}) != b"\x81\xa1a\x92\xff\xc4\x00":
            raise _NotC("msgpack packs otherwise than it should")
        msgpack.unpackb(far, timestamp=3, ext_hook=_refuse_extension)
    except (ValueError, OverflowError):
        return
    except TypeError as error:
        raise _NotC(f"msgpack is too old: {error}") from error
    raise _NotC("msgpack is too old: it wraps timestamps beyond the year 9999")


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError(code)


def backend() -> str:
    """Who does the work, e.g. ``"msgpack 1.2.4"``."""
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
    # numbers as they are: names of them cost one percent each
    try:
        pack = _take()
    except IndexError:
        if _packer is None:
            return _reference(value) if _backend else _first(value)
        pack = _packer(strict_types=True, buf_size=4096).pack
    try:
        out: bytes = pack(value)
    except Exception:  # whatever it is, the reference says it better
        return _reference(value)
    if len(out) <= 4096:
        _packs.append(pack)  # never one whose buffer has grown
        marks = out.translate(_MARKS, _FREQUENT)
        if len(marks) <= 128 and ((marks.isascii() and 0xC8 not in out[:-259]) or _is_json(value)):
            return out
    return out if _is_plain(value, 128) else _reference(value)


def _first(value: Any) -> bytes:
    _load()
    return encode(value)


def _is_json(value: Any) -> bool:
    """Whether all parts are what orjson takes: it takes no bytes, and neither a memoryview nor a type of the package."""
    try:
        _dumps(value)
    except Exception:
        return False
    return True


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a value of what the package takes is one that the reference takes as well, and no deeper than that."""
    level = [value]
    try:
        for _ in range(depth + 1):
            kinds = set(map(type_of, level))
            if not kinds <= _BUILTINS:
                return False
            if dict not in kinds and list not in kinds:
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
        heads = data.translate(_HEADS, _FREQUENT)
        if len(heads) <= _few and heads.isascii():
            try:
                value = _unpack(data, timestamp=3, ext_hook=_refuse_extension)
            except Exception:  # whatever it is, the reference says it better
                value = msgpack_read.decode_whole(data)
        else:
            value = _decode(data, heads)
    else:
        value = _decode_long(data)
    if type is not None:
        from ..codec._convert import convert

        return convert(value, type)
    return value


def _decode(data: bytes, heads: bytes) -> Any:
    if heads.count(0xFF) > _WIDE_LISTS:
        # each would be made as long as it says it is
        try:
            msgpack_read.check(data)
        except PayloadError:
            return msgpack_read.decode_whole(data)
    try:
        value = _unpack(data, timestamp=3, ext_hook=_refuse_extension)
    except Exception:
        return msgpack_read.decode_whole(data)
    return value if _is_plain(value, msgpack_read.depth()) else msgpack_read.decode_whole(data)


def _decode_long(given: bytes | bytearray | memoryview) -> Any:
    data = msgpack_read.whole(given)
    if not _backend:
        _load()
    if len(data) <= _easy:
        if _unpack is None:
            return msgpack_read.decode_whole(data)
        return _decode(data, data.translate(_HEADS, _FREQUENT))
    msgpack_read.check(data)
    if _unpack is not None:
        try:
            return _unpack(data, timestamp=3, ext_hook=_refuse_extension)
        except Exception:  # such as a key that is a number
            pass
    return msgpack_read.read(data)
