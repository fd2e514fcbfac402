"""OpenTelemetry's logs API over the log records of this service."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import opentelemetry._logs as otel
from opentelemetry import trace

from .._native import telemetry as kernel
from .._native.telemetry_text import exception_attributes, frozen, frozen_attributes, time_of
from ._provider import Provider

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.util.types import AnyValue, Attributes

__all__ = ["Logger", "LoggerProvider"]


class Logger(otel.Logger):
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
        record: otel.LogRecord | None = None,
        *,
        timestamp: int | None = None,
        observed_timestamp: int | None = None,
        context: Context | None = None,
        severity_number: otel.SeverityNumber | None = None,
        severity_text: str | None = None,
        body: AnyValue | None = None,
        attributes: Attributes = None,
        event_name: str | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """Record a log record, or what would be in one; what the sender itself logs is left out, or it would never end.

        Args:
            record: instead of all others.
            timestamp, observed_timestamp: nanoseconds since 1970 UTC; else it is observed now.
            context: whose span it belongs to; else the current one.
            severity_number: as the data model has them, 1 to 24.
            severity_text: its name.
            body: any value of an attribute.
            attributes: copied.
            event_name: makes it an event.
            exception: described by attributes, unless they are given.
        """
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
        severity_number: otel.SeverityNumber | None = None,
        event_name: str | None = None,
    ) -> bool:
        """Tell whether it records anything: logs that are switched off have a logger that does not."""
        return True


class LoggerProvider(Provider, otel.LoggerProvider):
    """Makes loggers of OpenTelemetry's API; made by `TelemetryService.logger_provider`."""

    def get_logger(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> otel.Logger:
        """Return a logger; with logs switched off one that does nothing."""
        telemetry = self._telemetry
        if telemetry._off["logs"]:
            return otel.NoOpLogger(name, version, schema_url, attributes)
        number = self._scope(name, version, schema_url, attributes)
        inner = kernel.Logger(telemetry._pipeline.buffers["logs"], telemetry._limits, number, 1)
        return Logger(name, version, schema_url, attributes, inner, telemetry._pipeline.is_sender)

    def add_log_record_processor(self, log_record_processor: Any) -> None:
        """Refuse: there are no processors of log records.

        Raises:
            UnsupportedError: always.
        """
        raise self._unsupported("log record processors")
