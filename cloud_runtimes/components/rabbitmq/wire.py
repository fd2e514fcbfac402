"""AMQP 0-9-1 as bytes, without I/O (the specification and RabbitMQ's extensions): frames, methods, tables, properties of messages."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

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
_DECIMAL: Final = Struct(">Bi")
_DEPTH: Final = 16
"""Levels that the value of a header may have."""
_DEEP: Final = object()


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


Delivered: TypeAlias = tuple[int, bytes, bytes]
"""A message that came: its tag, its properties as `read_properties` takes them, and its body."""


class Row:
    """Messages that stand in a row with the same around them, but for tag and size: most of what comes does.

    What is between and behind these two: the rest of the method and the header, and what begins the body.
    """

    def __init__(self, data: bytes, first: int, header: int, body: int) -> None:
        """Learn of a message whose frames begin at these places."""
        tag = first + 12 + data[first + 11]
        size = header + 11
        self._form = Struct(f">{tag - first}sQ{size - tag - 8}sQ{body + 3 - size - 8}sI")
        self._around = data[first:tag], data[tag + 8 : size], data[size + 8 : body + 3]
        self._properties = data[size + 8 : body - 1]

    def take(self, data: bytes, at: int, deliveries: list[Delivered]) -> int:
        """Append the messages there, and return where they end."""
        form, size, properties = self._form, self._form.size, self._properties
        head, middle, tail = self._around
        end = len(data) - size
        while at < end:
            begins, tag, between, whole, after, room = form.unpack_from(data, at)
            start = at + size
            stop = start + room
            if stop - size >= end or begins != head or between != middle or after != tail or room != whole:
                break
            if data[stop] != END:
                break
            deliveries.append((tag, properties, data[start:stop]))
            at = stop + 1
        return at


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
    for index, (name, kind) in enumerate(_PROPERTIES):
        value = getattr(given, name, None)
        if value is not None:
            flags |= 1 << 15 - index
            fields.append(_write(kind, value))
    return flags.to_bytes(2, "big") + b"".join(fields)


def content(channel: int, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """Return the frames of a message's content; ``properties`` as `properties` of this module encodes them."""
    frames = [frame(HEADER, channel, b"\x00\x3c\x00\x00%b%b" % (len(body).to_bytes(8, "big"), properties))]
    room = frame_max - 8
    frames += [frame(BODY, channel, body[start : start + room]) for start in range(0, len(body), room)]
    return b"".join(frames)


def read(types: str, data: bytes, at: int) -> list[Any]:
    """Return fields; see `method`.

    Raises:
        ValueError: they are not there.
    """
    fields: list[Any] = []
    for kind in types:
        value, at = _read(kind, data, at, len(data))
        fields.append(value)
    return fields


def read_properties(data: bytes) -> Properties:
    """Return properties of a message, from their flags on.

    Another program wrote them, so nothing in them is an error: a header that is nested too deep is left out, and so are all headers where one is damaged.
    """
    flags, at = int.from_bytes(data[:2], "big"), 2
    values: dict[str, Any] = {}
    with suppress(ValueError):
        for index, (name, kind) in enumerate(_PROPERTIES):
            if flags & 1 << 15 - index:
                if kind == "t":
                    begin, at = _span(4, data, at, len(data))
                    with suppress(ValueError):
                        values[name] = _read_table(data, begin, at, _DEPTH)
                else:
                    values[name], at = _read(kind, data, at, len(data))
    return Properties(**{name: values.get(name) for name in Properties._fields})


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


def _read(kind: str, data: bytes, at: int, end: int) -> tuple[Any, int]:
    if kind in _SIZED:
        (value,), at = _read_fixed(_SIZED[kind], data, at, end)
        return value, at
    begin, stop = _span(1 if kind == "s" else 4, data, at, end)
    return (_read_table(data, begin, stop, _DEPTH) if kind == "t" else _text(data[begin:stop])), stop


def _read_fixed(form: Struct, data: bytes, at: int, end: int) -> tuple[tuple[Any, ...], int]:
    if at + form.size > end:
        raise ValueError("a value is cut")
    return form.unpack_from(data, at), at + form.size


def _span(size: int, data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return where that begins and ends whose length has so many bytes."""
    begin = at + size
    stop = begin + int.from_bytes(data[at:begin], "big")
    if stop > end:
        raise ValueError("a length is beyond the end")
    return begin, stop


def _text(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _read_table(data: bytes, at: int, end: int, room: int) -> Any:
    """Return a table; without what is nested too deep, or `_DEEP` where it is within such a thing itself."""
    table: dict[str, Any] = {}
    while at < end:
        name, at = _read("s", data, at, end)
        value, at = _read_value(data, at, end, room)
        if value is not _DEEP:
            table[name] = value
        elif room < _DEPTH:
            return _DEEP
    return table


def _read_value(data: bytes, at: int, end: int, room: int) -> tuple[Any, int]:
    """Return a value of a table, `_DEEP` where it has more than ``room`` levels, and where it ends."""
    if at >= end:
        raise ValueError("a value is missing")
    kind, at = chr(data[at]), at + 1
    if kind in _VALUES:
        (value,), at = _read_fixed(_VALUES[kind], data, at, end)
        return value, at
    if kind == "V":
        return None, at
    if kind == "D":
        (scale, number), at = _read_fixed(_DECIMAL, data, at, end)
        return number / 10**scale, at
    if kind not in "SxFA":
        raise ValueError("a value is of no type")
    begin, stop = _span(4, data, at, end)
    if kind == "S":
        return _text(data[begin:stop]), stop
    if kind == "x":
        return data[begin:stop], stop
    if not room:
        return _DEEP, stop
    if kind == "F":
        return _read_table(data, begin, stop, room - 1), stop
    values: list[Any] = []
    while begin < stop:
        value, begin = _read_value(data, begin, stop, room - 1)
        if value is _DEEP:
            return _DEEP, stop
        values.append(value)
    return values, stop
