"""Timeouts, retries and circuit breakers of a client's calls, where ``[resiliency]`` is configured (docs/resiliency.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._stats import TargetStats

if TYPE_CHECKING:
    from ..client import CloudRuntimesClient

__all__ = ["TargetStats", "stats"]


def stats(client: CloudRuntimesClient) -> dict[str, TargetStats]:
    """Return what became of a client's calls, by ``"<service>.<name>"``; only of targets that were called. Does no I/O."""
    return {} if client._rules is None else client._rules.stats()
