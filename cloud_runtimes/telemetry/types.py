"""Types of telemetry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..spi.relay import Backlog

__all__ = ["SignalSpool", "SignalStats", "TelemetrySpool", "TelemetryStats"]


@dataclass(frozen=True, slots=True)
class SignalStats:
    """Counters of one signal since the process, or the forked child, began; recorded = exported + dropped + buffered.

    Attributes:
        recorded: handed in, kept or not.
        exported: accepted by the exporter; with a spool: durable on this machine, see `SignalSpool`.
        dropped: by cause. ``buffer_full``, ``too_large`` (for a chunk), ``closed``, ``failed`` (interrupted while it was encoded), ``rejected`` (by the endpoint), ``unreachable`` (the endpoint, for longer than ``retry_timeout``), ``export_error`` (the exporter failed, or a spool with ``on_full = "raise"`` was full), ``invalid``. Causes that did not occur are left out.
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


@dataclass(frozen=True, slots=True)
class SignalSpool:
    """Counters of one signal's spool, of all processes of the home. What they stored = forwarded + rejected + dropped + records.

    Attributes:
        records: that wait on this machine.
        bytes: of them, compressed.
        oldest: when the first of them was stored; ``None``: none waits.
        forwarded: accepted by the collector, since the spool was made.
        rejected: refused by it for good, and dropped.
        dropped: given up, since there was no room or they were too old.
    """

    records: int
    bytes: int
    oldest: datetime | None
    forwarded: int
    rejected: int
    dropped: int

    @classmethod
    def of(cls, found: Backlog) -> SignalSpool:
        """Return the counts of a log."""
        oldest = None if found.oldest_ms is None else datetime.fromtimestamp(found.oldest_ms / 1000, UTC)
        return cls(found.events, found.bytes, oldest, found.forwarded or 0, found.rejected or 0, found.dropped or 0)


@dataclass(frozen=True, slots=True)
class TelemetrySpool:
    """Counters of the spool, one `SignalSpool` for each signal; of metrics data points are counted."""

    spans: SignalSpool
    logs: SignalSpool
    metrics: SignalSpool
