"""From what an application publishes to an event of ours (Dapr, "CloudEvents" of the pub/sub reference; dapr/dapr ``pkg/runtime/pubsub/cloudevents.go``)."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from ...codec import json
from ...errors import PayloadError
from ...protocols.dapr.events import ADDED, CLOUD_EVENT, CONTEXT, EVENT_TYPE, FORMAT
from ...pubsub.outgoing import is_uri_reference
from .envelope import ABSENT, is_cloud_event, is_json, media_type

_PREFIX: Final = "cloudevent."
_EXTENSION: Final = re.compile(r"[a-z0-9]{1,100}")
_DIGITS: Final = re.compile(r"[1-9][0-9]{0,8}")
_BARE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_URI: Final = "%:/?#[]@!$&'()*+,;=~"
_FIELDS: Final = ADDED.union(FORMAT) - {"traceparent"}


class NotAnEvent(Exception):
    """A body that says that it is a CloudEvent is none."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace context of a request; ``""``: none."""

    parent: str = ""
    state: str = ""


@dataclass(slots=True)
class Outgoing:
    """Event to publish.

    Attributes:
        data: the payload.
        content_type: of the payload.
        attributes: CloudEvents attributes and extensions; ``None``: it is published without an envelope.
        ttl: seconds.
        key: the ordering key.
        note: metadata of the event in addition to the request's.
    """

    data: bytes
    content_type: str
    attributes: dict[str, Any] | None
    ttl: float | None
    key: str | None
    note: Mapping[str, str] = field(default_factory=dict)


def passed_on(metadata: Mapping[str, str], note: Mapping[str, str] | None = None) -> dict[str, str] | None:
    """Return a request's metadata for the component and the subscribers, who get all of it, and an event's own."""
    return {**metadata, **(note or {})} or None


def ttl_of(metadata: Mapping[str, str]) -> float | None:
    """Return ``ttlInSeconds``; what is no number of seconds is ignored, as Dapr does."""
    text = metadata.get("ttlInSeconds", "")
    return float(text) if _DIGITS.fullmatch(text) else None


def make(
    data: bytes,
    content_type: str,
    metadata: Mapping[str, str],
    *,
    raw: bool,
    app_id: str,
    trace: Trace,
    topic: str,
    pubsub_name: str,
) -> Outgoing:
    """Return the event of a request.

    Args:
        data: the body.
        content_type: of it, ``""``: not told.
        metadata: of the request.
        raw: without an envelope.
        app_id: the default ``source``.
        trace: of the request.
        topic, pubsub_name: where it goes.

    Raises:
        NotAnEvent: the content type says that it is one.
    """
    key = metadata.get("partitionKey") or None
    if raw:
        return Outgoing(data, content_type or "application/octet-stream", None, ttl_of(metadata), key)
    if is_cloud_event(content_type):
        event = _read(data)
        return _given(event, trace, topic, pubsub_name, ttl_of(metadata), key)
    attributes = {"id": str(uuid.uuid4()), "source": app_id or "Dapr", "type": EVENT_TYPE}
    overrides = {name[len(_PREFIX) :].lower(): value for name, value in metadata.items() if name.startswith(_PREFIX)}
    for name in ("id", "source", "type", "subject"):
        if overrides.get(name):
            attributes[name] = overrides[name]
    if not is_uri_reference(attributes["source"]):  # Dapr passes any text on
        attributes["source"] = _BARE.sub("%25", quote(attributes["source"], safe=_URI))
    parent = overrides.get("traceparent") or overrides.get("traceid") or trace.parent
    attributes |= _traced(parent, overrides.get("tracestate") or trace.state)
    if not data and is_json(content_type):
        data = b'""'  # text, as daprd makes of what is no JSON; without data would be something else
    return Outgoing(data, content_type or "text/plain", attributes, ttl_of(metadata), key)


