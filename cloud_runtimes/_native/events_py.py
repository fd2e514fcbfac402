"""Events in Python: ids, records, frames, CloudEvents; the twin and the contract of ``src_ext/events.pyx``.

Mechanism: an event is a *record*, a batch of them a *frame* (docs/log-format.md). `Frame` checks every length once and keeps the offsets; a `EventRecord` is a view of the frame that reads a field when it is asked for. The parts stand in `ids_py`, `record_py` and `cloudevents_py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..errors import PayloadError
from . import received_py
from . import record_py as layout
from .attributes import TemplatePart, check_template, check_text, parse_object
from .cloudevents_py import check_topic, frame_header, pack_cloudevents, parse_cloudevent, render
from .ids_py import _set_clock, reseed, uuid7, uuid7_text
from .nats_py import take_messages
from .received_py import (
    KeyedQueue,
    Marks,
    ReceivedEvent,
    Worker,
    all_settled,
    hand_out,
    mark_ranges,
    mark_records,
    receive_events,
    settle_events,
)
from .record_py import check_record, encode_record, read_varint
from .resp_py import ReplyReader, pack_command

__all__ = [
    "_set_clock", "ClaimedRecord", "EventRecord", "Frame", "KeyedQueue", "Marks", "ReceivedEvent", "ReplyReader", "Worker", "all_settled",
    "build_frame", "decode_event", "encode_record", "hand_out", "mark_ranges", "mark_records", "pack_cloudevents", "pack_command", "parse_cloudevent",
    "read_cloudevent", "receive_as", "receive_events", "render_cloudevent", "reseed", "settle_events", "take_messages", "uuid7", "uuid7_text"
]  # fmt: skip


def build_frame(source: str, type: str, topic: str, records: Sequence[bytes]) -> bytes:
    """Make a frame of records."""
    header = frame_header(len(records), check_text("source", source), check_text("type", type), check_topic(topic))
    for record in records:
        check_single(record)
    return header + b"".join(records)


def check_single(record: bytes) -> None:
    """Refuse what is not exactly one record."""
    if not isinstance(record, bytes):
        raise TypeError(f"a record is bytes, not {type(record).__name__}")
    if check_record(record, 0, len(record)) != len(record):
        raise PayloadError("record: bytes behind its end")


def render_cloudevent(record: bytes, source: str, type: str) -> bytes:
    """Render one record as CloudEvents structured JSON without a frame."""
    source_text, type_text = check_text("source", source), check_text("type", type)
    check_single(record)
    return _Fields(record, 0).render(source_text, type_text)


class Frame:
    """A checked frame; a sequence of `EventRecord`. Raises `PayloadError`: another version, an unknown flag, a length that leaves the frame, a wrong count, bytes behind the end."""

    __slots__ = ("_body", "_first", "_offsets", "source", "topic", "type")

    def __init__(self, body: bytes) -> None:
        if not isinstance(body, bytes):
            raise TypeError(f"a frame is bytes, not {type(body).__name__}")
        if body[:3] != b"CRF":
            raise PayloadError("frame: it does not begin with CRF")
        if body[3:4] != b"\x01":
            raise PayloadError(
                f"frame: version {body[3] if len(body) > 3 else 'none'}, this package reads version 1; upgrade it"
            )
        end = len(body)
        if end < 8:
            raise PayloadError("frame: cut off in its header")
        count = int.from_bytes(body[4:8], "little")
        at = 8
        texts: list[str] = []
        for name in ("source", "type", "topic"):
            size, at = read_varint(body, at, end)
            if size > end - at or (size == 0 and name != "topic"):
                raise PayloadError(f"frame: {name} of {size} bytes")
            try:
                texts.append(body[at : at + size].decode())
            except UnicodeDecodeError:
                raise PayloadError(f"frame: {name} is not UTF-8") from None
            at += size
        if count > (end - at) // layout.HEAD.size:
            raise PayloadError(f"frame: {count} records cannot be held by {end - at} bytes")
        self.source, self.type, self.topic = texts
        self._body = body
        self._first = at
        offsets: list[int] = []
        for _ in range(count):
            offsets.append(at)
            at = check_record(body, at, end)
        if at != end:
            raise PayloadError(f"frame: {end - at} bytes behind its {count} records")
        offsets.append(end)
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> EventRecord:
        self._check(index)
        return EventRecord(self, _Fields(self._body, self._offsets[index]))

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self._offsets) - 1:
            raise IndexError(f"record {index} of a frame of {len(self)}")

    def record_bytes(self, index: int) -> bytes:
        """The bytes of one record (`IndexError`)."""
        self._check(index)
        return self._body[self._offsets[index] : self._offsets[index + 1]]

    def expires(self, index: int) -> int:
        """When a record expires, in microseconds since 1970 UTC; 0 for never (`IndexError`)."""
        self._check(index)
        return _Fields(self._body, self._offsets[index]).expires

    def deliver(
        self,
        start: int,
        indexes: Iterable[int],
        now_us: int,
        marks: Any,
        out: list[Any],
    ) -> list[int]:
        """Append a `ClaimedRecord` of each place behind `start` to `out`; return the places that expired (`IndexError`). `marks` are those of the slice that begins with `start`."""
        expired = []
        for index in indexes:
            if 0 < self.expires(start + index) <= now_us:
                expired.append(index)
            else:
                out.append(ClaimedRecord(self, _Fields(self._body, self._offsets[start + index]), marks, index))
        return expired

    def partition(self, parts: int) -> list[Sequence[int]]:
        """Return the places of the records of each part, in order; those of one key are in one part. Behind them are the places of the records without a key."""
        groups: list[Sequence[int]] = [[] for _ in range(parts + 1)]
        for index in range(len(self)):
            key = _Fields(self._body, self._offsets[index]).texts.get(layout.KEY)
            part: Any = groups[parts if key is None else fnv1a(key) % parts]
            part.append(index)
        if len(groups[parts]) == len(self):
            groups[parts] = range(len(self))
        return groups

    def structured(self) -> list[bytes]:
        """Each record as CloudEvents structured JSON."""
        return [record.to_json() for record in map(self.__getitem__, range(len(self)))]

    def render(self, template: Iterable[TemplatePart]) -> bytes:
        """All records in one buffer, each by a template; see `OutgoingBatch.render`."""
        parts = check_template(template)
        out: list[bytes] = []
        for index in range(len(self)):
            fields = _Fields(self._body, self._offsets[index])
            values = {"id": fields.id_bytes(), "key": fields.texts.get(layout.KEY, b""), "time": fields.time_bytes()}
            if "json" in parts:
                values["json"] = self[index].to_json()
            pieces = [
                part if isinstance(part, bytes) else values[part] if isinstance(part, str) else b"" for part in parts
            ]
            for number, part in enumerate(parts):
                if isinstance(part, tuple) and isinstance(part[0], range):
                    pieces[number] = bytes(part[1])
                elif isinstance(part, tuple) and layout.KEY in fields.texts:
                    pieces[number] = b"%d" % (fnv1a(values["key"]) % part[1])
            for part, piece in zip(parts, pieces, strict=True):
                if isinstance(part, range):
                    piece = b"%d" % sum(map(len, pieces[part.start : part.stop]))
                elif isinstance(part, tuple) and isinstance(part[0], range):
                    size = sum(map(len, pieces[part[0].start : part[0].stop]))
                    if size >> 8 * part[1]:
                        raise OverflowError(f"a length of {size:,} bytes does not fit {part[1]} bytes")
                    piece = size.to_bytes(part[1], "big")
                out.append(piece)
        return b"".join(out)

    def select(self, indices: Sequence[int]) -> bytes:
        """A new frame with the same header and these records, in this order (`IndexError`)."""
        records = [self.record_bytes(index) for index in indices]
        head = self._body[:4] + len(records).to_bytes(4, "little") + self._body[8 : self._first]
        return head + b"".join(records)


def fnv1a(data: bytes) -> int:
    """The 32-bit FNV-1a hash (RFC 9923)."""
    value = 0x811C9DC5
    for byte in data:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


class _Fields:
    """The fields of one checked record, found in one walk."""

    __slots__ = ("expires", "flags", "number", "payload", "raw_id", "texts", "time_us")

    def __init__(self, body: bytes, at: int) -> None:
        self.flags: int
        self.time_us: int
        size, self.flags, self.number, _, self.raw_id, self.time_us = layout.HEAD.unpack_from(body, at)
        stop = at + 4 + size
        at += layout.HEAD.size
        self.expires: int = 0
        if self.flags & layout.EXPIRES:
            self.expires = layout.EXPIRY.unpack_from(body, at)[0]
            at += 8
        self.texts: dict[int, bytes] = {}
        for bit in range(10):
            if self.flags >> bit & 1:
                length, at = read_varint(body, at, stop)
                self.texts[1 << bit] = body[at : at + length]
                at += length
        self.payload = body[at:stop]

    def text(self, flag: int, name: str) -> str | None:
        value = self.texts.get(flag)
        if value is None:
            return None
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise PayloadError(f"record: {name} is not UTF-8") from None

    def id_bytes(self) -> bytes:
        return self.texts.get(layout.ID_TEXT) or uuid7_text(self.raw_id).encode()

    def time_bytes(self) -> bytes:
        return self.texts.get(layout.TIME_TEXT) or layout.format_time(self.time_us).encode()

    def render(self, source: bytes, type: bytes) -> bytes:
        texts = self.texts
        content_type = texts.get(layout.CONTENT_TYPE) or (layout.CONTENT_TYPES[self.number] or "").encode()
        return render(
            texts,
            self.id_bytes(),
            texts.get(layout.SOURCE, source),
            texts.get(layout.TYPE, type),
            self.time_bytes(),
            content_type,
            self.expires,
            self.payload,
        )


class EventRecord:
    """A view of one event in a frame. A text that is not UTF-8 raises `PayloadError` when it is touched."""

    __slots__ = ("_fields", "_frame")

    def __init__(self, frame: Frame, fields: _Fields) -> None:
        self._frame = frame
        self._fields = fields

    @property
    def id(self) -> str:
        """CloudEvents ``id``."""
        return self._fields.text(layout.ID_TEXT, "id") or uuid7_text(self._fields.raw_id)

    @property
    def source(self) -> str:
        """CloudEvents ``source``."""
        return self._fields.text(layout.SOURCE, "source") or self._frame.source

    @property
    def type(self) -> str:
        """CloudEvents ``type``."""
        return self._fields.text(layout.TYPE, "type") or self._frame.type

    @property
    def topic(self) -> str:
        """The topic it was first published to."""
        return self._frame.topic

    @property
    def subject(self) -> str | None:
        """CloudEvents ``subject``."""
        return self._fields.text(layout.SUBJECT, "subject")

    @property
    def time_us(self) -> int:
        """CloudEvents ``time`` in microseconds since 1970 UTC."""
        return self._fields.time_us

    @property
    def time_text(self) -> str:
        """CloudEvents ``time`` as RFC 3339, as it was given."""
        return self._fields.text(layout.TIME_TEXT, "time") or layout.format_time(self._fields.time_us)

    @property
    def key(self) -> str | None:
        """The ordering key (``partitionkey``)."""
        return self._fields.text(layout.KEY, "key")

    @property
    def traceparent(self) -> str | None:
        """W3C trace context."""
        return self._fields.text(layout.TRACEPARENT, "traceparent")

    @property
    def content_type(self) -> str | None:
        """CloudEvents ``datacontenttype``."""
        return self._fields.text(layout.CONTENT_TYPE, "content_type") or layout.CONTENT_TYPES[self._fields.number]

    @property
    def payload(self) -> bytes:
        """The payload as encoded."""
        return self._fields.payload

    @property
    def extensions(self) -> dict[str, Any]:
        """Other CloudEvents attributes: strings, integers, booleans; also ``dataschema``."""
        value = self._fields.texts.get(layout.EXTENSIONS)
        return {} if value is None else parse_object(value, "record: extensions")

    @property
    def metadata(self) -> dict[str, str]:
        """The publisher's metadata."""
        value = self._fields.texts.get(layout.METADATA)
        return {} if value is None else parse_object(value, "record: metadata", strings=True)

    @property
    def expires_us(self) -> int | None:
        """When it expires, in microseconds since 1970 UTC."""
        return self._fields.expires or None

    @property
    def raw(self) -> bool:
        """Whether it was published without an envelope."""
        return bool(self._fields.flags & layout.RAW)

    def to_json(self) -> bytes:
        """CloudEvents 1.0 structured JSON (docs/log-format.md, "CloudEvents JSON")."""
        return self._fields.render(self._frame.source.encode(), self._frame.type.encode())


