"""What every service is built on: the frame of a call, its interceptors, and what the client gives."""

from __future__ import annotations

from .base import MAX_NAMES, Service, error_context
from .context import Client, ClientContext
from .interceptor import Call, Interceptor, Outgoing

__all__ = ["MAX_NAMES", "Call", "Client", "ClientContext", "Interceptor", "Outgoing", "Service", "error_context"]
