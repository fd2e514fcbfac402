"""Queries of the page to the store, with results that JSON can represent.

Nanoseconds since 1970 are text, since the page's numbers are doubles; durations and offsets are numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ..codec import json
from .store import Store

MAX_SPANS: Final = 5_000
"""Of a trace that are shown."""
_POINTS: Final = 60
"""Of a series that are shown."""
_KINDS: Final = ("", "internal", "server", "client", "producer", "consumer")


def status(store: Store) -> dict[str, Any]:
    """Tell how many records came, and what became of them; ``generation`` grows when there is something new."""
    counters: dict[str, dict[str, int]] = {signal: {} for signal in ("traces", "logs", "metrics")}
    for signal, what, number in store.query("SELECT signal, what, number FROM counters"):
        counters[signal][what] = number
    generation = 0
    for counts in counters.values():
        lost = {what: counts.get(what, 0) for what in ("evicted", "rejected", "repeated")}
        received = counts.get("received", 0)
        generation += received + lost["evicted"]
        counts |= {**lost, "received": received, "kept": received - sum(lost.values())}
    services = store.query("SELECT DISTINCT service FROM sources ORDER BY service LIMIT 500")
    return {
        "generation": generation,
        "signals": counters,
        "bytes": store.used(),
        "services": [service for (service,) in services],
    }


def traces(
    store: Store, *, service: str = "", name: str = "", least: int = 0, errors: bool = False, limit: int = 100
) -> dict[str, Any]:
    """Return traces, the newest first.

    Args:
        store: where they are.
        service: that has a span in them.
        name: text in the name of one of their spans, upper and lower case alike.
        least: nanoseconds that they lasted.
        errors: only those with a span that failed.
        limit: how many at most.
    """
    where, values = ["t.duration >= ?"], [least]
    if errors:
        where.append("t.errors > 0")
    inner, given = [], list[Any]()
    if service:
        inner.append("s.source IN (SELECT id FROM sources WHERE service = ?)")
        given.append(service)
    if name:
        inner.append(_CONTAINS.format("s.name"))
        given.append(_pattern(name))
    if inner:
        where.append(f"EXISTS (SELECT 1 FROM spans s WHERE s.trace = t.trace AND {' AND '.join(inner)})")
    rows = store.query(
        "SELECT t.trace, t.start, t.duration, t.spans, t.errors, t.services, t.rooted, t.service, t.name FROM traces t "
        f"WHERE {' AND '.join(where)} ORDER BY t.start DESC LIMIT ?",
        (*values, *given, limit + 1),
    )
    return {
        "more": len(rows) > limit,
        "traces": [
            {
                "trace": row[0].hex(),
                "start": str(row[1]),
                "duration": row[2],
                "spans": row[3],
                "errors": row[4],
                "services": row[5],
                "rooted": bool(row[6]),
                "service": row[7],
                "name": row[8],
            }
            for row in rows[:limit]
        ],
    }


def trace(store: Store, number: bytes) -> dict[str, Any] | None:
    """Return a trace as a list of spans, each behind its parent and with its depth; `None`: there is none."""
    head = store.query("SELECT start, duration, spans FROM traces WHERE trace = ?", (number,))
    if not head:
        return None
    ((start, duration, count),) = head
    rows = store.query(
        "SELECT p.span, p.parent, p.name, p.kind, o.service, p.start, p.duration, p.status, p.message, p.detail, o.body "
        "FROM spans p JOIN sources o ON o.id = p.source WHERE p.trace = ? ORDER BY p.start, p.id LIMIT ?",
        (number, MAX_SPANS),
    )
    logs_of = dict(
        store.query("SELECT span, count(*) FROM logs WHERE trace = ? AND span IS NOT NULL GROUP BY span", (number,))
    )
    return {
        "trace": number.hex(),
        "start": str(start),
        "duration": duration,
        "hidden": max(0, count - len(rows)),
        "spans": [
            {
                "span": row[0].hex(),
                "parent": row[1].hex() if row[1] else None,
                "orphan": orphan,
                "depth": depth,
                "name": row[2],
                "kind": _KINDS[row[3]] if 0 <= row[3] < len(_KINDS) else str(row[3]),
                "service": row[4],
                "offset": row[5] - start,
                "duration": row[6],
                "status": ("unset", "ok", "error")[row[7]],
                "message": row[8],
                "logs": logs_of.get(row[0], 0),
                **json.decode(row[9]),
                "source": json.decode(row[10]),
            }
            for row, depth, orphan in _tree(rows)
        ],
    }


def _tree(rows: list[Any]) -> Iterable[tuple[Any, int, bool]]:
    """Yield each row behind its parent, with its depth, and whether its parent is missing. Circles are cut at their earliest span."""
    children: dict[bytes | None, list[Any]] = {}
    here = {row[0] for row in rows}
    for row in rows:
        children.setdefault(row[1] if row[1] in here else None, []).append(row)
    seen: set[bytes] = set()
    for top in (*children.get(None, ()), *rows):
        waiting = [(top, 0)]
        while waiting:
            row, depth = waiting.pop()
            if row[0] in seen:
                continue
            seen.add(row[0])
            yield row, depth, depth == 0 and row[1] is not None
            waiting.extend((child, depth + 1) for child in reversed(children.get(row[0], ())))


def logs(
    store: Store,
    *,
    trace: bytes = b"",
    span: bytes = b"",
    service: str = "",
    severity: int = 0,
    text: str = "",
    limit: int = 200,
) -> dict[str, Any]:
    """Return log records, the newest first.

    Args:
        store: where they are.
        trace, span: ids of what they belong to.
        service: that they come from.
        severity: the least severity number.
        text: what their body holds, upper and lower case alike.
        limit: how many at most.
    """
    where, values = ["l.severity >= ?"] if severity else ["1"], [severity] if severity else list[Any]()
    for condition, value in (("l.trace = ?", trace), ("l.span = ?", span)):
        if value:
            where.append(condition)
            values.append(value)
    if service:
        where.append("o.service = ?")
        values.append(service)
    if text:
        where.append(_CONTAINS.format("l.body"))
        values.append(_pattern(text))
    rows = store.query(
        "SELECT l.id, l.time, l.severity, l.level, l.body, l.trace, l.span, l.detail, o.service, o.body "
        f"FROM logs l JOIN sources o ON o.id = l.source WHERE {' AND '.join(where)} ORDER BY l.time DESC, l.id DESC LIMIT ?",
        (*values, limit + 1),
    )
    return {
        "more": len(rows) > limit,
        "logs": [
            {
                "id": row[0],
                "time": str(row[1]),
                "severity": row[2],
                "level": row[3] or _level(row[2]),
                "body": row[4],
                "trace": row[5].hex() if row[5] else None,
                "span": row[6].hex() if row[6] else None,
                **json.decode(row[7]),
                "service": row[8],
                "source": json.decode(row[9]),
            }
            for row in rows[:limit]
        ],
    }


def metrics(store: Store, *, service: str = "", name: str = "", limit: int = 200) -> dict[str, Any]:
    """Return series by name, each with its newest points, the oldest of them first.

    Args:
        store: where they are.
        service: that they come from.
        name: text in their names, upper and lower case alike.
        limit: how many at most.
    """
    where, values = ["1"], list[Any]()
    if service:
        where.append("o.service = ?")
        values.append(service)
    if name:
        where.append(_CONTAINS.format("s.name"))
        values.append(_pattern(name))
    rows = store.query(
        "SELECT s.id, s.name, s.kind, s.unit, s.description, s.attributes, o.service, o.body FROM series s "
        f"JOIN sources o ON o.id = s.source WHERE {' AND '.join(where)} ORDER BY s.name, o.service, s.attributes, s.id LIMIT ?",
        (*values, limit + 1),
    )
    return {
        "more": len(rows) > limit,
        "series": [
            {
                "id": row[0],
                "name": row[1],
                "kind": row[2],
                "unit": row[3],
                "description": row[4],
                "attributes": json.decode(row[5]),
                "service": row[6],
                "source": json.decode(row[7]),
                "points": _points(store, row[0]),
            }
            for row in rows[:limit]
        ],
    }


def _points(store: Store, series: int) -> list[dict[str, Any]]:
    rows = store.query(
        "SELECT time, value, count, detail FROM points WHERE series = ? ORDER BY time DESC, id DESC LIMIT ?",
        (series, _POINTS),
    )
    return [
        {"time": str(time), "value": value, "count": count, **(json.decode(detail) if at == 0 else {})}
        for at, (time, value, count, detail) in reversed(list(enumerate(rows)))
    ]


_CONTAINS: Final = "{} LIKE ? ESCAPE '\\'"


def _pattern(text: str) -> str:
    for special in ("\\", "%", "_"):
        text = text.replace(special, f"\\{special}")
    return f"%{text}%"


def _level(severity: int) -> str:
    """Return the short name of a severity number (Logs Data Model, "Severity Number")."""
    return ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")[(severity - 1) // 4] if 0 < severity < 25 else ""
