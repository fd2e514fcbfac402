"""The bytes of a record, in Python: layout, the rules of attributes, RFC 3339 times.

Mechanism: a record is a fixed head, then the optional texts whose flag is set, in the order of their bits, then the payload (docs/log-format.md). `encode_record` checks every attribute and joins the pieces; `check_record` walks the same layout and proves that later access cannot leave the buffer. A text that has a shorter form that gives it back exactly (a UUIDv7, a UTC time in microseconds, a numbered content type) is stored in that form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from struct import Struct
from typing import Any

from ..errors import InvalidArgumentError, PayloadError
from .attributes import TEXT_MAX, check_text, encode_extensions, encode_metadata
from .ids_py import draw, is_uuid7, now_us, parse_uuid7
from .otlp_py import varint

__all__ = ["check_record", "encode_record", "format_time", "pack_record", "parse_time"]

ID_TEXT, KEY, TRACEPARENT, CONTENT_TYPE, TYPE, SOURCE = 1, 2, 4, 8, 16, 32
SUBJECT, TIME_TEXT, EXTENSIONS, METADATA, EXPIRES, RAW = 64, 128, 256, 512, 1024, 2048
TEXT_FLAGS = 0x3FF
KNOWN_FLAGS = 0xFFF

HEAD = Struct("<IHBB16sq")
EXPIRY = Struct("<q")
NO_ID = bytes(16)
RECORD_MAX = 0x7FFFFFFF

CONTENT_TYPES: tuple[str | None, ...] = (
    None,
    "application/json",
    "application/octet-stream",
    "text/plain",
    "application/msgpack",
    "application/cloudevents+json",
    "application/xml",
    "text/html",
    "text/csv",
    "application/x-protobuf",
    "application/x-ndjson",
)
CONTENT_TYPE_NUMBERS = {name: number for number, name in enumerate(CONTENT_TYPES) if name is not None}

# the years 0001 to 9999
TIME_MIN, TIME_MAX = -62_135_596_800_000_000, 253_402_300_799_999_999

_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII)
_EPOCH = datetime(1970, 1, 1)


def read_varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    """Read an unsigned LEB128 below 2³² in its shortest form; gives value and next offset."""
    value = shift = 0
    while at < end and shift < 35:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 32 or (byte == 0 and shift):
                break
            return value, at
        shift += 7
    raise PayloadError(f"frame: no length at byte {at}")


def check_traceparent(value: Any, error: type[InvalidArgumentError] = InvalidArgumentError) -> bytes:
    """Check a W3C trace context: 1 to 512 printable ASCII characters."""
    if not isinstance(value, str) or not 0 < len(value) <= 512 or not value.isascii() or not value.isprintable():
        raise error("traceparent must be 1 to 512 printable ASCII characters, as W3C Trace Context writes it")
    return value.encode()


def parse_time(text: str) -> int | None:
    """Microseconds since 1970 UTC of an RFC 3339 timestamp (§5.6), finer digits cut, held within the years 0001 to 9999; `None` if it is none.

    Second 60 stands only where a leap second can: at 23:59 UTC (§5.7).
    """
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.group(1, 2, 3, 4, 5, 6))
    cycles, year = divmod(year, 400)  # the calendar repeats after 400 years, and there is no year 0 in `date`
    try:
        days = date(year + 400, month, day).toordinal() + (cycles - 1) * 146_097 - _EPOCH.toordinal()
    except ValueError:
        return None
    if hour > 23 or minute > 59 or second > 60:
        return None
    offset = 0
    if match[8]:
        if int(match[9]) > 23 or int(match[10]) > 59:
            return None
        offset = (int(match[9]) * 60 + int(match[10])) * (-1 if match[8] == "-" else 1)
    minutes = days * 1440 + hour * 60 + minute - offset
    if second == 60 and minutes % 1440 != 1439:
        return None
    micro = int(((match[7] or "") + "000000")[:6])
    return min(max((minutes * 60 + second) * 1_000_000 + micro, TIME_MIN), TIME_MAX)


_last_second = 0, "1970-01-01T00:00:00"


def format_time(us: int) -> str:
    """RFC 3339 in UTC: ``YYYY-MM-DDTHH:MM:SS.ffffffZ``, the fraction left out where it is zero."""
    global _last_second
    second, micro = divmod(us, 1_000_000)
    known, text = _last_second  # one object, so that threads never see half of another's
    if known != second:
        text = (_EPOCH + timedelta(seconds=second)).isoformat()
        _last_second = second, text
    return f"{text}.{micro:06d}Z" if micro else text + "Z"


def pack_record(
    flags: int,
    number: int,
    raw_id: bytes,
    time_us: int,
    expires: int,
    texts: Mapping[int, bytes | None],
    payload: bytes,
) -> bytes:
    """Join the pieces of a record, all checked; `texts` by their flags, in that order."""
    parts: list[bytes] = []
    if expires:
        flags |= EXPIRES
        parts.append(EXPIRY.pack(expires))
    for flag, text in texts.items():
        if text:
            flags |= flag
            parts += (varint(len(text)), text)
    parts.append(payload)
    size = HEAD.size - 4 + sum(map(len, parts))
    if size > RECORD_MAX:
        raise PayloadError(f"payload has {len(payload)} bytes; a record holds less than 2 GiB")
    return b"".join((HEAD.pack(size, flags, number, 0, raw_id, time_us), *parts))


def _optional(name: str, value: str | None) -> bytes | None:
    return None if value is None else check_text(name, value)


def encode_record(
    payload: Any,
    content_type: str | None,
    *,
    id: str | None = None,
    time: str | int | None = None,
    key: str | None = None,
    traceparent: str | None = None,
    type: str | None = None,
    source: str | None = None,
    subject: str | None = None,
    extensions: Mapping[str, str | int | bool] | None = None,
    metadata: Mapping[str, str] | None = None,
    expires: int | None = None,
    raw: bool = False,
) -> bytes:
    """Encode one record (docs/log-format.md). `InvalidArgumentError`: an attribute breaks a rule of CloudEvents 1.0 §3.1.

    Times are RFC 3339 or microseconds since 1970 UTC. `id` draws a UUIDv7 by default. `key` orders, `extensions` may have the ``traceparent`` too, `metadata` is for the component and no part of the CloudEvent, `raw` says that the payload goes without an envelope.
    """
    named_type = _optional("content_type", content_type)
    number = CONTENT_TYPE_NUMBERS.get(content_type or "", 0)
    now = now_us()
    id_text = _optional("id", id)
    raw_id = draw(now) if id is None else parse_uuid7(id)
    time_us, time_text = now, None
    if isinstance(time, str):
        time_us, time_text = encode_time("time", time)
    elif isinstance(time, int):
        if not TIME_MIN <= time <= TIME_MAX:
            raise InvalidArgumentError("time must lie within the years 0001 to 9999, in microseconds since 1970 UTC")
        time_us = time
    elif time is not None:
        raise InvalidArgumentError(f"time must be RFC 3339 text or microseconds, not {time.__class__.__name__}")
    extension_traceparent = None
    extension_json = b""
    if extensions is not None:
        extension_json, extension_traceparent = encode_extensions(extensions)
        if extension_traceparent is not None:
            if traceparent is not None and traceparent != extension_traceparent:
                raise InvalidArgumentError("traceparent is given as an argument and as another extension; give one")
            traceparent = extension_traceparent
    texts = {
        ID_TEXT: id_text if raw_id is None else None,
        KEY: _optional("key", key),
        TRACEPARENT: None if traceparent is None else check_traceparent(traceparent),
        CONTENT_TYPE: None if number else named_type,
        TYPE: _optional("type", type),
        SOURCE: _optional("source", source),
        SUBJECT: _optional("subject", subject),
        TIME_TEXT: time_text,
        EXTENSIONS: extension_json,
        METADATA: None if metadata is None else encode_metadata(metadata),
    }
    if expires is not None:
        moment: Any = expires
        if not isinstance(moment, int) or not 0 < moment <= TIME_MAX:
            raise InvalidArgumentError("expires must be microseconds since 1970 UTC, above zero, up to the year 9999")
    flags = RAW if raw else 0
    return pack_record(flags, number, raw_id or NO_ID, time_us, expires or 0, texts, view(payload))


def encode_time(
    name: str, text: str, error: type[InvalidArgumentError] = InvalidArgumentError
) -> tuple[int, bytes | None]:
    """Microseconds, and the text where they do not give it back."""
    us = parse_time(text) if len(text) <= TEXT_MAX else None
    if us is None:
        raise error(f"{name} must be an RFC 3339 timestamp such as 2024-05-06T07:08:09Z")
    return us, (None if format_time(us) == text else text.encode())


def view(payload: Any) -> bytes:
    """The bytes of a bytes-like object."""
    if isinstance(payload, bytes):
        return payload
    try:
        buffer = memoryview(payload)
    except (TypeError, BufferError):
        raise PayloadError(f"payload must be bytes-like, not {type(payload).__name__}; encode it first") from None
    if not buffer.c_contiguous:
        raise PayloadError("payload must be contiguous; give bytes(payload)")
    return buffer.tobytes()


def check_record(body: bytes, at: int, end: int) -> int:
    """Prove that a record lies within ``body[at:end]`` and every text within the record; gives the offset behind it. Raises `PayloadError`: it does not, or it has a flag, content-type number or value that this version does not know."""
    if end - at < HEAD.size:
        raise PayloadError(f"frame: record at byte {at} is cut off")
    size, flags, number, zero, raw_id, time_us = HEAD.unpack_from(body, at)
    stop: int = at + 4 + size
    if size < HEAD.size - 4 or stop > end:
        raise PayloadError(f"frame: record at byte {at} claims {size} bytes and leaves the frame")
    if flags & ~KNOWN_FLAGS:
        raise PayloadError(
            f"frame: record at byte {at} has flags 0x{flags & ~KNOWN_FLAGS:x} of a later version; upgrade this package"
        )
    if number >= len(CONTENT_TYPES) or zero or (number and flags & CONTENT_TYPE):
        raise PayloadError(f"frame: record at byte {at} has content type {number}, which this version does not know")
    if raw_id != NO_ID if flags & ID_TEXT else not is_uuid7(raw_id):
        raise PayloadError(f"frame: record at byte {at} has no valid id")
    if not TIME_MIN <= time_us <= TIME_MAX:
        raise PayloadError(f"frame: record at byte {at} has a time beyond the year 9999")
    here = at + HEAD.size
    if flags & EXPIRES:
        if stop - here < 8 or not 0 < EXPIRY.unpack_from(body, here)[0] <= TIME_MAX:
            raise PayloadError(f"frame: record at byte {at} has no valid expiry")
        here += 8
    for bit in range(10):
        if flags >> bit & 1:
            length, here = read_varint(body, here, stop)
            if not 0 < length <= stop - here:
                raise PayloadError(f"frame: record at byte {at} has a text of {length} bytes that leaves it")
            here += length
    return stop
