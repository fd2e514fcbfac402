"""OpenTelemetry's API over this service: the providers of tracers, meters and loggers. Imported when it is asked for, since it needs opentelemetry-api."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import opentelemetry._logs as otel_logs
import opentelemetry.metrics as otel_metrics
from opentelemetry import trace

from .._native import telemetry as kernel
from .._native.telemetry_text import exception_attributes, frozen, frozen_attributes, time_of
from ..errors import InvalidArgumentError, UnsupportedError
from ._otel_metrics import Instruments, Meter
from ._otel_spans import ApiTracer, Bridge, PassingTracer, quiet
from ._wire import scope

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.util.types import AnyValue, Attributes

    from .service import TelemetryService


class Resource(NamedTuple):
    """Resource that emits the telemetry, as the SDK's providers expose it."""

    attributes: Mapping[str, Any]


class Provider:
    """Base of the three: the scope of what records, and what the SDK's providers have besides the API."""

    def __init__(self, telemetry: TelemetryService) -> None:
        self._telemetry = telemetry

    @property
    def resource(self) -> Resource:
        """Resource that emits the telemetry."""
        return Resource(MappingProxyType(self._telemetry._resource))

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Send all that was recorded before, of all signals; return whether it was accepted in time. See `TelemetryService.flush`."""
        return self._telemetry.flush(max(timeout_millis, 1) / 1000)

    def shutdown(self) -> None:
        """Send what there is; recording goes on until the client is closed, which other parts of the program may use."""
        self.force_flush()

    def _scope(
        self, name: str, version: str | None, schema_url: str | None, attributes: Mapping[str, Any] | None
    ) -> int:
        return self._telemetry._scope_number(scope(name or "", version, schema_url, attributes))

    def _unsupported(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"telemetry: there are no {what} of the SDK here: records go where the table [telemetry] or OTEL_EXPORTER_OTLP_ENDPOINT sends them; for {what} set up the SDK's provider instead of this one",
            service="telemetry",
        )


class TracerProvider(Provider, trace.TracerProvider):
    """Makes tracers of OpenTelemetry's API; made by `TelemetryService.tracer_provider`."""

    def __init__(self, telemetry: TelemetryService, bridge: Bridge) -> None:
        super().__init__(telemetry)
        self._bridge = bridge

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> trace.Tracer:
        """Return a tracer; with traces switched off one that passes contexts on."""
        if self._telemetry._off["traces"]:
            return PassingTracer()
        number = self._scope(instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        tracer: Any = ApiTracer(self._telemetry._tracer(number), self._bridge)
        return tracer  # type: ignore[no-any-return]

    def add_span_processor(self, span_processor: Any) -> None:
        """Refuse: there are no span processors. Raises `UnsupportedError`: always."""
        raise self._unsupported("span processors")


class MeterProvider(Provider, otel_metrics.MeterProvider):
    """Makes meters of OpenTelemetry's API; made by `TelemetryService.meter_provider`."""

    def __init__(self, telemetry: TelemetryService) -> None:
        super().__init__(telemetry)
        self._known: dict[int, Instruments] = {}

    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> otel_metrics.Meter:
        """Return a meter; with metrics switched off one that does nothing."""
        telemetry = self._telemetry
        if not telemetry.measures:
            return otel_metrics.NoOpMeter(name, version, schema_url)
        number = self._scope(name, version, schema_url, attributes)
        pipeline = telemetry._pipeline
        with telemetry._lock:
            instruments = self._known.get(number)
            if instruments is None:
                buffer = pipeline.buffers["metrics"]
                instruments = Instruments(number, buffer, pipeline.watch, **telemetry._measuring)
                self._known[number] = instruments
                pipeline.meters.append(instruments)
        return Meter(name, version, schema_url, instruments, telemetry._measuring["explicit"])


class Logger(otel_logs.Logger):
    """Records log records of the API; made by `LoggerProvider.get_logger`."""

    def __init__(
        self,
        name: str,
        version: str | None,
        schema_url: str | None,
        attributes: Attributes,
        inner: kernel.Logger,
        is_sender: Callable[[], bool],
    ) -> None:
        super().__init__(name, version, schema_url, attributes)
        self._inner = inner
        self._is_sender = is_sender

    def emit(
        self,
        record: otel_logs.LogRecord | None = None,
        *,
        timestamp: int | None = None,
        observed_timestamp: int | None = None,
        context: Context | None = None,
        severity_number: otel_logs.SeverityNumber | None = None,
        severity_text: str | None = None,
        body: AnyValue | None = None,
        attributes: Attributes = None,
        event_name: str | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """Record a log record, or what would be in one; what the sender itself logs is left out, or it would never end."""
        if self._is_sender():
            return
        trace_id = span_id = flags = None
        if record is not None:
            timestamp, observed_timestamp = record.timestamp, record.observed_timestamp
            severity_number, severity_text = record.severity_number, record.severity_text
            body, attributes = record.body, record.attributes
            event_name, exception = getattr(record, "event_name", None), getattr(record, "exception", None)
            trace_id, span_id, flags = record.trace_id, record.span_id, record.trace_flags
            context = getattr(record, "context", None)
        if trace_id is None:  # also records of older releases of the API
            span = trace.get_current_span(context).get_span_context()
            trace_id, span_id, flags = span.trace_id, span.span_id, span.trace_flags
        severity: Any = getattr(severity_number, "value", severity_number)  # a plain number does as well
        given: Any = attributes
        if exception is not None:
            given = exception_attributes(exception, attributes)
        self._inner.record(
            time_of(timestamp or 0),
            time_of(observed_timestamp or time.time_ns()),
            int(severity or 0) & 0x7F,
            str(severity_text or ""),
            frozen(body),
            frozen_attributes(given),
            trace_id.to_bytes(16, "big") if trace_id else b"",
            span_id.to_bytes(8, "big") if span_id else b"",
            (flags or 0) & 0xFF,
            str(event_name or ""),
        )

    def enabled(
        self,
        *,
        context: Context | None = None,
        severity_number: otel_logs.SeverityNumber | None = None,
        event_name: str | None = None,
    ) -> bool:
        """Return whether it records anything: logs that are switched off have a logger that does not."""
        return True


class LoggerProvider(Provider, otel_logs.LoggerProvider):
    """Makes loggers of OpenTelemetry's API; made by `TelemetryService.logger_provider`."""

    def get_logger(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> otel_logs.Logger:
        """Return a logger; with logs switched off one that does nothing."""
        telemetry = self._telemetry
        if telemetry._off["logs"]:
            return otel_logs.NoOpLogger(name, version, schema_url, attributes)
        number = self._scope(name, version, schema_url, attributes)
        inner = kernel.Logger(telemetry._pipeline.buffers["logs"], telemetry._limits, number, 1)
        return Logger(name, version, schema_url, attributes, inner, telemetry._pipeline.is_sender)

    def add_log_record_processor(self, log_record_processor: Any) -> None:
        """Refuse: there are no processors of log records. Raises `UnsupportedError`: always."""
        raise self._unsupported("log record processors")


class Providers:
    """The three providers of one service."""

    def __init__(self, telemetry: TelemetryService) -> None:
        bridge = Bridge()
        self.traces = TracerProvider(telemetry, bridge)
        self.metrics = MeterProvider(telemetry)
        self.logs = LoggerProvider(telemetry)
        kernel.bridge(bridge)
        telemetry._pipeline.quiet = quiet


def global_provider() -> str | None:
    """Name the global provider that is set already, and its class."""
    for what, get in (
        ("tracer provider", trace.get_tracer_provider),
        ("meter provider", otel_metrics.get_meter_provider),
        ("logger provider", otel_logs.get_logger_provider),
    ):
        kind: type = type(get())
        # until one is set there is a proxy, whose class is public for traces only
        if not (kind.__module__.startswith("opentelemetry.") and "Proxy" in kind.__name__):
            return f"{what} ({kind.__module__}.{kind.__qualname__})"
    return None


def set_providers(telemetry: TelemetryService) -> None:
    """Make a service's providers the global ones; there must be none."""
    providers = telemetry._opentelemetry()
    if not isinstance(providers, Providers):
        raise InvalidArgumentError(
            'telemetry: with [telemetry] provider = "global" this client records through the global providers, so it cannot be them: leave provider out'
        )
    trace.set_tracer_provider(providers.traces)
    otel_metrics.set_meter_provider(providers.metrics)
    otel_logs.set_logger_provider(providers.logs)
