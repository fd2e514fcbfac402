"""JSON payloads through orjson and CloudEvents around them, the reference twin of the compiled kernel `_payload`.

`use` says who writes JSON and how; `encode_json` refuses what that would write as null although it is NaN or infinite, and copies, because a result of orjson keeps the 4 KB it was written into. `encode_event` is one record, rendered; the common form, a dict and nothing else given, is put together without one.
"""

from __future__ import annotations

from builtins import type as type_of
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ..errors import InvalidArgumentError, PayloadError
from . import events_py, hooks
from .attributes import check_text, escape
from .cloudevents_py import DEPTH_MAX
from .ids_py import draw_text, now_us
from .json_limits import LOOKED_AT, check
from .limits import DEFAULT
from .plain import NONFINITE, has_nonfinite
from .record_py import format_time

__all__ = ["decode_json", "encode_event", "encode_event_with", "encode_json", "set_limits", "use"]

_EPOCH = datetime.fromtimestamp(0, UTC)
_NONE = type_of(None)
_NONES = frozenset({_NONE})
_used: Any = None
_loads: Any = None
# a document of up to `_easy` bytes can break no limit, one of up to `_short` bytes none but the depth
_depth = DEFAULT.depth
_easy = 2 * _depth
_short = LOOKED_AT
_MANY = 256
_heads: dict[tuple[str, str], bytes] = {}
_join = b"".join


def use(
    dumps: Callable[..., bytes],
    default: Any,
    options: int,
    explain: Callable[[Any, Exception], BaseException],
    loads: Callable[[Any], Any],
) -> None:
    """Say who writes JSON (orjson's `dumps`), with which arguments, and what explains its errors; and who reads it."""
    global _loads, _used
    _used = dumps, default, options, explain
    _loads = loads


def set_limits(depth: int, items: int, size: int) -> None:
    """Set what `cloud_runtimes.codec.limits` holds."""
    global _depth, _easy, _short
    _depth = depth
    _short = min(2 * items, size, LOOKED_AT)
    _easy = min(2 * depth, _short)


def decode_json(data: bytes | bytearray | memoryview | str, *, type: Any = None) -> Any:
    """Decode one JSON document (RFC 8259); see `cloud_runtimes.codec.json.decode`."""
    if type_of(data) is not bytes or (len(data) > _easy and (len(data) > _short or _openings(data) > _depth)):
        check(data)
    try:
        value = _loads(data)
    except ValueError as error:
        raise PayloadError(f"not JSON: {error}") from error
    return value if type is None else hooks.convert(value, type)


def encode_json(value: Any) -> bytes:
    """Encode a value as JSON (UTF-8, no spaces).

    Besides the JSON types: dataclasses, attrs classes and pydantic models (all fields, by alias), ``msgspec.Struct``, enum members (their value), datetime, date and time (ISO 8601), UUID and Decimal (their str), tuples, sets (lists). Keys are str. Containers nest up to 254 deep.

    Raises:
        PayloadError: NaN, an infinity, an int beyond 64 bits, a lone surrogate, a key that is not a str, bytes, a set or another type; the message gives the path. What code of the user's own raised is its cause.
    """
    return _join((_written(value), b""))  # a true copy of the exact size


def _written(value: Any) -> bytes:
    """Encode a value with orjson, and check the output."""
    dumps, default, options, explain = _used
    try:
        out: bytes = dumps(value, default, options)
    except TypeError as error:
        reason = explain(value, error)
        raise reason from reason.__cause__
    # rfind, not `in`: three times as fast on a document of a few hundred bytes
    at = out.rfind(b"null")
    if at >= 0 and not _nulls_match(value, out, at) and has_nonfinite(value):
        raise explain(value, ValueError(NONFINITE)) from None
    return out


