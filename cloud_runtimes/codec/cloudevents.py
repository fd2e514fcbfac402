"""CloudEvents 1.0 as structured JSON: one event to bytes and back.

Mechanism: the payload is encoded as everywhere (`codec.payload`), and the events kernel renders one record around it; it checks the rules of attributes (CloudEvents 1.0.2 §3.1). Decoding checks the whole document once, and makes a record that an `Event` reads when it is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._native import events, payload

if TYPE_CHECKING:
    from ..pubsub.types import Event

__all__ = ["decode", "encode"]


_event: Any = None

encode = payload.encode_event


def decode(data: bytes | bytearray | memoryview | str) -> Event[Any]:
    """Decode structured JSON into an event whose payload is decoded when it is asked for.

    Raises:
        PayloadError: it is no CloudEvent 1.0; the message names the attribute or the byte.
    """
    global _event
    if _event is None:
        # not at import: the codec stands below pub/sub; and once, since an import statement costs more than the parsing
        from ..pubsub.types import Event

        _event = Event
    event: Event[Any] = _event(events.Frame(events.parse_cloudevent(data))[0])
    return event
