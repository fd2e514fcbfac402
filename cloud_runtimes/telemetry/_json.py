"""OTLP's JSON of a request in protobuf, for people: what the console exporter prints."""

from __future__ import annotations

import base64
import struct
from typing import Any, Final

from ._wire import fields, varints

__all__ = ["records"]

# message → field → (name, type); a type in brackets repeats (opentelemetry-proto 1.x)
_MESSAGES: Final[dict[str, dict[int, tuple[str, str]]]] = {
    "traces": {1: ("resourceSpans", "[ResourceSpans]")},
    "logs": {1: ("resourceLogs", "[ResourceLogs]")},
    "metrics": {1: ("resourceMetrics", "[ResourceMetrics]")},
    "ResourceMetrics": {1: ("resource", "Resource"), 2: ("scopeMetrics", "[ScopeMetrics]")},
    "ScopeMetrics": {1: ("scope", "Scope"), 2: ("metrics", "[Metric]"), 3: ("schemaUrl", "text")},
    "Metric": {
        1: ("name", "text"),
        2: ("description", "text"),
        3: ("unit", "text"),
        5: ("gauge", "Numbers"),
        7: ("sum", "Numbers"),
        9: ("histogram", "Histograms"),
        10: ("exponentialHistogram", "Exponentials"),
    },
    "Numbers": {1: ("dataPoints", "[Number]"), 2: ("aggregationTemporality", "number"), 3: ("isMonotonic", "bool")},
    "Histograms": {1: ("dataPoints", "[Histogram]"), 2: ("aggregationTemporality", "number")},
    "Exponentials": {1: ("dataPoints", "[Exponential]"), 2: ("aggregationTemporality", "number")},
    "Number": {
        2: ("startTimeUnixNano", "long"),
        3: ("timeUnixNano", "long"),
        4: ("asDouble", "double"),
        5: ("exemplars", "[Exemplar]"),
        6: ("asInt", "int64"),
        7: ("attributes", "[KeyValue]"),
    },
    "Histogram": {
        2: ("startTimeUnixNano", "long"),
        3: ("timeUnixNano", "long"),
        4: ("count", "long"),
        5: ("sum", "double"),
        6: ("bucketCounts", "longs"),
        7: ("explicitBounds", "doubles"),
        8: ("exemplars", "[Exemplar]"),
        9: ("attributes", "[KeyValue]"),
        11: ("min", "double"),
        12: ("max", "double"),
    },
    "Exponential": {
        1: ("attributes", "[KeyValue]"),
        2: ("startTimeUnixNano", "long"),
        3: ("timeUnixNano", "long"),
        4: ("count", "long"),
        5: ("sum", "double"),
        6: ("scale", "sint"),
        7: ("zeroCount", "long"),
        8: ("positive", "Buckets"),
        9: ("negative", "Buckets"),
        11: ("exemplars", "[Exemplar]"),
        12: ("min", "double"),
        13: ("max", "double"),
    },
    "Buckets": {1: ("offset", "sint"), 2: ("bucketCounts", "varints")},
    "Exemplar": {
        2: ("timeUnixNano", "long"),
        3: ("asDouble", "double"),
        4: ("spanId", "hex"),
        5: ("traceId", "hex"),
        6: ("asInt", "int64"),
    },
    "ResourceSpans": {1: ("resource", "Resource"), 2: ("scopeSpans", "[ScopeSpans]")},
    "ResourceLogs": {1: ("resource", "Resource"), 2: ("scopeLogs", "[ScopeLogs]")},
    "Resource": {1: ("attributes", "[KeyValue]")},
    "ScopeSpans": {1: ("scope", "Scope"), 2: ("spans", "[Span]"), 3: ("schemaUrl", "text")},
    "ScopeLogs": {1: ("scope", "Scope"), 2: ("logRecords", "[LogRecord]"), 3: ("schemaUrl", "text")},
    "Scope": {
        1: ("name", "text"),
        2: ("version", "text"),
        3: ("attributes", "[KeyValue]"),
        4: ("droppedAttributesCount", "number"),
    },
    "Span": {
        1: ("traceId", "hex"),
        2: ("spanId", "hex"),
        3: ("traceState", "text"),
        4: ("parentSpanId", "hex"),
        5: ("name", "text"),
        6: ("kind", "number"),
        7: ("startTimeUnixNano", "long"),
        8: ("endTimeUnixNano", "long"),
        9: ("attributes", "[KeyValue]"),
        10: ("droppedAttributesCount", "number"),
        11: ("events", "[Event]"),
        12: ("droppedEventsCount", "number"),
        13: ("links", "[Link]"),
        14: ("droppedLinksCount", "number"),
        15: ("status", "Status"),
        16: ("flags", "number"),
    },
    "Event": {
        1: ("timeUnixNano", "long"),
        2: ("name", "text"),
        3: ("attributes", "[KeyValue]"),
        4: ("droppedAttributesCount", "number"),
    },
    "Link": {
        1: ("traceId", "hex"),
        2: ("spanId", "hex"),
        3: ("traceState", "text"),
        4: ("attributes", "[KeyValue]"),
        5: ("droppedAttributesCount", "number"),
        6: ("flags", "number"),
    },
    "Status": {2: ("message", "text"), 3: ("code", "number")},
    "LogRecord": {
        1: ("timeUnixNano", "long"),
        2: ("severityNumber", "number"),
        3: ("severityText", "text"),
        5: ("body", "Value"),
        6: ("attributes", "[KeyValue]"),
        7: ("droppedAttributesCount", "number"),
        8: ("flags", "number"),
        9: ("traceId", "hex"),
        10: ("spanId", "hex"),
        11: ("observedTimeUnixNano", "long"),
        12: ("eventName", "text"),
    },
    "KeyValue": {1: ("key", "text"), 2: ("value", "Value")},
    "Value": {
        1: ("stringValue", "text"),
        2: ("boolValue", "bool"),
        3: ("intValue", "int64"),
        4: ("doubleValue", "double"),
        5: ("arrayValue", "Values"),
        6: ("kvlistValue", "Pairs"),
        7: ("bytesValue", "base64"),
    },
    "Values": {1: ("values", "[Value]")},
    "Pairs": {1: ("values", "[KeyValue]")},
}


