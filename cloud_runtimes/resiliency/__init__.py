"""Timeouts, retries and circuit breakers of a client's calls, where ``[resiliency]`` is configured (docs/how-to/resiliency.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .breaker import TargetStats

if TYPE_CHECKING:
    from .interceptor import PolicyInterceptor

__all__ = ["TargetStats", "stats"]


class _Client(Protocol):
    @property
    def _policies(self) -> PolicyInterceptor | None: ...


def stats(client: _Client) -> dict[str, TargetStats]:
    """Return what became of a client's calls, by ``"<service>.<name>"``; only of targets that were called. Does no I/O."""
    return {} if client._policies is None else client._policies.stats()
