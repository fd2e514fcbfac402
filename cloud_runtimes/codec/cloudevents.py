"""CloudEvents 1.0 as structured JSON: one event to bytes and back.

Mechanism: the payload is encoded as everywhere (`codec.payload`), and the events kernel renders one record around it; it checks the rules of attributes (CloudEvents 1.0.2 §3.1). Decoding checks the whole document once, and makes a record that an `Event` reads when it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .._native import events
from ..errors import InvalidArgumentError
from .payload import encode_payload

if TYPE_CHECKING:
    from ..pubsub.types import Event

__all__ = ["decode", "encode"]

_EPOCH = datetime.fromtimestamp(0, UTC)


def encode(
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
    moment = _microseconds(time) if isinstance(time, datetime) else time
    payload, found = (b"", content_type) if data is None else encode_payload(data, content_type)
    record = events.encode_record(payload, found, id=id, time=moment, subject=subject, extensions=extensions)
    return events.render_cloudevent(record, source, type)


def decode(data: bytes | bytearray | memoryview | str) -> Event[Any]:
    """Decode structured JSON into an event whose payload is decoded when it is asked for.

    Raises:
        PayloadError: it is no CloudEvent 1.0; the message names the attribute or the byte.
    """
    from ..pubsub.types import Event

    return Event.from_record(events.Frame(events.parse_cloudevent(data))[0])


def _microseconds(time: datetime) -> int:
    if time.tzinfo is None:
        raise InvalidArgumentError("time must have a time zone; give datetime.now(timezone.utc)")
    return (time - _EPOCH) // timedelta(microseconds=1)
