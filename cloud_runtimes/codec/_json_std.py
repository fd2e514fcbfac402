"""JSON by the standard library: the reference of the rules, the fallback without orjson, and the one that finds the path of an error.

`encode` writes the same bytes as `json.encode` over orjson does, floats included: the shortest digits that read back, in orjson's choice of notation. `decode` takes the scanner of the standard library and takes away what it allows beyond RFC 8259.
"""

from __future__ import annotations

import json
import re
from json.encoder import encode_basestring as _quote
from math import isfinite
from typing import Any, NoReturn

from .._native.json_limits import check
from .._native.plain import NONFINITE, Unencodable, has_nonfinite, located, payload_error, plain
from ..errors import PayloadError
from .convert import convert

_MAX_ENCODE_DEPTH = 254  # orjson's


def default(value: Any) -> Any:
    """Return a JSON value for a value that orjson does not write by itself (or shall not).

    Raises `Unencodable`: there is none, or something in it is NaN or an infinity (orjson would write null)."""
    result = plain(value, json=True)
    kind = type(result)
    if kind is bytes or kind is bytearray or kind is memoryview:
        raise Unencodable(
            f"{kind.__name__} has no form in JSON: give the bytes as the whole payload, or use application/msgpack"
        )
    if has_nonfinite(result):
        raise Unencodable(NONFINITE)
    return result


def encode(value: Any) -> bytes:
    """Encode as `json.encode` does. Raises `PayloadError`: with the path."""
    out: list[str] = []
    try:
        _write(out, value, 0)
    except Exception as error:
        refused = payload_error(error)
        raise refused from refused.__cause__
    return "".join(out).encode()


def _write(out: list[str], value: Any, depth: int) -> None:
    kind = type(value)
    if kind is str:
        out.append(_string(value))
    elif value is None:
        out.append("null")
    elif kind is bool:
        out.append("true" if value else "false")
    elif kind is int:
        if not -0x8000000000000000 <= value <= 0xFFFFFFFFFFFFFFFF:
            raise Unencodable("an int outside -2**63 ... 2**64-1 cannot be encoded")
        out.append(repr(value))
    elif kind is float:
        out.append(_number(value))
    elif kind is dict or kind is list or kind is tuple:
        _write_container(out, value, depth)
    else:
        value = plain(value, json=True)
        if type(value) in (bytes, bytearray, memoryview):
            default(value)
        _write(out, value, depth)


def _write_container(out: list[str], value: Any, depth: int) -> None:
    if depth >= _MAX_ENCODE_DEPTH:
        raise Unencodable(f"nested deeper than {_MAX_ENCODE_DEPTH} containers (or it contains itself)")
    is_dict = type(value) is dict
    opening, closing = "{}" if is_dict else "[]"
    mark = opening
    step: Any = None
    try:
        for step, item in list(value.items()) if is_dict else enumerate(list(value)):
            out.append(mark)
            if is_dict:
                if type(step) is not str:
                    raise Unencodable(
                        f"a key of type {type(step).__name__} cannot be encoded: JSON's keys are str; application/msgpack has others"
                    )
                out += (_string(step), ":")
            _write(out, item, depth + 1)
            mark = ","
    except Exception as error:
        raise located(error, step) from None
    out.append(opening + closing if mark == opening else closing)


def _string(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unencodable("a str with a lone surrogate is not valid UTF-8") from None
    return _quote(value)


def _number(value: float) -> str:
    if not isfinite(value):
        raise Unencodable(NONFINITE)
    text = repr(value)
    if "e" not in text:
        return text
    # repr turns to an exponent below 1e-4 and pads it; orjson turns below 1e-5 and does not
    digits, _, exponent = text.partition("e")
    if int(exponent) == -5:
        sign = "-" if digits[0] == "-" else ""
        return f"{sign}0.0000{digits.lstrip('-').replace('.', '')}"
    return f"{digits}e{int(exponent):+d}"


def _refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    raise PayloadError(f"not JSON: {reason}") from cause


def _constant(name: str) -> NoReturn:
    _refuse(f"{name} is no number in JSON")


def _float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        _refuse(f"{text[:40]} is beyond the range of a double")
    return value


def _int(text: str) -> int | float:
    if len(text) <= 20:
        value = int(text)
        if -0x8000000000000000 <= value <= 0xFFFFFFFFFFFFFFFF:
            return value
    return _float(text)


_scan = json.JSONDecoder(parse_float=_float, parse_int=_int, parse_constant=_constant).decode
_surrogates = re.compile(r"\\u[dD][89a-fA-F]")


def decode(data: bytes | bytearray | memoryview | str) -> Any:
    """Decode as `json.decode` does, without a type. Raises `PayloadError`: with the position."""
    check(data)
    try:
        text = data if isinstance(data, str) else _contiguous(data).decode()
        text.isascii() or text.encode()  # a str may hold a lone surrogate
    except UnicodeError as error:
        _refuse(f"not valid UTF-8: {error}", error)
    except (TypeError, ValueError, BufferError):
        _refuse(f"cannot decode {type(data).__name__}: give bytes or a str")
    if text.startswith("\ufeff"):
        _refuse("a byte order mark is not allowed (char 0)")
    try:
        value = _scan(text)
    except PayloadError:
        raise
    except ValueError as error:
        _refuse(str(error), error)
    except RecursionError:
        _refuse("nested deeper than the interpreter's stack has room for")
    if _surrogates.search(text):
        _check_strings(value)
    return value


def decode_into(data: bytes | bytearray | memoryview | str, *, type: Any = None) -> Any:
    """Decode as `json.decode` does."""
    value = decode(data)
    return value if type is None else convert(value, type)


def _contiguous(data: bytes | bytearray | memoryview) -> bytes:
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError
    return view.tobytes()


def _check_strings(value: Any) -> None:
    # an escape may leave half of a pair behind, which no UTF-8 can hold
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError:
                _refuse("a lone surrogate in a string")
        elif isinstance(item, dict):
            todo.extend(item)
            todo.extend(item.values())
        elif isinstance(item, list):
            todo.extend(item)
