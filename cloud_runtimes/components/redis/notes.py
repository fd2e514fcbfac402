"""Metadata of events in entries of streams, where Dapr's component has it: an object of text in a field beside the event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..._native import events as kernel
from ...codec import json
from ...errors import CloudRuntimesError
from ...spi.broker.reading import LaterVersionError, read_message
from ...spi.events import changed

NOTE: Final = b"metadata"
_OWN: Final = "cloudRuntimes"
"""Beginning of names that only our sidecars write, for themselves."""


def encode_note(metadata: Mapping[str, str]) -> bytes:
    """Return the field of an event's metadata, ``b""`` where there is none."""
    fields = {name: value for name, value in metadata.items() if not name.startswith(_OWN)}
    return json.encode(fields) if fields else b""


def with_note(message: bytes, note: bytes, topic: str, id: str) -> bytes:
    """Return a message with the metadata beside it, as a frame; one without metadata that can be read as it is.

    Args:
        message: an event in structured mode, else a payload without an envelope.
        note: the field.
        topic: it was first published to.
        id: of a payload.
    """
    try:
        fields = json.decode(note)
        metadata = (
            {name: text for name, text in fields.items() if isinstance(text, str)} if isinstance(fields, dict) else {}
        )
        if not metadata:
            return message
        frame = kernel.Frame(read_message(message, None, {}, topic=topic, id=id, prefix="ce-"))
        record = changed(frame[0], metadata=metadata)
        packed: bytes = kernel.build_frame(frame.source, frame.type, frame.topic, (record,))
    except (CloudRuntimesError, LaterVersionError):  # of another program, or more than an event can have
        return message
    return packed
