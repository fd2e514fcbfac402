"""Events as Dapr has them: media types, types, and the attributes that its CloudEvents have."""

from __future__ import annotations

from typing import Final

from ..._native.attributes import CONTEXT, FORMAT

__all__ = ["ADDED", "BULK_TYPE", "CLOUD_EVENT", "CONTEXT", "EVENT_TYPE", "FIELDS", "FORMAT"]

CLOUD_EVENT: Final = "application/cloudevents+json"
EVENT_TYPE: Final = "com.dapr.event.sent"
BULK_TYPE: Final = "com.dapr.event.sent.bulk"
FIELDS: Final = frozenset({"id", "source", "type", *FORMAT})
"""Attributes with a field of their own over gRPC."""
ADDED: Final = frozenset({"topic", "pubsubname", "traceid", "traceparent"})
"""Attributes that Dapr writes over, whatever a publisher gave."""
