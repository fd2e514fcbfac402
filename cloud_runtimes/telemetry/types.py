"""Types of telemetry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["SignalStats", "TelemetryStats"]


@dataclass(frozen=True, slots=True)
class SignalStats:
    """Counters of one signal since the process, or the forked child, began; recorded = exported + dropped + buffered.

    Attributes:
        recorded: handed in, kept or not.
        exported: accepted by the exporter.
        dropped: by cause. ``buffer_full``, ``too_large`` (for a chunk), ``closed``, ``failed`` (interrupted while it was encoded), ``rejected`` (by the endpoint), ``unreachable`` (the endpoint, for longer than ``retry_timeout``), ``export_error`` (the exporter failed), ``invalid``. Causes that did not occur are left out.
        buffered: waiting, and in the batch under way.
        buffered_bytes: of those.
    """

    recorded: int
    exported: int
    dropped: Mapping[str, int]
    buffered: int
    buffered_bytes: int


@dataclass(frozen=True, slots=True)
class TelemetryStats:
    """A snapshot of the counters, one `SignalStats` for each signal; of metrics data points are counted, at each collection, and values that could not be recorded."""

    spans: SignalStats
    logs: SignalStats
    metrics: SignalStats
