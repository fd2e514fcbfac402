"""Event records from and to CloudEvents, for drivers whose broker has an event a message (CloudEvents 1.0); and dead letters, which say in extensions why they are."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from .._native import events as kernel
from .._native.attributes import CONTEXT
from ..errors import PayloadError

__all__ = ["cause_of", "dead_letter", "make_event", "read_binary", "read_structured", "to_binary"]

EventRecord = kernel.EventRecord
EVENT_TYPE: Final = "cloud_runtimes.event"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ERROR_BYTES: Final = 1024
_LETTER: Final = ("dlreason", "dlerror", "dlcount", "dlfirst", "dllast", "dltopic", "dlgroup")


class Cause(NamedTuple):
    """Why an event was not acknowledged; a dead letter says so.

    Attributes:
        reason: ``"dropped"``, ``"deliveries"`` (it failed too often) or ``"undecodable"``.
        error: type and message of the error; ``None``: not known.
        deliveries: how often the event was delivered; ``None``: as often as its source knows.
        last_us: its last delivery, where ``deliveries`` is known (microseconds since 1970 UTC).
    """

    reason: str
    error: str | None = None
    deliveries: int | None = None
    last_us: int | None = None


def make_event(
    data: bytes,
    content_type: str | None,
    topic: str,
    *,
    source: str | None = None,
    id: str | None = None,
    type: str | None = None,
    subject: str | None = None,
    time: str | None = None,
    key: str | None = None,
    traceparent: str | None = None,
    extensions: Mapping[str, Any] | None = None,
    raw: bool = False,
) -> EventRecord:
    """Return an event of its parts; what is ``None`` gets a value where CloudEvents demands one.

    Args:
        data: the payload as encoded.
        content_type: of it; ``None``: not known.
        topic: it came from; also its source where it has none.
        source, id, type, subject, extensions: CloudEvents attributes.
        time: as RFC 3339.
        key: the ordering key.
        traceparent: W3C trace context.
        raw: it has no envelope, so its attributes are this function's.

    Raises:
        InvalidArgumentError: an attribute breaks CloudEvents 1.0 §3.1.
    """
    attributes = {"id": id, "time": time, "key": key, "traceparent": traceparent, "subject": subject}
    body = _frame(data, content_type, topic, source=source, type=type, extensions=extensions, raw=raw, **attributes)
    return kernel.Frame(body)[0]


def _frame(
    data: bytes,
    content_type: str | None,
    topic: str,
    *,
    source: str | None,
    type: str | None,
    extensions: Mapping[str, Any] | None,
    **attributes: Any,
) -> bytes:
    """Return a frame of one event; see `make_event`."""
    record = kernel.encode_record(
        data, content_type, source=source, type=type, extensions=extensions or None, **attributes
    )
    body: bytes = kernel.build_frame(source or topic, type or EVENT_TYPE, topic, (record,))
    return body


def read_structured(data: bytes, topic: str) -> EventRecord:
    """Return the event of a message in structured mode; a `PayloadError` names the attribute or the byte that makes it no CloudEvent 1.0."""
    return kernel.Frame(kernel.parse_cloudevent(data, topic))[0]


def read_binary(headers: Mapping[str, str], data: bytes, topic: str, *, prefix: str = "ce-") -> EventRecord:
    """Return the event of a message in binary mode.

    Args:
        headers: of the message; their names in lower case.
        data: the payload.
        topic: it came from.
        prefix: of the headers that are attributes: ``"ce-"`` in HTTP and NATS, ``"ce_"`` in Kafka, ``"cloudEvents:"`` in AMQP.

    Raises:
        PayloadError: it is no CloudEvent 1.0.
        InvalidArgumentError: an attribute breaks CloudEvents 1.0 §3.1.
    """
    return kernel.Frame(pack_binary(headers, data, topic, prefix=prefix))[0]


def pack_binary(headers: Mapping[str, str], data: bytes, topic: str, *, prefix: str = "ce-") -> bytes:
    """Return the event of a message in binary mode as a frame; arguments and errors are those of `read_binary`."""
    if headers.get(f"{prefix}specversion") != "1.0":
        raise PayloadError(f"the message has no header {prefix}specversion of 1.0, so it is no CloudEvent")
    given = {name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix)}
    del given["specversion"]
    known: dict[str, Any] = {name: given.pop(name, None) for name in CONTEXT}
    key, traceparent = given.pop("partitionkey", None), given.pop("traceparent", None)
    content_type = headers.get("content-type") or given.pop("datacontenttype", None)
    return _frame(data, content_type, topic, key=key, traceparent=traceparent, extensions=given, **known)


def to_binary(record: EventRecord, *, prefix: str = "ce-") -> tuple[dict[str, str], bytes]:
    """Return an event as the headers and the payload of a message in binary mode; see `read_binary`."""
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": record.id,
        "source": record.source,
        "type": record.type,
        "subject": record.subject,
        "time": record.time_text,
        "partitionkey": record.key,
        "traceparent": record.traceparent,
        **record.extensions,
    }
    headers = {f"{prefix}{name}": _text(value) for name, value in attributes.items() if value is not None}
    if record.content_type is not None:
        headers["content-type"] = record.content_type
    return headers, record.payload


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# -- dead letters -------------------------------------------------------------


def cause_of(reason: str, error: BaseException) -> Cause:
    """Return a reason together with an error's type and message, at most 1 KiB, as text that an attribute may have (CloudEvents 1.0 §3.1)."""
    name = type(error).__name__
    try:
        text = str(error)[:_ERROR_BYTES]
    except Exception:  # of the application
        text = ""
    return Cause(reason, printable(f"{name}: {text}" if text else name))


