"""Requests in OTLP's JSON, checked against the same table as those in protobuf (OTLP specification, "JSON Protobuf Encoding").

Integers come as numbers or decimal text, ids in hexadecimal, enums as numbers, bytes in base64; unknown names are ignored, ``null`` is an absent field. What comes out is what `cloud_runtimes.telemetry.json_records.records` makes of the same request in protobuf.
"""

from __future__ import annotations

import base64
import re
from binascii import Error as Base64Error
from typing import Any, Final

from ..codec import json
from ..errors import PayloadError, ResourceExhaustedError
from ..telemetry.json_records import MAX_DEPTH, MAX_PARTS, real
from ..telemetry.schema import MESSAGES

_TABLES: Final = {kind: dict(fields.values()) for kind, fields in MESSAGES.items()}
_BITS: Final = {
    "uint32": (0, 1 << 32),
    "fixed32": (0, 1 << 32),
    "enum": (-(1 << 31), 1 << 31),
    "sint32": (-(1 << 31), 1 << 31),
    "uint64": (0, 1 << 64),
    "fixed64": (0, 1 << 64),
    "int64": (-(1 << 63), 1 << 63),
    "sfixed64": (-(1 << 63), 1 << 63),
}
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_REAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,400})(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})*", re.ASCII)


def decode(signal: str, body: bytes) -> dict[str, Any]:
    """Return a request in the one form of OTLP's JSON that is written here.

    Args:
        signal: ``"traces"``, ``"logs"`` or ``"metrics"``.
        body: the JSON document.

    Raises:
        PayloadError: it is no JSON, or no request; names the field.
        ResourceExhaustedError: it has more than `MAX_PARTS` messages.
    """
    document = json.decode(body)
    if not isinstance(document, dict):
        raise PayloadError("no OTLP in JSON: the request must be an object")
    return _Reader().message(signal, document, 0)


class _Reader:
    """Reads one request."""

    def __init__(self) -> None:
        self._parts = 0

    def message(self, kind: str, given: Any, depth: int) -> dict[str, Any]:
        """Return a message with what it has of ``kind``."""
        if not isinstance(given, dict):
            raise PayloadError(f"no OTLP in JSON: a {kind} must be an object")
        if depth > MAX_DEPTH:
            raise PayloadError(f"no OTLP in JSON: objects are nested deeper than {MAX_DEPTH}")
        self._count()
        table = _TABLES[kind]
        result: dict[str, Any] = {}
        for name, value in given.items():
            form = table.get(name)
            if form is None or value is None:
                continue
            if form[0] != "[":
                result[name] = self._value(name, form, value, depth)
                continue
            if not isinstance(value, list):
                raise _wrong(name, "a list")
            if value:
                result[name] = [self._value(name, form[1:-1], each, depth) for each in value]
        return result

    def _count(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise ResourceExhaustedError(f"the request has more than {MAX_PARTS:,} parts: send smaller batches")

    def _value(self, name: str, form: str, value: Any, depth: int) -> Any:
        if form in MESSAGES:
            return self.message(form, value, depth + 1)
        if form in _BITS:
            return _integer(name, form, value)
        if form == "double":
            return _double(name, value)
        if form == "bool":
            if not isinstance(value, bool):
                raise _wrong(name, "true or false")
            return value
        if not isinstance(value, str):
            raise _wrong(name, "text")
        if form == "hex":
            if not _HEX.fullmatch(value):
                raise _wrong(name, "hexadecimal digits")
            return value.lower()
        if form == "base64":
            try:
                # the alphabet of URLs too, and without padding, as protobuf's own readers take it
                padded = value.rstrip("=").translate(_FROM_URL)
                return base64.b64encode(base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)).decode()
            except (Base64Error, ValueError):
                raise _wrong(name, "base64") from None
        return value


_FROM_URL: Final = str.maketrans("-_", "+/")


def _wrong(name: str, expected: str) -> PayloadError:
    return PayloadError(f"no OTLP in JSON: {name} must be {expected}")


def _integer(name: str, form: str, value: Any) -> int | str:
    least, end = _BITS[form]
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < end:
        raise _wrong(name, f"an integer from {least} to {end - 1}")
    return str(value) if "64" in form else value


def _double(name: str, value: Any) -> float | str:
    if isinstance(value, str):
        if value in ("NaN", "Infinity", "-Infinity"):
            return value
        if not _REAL.fullmatch(value):
            raise _wrong(name, "a number")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(name, "a number")
    return real(float(value))
