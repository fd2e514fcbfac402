"""Metadata of events in entries of streams, where Dapr's component has it: an object of text in a field beside the event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..._native import events as kernel
from ...codec import json
from ...errors import CloudRuntimesError
from ...spi.events import changed

__all__ = ["NOTE", "encode_note", "with_note"]

NOTE: Final = b"metadata"
_OWN: Final = "cloudRuntimes"
"""Beginning of names that only our sidecars write, for themselves."""


def encode_note(metadata: Mapping[str, str]) -> bytes:
    """Return the field of an event's metadata, ``b""`` where there is none."""
    told = {name: value for name, value in metadata.items() if not name.startswith(_OWN)}
    return json.encode(told) if told else b""


def with_note(event: bytes, note: bytes, topic: str) -> bytes:
    """Return a structured CloudEvent with its metadata, as a frame. What cannot be read is left out, and another message as it is."""
    try:
        told = json.decode(note) if len(note) > 2 else None
        if not isinstance(told, dict) or not told:
            return event
        body, bad = kernel.pack_cloudevents([event], topic)
        if body is None or bad:
            return event
        frame = kernel.Frame(body)
        metadata = {name: value for name, value in told.items() if isinstance(value, str)}
        record = changed(frame[0], metadata=metadata or None)
        packed: bytes = kernel.build_frame(frame.source, frame.type, frame.topic, (record,))
    except CloudRuntimesError:  # of another program, or more than an event can have
        return event
    return packed
