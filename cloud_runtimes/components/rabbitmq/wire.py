"""AMQP 0-9-1 as bytes, without I/O (the specification and RabbitMQ's extensions): frames, methods, tables, properties of messages."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Any, Final, NamedTuple

__all__ = [
    "BODY",
    "END",
    "GREETING",
    "HEAD",
    "HEADER",
    "HEARTBEAT",
    "METHOD",
    "Properties",
    "content",
    "frame",
    "method",
    "properties",
    "read",
    "read_properties",
]

METHOD, HEADER, BODY = 1, 2, 3
"""Kinds of frames."""
GREETING: Final = b"AMQP\x00\x00\x09\x01"
HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
HEAD: Final = Struct(">BHI")
"""Of a frame: its kind, channel and size."""
END: Final = 0xCE
_SIZED: Final = {"o": Struct(">B"), "h": Struct(">H"), "l": Struct(">I"), "q": Struct(">Q")}
_VALUES: Final = {
    "t": Struct(">?"), "b": Struct(">b"), "B": Struct(">B"), "s": Struct(">h"), "u": Struct(">H"), "I": Struct(">i"),
    "i": Struct(">I"), "l": Struct(">q"), "L": Struct(">q"), "T": Struct(">Q"), "f": Struct(">f"), "d": Struct(">d"),
}  # fmt: skip
"""Values of a table that have a fixed size, as RabbitMQ reads and writes them."""
_LONG: Final = _SIZED["l"]


class Properties(NamedTuple):
    """Of a message, those that matter here; ``None``: not there."""

    content_type: str | None = None
    headers: Mapping[str, Any] | None = None
    delivery_mode: int | None = None
    message_id: str | None = None


_PROPERTIES: Final = (  # from the highest bit on
    ("content_type", "s"), ("content_encoding", "s"), ("headers", "t"), ("delivery_mode", "o"), ("priority", "o"),
    ("correlation_id", "s"), ("reply_to", "s"), ("expiration", "s"), ("message_id", "s"), ("timestamp", "q"),
    ("type", "s"), ("user_id", "s"), ("app_id", "s"), ("cluster_id", "s"),
)  # fmt: skip


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return a frame."""
    return b"%b%b\xce" % (HEAD.pack(kind, channel, len(payload)), payload)


def method(channel: int, number: tuple[int, int], types: str, *values: Any) -> bytes:
    """Return the frame of a method: its fields by the types ``o h l q`` (1 to 8 bytes), ``s S`` (short and long strings), ``t`` (tables)."""
    fields = b"".join([_write(kind, value) for kind, value in zip(types, values, strict=True)])
    return frame(METHOD, channel, b"%b%b%b" % (number[0].to_bytes(2, "big"), number[1].to_bytes(2, "big"), fields))


def properties(given: Properties) -> bytes:
    """Return the flags and the properties of a header of content."""
    flags, fields = 0, []
    for place, (name, kind) in enumerate(_PROPERTIES):
        value = getattr(given, name, None)
        if value is not None:
            flags |= 1 << 15 - place
            fields.append(_write(kind, value))
    return flags.to_bytes(2, "big") + b"".join(fields)


def content(channel: int, told: bytes, body: bytes, frame_max: int) -> bytes:
    """Return the frames of a message's content; ``told`` is what `properties` made."""
    frames = [frame(HEADER, channel, b"\x00\x3c\x00\x00%b%b" % (len(body).to_bytes(8, "big"), told))]
    room = frame_max - 8
    frames += [frame(BODY, channel, body[start : start + room]) for start in range(0, len(body), room)]
    return b"".join(frames)


def read(types: str, data: bytes, at: int) -> list[Any]:
    """Return fields; see `method`.

    Raises:
        ValueError: they are not there.
    """
    found: list[Any] = []
    try:
        for kind in types:
            value, at = _read(kind, data, at)
            found.append(value)
    except (LookupError, ArithmeticError, ValueError) as error:
        raise ValueError("what answers does not speak AMQP 0-9-1") from error
    return found


def read_properties(data: bytes) -> Properties:
    """Return properties of a message, from their flags on."""
    flags, at = int.from_bytes(data[:2], "big"), 2
    found: dict[str, Any] = {}
    for place, (name, kind) in enumerate(_PROPERTIES):
        if flags & 1 << 15 - place:
            found[name], at = _read(kind, data, at)
    return Properties(**{name: found.get(name) for name in Properties._fields})


def _write(kind: str, value: Any) -> bytes:
    if kind in _SIZED:
        return _SIZED[kind].pack(value)
    if kind == "t":
        value = b"".join([_write("s", name) + _value(each) for name, each in value.items()])
    elif isinstance(value, str):
        value = value.encode()
    size = len(value).to_bytes(1 if kind == "s" else 4, "big")
    return size + bytes(value)


def _value(value: Any) -> bytes:
    """Return a value of a table, of the types that `_read_value` gives."""
    if value is None:
        return b"V"
    if isinstance(value, bool):
        return b"t" + _VALUES["t"].pack(value)
    if isinstance(value, int):
        return b"l" + _VALUES["l"].pack(value)
    if isinstance(value, float):
        return b"d" + _VALUES["d"].pack(value)
    if isinstance(value, Mapping):
        return b"F" + _write("t", value)
    if isinstance(value, list):
        return b"A" + _write("S", b"".join(map(_value, value)))
    return (b"x" if isinstance(value, bytes) else b"S") + _write("S", value)


def _read(kind: str, data: bytes, at: int) -> tuple[Any, int]:
    if kind in _SIZED:
        made = _SIZED[kind]
        if at + made.size > len(data):
            raise ValueError
        return made.unpack_from(data, at)[0], at + made.size
    begin = at + (1 if kind == "s" else 4)
    end = begin + int.from_bytes(data[at:begin], "big")
    if end > len(data) or begin > len(data):
        raise ValueError
    if kind != "t":
        text = data[begin:end]
        try:
            return text.decode(), end
        except UnicodeDecodeError:
            return text.decode("latin-1"), end
    table: dict[str, Any] = {}
    while begin < end:
        name, begin = _read("s", data, begin)
        table[name], begin = _read_value(data, begin)
    return table, end


def _read_value(data: bytes, at: int) -> tuple[Any, int]:
    kind, at = chr(data[at]), at + 1
    if kind in _VALUES:
        made = _VALUES[kind]
        if at + made.size > len(data):
            raise ValueError
        return made.unpack_from(data, at)[0], at + made.size
    if kind in "SF":
        return _read("t" if kind == "F" else "S", data, at)
    if kind == "V":
        return None, at
    if kind == "D":
        scale, number = data[at], int.from_bytes(data[at + 1 : at + 5], "big", signed=True)
        return number / 10**scale, at + 5
    end = at + 4 + _LONG.unpack_from(data, at)[0]
    if kind == "x":
        return data[at + 4 : end], end
    if kind != "A" or end > len(data):
        raise ValueError
    values, at = [], at + 4
    while at < end:
        value, at = _read_value(data, at)
        values.append(value)
    return values, at
