"""Events of ours as CloudEvents for Dapr, and back from its messages."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ..._link.values import is_exact
from ..._native import events as kernel
from ...codec import json
from ...codec.payload import JSON, OCTETS
from ...errors import InvalidArgumentError

if TYPE_CHECKING:
    from ..._native.events_py import Record

__all__ = ["CLOUD_EVENT", "incoming", "outgoing"]

CLOUD_EVENT: Final = "application/cloudevents+json"
_TYPE: Final = "cloud_runtimes.event"
_KEY: Final = "partitionkey"
_NAME: Final = re.compile(r"[a-z0-9]{1,100}")
_DAPRS: Final = frozenset(
    ["topic", "pubsubname", "traceid", "traceparent", "tracestate", _KEY, "subject", "time", "expiration"]
)
"""Attributes of a delivery that are no extensions of the event."""


def outgoing(record: Record) -> bytes:
    """Return a record as a CloudEvent that Dapr leaves as it is.

    Its ``traceid`` is set, since otherwise ``traceparent`` would be written over. JSON whose numbers Dapr would decode into floats is base64, and so is ``null``, which it would leave out.
    """
    content_type, payload = record.content_type or OCTETS, record.payload
    event: dict[str, Any] = {
        "id": record.id,
        "source": record.source,
        "specversion": "1.0",
        "type": record.type,
        "datacontenttype": content_type,
        "time": record.time_text,
    }
    if record.subject is not None:
        event["subject"] = record.subject
    if record.key is not None:
        event[_KEY] = record.key
    if record.traceparent is not None:
        event["traceparent"] = event["traceid"] = record.traceparent
    event |= record.extensions
    if content_type == JSON and payload != b"null" and is_exact(payload):
        return json.encode(event)[:-1] + b',"data":' + payload + b"}"
    if content_type.startswith("text/plain"):
        try:
            return json.encode({**event, "data": payload.decode()})
        except UnicodeDecodeError:
            pass
    return json.encode({**event, "data_base64": base64.b64encode(payload).decode("ascii")})


def incoming(message: Any, *, raw: bool = False) -> Record:
    """Return a ``TopicEventRequest`` as a record; ``raw``: its data is all there is of the event.

    Raises:
        CloudRuntimesError: it cannot be one.
    """
    told = _members(message.extensions)
    trace = told.get("traceparent")
    extensions = {
        name: _plain(value)
        for name, value in told.items()
        if name not in _DAPRS and _NAME.fullmatch(name) and _is_plain(value)
    }
    if isinstance(state := told.get("tracestate"), str) and state:
        extensions["tracestate"] = state
    # a dead letter tells the topic it was first published to
    first = told.get("topic")
    topic = first if isinstance(first, str) and first else message.topic
    needed: dict[str, Any] = {"id": message.id or None, "raw": raw}
    more: dict[str, Any] = {
        "time": _text(told, "time"),
        "key": _text(told, _KEY),
        "traceparent": trace if isinstance(trace, str) and trace else None,
        "subject": _text(told, "subject"),
        "extensions": extensions or None,
    }
    origin: dict[str, Any] = {"type": message.type or None, "source": message.source or None}
    content_type, data = message.data_content_type or OCTETS, bytes(message.data)
    try:
        record = kernel.encode_record(data, content_type, **needed, **origin, **more)
    except InvalidArgumentError:  # attributes of others, of another form than CloudEvents has: the event counts more
        record = kernel.encode_record(data, content_type, **needed, **origin)
    return kernel.Frame(kernel.build_frame(message.source or "Dapr", message.type or _TYPE, topic, [record]))[0]


def _members(struct: Any) -> dict[str, Any]:
    """Return the members of a ``Struct`` that an event can have: text, numbers, booleans."""
    members: dict[str, Any] = {}
    for name, value in struct.fields.items():
        kind = value.WhichOneof("kind")
        if kind in ("string_value", "number_value", "bool_value"):
            members[name] = getattr(value, kind)
    return members


def _text(told: Mapping[str, Any], name: str) -> str | None:
    value = told.get(name)
    return value if isinstance(value, str) and value else None


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | bool) or (isinstance(value, float) and value.is_integer() and abs(value) < 2**31)


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) else value
