"""OTLP's JSON of a request in protobuf: what the console exporter prints, and what the viewer stores.

The bytes may come from anyone. Fields that OTLP does not have are skipped, as protobuf asks; a field of OTLP that has another wire type is refused, where other readers would lose it without a word. Groups, which proto3 does not have, are refused.
"""

from __future__ import annotations

import base64
import struct
from typing import Any, Final

from ..errors import PayloadError, ResourceExhaustedError
from .schema import MESSAGES, ONE_OF

MAX_DEPTH: Final = 100
"""Messages within messages, as protobuf's own readers limit them."""
MAX_PARTS: Final = 1_000_000
"""Messages and repeated numbers of a request, so that what is decoded stays in proportion: two bytes can be a message."""

_DOUBLE: Final = struct.Struct("<d")
# wire types (protobuf, "Encoding": "Message Structure")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRES: Final = {
    **dict.fromkeys(["uint32", "enum", "bool", "int64", "uint64", "sint32"], _VARINT),
    **dict.fromkeys(["fixed64", "sfixed64", "double"], _FIXED64),
    **dict.fromkeys(["text", "hex", "base64"], _BYTES),
    "fixed32": _FIXED32,
}


class _Field:
    """A field of a message, as the reader wants it."""

    __slots__ = ("form", "message", "name", "others", "packed", "repeated")

    def __init__(self, kind: str, name: str, form: str, packed: bool) -> None:
        self.name = name
        self.repeated = form[0] == "["
        self.form = form.strip("[]")
        self.message = self.form if self.form in MESSAGES else None
        self.packed = packed
        others = ONE_OF.get(kind, frozenset())
        self.others = tuple(others - {name}) if name in others else ()


def _fields(kind: str) -> dict[int, _Field]:
    """Return what stands behind which tag; numbers that repeat may be packed or not."""
    fields: dict[int, _Field] = {}
    for number, (name, form) in MESSAGES[kind].items():
        wire = _WIRES.get(form.strip("[]"), _BYTES)
        fields[number << 3 | wire] = _Field(kind, name, form, False)
        if form[0] == "[" and wire != _BYTES:
            fields[number << 3 | _BYTES] = _Field(kind, name, form, True)
    return fields


_TABLES: Final = {kind: _fields(kind) for kind in MESSAGES}


def records(signal: str, body: bytes) -> dict[str, Any]:
    """Return a request in OTLP's JSON: ids in hexadecimal, 64-bit integers as text. `PayloadError`: it is none.

    The signal is ``"traces"``, ``"logs"`` or ``"metrics"``; or another message of `MESSAGES`. `ResourceExhaustedError`: it has more than `MAX_PARTS` messages.
    """
    try:
        return _Reader(body).message(signal, 0, len(body), 0, {})
    except (IndexError, struct.error):
        raise PayloadError("no OTLP in protobuf: it ends in the middle of a field") from None


class _Reader:
    """Reads one request."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._parts = 0

    def message(self, kind: str, at: int, end: int, depth: int, result: dict[str, Any]) -> dict[str, Any]:
        """Read a message that stands in ``data[at:end]`` into ``result``."""
        if depth > MAX_DEPTH:
            raise PayloadError(f"no OTLP in protobuf: messages are nested deeper than {MAX_DEPTH}")
        self._count(1)
        data, table = self._data, _TABLES[kind]
        while at < end:
            tag = data[at]
            at += 1
            if tag > 0x7F:
                tag, at = self._varint(at - 1)
            field = table.get(tag)
            if field is None:
                at = self._skip(kind, tag, at)
                continue
            wire = tag & 7
            value: Any
            if wire == _BYTES:
                size = data[at]
                at += 1
                if size > 0x7F:
                    size, at = self._varint(at - 1)
                begin, at = at, at + size
                if at > end:
                    raise IndexError
                if field.message is not None:
                    before = {} if field.repeated else result.get(field.name, {})  # one that comes twice is merged
                    value = self.message(field.message, begin, at, depth + 1, before)
                elif field.packed:
                    result.setdefault(field.name, []).extend(self._packed(field.form, begin, at))
                    continue
                else:
                    value = _bytes(field, data[begin:at])
            elif wire == _VARINT:
                value, at = self._varint(at)
                value = _integer(field.form, value)
            elif wire == _FIXED64:
                value, at = _wide(field.form, data[at : at + 8]), at + 8
            else:
                value, at = int.from_bytes(data[at : at + 4], "little"), at + 4
            if field.repeated:
                if field.message is None:
                    self._count(1)
                result.setdefault(field.name, []).append(value)
                continue
            if result:
                for other in field.others:
                    result.pop(other, None)
            result[field.name] = value
        if at != end:
            raise IndexError
        return result

    def _count(self, more: int) -> None:
        self._parts += more
        if self._parts > MAX_PARTS:
            raise ResourceExhaustedError(f"the request has more than {MAX_PARTS:,} parts: send smaller batches")

    def _varint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        while shift < 70:
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (1 << 64) - 1, at
            shift += 7
        raise PayloadError("no OTLP in protobuf: an integer of more than ten bytes")

    def _skip(self, kind: str, tag: int, at: int) -> int:
        """Return where the next field is."""
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29 or wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
            raise PayloadError("no OTLP in protobuf: a field without a number or type")
        if number in MESSAGES[kind]:
            raise PayloadError(f"no OTLP in protobuf: {MESSAGES[kind][number][0]} has another wire type")
        if wire == _VARINT:
            return self._varint(at)[1]
        if wire == _BYTES:
            size, at = self._varint(at)
            return at + size
        return at + (8 if wire == _FIXED64 else 4)

    def _packed(self, form: str, at: int, end: int) -> list[Any]:
        if form != "uint64":
            if (end - at) % 8:
                raise IndexError
            self._count((end - at) // 8)
            return [_wide(form, self._data[each : each + 8]) for each in range(at, end, 8)]
        values = []
        while at < end:
            value, at = self._varint(at)
            values.append(str(value))
            self._count(1)
        if at != end:
            raise IndexError
        return values


def _bytes(field: _Field, data: bytes) -> str:
    if field.form == "text":
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise PayloadError(f"no OTLP in protobuf: {field.name} is no UTF-8") from None
    return data.hex() if field.form == "hex" else base64.b64encode(data).decode()


def _integer(form: str, value: int) -> int | str | bool:
    if form == "bool":
        return value != 0
    if form == "int64":
        return str(value - (1 << 64) if value >> 63 else value)
    if form == "uint64":
        return str(value)
    value &= 0xFFFFFFFF
    if form == "sint32":
        return value >> 1 if not value & 1 else -(value + 1 >> 1)
    return value - (1 << 32) if form == "enum" and value >> 31 else value


def _wide(form: str, data: bytes) -> str | float:
    if form == "double":
        return real(_DOUBLE.unpack(data)[0])
    if len(data) != 8:
        raise IndexError
    return str(int.from_bytes(data, "little", signed=form == "sfixed64"))


def real(value: float) -> float | str:
    """Return a number as the JSON of protobuf has it, which writes what is not finite as text."""
    return value if value - value == 0 else {"inf": "Infinity", "-inf": "-Infinity"}.get(str(value), "NaN")
