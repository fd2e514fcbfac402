"""How far it is, and the table at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from cloud_runtimes import native_status

from .settings import FIELDS, Settings, Totals

__all__ = ["Outcome", "Show", "progress", "report"]

Show = Callable[[int, int], None]
"""Called with how many events were published and how many consumed."""

_LINE_EVERY: Final = 2.0


@contextmanager
def progress(total: int) -> Iterator[Show]:
    """Give the function that shows how far it is."""
    if not sys.stderr.isatty():
        yield _lines(total)
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        yield _lines(total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        published = bars.add_task("published", total=total)
        consumed = bars.add_task("consumed", total=total)

        def show(sent: int, done: int) -> None:
            bars.update(published, completed=sent)
            bars.update(consumed, completed=done)

        yield show


def _lines(total: int) -> Show:
    due = monotonic() + _LINE_EVERY

    def show(sent: int, done: int) -> None:
        nonlocal due
        if monotonic() >= due:
            due = monotonic() + _LINE_EVERY
            sys.stderr.write(f"published {sent:,} of {total:,}, consumed {done:,}\n")
            sys.stderr.flush()

    return show


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of a run.

    Attributes:
        published, failed: events delivered to the broker, and given up.
        publishing: seconds from the first row read to the last event delivered.
        applied: the consumer's record.
        lag: seconds from the last event published to the last one applied.
        expected, found, reported: totals per carrier, from the file, from state, and from the consumer's report.
        signed: whether the report's signature is right.
        answered: seconds that the call for it took.
        wall: seconds of everything.
    """

    published: int
    failed: int
    publishing: float
    applied: Mapping[str, Any]
    lag: float
    expected: Mapping[str, Totals]
    totals: Mapping[str, Totals]
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
        return self.lost == 0 and self.expected == self.totals == self.reported and self.signed


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
        ("consumer behind", f"{outcome.lag:.2f} s"),
        ("report", f"{outcome.answered * 1000:.1f} ms by RPC, {'signed' if outcome.signed else 'WRONG SIGNATURE'}"),
        ("wall time", f"{outcome.wall:.2f} s"),
        ("kernels", f"{'native' if status.native else 'Python'} ({status.reason})"),
        ("store", where),
    ]
    lines = [f"{label:<17}{text}" for label, text in rows]
    heads = ("carrier", *FIELDS, "as in file")
    lines += ["", "".join(f"{head:>12}" for head in heads)]
    for carrier in sorted(outcome.expected):
        stored = outcome.totals.get(carrier, {})
        cells = (f"{stored.get(field, 0):,.0f}" for field in FIELDS)
        same = "yes" if stored == outcome.expected[carrier] == outcome.reported.get(carrier) else "NO"
        lines.append("".join(f"{cell:>12}" for cell in (carrier, *cells, same)))
    verdict = "all totals as in the file, nothing lost" if outcome.good else "NOT as it should be"
    return "\n".join([*lines, "", verdict, ""])


def _store(settings: Settings) -> str:
    if settings.folder is None:
        return "the server of --home"
    return f"{settings.folder}" + ("" if settings.keep or settings.home else " (removed; --keep leaves it)")
