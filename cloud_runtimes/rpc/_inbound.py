"""The call that is being handled: its deadline holds for the calls that its handler makes."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

__all__ = ["deadline"]

deadline: Final[ContextVar[float | None]] = ContextVar("cloud_runtimes_rpc_deadline", default=None)
"""`time.monotonic` at which the caller gives up; ``None``: never, or nothing is being handled."""
