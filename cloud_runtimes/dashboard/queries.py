"""Queries of the page to the store, with results that JSON can represent.

Nanoseconds since 1970 are text, since the page's numbers are doubles; durations and offsets are numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from ..codec import json
from .search import ALWAYS, Condition, Period, all_hold
from .series import points
from .store import Store

MAX_SPANS: Final = 5_000
"""Of a trace that are shown."""
MAX_LOOKED: Final = 100_000
"""Spans or log records that one search looks at, the newest first."""
MAX_LINES: Final = 10
"""Series of an instrument that are shown."""
_PIECE: Final = 1_000
_PIECE_SPANS: Final = 10_000
_LARGEST: Final = (1 << 63) - 1
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
    store: Store,
    *,
    service: str = "",
    name: str = "",
    least: int = 0,
    errors: bool = False,
    period: Period = ALWAYS,
    asked: Sequence[Condition] = (),
    limit: int = 100,
) -> dict[str, Any]:
    """Return traces, the newest first.

    Args:
        store: where they are.
        service: that has a span in them.
        name: text in the name of one of their spans, upper and lower case alike.
        least: nanoseconds that they lasted.
        errors: only those with a span that failed.
        period: in which they started.
        asked: conditions that attributes of one of their spans meet.
        limit: how many at most.
    """
    where, values = [
        "t.start >= ? AND (t.start, t.trace) < (?, ?) AND (t.start, t.trace) >= (?, ?) AND t.duration >= ?"
    ], [least]
    if errors:
        where.append("t.errors > 0")
    inner, given = ["s.trace = t.trace"], list[Any]()
    if service:
        inner.append("s.source IN (SELECT id FROM sources WHERE service = ?)")
        given.append(service)
    if name:
        inner.append(_CONTAINS.format("s.name"))
        given.append(_pattern(name))
    if given:
        where.append(f"EXISTS (SELECT 1 FROM spans s WHERE {' AND '.join(inner)})")
    conditions = " AND ".join(where)
    rows: list[Any] = []
    looked = Looked()
    for newer, last in trace_pieces(store, period, looked):
        within = (last[0], *newer, *last, *values, *given)
        found = store.query(
            "SELECT t.trace, t.start, t.duration, t.spans, t.errors, t.services, t.rooted, t.service, t.name, (SELECT o.body "
            "FROM spans s JOIN sources o ON o.id = s.source WHERE s.trace = t.trace AND s.parent IS NULL LIMIT 1) "
            f"FROM traces t WHERE {conditions} ORDER BY t.start DESC, t.trace DESC LIMIT ?",
            (*within, -1 if asked else limit + 1 - len(rows)),
        )
        if asked and found:
            spans = store.query(
                "SELECT s.trace, s.detail, o.body FROM traces t JOIN spans s ON s.trace = t.trace "
                f"JOIN sources o ON o.id = s.source WHERE {conditions} AND {' AND '.join(inner)}",
                (*within, *given),
            )
            hits = {trace for trace, detail, source in spans if all_hold(asked, detail, source)}
            found = [row for row in found if row[0] in hits]
        rows += found
        if len(rows) > limit:
            break
    return {
        "more": len(rows) > limit,
        "searched": looked.reported(len(rows) <= limit),
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
                "process": process_of(json.decode(row[9])) if row[9] else "",
            }
            for row in rows[:limit]
        ],
    }


class Looked:
    """Records that a search has looked at, up to `MAX_LOOKED`."""

    def __init__(self) -> None:
        self.count = 0
        self.whole = False

    def reported(self, unfinished: bool) -> int | None:
        """Return how many, if the search ended at the limit rather than at the last record."""
        return self.count if unfinished and not self.whole else None


def trace_pieces(store: Store, period: Period, looked: Looked) -> Iterator[tuple[tuple[int, bytes], tuple[int, bytes]]]:
    """Yield pieces of the traces of a span of time, the newest first: the position before, and that of the last trace."""
    newer = (period.end, b"\xff" * 17)
    while looked.count < MAX_LOOKED:
        heads = store.query(
            "SELECT start, trace, spans FROM traces WHERE start >= ? AND start <= ? AND (start, trace) < (?, ?) "
            "ORDER BY start DESC, trace DESC LIMIT ?",
            (period.start, newer[0], *newer, _PIECE),
        )
        if not heads:
            looked.whole = True
            return
        last, room = newer, _PIECE_SPANS
        for start, trace, spans in heads:
            last = (start, trace)
            looked.count += spans
            room -= spans
            if room <= 0:
                break
        yield newer, last
        newer = last


def process_of(source: dict[str, Any]) -> str:
    """Return what tells a process from others of its service: its host and number, else the id of the instance."""
    resource = source["resource"]
    host, pid, instance = (resource.get(key) for key in ("host.name", "process.pid", "service.instance.id"))
    if pid is None and instance is not None:
        return str(instance)
    return ":".join(str(each) for each in (host, pid) if each is not None)


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
                **_source(row[10]),
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
    period: Period = ALWAYS,
    asked: Sequence[Condition] = (),
    limit: int = 200,
) -> dict[str, Any]:
    """Return log records, the newest first.

    Args:
        store: where they are.
        trace, span: ids of what they belong to.
        service: that they come from.
        severity: the least severity number.
        text: what their body holds, upper and lower case alike.
        period: their times.
        asked: conditions that their attributes meet.
        limit: how many at most.
    """
    of_trace, values = ("l.trace = ? AND ", [trace]) if trace else ("", list[Any]())
    where, given = ["1"], list[Any]()
    for condition, value in (
        ("l.severity >= ?", severity),
        ("l.span = ?", span),
        ("o.service = ?", service),
        (_CONTAINS.format("l.body"), _pattern(text) if text else ""),
    ):
        if value:
            where.append(condition)
            given.append(value)
    rows: list[Any] = []
    looked = Looked()
    newer = (period.end, _LARGEST)
    while looked.count < MAX_LOOKED and len(rows) <= limit and not looked.whole:
        within = f"{of_trace}l.time >= ? AND l.time <= ? AND (l.time, l.id) < (?, ?)"
        order = "ORDER BY l.time DESC, l.id DESC"
        last = store.query(
            f"SELECT l.time, l.id FROM logs l WHERE {within} {order} LIMIT 1 OFFSET ?",
            (*values, period.start, newer[0], *newer, _PIECE - 1),
        )
        looked.whole = not last
        looked.count += _PIECE
        ((time, number),) = last or [(period.start, 0)]
        found = store.query(
            "SELECT l.id, l.time, l.severity, l.level, l.body, l.trace, l.span, l.detail, o.service, o.body FROM logs l "
            f"JOIN sources o ON o.id = l.source WHERE {within} AND (l.time, l.id) >= (?, ?) AND {' AND '.join(where)} {order} LIMIT ?",
            (*values, time, newer[0], *newer, time, number, *given, -1 if asked else limit + 1 - len(rows)),
        )
        rows += [row for row in found if all_hold(asked, row[7], row[9])] if asked else found
        newer = (time, number)
    return {
        "more": len(rows) > limit,
        "searched": looked.reported(len(rows) <= limit),
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
                **_source(row[9]),
            }
            for row in rows[:limit]
        ],
    }


def _source(body: bytes) -> dict[str, Any]:
    source = json.decode(body)
    return {"source": source, "process": process_of(source)}


def metrics(
    store: Store, *, service: str = "", name: str = "", period: Period = ALWAYS, limit: int = 200
) -> dict[str, Any]:
    """Return series by instrument, at most `MAX_LINES` of each, with their points, the oldest of these first.

    Args:
        store: where they are.
        service: that they come from.
        name: text in their names, upper and lower case alike.
        period: the times of their points; series without one are left out.
        limit: how many at most.
    """
    where, values = ["1"], list[Any]()
    if service:
        where.append("o.service = ?")
        values.append(service)
    if name:
        where.append(_CONTAINS.format("s.name"))
        values.append(_pattern(name))
    if period != ALWAYS:
        where.append("EXISTS (SELECT 1 FROM points p WHERE p.series = s.id AND p.time BETWEEN ? AND ?)")
        values.extend(period)
    rows = store.query(
        "SELECT id, name, kind, unit, description, attributes, service, body, sets FROM (SELECT s.*, o.service, o.body, "
        "count(*) OVER (PARTITION BY s.name, s.kind, s.unit) AS sets, row_number() OVER (PARTITION BY s.name, s.kind, s.unit "
        "ORDER BY o.service, s.attributes, s.id) AS number "
        f"FROM series s JOIN sources o ON o.id = s.source WHERE {' AND '.join(where)}) "
        "WHERE number <= ? ORDER BY name, kind, unit, number LIMIT ?",
        (*values, MAX_LINES, limit + 1),
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
                **_source(row[7]),
                "sets": row[8],
                "points": points(store, row[0], row[2], period),
            }
            for row in rows[:limit]
        ],
    }


_CONTAINS: Final = "{} LIKE ? ESCAPE '\\'"


def _pattern(text: str) -> str:
    for special in ("\\", "%", "_"):
        text = text.replace(special, f"\\{special}")
    return f"%{text}%"


def _level(severity: int) -> str:
    """Return the short name of a severity number (Logs Data Model, "Severity Number")."""
    return ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")[(severity - 1) // 4] if 0 < severity < 25 else ""
