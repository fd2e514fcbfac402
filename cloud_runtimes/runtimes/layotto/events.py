"""Events of ours inside of Layotto's.

Layotto's envelope loses every attribute but id, source and type, and writes floats with six digits. So an event of ours travels whole, as the bytes of its CloudEvent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..._native import events as kernel
from ...codec import json
from ...codec.payload import OCTETS
from ...errors import InvalidArgumentError, PayloadError

if TYPE_CHECKING:
    from ..._native.events_py import EventRecord

__all__ = ["framed", "incoming", "outgoing"]

_TYPE: Final = "cloud_runtimes.event"
_TOPIC: Final = "cloudruntimestopic"
"""Attribute of a dead letter: the topic it was first published to."""


def outgoing(record: EventRecord, first_topic: str | None = None) -> bytes:
    """Return a record as the bytes that are published.

    Args:
        first_topic: of a dead letter, where it was published first.
    """
    data = record.to_json()
    if first_topic is None:
        return data
    return b'{"%b":%b,%b' % (_TOPIC.encode(), json.encode(first_topic), data[1:])


def incoming(message: Any) -> EventRecord:
    """Return a ``TopicEventRequest`` as a record.

    Raises:
        CloudRuntimesError: it cannot be one.
    """
    data, content_type = bytes(message.data), message.data_content_type or OCTETS
    if content_type == OCTETS and data[:1] == b"{":
        try:
            return _ours(kernel.read_cloudevent(data), message.topic)
        except PayloadError:
            pass  # bytes of another application
    try:
        record = kernel.encode_record(
            data, content_type, id=message.id or None, type=message.type or None, source=message.source or None
        )
    except InvalidArgumentError:  # attributes of others, of another form than CloudEvents has: the event counts more
        record = kernel.encode_record(data, OCTETS)
    return framed(record, message.topic)


def _ours(event: EventRecord, topic: str) -> EventRecord:
    extensions = event.extensions
    first = extensions.pop(_TOPIC, None)
    record = kernel.encode_record(
        event.payload,
        event.content_type,
        id=event.id,
        time=event.time_text,
        key=event.key,
        traceparent=event.traceparent,
        type=event.type,
        source=event.source,
        subject=event.subject,
        extensions=extensions or None,
    )
    return framed(record, first if isinstance(first, str) else topic)


def framed(record: bytes, topic: str) -> EventRecord:
    """Return an encoded record as one that was published to a topic."""
    return kernel.Frame(kernel.build_frame("Layotto", _TYPE, topic, [record]))[0]