class ClaimedRecord(EventRecord):
    """A record of a slice that a member of a group holds: what settles it is itself.

    Attributes:
        marks: of the slice.
        position: in the slice.
    """

    __slots__ = ("marks", "position")

    def __init__(self, frame: Frame, fields: _Fields, marks: Any, position: int) -> None:
        super().__init__(frame, fields)
        self.marks = marks
        self.position = position


def read_cloudevent(data: bytes | bytearray | memoryview | str) -> EventRecord:
    """Check structured JSON and return a record of it, as `parse_cloudevent` reads it. The compiled one points into the document. Raises `PayloadError`: it is no CloudEvent; the message names the attribute or the byte."""
    return Frame(parse_cloudevent(data))[0]


_event_class: Any = ReceivedEvent


def receive_as(cls: type[ReceivedEvent], decode_json: Callable[..., Any], decode_any: Callable[[Any], Any]) -> None:
    """Set the class of what `decode_event` returns, a subclass of `ReceivedEvent`.

    Args:
        cls: the class.
        decode_json: decodes a payload of JSON, into a ``type``; the compiled twin calls it for most events.
        decode_any: decodes the data of an event, whatever its content type is.
    """
    global _event_class
    if not issubclass(cls, ReceivedEvent):
        raise TypeError(f"{cls.__name__} is no subclass of ReceivedEvent")
    _event_class = cls
    received_py.decode_by(decode_any)


def decode_event(data: bytes | bytearray | memoryview | str) -> Any:
    """Decode structured JSON into an event whose payload is decoded when it is asked for.

    Raises:
        PayloadError: it is no CloudEvent 1.0; the message names the attribute or the byte.
    """
    return _event_class(read_cloudevent(data))
