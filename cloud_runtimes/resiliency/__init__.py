"""Timeouts, retries and circuit breakers of a client's calls, where ``[resiliency]`` is configured (docs/how-to/resiliency.md)."""

from __future__ import annotations

from .._service import Client, context_of
from .breaker import TargetStats

__all__ = ["TargetStats", "stats"]


def stats(client: Client) -> dict[str, TargetStats]:
    """Return what became of a client's calls, by ``"<service>.<name>"``; only of targets that were called. Does no I/O."""
    policies = context_of(client).policies
    return {} if policies is None else policies.stats()
