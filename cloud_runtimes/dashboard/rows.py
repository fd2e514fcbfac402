"""Conversion of a request to rows: attributes as plain JSON, and a count of records that cannot be kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from ..codec import json

_LARGEST: Final = (1 << 63) - 1
_EXACT: Final = 1 << 53
"""Integers from here on are text: the page's numbers are doubles."""


class Span(NamedTuple):
    """A row of ``spans``, but for its source; times in nanoseconds since 1970."""

    trace: bytes
    span: bytes
    parent: bytes | None
    name: str
    kind: int
    start: int
    duration: int
    status: int
    message: str
    detail: bytes


class Log(NamedTuple):
    """A row of ``logs``, but for its source; time in nanoseconds since 1970."""

    time: int
    severity: int
    level: str
    body: str
    trace: bytes | None
    span: bytes | None
    detail: bytes


class Point(NamedTuple):
    """A point of a series; time in nanoseconds since 1970. ``value`` is the sum of what was ``recorded`` where that is not `None`."""

    name: str
    kind: str
    unit: str
    description: str
    attributes: bytes
    time: int
    value: float | None
    recorded: int | None
    detail: bytes


class Batch(NamedTuple):
    """Content of a request.

    Attributes:
        rows: each with its service, and the JSON of resource and scope.
        rejected: invalid records, such as spans without an id.
        reason: why the last of them is invalid.
    """

    rows: list[tuple[str, bytes, Any]]
    rejected: int
    reason: str


def read(signal: str, request: dict[str, Any]) -> Batch:
    """Make rows of a request in OTLP's JSON."""
    reader = _Rows()
    {"traces": reader.traces, "logs": reader.logs, "metrics": reader.metrics}[signal](request)
    return Batch(reader.rows, reader.rejected, reader.reason)


class _Rows:
    def __init__(self) -> None:
        self.rows: list[tuple[str, bytes, Any]] = []
        self.rejected = 0
        self.reason = ""

    def traces(self, request: dict[str, Any]) -> None:
        for service, source, scope in _scopes(request, "resourceSpans", "scopeSpans"):
            for span in scope.get("spans", ()):
                self._add(service, source, _span(span), "a span needs a trace id and a span id that are not zero")

    def logs(self, request: dict[str, Any]) -> None:
        for service, source, scope in _scopes(request, "resourceLogs", "scopeLogs"):
            for record in scope.get("logRecords", ()):
                self._add(service, source, _log(record), "the ids of a log record have 16 and 8 bytes")

    def metrics(self, request: dict[str, Any]) -> None:
        for service, source, scope in _scopes(request, "resourceMetrics", "scopeMetrics"):
            for metric in scope.get("metrics", ()):
                for point in _points(metric):
                    self._add(service, source, point, "a metric needs a name, and a point a value")

    def _add(self, service: str, source: bytes, row: Any, reason: str) -> None:
        if row is None:
            self.rejected += 1
            self.reason = reason
        else:
            self.rows.append((service, source, row))


def _scopes(request: dict[str, Any], resources: str, scopes: str) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    for each in request.get(resources, ()):
        resource = _attributes(each.get("resource", {}))
        service = resource.get("service.name")
        for scope in each.get(scopes, ()):
            about = scope.get("scope", {})
            source: dict[str, Any] = {"resource": resource, "scope": about.get("name", "")}
            source |= {"version": about["version"]} if about.get("version") else {}
            source |= {"scope_attributes": attributes} if (attributes := _attributes(about)) else {}
            yield service if isinstance(service, str) and service else "unknown_service", json.encode(source), scope


def _span(span: dict[str, Any]) -> Span | None:
    trace, own = _id(span.get("traceId", ""), 16), _id(span.get("spanId", ""), 8)
    if not trace or not own:
        return None
    start, end = _time(span.get("startTimeUnixNano")), _time(span.get("endTimeUnixNano"))
    status = span.get("status", {})
    code = status.get("code", 0)
    detail = {
        "attributes": _attributes(span),
        "events": [
            {"offset": _time(each.get("timeUnixNano")) - start, "name": each.get("name", ""), **_about(each)}
            for each in span.get("events", ())
        ],
        "links": [
            {"trace": each.get("traceId", ""), "span": each.get("spanId", ""), **_about(each)}
            for each in span.get("links", ())
        ],
        "state": span.get("traceState", ""),
        "dropped": _dropped(span),
    }
    return Span(
        trace,
        own,
        _id(span.get("parentSpanId", ""), 8) or None,
        span.get("name", ""),
        span.get("kind", 0),
        start,
        max(0, end - start),
        code if code in (1, 2) else 0,
        status.get("message", ""),
        _json(detail),
    )


