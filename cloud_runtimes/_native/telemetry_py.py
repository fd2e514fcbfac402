"""Spans, log records and metrics that become OTLP bytes, and the bounded buffer that holds them: the reference of the compiled kernel `src_ext/telemetry.pyx`, in one module for each part."""

from __future__ import annotations

from .otlp_py import Limits
from .telemetry_api_py import ApiScope, ApiSpan, ApiTracer, bridge
from .telemetry_buffer_py import CAUSES, Buffer, Chunk, _set_clock, _set_seed, reseed
from .telemetry_context_py import Sampler, SpanContext, baggage
from .telemetry_current_py import current, current_span
from .telemetry_logs_py import Logger
from .telemetry_metrics_py import (
    BoundCounter,
    BoundGauge,
    BoundHistogram,
    Counter,
    Gauge,
    Histogram,
    UpDownCounter,
)
from .telemetry_points import Observable
from .telemetry_spans_py import Span, Tracer, Traces, outgoing

__all__ = [
    "CAUSES",
    "ApiScope",
    "ApiSpan",
    "ApiTracer",
    "BoundCounter",
    "BoundGauge",
    "BoundHistogram",
    "Buffer",
    "Chunk",
    "Counter",
    "Gauge",
    "Histogram",
    "Limits",
    "Logger",
    "Observable",
    "Sampler",
    "Span",
    "SpanContext",
    "Tracer",
    "Traces",
    "UpDownCounter",
    "_set_clock",
    "_set_seed",
    "baggage",
    "bridge",
    "current",
    "current_span",
    "outgoing",
    "reseed",
]
