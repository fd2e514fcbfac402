"""Calls between services, from spans whose parent is another service's."""

from __future__ import annotations

from typing import Any, Final

from .queries import Looked, trace_pieces
from .search import ALWAYS, Period
from .store import Store

MAX_CALLS: Final = 200
"""Pairs of services that are told."""
_ENTRIES: Final = (2, 5)
"""Kinds of span that somebody calls from outside: server and consumer."""
_CALLS: Final = """SELECT coalesce(po.service, ''), co.service, c.duration, c.status = 2 FROM traces t
JOIN spans c ON c.trace = t.trace JOIN sources co ON co.id = c.source
LEFT JOIN spans p ON p.trace = c.trace AND p.span = c.parent LEFT JOIN sources po ON po.id = p.source
WHERE t.start >= ? AND (t.start, t.trace) < (?, ?) AND (t.start, t.trace) >= (?, ?)
AND (po.service != co.service OR (p.id IS NULL AND c.kind IN (?, ?)))"""


def service_map(store: Store, period: Period = ALWAYS) -> dict[str, Any]:
    """Return who calls whom, how often, how many fail, and how long the called ones take; ``""`` calls from outside.

    Args:
        store: where the spans are.
        period: in which their traces started.
    """
    durations: dict[tuple[str, str], list[int]] = {}
    errors: dict[tuple[str, str], int] = {}
    looked = Looked()
    for newer, last in trace_pieces(store, period, looked):
        for caller, called, duration, failed in store.query(_CALLS, (last[0], *newer, *last, *_ENTRIES)):
            durations.setdefault((caller, called), []).append(duration)
            errors[caller, called] = errors.get((caller, called), 0) + failed
    calls = [
        {
            "caller": pair[0],
            "called": pair[1],
            "count": len(taken),
            "errors": errors[pair],
            "p50": _quantile(taken, 0.5),
            "p99": _quantile(taken, 0.99),
        }
        for pair, taken in sorted(durations.items(), key=lambda each: -len(each[1]))
    ]
    return {"calls": calls[:MAX_CALLS], "omitted": max(0, len(calls) - MAX_CALLS), "searched": looked.reported(True)}


def _quantile(values: list[int], share: float) -> int:
    values.sort()
    return values[min(len(values) - 1, int(share * len(values)))]