def _log(record: dict[str, Any]) -> Log | None:
    trace, span = _id(record.get("traceId", ""), 16), _id(record.get("spanId", ""), 8)
    if trace is None or span is None:
        return None
    body = _plain(record.get("body", {}))
    detail = {
        "attributes": _attributes(record),
        "event": record.get("eventName", ""),
        "dropped": _dropped(record),
    }
    return Log(
        _time(record.get("timeUnixNano")) or _time(record.get("observedTimeUnixNano")),
        record.get("severityNumber", 0),
        record.get("severityText", ""),
        body if isinstance(body, str) else "" if body is None else json.encode(body).decode(),
        trace or None,
        span or None,
        _json(detail),
    )


def _points(metric: dict[str, Any]) -> Iterator[Point | None]:
    for kind in ("gauge", "sum", "histogram", "exponentialHistogram", "summary"):
        if kind not in metric:
            continue
        data = metric[kind]
        shown = {"exponentialHistogram": "exponential histogram"}.get(kind, kind)
        if kind == "sum":
            shown = "counter" if data.get("isMonotonic") else "up-down counter"
        delta = data.get("aggregationTemporality") == 1
        for point in data.get("dataPoints", ()):
            if not metric.get("name") or not _has_value(kind, point):
                yield None
                continue
            value, count = _value(kind, point)
            detail = {key: point[key] for key in _SHOWN if key in point}
            yield Point(
                metric["name"],
                f"{shown}, delta" if delta else shown,
                metric.get("unit", ""),
                metric.get("description", ""),
                json.encode(_attributes(point)),
                _time(point.get("timeUnixNano")),
                value,
                count,
                _json(detail),
            )


_SHOWN: Final = (
    *("min", "max", "bucketCounts", "explicitBounds", "quantileValues"),
    *("scale", "zeroCount", "positive", "negative"),
)

_NUMBERS: Final = ("gauge", "sum")


def _has_no_value(point: dict[str, Any]) -> bool:
    """Return whether a series has ended: flag 1, "no recorded value" (metrics.proto, DataPointFlags)."""
    return bool(point.get("flags", 0) & 1)


def _has_value(kind: str, point: dict[str, Any]) -> bool:
    return kind not in _NUMBERS or _has_no_value(point) or "asDouble" in point or "asInt" in point


def _value(kind: str, point: dict[str, Any]) -> tuple[float | None, int | None]:
    if kind in _NUMBERS:
        return None if _has_no_value(point) else _finite(point.get("asDouble", point.get("asInt"))), None
    return _finite(point.get("sum", 0.0)), min(int(point.get("count", 0)), _LARGEST)


def _finite(value: Any) -> float | None:
    """Return a number that SQLite and JSON can have; NaN and infinities become a gap."""
    number = float(value)
    return number if number - number == 0 else None


def _id(text: str, size: int) -> bytes | None:
    """Return the bytes of an id, none for one that is absent or zero, `None` for one of another length."""
    if not text or not text.strip("0"):
        return b""
    return bytes.fromhex(text) if len(text) == 2 * size else None


def _time(text: str | None) -> int:
    return min(int(text or 0), _LARGEST)


def _attributes(message: dict[str, Any]) -> dict[str, Any]:
    return {each.get("key", ""): _plain(each.get("value", {})) for each in message.get("attributes", ())}


def _about(message: dict[str, Any]) -> dict[str, Any]:
    attributes = _attributes(message)
    return {"attributes": attributes} if attributes else {}


def _dropped(message: dict[str, Any]) -> dict[str, int]:
    names = {"attributes": "droppedAttributesCount", "events": "droppedEventsCount", "links": "droppedLinksCount"}
    return {name: message[key] for name, key in names.items() if message.get(key)}


def _plain(value: dict[str, Any]) -> Any:
    """Return an ``AnyValue`` as the JSON that a person expects."""
    for form, given in value.items():
        if form == "intValue":
            number = int(given)
            return number if -_EXACT < number < _EXACT else given
        if form == "arrayValue":
            return [_plain(each) for each in given.get("values", ())]
        if form == "kvlistValue":
            return {each.get("key", ""): _plain(each.get("value", {})) for each in given.get("values", ())}
        return given
    return None


def _json(detail: dict[str, Any]) -> bytes:
    return json.encode({key: value for key, value in detail.items() if value or value == 0})
