"""CloudEvents 1.0 as structured JSON: one event to bytes and back.

Mechanism: the payload is encoded as everywhere (`codec.payload`), and the events kernel renders one record around it; it checks the rules of attributes (CloudEvents 1.0.2 §3.1). Decoding checks the whole document once; the event that it returns points into the document and reads it when it is asked.
"""

from __future__ import annotations

from .._native import events, payload
from ..pubsub import types  # noqa: F401  what `decode` returns
from . import payload as _payload  # noqa: F401  what encodes data of other content types

__all__ = ["decode", "encode"]

encode = payload.encode_event
decode = events.decode_event
