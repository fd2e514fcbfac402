"""Events of ours inside of Layotto's.

Layotto's envelope loses every attribute but id, source and type, and writes floats with six digits. So an event of ours travels whole, as the bytes of its CloudEvent.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ..._native import events as kernel
from ...codec import json
from ...codec.payload import OCTETS
from ...errors import InvalidArgumentError, PayloadError
from ...spi.events import make_event, read_structured
from ...spi.pubsub import EventRecord

__all__ = ["dead_letter_bytes", "incoming"]

_FIRST_TOPIC: Final = re.compile(rb'\{"cloudruntimestopic":("(?:[^"\\]|\\.)*+"),')
"""Attribute of a dead letter: the topic it was first published to."""


def dead_letter_bytes(record: bytes, topic: str) -> bytes:
    """Return the bytes of an encoded dead letter that was first published to a topic."""
    event = kernel.Frame(kernel.build_frame("Layotto", "cloud_runtimes.event", topic, [record]))[0].to_json()
    return b'{"cloudruntimestopic":%b,%b' % (json.encode(topic), event[1:])


def incoming(message: Any) -> EventRecord:
    """Return a ``TopicEventRequest`` as a record.

    Raises:
        CloudRuntimesError: it cannot be one.
    """
    data, content_type = bytes(message.data), message.data_content_type or OCTETS
    if content_type == OCTETS and data[:1] == b"{":
        try:
            if found := _FIRST_TOPIC.match(data):
                return read_structured(b"{" + data[found.end() :], json.decode(found[1]))
            return read_structured(data, message.topic)
        except PayloadError:
            pass  # bytes of another application
    attributes: dict[str, Any] = {
        "id": message.id or None,
        "type": message.type or None,
        "source": message.source or None,
    }
    try:
        return make_event(data, content_type, message.topic, **attributes)
    except InvalidArgumentError:  # attributes of others, of another form than CloudEvents has: the event counts more
        return make_event(data, OCTETS, message.topic)