def _nulls_match(value: Any, out: bytes, at: int) -> bool:
    """Whether as many values of a dict are None as there are nulls, the last of them at `at`, so that none stands for NaN."""
    if type_of(value) is not dict:
        return False
    kinds = map(type_of, value.copy().values())  # others may change it meanwhile
    if out.find(b"null", 0, at) < 0:
        return not _NONES.isdisjoint(kinds)
    return [*kinds].count(_NONE) == out.count(b"null")


def encode_event(
    data: Any,
    source: str,
    type: str,
    *,
    id: str | None = None,
    time: str | datetime | None = None,
    subject: str | None = None,
    content_type: str | None = None,
    extensions: Mapping[str, str | int | bool] | None = None,
) -> bytes:
    """Encode an event as structured JSON (media type ``application/cloudevents+json``).

    Args:
        data: the payload: bytes-like, text or what JSON can hold; `None` for no data.
        source, type: CloudEvents attributes, not empty.
        id: `None` draws a UUIDv7.
        time: RFC 3339 text, kept as it is, or a datetime with a time zone; `None` is now.
        subject: CloudEvents ``subject``.
        content_type: media type of `data`; `None` goes by its Python type.
        extensions: other attributes: names of ``a-z0-9``; strings, 32-bit integers, booleans. ``dataschema`` and ``traceparent`` go here too.

    Raises:
        InvalidArgumentError: an attribute breaks a rule of CloudEvents 1.0.2 §3.1.
        PayloadError: `data` cannot be encoded.
    """
    common = id is None and time is None and subject is None and content_type is None and extensions is None
    if common and type_of(data) is dict:
        payload = hooks.encode_payload(data, None)[0] if _used is None else _written(data)
        # else it may be too deep to be copied in as it is
        if len(payload) <= 2 * DEPTH_MAX or _openings(payload) <= DEPTH_MAX:
            head = _heads.get((source, type)) if type_of(source) is type_of(type) is str else None
            if head is None:
                head = _head(source, type)
            now = now_us()
            return _join(
                (
                    b'{"specversion":"1.0","id":"',
                    draw_text(now).encode(),
                    head,
                    format_time(now).encode(),
                    b'","datacontenttype":"application/json","data":',
                    payload,
                    b"}",
                )
            )
    return encode_event_with(
        events_py, hooks.encode_payload, data, source, type, id, time, subject, content_type, extensions
    )


def _openings(text: bytes) -> int:
    """How many brackets may open something: it is no deeper."""
    # to find none is three times as fast as to count them
    return text.count(b"{") + (text.count(b"[") if text.find(b"[") >= 0 else 0)


def _head(source: str, type: str) -> bytes:
    head = b'","source":"%b","type":"%b","time":"' % (
        escape(check_text("source", source)),
        escape(check_text("type", type)),
    )
    if len(_heads) >= _MANY:
        _heads.clear()
    if len(head) <= _MANY and type_of(source) is type_of(type) is str:
        _heads[source, type] = head
    return head


def encode_event_with(
    events: Any,
    encode_payload: Callable[[Any, str | None], tuple[bytes, str]],
    data: Any,
    source: str,
    type: str,
    id: str | None,
    time: str | datetime | None,
    subject: str | None,
    content_type: str | None,
    extensions: Mapping[str, str | int | bool] | None,
) -> bytes:
    """`encode_event` over a kernel of events: what the compiled twin calls, too, for all but the common form."""
    moment = _microseconds(time) if isinstance(time, datetime) else time
    payload, media_type = (b"", content_type) if data is None else encode_payload(data, content_type)
    record = events.encode_record(payload, media_type, id=id, time=moment, subject=subject, extensions=extensions)
    rendered: bytes = events.render_cloudevent(record, source, type)
    return rendered


def _microseconds(time: datetime) -> int:
    if time.tzinfo is None:
        raise InvalidArgumentError("time must have a time zone; give datetime.now(timezone.utc)")
    return (time - _EPOCH) // timedelta(microseconds=1)