def printable(text: str) -> str:
    """Return text as an attribute may have it (CloudEvents 1.0 §3.1), at most 1 KiB: a blank stands for each character that is not printable."""
    text = "".join(each if each.isprintable() else " " for each in text[:_ERROR_BYTES])
    return text.encode()[:_ERROR_BYTES].decode(errors="ignore")


def dead_letter(
    record: EventRecord,
    cause: Cause,
    *,
    topic: str,
    group: str,
    count: int | None = None,
    first_us: int | None = None,
    last_us: int | None = None,
) -> EventRecord:
    """Return the same event, which says in extensions why it is a dead letter. `OutgoingBatch.of` publishes it.

    Args:
        record: the event.
        cause: why (``dlreason``, ``dlerror``).
        topic, group: of the subscription (``dltopic``, ``dlgroup``).
        count: how often the group got it (``dlcount``).
        first_us, last_us: when it got it first and last, in microseconds since 1970 UTC (``dlfirst``, ``dllast``).

        What is ``None`` is not known, and left out.
    """
    letter = dead_letter_record(
        record, cause, topic=topic, group=group, count=count, first_us=first_us, last_us=last_us
    )
    return _event(record, letter)


def dead_letter_record(
    record: EventRecord,
    cause: Cause,
    *,
    topic: str,
    group: str,
    count: int | None = None,
    first_us: int | None = None,
    last_us: int | None = None,
) -> bytes:
    """Return what `dead_letter` does, as a record of a frame."""
    extensions = {name: value for name, value in record.extensions.items() if name not in _LETTER}
    known = (cause.reason, cause.error, count, _time(first_us), _time(last_us), topic, group)
    extensions |= {name: value for name, value in zip(_LETTER, known, strict=True) if value is not None}
    return changed(record, extensions=extensions)


def undo_dead_letter(record: EventRecord) -> bytes:
    """Return a dead letter as the event that it was, as a record of a frame."""
    return changed(record, extensions={name: value for name, value in record.extensions.items() if name not in _LETTER})


def changed(record: EventRecord, **arguments: Any) -> bytes:
    """Return a record that is the same event but for some arguments of the kernel's `encode_record`."""
    same: dict[str, Any] = {
        "id": record.id,
        "time": record.time_text,
        "key": record.key,
        "traceparent": record.traceparent,
        "type": record.type,
        "source": record.source,
        "subject": record.subject,
        "extensions": record.extensions,
        "metadata": record.metadata or None,
        "expires": record.expires_us,
        "raw": record.raw,
    }
    return kernel.encode_record(record.payload, record.content_type, **{**same, **arguments})


def frame_of(record: EventRecord, topic: str | None = None) -> bytes:
    """Return an event as a frame, of another topic if one is given."""
    body: bytes = kernel.build_frame(record.source, record.type, topic or record.topic, (changed(record),))
    return body


def _event(record: EventRecord, encoded: bytes) -> EventRecord:
    return kernel.Frame(kernel.build_frame(record.source, record.type, record.topic, (encoded,)))[0]


def _time(us: int | None) -> str | None:
    return None if us is None else f"{_EPOCH + timedelta(microseconds=us):%Y-%m-%dT%H:%M:%S.%fZ}"
