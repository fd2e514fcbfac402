"""An event as Dapr's applications see it: a CloudEvent with ``topic``, ``pubsubname`` and ``traceid``, and what becomes of its data."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from ...codec import json
from ...codec.payload import JSON
from ...errors import PayloadError
from ...protocols.dapr.events import ADDED, CLOUD_EVENT, EVENT_TYPE, FIELDS
from ...pubsub import Event
from ...pubsub.types import record_of
from ...spi.pubsub import EventRecord
from ..app.channel import passed_on

OCTETS: Final = "application/octet-stream"
ABSENT: Final = "cloudRuntimesAbsent"
"""Metadata of an event that was one already: which of ``data`` and ``datacontenttype`` it lacks. The application gets neither."""
_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})
_KEPT_BACK: Final = frozenset(["dapr-api-token", "host", "pubsubname", "traceparent", "tracestate"])
"""Names of metadata that are headers of the delivery itself."""
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")


def media_type(content_type: str) -> str:
    """Return a content type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Return whether data of this type stands in the event as JSON."""
    media = media_type(content_type)
    return media == "application/json" or (media.endswith("+json") and "/" in media)


def is_text(content_type: str) -> bool:
    """Return whether data of this type stands in the event as text."""
    media = media_type(content_type)
    return media.startswith("text/") or media == "application/xml"


def is_cloud_event(content_type: str) -> bool:
    """Return whether the data is an event itself."""
    return media_type(content_type) == CLOUD_EVENT


class Envelope:
    """CloudEvent for the application.

    Attributes:
        attributes: all attributes except the data, in their order.
        payload: the data as it was published.
        content_type: of the payload.
        bare: there is no data at all.
        metadata: of the delivery, from the publisher.
    """

    def __init__(
        self,
        attributes: dict[str, Any],
        payload: bytes,
        content_type: str,
        *,
        bare: bool = False,
        metadata: Mapping[str, str] = _NO_METADATA,
    ) -> None:
        self.attributes = attributes
        self.payload = payload
        self.content_type = content_type
        self.bare = bare
        self.metadata = metadata
        self._member = _member(payload, content_type)

    def to_json(self) -> bytes:
        """Return the event in structured JSON; data of JSON as it was published."""
        if self.bare:
            return json.encode(self.attributes)
        head = json.encode(self.attributes)[:-1]
        name, data, _ = self._member
        return b"%b,%b:%b}" % (head, json.encode(name), data)

    def members(self) -> Mapping[str, Any]:
        """Return the event as an object, for rules."""
        name, _, value = self._member
        return self.attributes if self.bare else {**self.attributes, name: value}

    @property
    def data(self) -> bytes:
        """The data for gRPC."""
        return b"" if self.bare else self.payload

    @property
    def extensions(self) -> dict[str, Any]:
        """Attributes that have no field of their own over gRPC."""
        return {name: value for name, value in self.attributes.items() if name not in FIELDS}

    def text(self, name: str) -> str:
        """Return an attribute that is text, else ``""``."""
        value = self.attributes.get(name)
        return value if isinstance(value, str) else ""

    @property
    def trace_headers(self) -> list[tuple[str, str]]:
        """The trace context as headers; none where the event has none."""
        pairs = [(name, self.text(name)) for name in ("traceparent", "tracestate")]
        return [(name, value) for name, value in pairs if value and value.isascii() and value.isprintable()]

    @property
    def expired(self) -> bool:
        """Whether ``expiration``, which Dapr writes for brokers that do not count themselves, has passed."""
        text = self.text("expiration")
        if not text:
            return False
        try:
            end = datetime.fromisoformat(text)
        except ValueError:
            return False
        return end.tzinfo is not None and end <= datetime.now(UTC)


def _member(payload: bytes, content_type: str) -> tuple[str, bytes, Any]:
    """Return the data's name, its JSON, and its value."""
    if is_json(content_type):
        try:
            return "data", payload, json.decode(payload)
        except PayloadError:  # as Dapr does with what only says that it is JSON
            pass
    if media_type(content_type) != OCTETS:
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            pass
        else:
            return "data", json.encode(text), text
    encoded = base64.b64encode(payload).decode("ascii")
    return "data_base64", json.encode(encoded), encoded


