"""The table at the end."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import native_status
from ._settings import FIELDS, Settings, Totals

__all__ = ["Outcome", "report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run.

    Attributes:
        published, failed: events delivered to the broker, and given up.
        publishing: seconds from the first row read to the last event delivered.
        applied: the consumer's record.
        behind: seconds from the last event published to the last one applied.
        expected, found, reported: totals per carrier, from the file, from state, and from the consumer's report.
        signed: whether the report's signature is right.
        answered: seconds that the call for it took.
        wall: seconds of everything.
    """

    published: int
    failed: int
    publishing: float
    applied: Mapping[str, Any]
    behind: float
    expected: Mapping[str, Totals]
    found: Mapping[str, Totals]
    reported: Mapping[str, Totals]
    signed: bool
    answered: float
    wall: float

    @property
    def lost(self) -> int:
        """Events that were accepted and did not reach the totals."""
        return self.published + self.failed - int(self.applied.get("events", 0))

    @property
    def good(self) -> bool:
        """Nothing lost, every total as in the file, in state and in the report, and the report signed."""
        return self.lost == 0 and self.expected == self.found == self.reported and self.signed


def _rate(events: float, seconds: float) -> str:
    return f"{events / seconds:,.0f}/s" if seconds > 0 else "too short to tell"


def report(outcome: Outcome, settings: Settings) -> str:
    """Return the table as text."""
    applied = outcome.applied
    events = int(applied.get("events", 0))
    consuming = float(applied.get("last", 0)) - float(applied.get("first", 0))
    status = native_status()
    where = settings.config if settings.config is not None else _store(settings)
    rows = [
        ("events published", f"{outcome.published:,}" + (f" ({outcome.failed:,} failed)" if outcome.failed else "")),
        ("events in", f"{_rate(outcome.published, outcome.publishing)} (reading and encoding included)"),
        ("events out", f"{_rate(events, consuming)} (first batch to last, {applied.get('batches', 0):,} batches)"),
        ("lost", f"{outcome.lost:,}"),
        ("duplicates", f"{applied.get('duplicates', 0):,}"),
        ("publishing", f"{outcome.publishing:.2f} s"),
        ("consumer behind", f"{outcome.behind:.2f} s"),
        ("report", f"{outcome.answered * 1000:.1f} ms by RPC, {'signed' if outcome.signed else 'WRONG SIGNATURE'}"),
        ("wall time", f"{outcome.wall:.2f} s"),
        ("kernels", f"{'native' if status.native else 'Python'} ({status.reason})"),
        ("store", where),
    ]
    lines = [f"{label:<17}{text}" for label, text in rows]
    heads = ("carrier", *FIELDS, "as in file")
    lines += ["", "".join(f"{head:>12}" for head in heads)]
    for carrier in sorted(outcome.expected):
        found = outcome.found.get(carrier, {})
        cells = (f"{found.get(field, 0):,.0f}" for field in FIELDS)
        same = "yes" if found == outcome.expected[carrier] == outcome.reported.get(carrier) else "NO"
        lines.append("".join(f"{cell:>12}" for cell in (carrier, *cells, same)))
    verdict = "all totals as in the file, nothing lost" if outcome.good else "NOT as it should be"
    return "\n".join([*lines, "", verdict, ""])


def _store(settings: Settings) -> str:
    from ..components.sqlite.files import DATABASE

    if settings.folder is None:
        return "the server of --home"
    path = os.path.join(settings.folder, DATABASE)
    return path if settings.keep or settings.home is not None else f"{path} (removed; --keep leaves it)"
