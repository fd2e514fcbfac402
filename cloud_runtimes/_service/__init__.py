"""What every service is built on: the frame of a call, its interceptors, and what the client gives."""

from __future__ import annotations

from .base import MAX_NAMES, Call, Interceptor, Outgoing, Service, error_context
from .context import Client, ClientContext
from .handle import ClosingHandle, Opening, RunningHandle, opening, threaded
from .health import Health
from .outbox import Outbox

__all__ = [
    "MAX_NAMES",
    "Call",
    "Client",
    "ClientContext",
    "ClosingHandle",
    "Health",
    "Interceptor",
    "Opening",
    "Outbox",
    "Outgoing",
    "RunningHandle",
    "Service",
    "error_context",
    "opening",
    "threaded",
]
