"""The messages of OTLP: names, numbers and types of their fields (opentelemetry-proto 1.x; names as in its JSON)."""

from __future__ import annotations

import re
from typing import Final

from .._native.otlp_py import bytes_field, varint

__all__ = ["MESSAGES", "ONE_OF", "bytes_field", "varint"]

_TABLE: Final = """
traces: 1 resourceSpans [ResourceSpans]
logs: 1 resourceLogs [ResourceLogs]
metrics: 1 resourceMetrics [ResourceMetrics]
ResourceSpans: 1 resource Resource, 2 scopeSpans [ScopeSpans], 3 schemaUrl text
ResourceLogs: 1 resource Resource, 2 scopeLogs [ScopeLogs], 3 schemaUrl text
ResourceMetrics: 1 resource Resource, 2 scopeMetrics [ScopeMetrics], 3 schemaUrl text
ScopeSpans: 1 scope Scope, 2 spans [Span], 3 schemaUrl text
ScopeLogs: 1 scope Scope, 2 logRecords [LogRecord], 3 schemaUrl text
ScopeMetrics: 1 scope Scope, 2 metrics [Metric], 3 schemaUrl text
Resource: 1 attributes [KeyValue], 2 droppedAttributesCount uint32
Scope: 1 name text, 2 version text, 3 attributes [KeyValue], 4 droppedAttributesCount uint32
Span: 1 traceId hex, 2 spanId hex, 3 traceState text, 4 parentSpanId hex, 5 name text, 6 kind enum,
    7 startTimeUnixNano fixed64, 8 endTimeUnixNano fixed64, 9 attributes [KeyValue], 10 droppedAttributesCount uint32,
    11 events [Event], 12 droppedEventsCount uint32, 13 links [Link], 14 droppedLinksCount uint32, 15 status Status,
    16 flags fixed32
Event: 1 timeUnixNano fixed64, 2 name text, 3 attributes [KeyValue], 4 droppedAttributesCount uint32
Link: 1 traceId hex, 2 spanId hex, 3 traceState text, 4 attributes [KeyValue], 5 droppedAttributesCount uint32,
    6 flags fixed32
Status: 2 message text, 3 code enum
LogRecord: 1 timeUnixNano fixed64, 2 severityNumber enum, 3 severityText text, 5 body Value, 6 attributes [KeyValue],
    7 droppedAttributesCount uint32, 8 flags fixed32, 9 traceId hex, 10 spanId hex, 11 observedTimeUnixNano fixed64,
    12 eventName text
Metric: 1 name text, 2 description text, 3 unit text, 5 gauge Gauge, 7 sum Sum, 9 histogram Histograms,
    10 exponentialHistogram Exponentials, 11 summary Summaries, 12 metadata [KeyValue]
Gauge: 1 dataPoints [Number]
Sum: 1 dataPoints [Number], 2 aggregationTemporality enum, 3 isMonotonic bool
Histograms: 1 dataPoints [Histogram], 2 aggregationTemporality enum
Exponentials: 1 dataPoints [Exponential], 2 aggregationTemporality enum
Summaries: 1 dataPoints [Summary]
Number: 2 startTimeUnixNano fixed64, 3 timeUnixNano fixed64, 4 asDouble double, 5 exemplars [Exemplar],
    6 asInt sfixed64, 7 attributes [KeyValue], 8 flags uint32
Histogram: 2 startTimeUnixNano fixed64, 3 timeUnixNano fixed64, 4 count fixed64, 5 sum double,
    6 bucketCounts [fixed64], 7 explicitBounds [double], 8 exemplars [Exemplar], 9 attributes [KeyValue],
    10 flags uint32, 11 min double, 12 max double
Exponential: 1 attributes [KeyValue], 2 startTimeUnixNano fixed64, 3 timeUnixNano fixed64, 4 count fixed64,
    5 sum double, 6 scale sint32, 7 zeroCount fixed64, 8 positive Buckets, 9 negative Buckets, 10 flags uint32,
    11 exemplars [Exemplar], 12 min double, 13 max double, 14 zeroThreshold double
Buckets: 1 offset sint32, 2 bucketCounts [uint64]
Summary: 2 startTimeUnixNano fixed64, 3 timeUnixNano fixed64, 4 count fixed64, 5 sum double,
    6 quantileValues [Quantile], 7 attributes [KeyValue], 8 flags uint32
Quantile: 1 quantile double, 2 value double
Exemplar: 2 timeUnixNano fixed64, 3 asDouble double, 4 spanId hex, 5 traceId hex, 6 asInt sfixed64,
    7 filteredAttributes [KeyValue]
KeyValue: 1 key text, 2 value Value
Value: 1 stringValue text, 2 boolValue bool, 3 intValue int64, 4 doubleValue double, 5 arrayValue Values,
    6 kvlistValue Pairs, 7 bytesValue base64
Values: 1 values [Value]
Pairs: 1 values [KeyValue]
response: 1 partialSuccess PartialSuccess
PartialSuccess: 1 rejected int64
status: 3 details [Detail]
Detail: 1 typeUrl text, 2 value hex
retryInfo: 1 retryDelay Duration
Duration: 1 seconds int64, 2 nanos int64
"""

MESSAGES: Final[dict[str, dict[int, tuple[str, str]]]] = {
    name: {int(number): (field, form) for number, field, form in re.findall(r"(\d+) (\w+) (\S+?)(?:,|$)", fields)}
    for name, fields in re.findall(r"^(\w+): ((?:.|\n )+)", _TABLE, re.MULTILINE)
}
"""Message → number → (name, type); a type in brackets repeats. ``hex`` and ``base64`` are bytes, as JSON writes them. Left out is what only profiles use, and ``entityRefs``, which is not stable. ``status`` and ``retryInfo`` are gRPC's (google.rpc)."""

ONE_OF: Final[dict[str, frozenset[str]]] = {
    "Value": frozenset(name for name, _ in MESSAGES["Value"].values()),
    "Metric": frozenset(["gauge", "sum", "histogram", "exponentialHistogram", "summary"]),
    "Number": frozenset(["asDouble", "asInt"]),
    "Exemplar": frozenset(["asDouble", "asInt"]),
}
"""Message → fields of which the last one counts (``oneof``)."""
