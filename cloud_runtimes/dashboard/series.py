"""Points of a series: all of a short span of time, samples of a long one, and quantiles of what histograms recorded."""

from __future__ import annotations

from typing import Any, Final

from ..codec import json
from .quantiles import quantiles
from .search import Period
from .store import Store

_POINTS: Final = 60
"""Of a series that are shown."""
_COLUMNS: Final = "id, time, value, count, detail"
# one look into the index for each sample, however many points lie between them
_SAMPLES: Final = f"""WITH RECURSIVE at(time) AS (SELECT ? UNION ALL SELECT time - ? FROM at LIMIT ?)
SELECT {_COLUMNS} FROM points WHERE id IN (SELECT (SELECT p.id FROM points p WHERE p.series = ? AND p.time <= at.time AND p.time >= ?
ORDER BY p.time DESC, p.id DESC LIMIT 1) FROM at) ORDER BY time DESC, id DESC"""


def points(store: Store, series: int, kind: str, period: Period) -> list[dict[str, Any]]:
    """Return the newest points of a series, the oldest of them first; samples where a span of time with a start has more.

    The last one has what else it came with. Those of histograms have ``quantiles`` of what came since the one before.
    """
    rows = store.query(
        f"SELECT {_COLUMNS} FROM points WHERE series = ? AND time BETWEEN ? AND ? ORDER BY time DESC, id DESC LIMIT ?",
        (series, *period, _POINTS),
    )
    if period.start and len(rows) == _POINTS:
        newest = rows[0][1]
        step = max(1, (newest - period.start) // _POINTS)
        rows = store.query(_SAMPLES, (newest, step, _POINTS, series, period.start))
    distributed, cumulative = "histogram" in kind, not kind.endswith("delta")
    found: list[dict[str, Any]] = []
    before: dict[str, Any] | None = None
    for number, (_, time, value, count, detail) in enumerate(reversed(rows), 1):
        last = number == len(rows)
        about = json.decode(detail) if distributed or last else {}
        point = {"time": str(time), "value": value, "count": count, **(about if last else {})}
        if distributed:
            restarted = before is not None and found[-1]["count"] > count
            known = quantiles(about, None if restarted or not cumulative else before)
            point |= {"quantiles": known} if known else {}
            before = about
        found.append(point)
    return found