def _traced(parent: Any, state: Any) -> dict[str, str]:
    """Return the trace context that an event can hold."""
    attributes = {}
    if _fits(parent):
        attributes["traceparent"] = parent
    if isinstance(state, str) and state and state.isprintable():
        attributes["tracestate"] = state
    return attributes


def _fits(parent: Any) -> bool:
    """Return whether an event of ours can hold it as ``traceparent``."""
    return isinstance(parent, str) and 0 < len(parent) <= 512 and parent.isascii() and parent.isprintable()


def _read(data: bytes) -> dict[str, Any]:
    try:
        event = json.decode(data)
    except PayloadError as error:
        raise NotAnEvent(error.message) from error
    if not isinstance(event, dict):
        raise NotAnEvent("a CloudEvent is a JSON object")
    return event


def _given(
    event: dict[str, Any], trace: Trace, topic: str, pubsub_name: str, ttl: float | None, key: str | None
) -> Outgoing:
    """An event that is one already; what it lacks is filled in."""
    parent = event.get("traceparent") or event.get("traceid") or trace.parent
    # an empty attribute is none, by CloudEvents
    attributes = {name: value for name, value in event.items() if value not in (None, "") and name not in _FIELDS}
    attributes = {"id": str(uuid.uuid4()), "source": "Dapr", "type": EVENT_TYPE} | attributes
    attributes |= _traced(parent, event.get("tracestate") or trace.state)
    content_type = event.get("datacontenttype")
    if _plain(attributes) and _dated(attributes.get("time")) and isinstance(content_type, str | None):
        try:
            data, content_type = _payload(event, content_type)
        except ValueError as error:
            raise NotAnEvent(str(error)) from error
        # bytes of another type would be delivered as text, where they could be that
        if event.get("data_base64") is None or media_type(content_type) == "application/octet-stream":
            absent = [] if {"data", "data_base64"} & event.keys() else ["data"]
            absent += [] if "datacontenttype" in event else ["datacontenttype"]
            return Outgoing(data, content_type, attributes, ttl, key, {ABSENT: " ".join(absent)} if absent else {})
    # Dapr passes on what CloudEvents does not know: such an event is stored as it is
    whole = {
        "specversion": "1.0",
        "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "traceid": parent,
        "traceparent": parent,
        "tracestate": trace.state,
        **attributes,
        **event,
        "topic": topic,
        "pubsubname": pubsub_name,
    }
    return Outgoing(json.encode(whole), CLOUD_EVENT, None, ttl, key)


def _plain(attributes: dict[str, Any]) -> bool:
    """Return whether attributes are those of CloudEvents 1.0, sections 3.1 and 3.2."""
    return all(
        _EXTENSION.fullmatch(name)
        and name != "partitionkey"
        and isinstance(value, (str, bool, int))
        and (not isinstance(value, str) or (value.isprintable() and len(value) < 16384))
        and (name not in CONTEXT or isinstance(value, str))
        and (name != "traceparent" or _fits(value))
        and (name not in ("source", "dataschema") or is_uri_reference(str(value)))
        and (isinstance(value, (str, bool)) or -(2**31) <= value < 2**31)
        for name, value in attributes.items()
    )


def _dated(time: Any) -> bool:
    """Return whether ``time`` is absent, or RFC 3339 with its zone."""
    try:
        return time is None or datetime.fromisoformat(time).tzinfo is not None
    except ValueError:
        return False


def _payload(event: dict[str, Any], content_type: str | None) -> tuple[bytes, str]:
    encoded, data = event.get("data_base64"), event.get("data")
    if encoded is not None:
        if not isinstance(encoded, str):
            raise ValueError("data_base64 is no text")
        return base64.b64decode(encoded, validate=True), content_type or "application/octet-stream"
    if isinstance(data, str) and content_type and not is_json(content_type):
        return data.encode(), content_type
    if "data" not in event:  # nor has it any for the kernel, which writes none for JSON of no bytes
        return b"", content_type or "application/json"
    return json.encode(data), content_type if content_type and is_json(content_type) else "application/json"
