"""Telemetry: traces and logs, encoded as OTLP when they end, sent in the background, every drop counted."""

from .._native import telemetry as _kernel
from .driver import Exporter
from .service import TelemetryService
from .types import SignalStats, TelemetryStats

Logger = _kernel.Logger
Sampler = _kernel.Sampler
Span = _kernel.Span
SpanContext = _kernel.SpanContext
Tracer = _kernel.Tracer

__all__ = [
    "Exporter",
    "Logger",
    "Sampler",
    "SignalStats",
    "Span",
    "SpanContext",
    "TelemetryService",
    "TelemetryStats",
    "Tracer",
]