def read(event: Event[Any], pubsub_name: str, topic: str, raw: bool) -> Envelope:
    """Return an event that was received.

    Args:
        event: as the subscription gave it.
        pubsub_name, topic: of the subscription.
        raw: the subscription takes events without envelopes, which get one here.

    Raises:
        PayloadError: it was published without an envelope, and is no CloudEvent itself.
    """
    record = record_of(event)
    metadata = _passed_metadata(record.metadata)
    if not raw and record.raw:
        envelope = _parsed(record.payload, metadata)
        envelope.attributes |= record.extensions  # of a dead letter, why it is one
        return envelope
    if not raw:
        return _enveloped(record, pubsub_name, metadata)
    whole = record.payload if record.raw else _enveloped(record, pubsub_name, metadata).to_json()
    attributes = {
        "id": record.id,
        "source": "Dapr",
        "specversion": "1.0",
        "type": EVENT_TYPE,
        "datacontenttype": OCTETS,
        "topic": topic,
        "pubsubname": pubsub_name,
    }
    return Envelope(attributes, whole, OCTETS, metadata=metadata)


def _passed_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the publisher's metadata as headers of the delivery, as daprd has it; what no header can be is left out."""
    pairs = [(name.lower(), value) for name, value in metadata.items() if name != ABSENT]
    return {
        name: value
        for name, value in passed_on(pairs, _KEPT_BACK)
        if _NAME.fullmatch(name) and value.isascii() and value.isprintable()
    }


def _enveloped(record: EventRecord, pubsub_name: str, metadata: Mapping[str, str]) -> Envelope:
    content_type = record.content_type or JSON
    extensions = {name: value for name, value in record.extensions.items() if name not in ADDED}
    absent = record.metadata.get(ABSENT, "").split()
    # so the kernel writes and reads an event without data
    bare = "data" in absent or (not record.payload and is_json(content_type))
    if record.content_type is None:
        absent.append("datacontenttype")
    trace = record.traceparent or ""
    attributes: dict[str, Any] = {
        "id": record.id,
        "source": record.source,
        "specversion": "1.0",
        "type": record.type,
        "datacontenttype": content_type,
        "time": record.time_text,
    }
    if record.subject is not None:
        attributes["subject"] = record.subject
    attributes |= {
        "topic": record.topic,
        "pubsubname": pubsub_name,
        "traceid": trace,
        "traceparent": trace,
        "tracestate": "",
    }
    attributes |= extensions
    for name in absent:
        attributes.pop(name, None)
    return Envelope(attributes, record.payload, content_type, bare=bare, metadata=metadata)


def _parsed(document: bytes, metadata: Mapping[str, str]) -> Envelope:
    """Return an event that was stored as it was: one with attributes that CloudEvents does not know, or of another publisher."""
    fields = json.decode(document)
    if not isinstance(fields, dict):
        raise PayloadError("it was published without an envelope, and is no CloudEvent")
    content_type = fields.get("datacontenttype")
    attributes = {name: value for name, value in fields.items() if name not in ("data", "data_base64")}
    encoded = fields.get("data_base64")
    if isinstance(encoded, str):
        try:
            return Envelope(attributes, base64.b64decode(encoded, validate=True), OCTETS, metadata=metadata)
        except ValueError:
            raise PayloadError("data_base64 is not base64") from None
    data = fields.get("data")
    if isinstance(content_type, str) and not is_json(content_type) and isinstance(data, str):
        return Envelope(attributes, data.encode(), content_type, metadata=metadata)
    return Envelope(attributes, json.encode(data), "application/json", bare="data" not in fields, metadata=metadata)
