"""Foundation of every service: the frame of a call, its interceptors, and what the client gives."""

from __future__ import annotations

from .base import MAX_NAMES, Call, Framed, Interceptor, Outgoing, Service, ServiceFrame, error_context, frame_of
from .context import Client, ClientContext, context_of
from .handle import (
    ClosingHandle,
    Opening,
    RunningHandle,
    ServiceHandle,
    opening,
    run_in,
    run_until_closed,
    run_until_closed_async,
    threaded,
)
from .health import Health
from .outbox import Outbox

__all__ = [
    "MAX_NAMES",
    "Call",
    "Client",
    "ClientContext",
    "ClosingHandle",
    "Framed",
    "Health",
    "Interceptor",
    "Opening",
    "Outbox",
    "Outgoing",
    "RunningHandle",
    "Service",
    "ServiceFrame",
    "ServiceHandle",
    "context_of",
    "error_context",
    "frame_of",
    "opening",
    "run_in",
    "run_until_closed",
    "run_until_closed_async",
    "threaded",
]