def records(signal: str, body: bytes) -> dict[str, Any]:
    """Return the request in OTLP's JSON: ids in hexadecimal, 64-bit integers as text."""
    return _message(signal, body)


def _message(kind: str, data: bytes) -> dict[str, Any]:
    result: dict[str, Any] = {}
    known = _MESSAGES[kind]
    for number, value in fields(data):
        if number not in known:
            continue
        name, form = known[number]
        if form[0] == "[":
            result.setdefault(name, []).append(_value(form[1:-1], value))
        else:
            result[name] = _value(form, value)
    return result


def _value(form: str, value: Any) -> Any:
    if form in _MESSAGES:
        return _message(form, value)
    if form == "text":
        return value.decode("utf-8", "replace")
    if form == "hex":
        return value.hex()
    if form == "base64":
        return base64.b64encode(value).decode()
    if form == "sint":
        return value >> 1 if not value & 1 else -(value + 1 >> 1)
    if form == "varints":
        return [str(each) for each in varints(value)]
    if form == "longs":
        return [str(int.from_bytes(value[at : at + 8], "little")) for at in range(0, len(value), 8)]
    if form == "doubles":
        return [each[0] for each in struct.iter_unpack("<d", value)]
    if form == "bool":
        return bool(value)
    if form == "long":
        return str(value)
    if form == "int64":
        return str(value - (1 << 64) if value >> 63 else value)
    if form == "double":
        real = struct.unpack("<d", value.to_bytes(8, "little"))[0]
        return real if real - real == 0 else {"inf": "Infinity", "-inf": "-Infinity"}.get(str(real), "NaN")
    return value
