"""The call that is being handled: its deadline and trace context hold for the calls that its handler makes."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Final, NamedTuple

__all__ = ["Inbound", "current", "valid_traceparent"]

# Trace Context, section 3.2.2: version-traceid-parentid-flags; version ff and ids of zeros are invalid
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[\x21-\x7e]*)?"
)


class Inbound(NamedTuple):
    """What a handler's own calls inherit."""

    deadline: float | None
    traceparent: str | None
    tracestate: str | None


current: Final[ContextVar[Inbound | None]] = ContextVar("cloud_runtimes_rpc_inbound", default=None)


def valid_traceparent(text: str | None) -> str | None:
    """Return a trace context that is one; what is not is ignored, as the standard wants it."""
    return text if text is not None and len(text) <= 128 and _TRACEPARENT.fullmatch(text) else None
