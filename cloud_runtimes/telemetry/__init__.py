"""Telemetry: traces, logs and metrics, encoded as OTLP when they end, sent in the background, every drop counted."""

from .._native import telemetry as _kernel
from ._install import install
from ._meter import Meter, Observation
from .service import TelemetryService
from .types import SignalSpool, SignalStats, TelemetrySpool, TelemetryStats

Counter = _kernel.Counter
Gauge = _kernel.Gauge
Histogram = _kernel.Histogram
Logger = _kernel.Logger
Sampler = _kernel.Sampler
Span = _kernel.Span
SpanContext = _kernel.SpanContext
Tracer = _kernel.Tracer
UpDownCounter = _kernel.UpDownCounter

__all__ = [
    "Counter", "Gauge", "Histogram", "Logger", "Meter", "Observation", "Sampler", "SignalSpool", "SignalStats",
    "Span", "SpanContext", "TelemetryService", "TelemetrySpool", "TelemetryStats", "Tracer", "UpDownCounter", "install"
]  # fmt: skip
