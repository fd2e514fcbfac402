"""From what a caller publishes to a record: checks before any I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from .._native import events as kernel
from ..codec.payload import encode_payload
from ..errors import InvalidArgumentError, ResourceExhaustedError

__all__ = ["EVENT_TYPE", "check_names", "check_topic", "make_record"]

EVENT_TYPE: Final = "cloud_runtimes.event"
_CONTEXT: Final = ("id", "type", "source", "subject", "time")


def check_topic(topic: Any, what: str = "topic") -> str:
    """Return a topic's (or group's) name: printable text of 1 to 255 characters."""
    if not isinstance(topic, str) or not 0 < len(topic) <= 255 or not topic.isprintable():
        raise InvalidArgumentError(f"{what} {topic!r}: give printable text of 1 to 255 characters")
    return topic


def check_names(attributes: Any) -> Mapping[str, Any]:
    """Return attributes; refuse what is not a mapping with text as names."""
    if not isinstance(attributes, Mapping) or not all(isinstance(name, str) for name in attributes):
        raise InvalidArgumentError("attributes must be a mapping of CloudEvents attribute names to values")
    return attributes


def make_record(
    data: Any,
    *,
    content_type: str | None,
    key: str | None,
    attributes: Mapping[str, Any] | None,
    metadata: Mapping[str, str] | None,
    id: str | None = None,
    expires_us: int | None = None,
    raw: bool = False,
    max_bytes: int,
) -> bytes:
    """Encode one event.

    Raises:
        PayloadError: the data cannot be encoded.
        InvalidArgumentError: an attribute is wrong.
        ResourceExhaustedError: the data is larger than the component takes.
    """
    payload, encoded_as = encode_payload(data, content_type)
    if len(payload) > max_bytes:
        raise ResourceExhaustedError(
            f"the event's data has {len(payload):,} bytes, {max_bytes:,} are taken: send a reference to it instead"
        )
    if attributes is None:
        return kernel.encode_record(payload, encoded_as, id=id, key=key, metadata=metadata, expires=expires_us, raw=raw)
    given = dict(check_names(attributes))
    context = {name: given.pop(name) for name in _CONTEXT if given.get(name) is not None}
    for name in _CONTEXT:
        given.pop(name, None)
    time = context.pop("time", None)
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise InvalidArgumentError("attribute time: give a datetime with a tzinfo, or RFC 3339 text")
        time = time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    for name in ("datacontenttype", "data", "data_base64", "specversion"):
        if name in given:
            raise InvalidArgumentError(f"attribute {name!r} is set by the event itself: use data= and content_type=")
    if "partitionkey" in given:
        raise InvalidArgumentError("attribute 'partitionkey' has an argument of its own: use key=")
    return kernel.encode_record(
        payload,
        encoded_as,
        id=context.get("id", id),
        time=time,
        key=key,
        type=context.get("type"),
        source=context.get("source"),
        subject=context.get("subject"),
        extensions={name: value for name, value in given.items() if value is not None} or None,
        metadata=metadata,
        expires=expires_us,
        raw=raw,
    )
