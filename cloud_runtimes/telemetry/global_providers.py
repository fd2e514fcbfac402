"""Recording through OpenTelemetry's global providers (``[telemetry] provider = "global"``): our tracers, meters and loggers over the API, for a process whose SDK is a vendor's."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import Token
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Self, cast

import opentelemetry._logs as otel_logs
import opentelemetry.metrics as otel_metrics
from opentelemetry import trace

from .._core import propagation
from .._core.logs import repeated
from .._native import telemetry as kernel
from .._native.telemetry_logs_py import Logger
from .._native.telemetry_spans_py import Tracer
from .._native.telemetry_text import KINDS, STATUSES, attributes_of, message_of, refuse_parent, wrong
from ._meter import DEFAULT_BOUNDS, Meter, Observation
from ._otel_spans import Bridge
from .service import TelemetryService

if TYPE_CHECKING:
    from .._service import ClientContext

_bridge: Final = functools.cache(Bridge)


class GlobalSpan:
    """A span of the global provider, with the methods of `Span`.

    Attributes:
        api: the span of OpenTelemetry's API.
        name: its name.
    """

    def __init__(self, api: trace.Span, name: str, makes_current: bool) -> None:
        self.api = api
        self.name = name
        self._makes_current = makes_current
        self._token: Token[Any] | None = None

    @functools.cached_property
    def context(self) -> kernel.SpanContext:
        """Its propagated context; where no provider is set, one that nobody else has."""
        return _bridge().inward(self.api) or kernel.SpanContext(os.urandom(16).hex(), os.urandom(8).hex())

    @property
    def is_recording(self) -> bool:
        """Whether it is sampled and has not ended."""
        return self.api.is_recording()

    @property
    def attributes(self) -> dict[str, Any]:
        """A copy of its attributes."""
        return dict(getattr(self.api, "attributes", None) or {})

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute; the last value counts."""
        self.api.set_attribute(key, value)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        self.api.set_attributes(attributes_of(attributes) or {})

    def update_name(self, name: str) -> None:
        """Give it another name."""
        self.name = name
        self.api.update_name(name)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Add an event, with the present time."""
        self.api.add_event(name, attributes_of(attributes))

    def record_exception(self, exception: BaseException, attributes: Mapping[str, Any] | None = None) -> None:
        """Add an event ``exception`` with its type, message and stack trace."""
        self.api.record_exception(exception, attributes_of(attributes))

    def add_link(self, context: Any, attributes: Mapping[str, Any] | None = None) -> None:
        """Add a link to a span of this or another trace."""
        self.api.add_link(_api_span(context).get_span_context(), attributes_of(attributes))

    def set_status(self, status: str, description: str | None = None) -> None:
        """Set the status: ``"ok"``, ``"error"`` or ``"unset"``."""
        if status not in STATUSES:
            raise wrong("status", status, STATUSES)
        self.api.set_status(trace.StatusCode[status.upper()], description if status == "error" else None)

    def end(self) -> None:
        """End it. Ending twice does nothing."""
        if self.api.is_recording():
            self.api.end()

    def __enter__(self) -> Self:
        if self._makes_current and self._token is None:
            self._token = kernel.current.set(self)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if self._token is not None:
            propagation.give_back(kernel.current, self._token)
            self._token = None
        if isinstance(error, Exception):
            self.record_exception(error)
            self.set_status("error", f"{type(error).__name__}: {message_of(error)}")
        self.end()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.__exit__(kind, error, traceback)


def _api_span(given: Any) -> trace.Span:
    """Return the API's span for a `GlobalSpan`, a `Span` or a `SpanContext`."""
    if not isinstance(given, (GlobalSpan, kernel.Span, kernel.SpanContext)):
        raise refuse_parent(given)
    return cast(trace.Span, _bridge().outward(given))


class GlobalTracer(Tracer):
    """Makes spans of the global provider."""

    def __init__(self, api: trace.Tracer) -> None:
        self._api = api

    def _span(self, name: str, attributes: Any, kind: str, parent: Any, links: Iterable[Any], scoped: bool) -> Any:
        if kind not in KINDS:
            raise wrong("kind", kind, KINDS)
        pairs = [link if isinstance(link, tuple) else (link, None) for link in links]
        span = self._api.start_span(
            name,
            None if parent is None else trace.set_span_in_context(_api_span(parent)),
            trace.SpanKind[kind.upper()],
            attributes_of(attributes),
            [trace.Link(_api_span(each).get_span_context(), attributes_of(more)) for each, more in pairs],
        )
        return GlobalSpan(span, name, scoped)


class GlobalLogger(Logger):
    """Writes log records of the global provider."""

    def __init__(self, api: otel_logs.Logger) -> None:
        self._api = api
        self.level = 1

    def _emit(self, when: int, severity: int, name: str, body: Any, attributes: dict[str, Any] | None) -> None:
        now = time.time_ns()
        record = otel_logs.LogRecord(
            timestamp=when or now,
            observed_timestamp=now,
            severity_number=otel_logs.SeverityNumber(severity),
            severity_text=name,
            body=body,
            attributes=attributes,
        )
        self._api.emit(record)


class GlobalInstrument:
    """An instrument of the global provider, with the methods of ours; `bind` gives one with attributes of its own."""

    def __init__(self, api: Any, attributes: Mapping[str, Any] | None = None) -> None:
        self._api = api
        self._attributes = attributes

    def bind(self, attributes: Mapping[str, Any] | None = None) -> GlobalInstrument:
        """Return the instrument for one set of attributes."""
        return GlobalInstrument(self._api, attributes_of(attributes))

    def add(self, value: float = 1, attributes: Mapping[str, Any] | None = None) -> None:
        """Add to a sum."""
        self._api.add(value, attributes or self._attributes)

    def set(self, value: float, attributes: Mapping[str, Any] | None = None) -> None:
        """Set a gauge."""
        self._api.set(value, attributes or self._attributes)

    def record(self, value: float, attributes: Mapping[str, Any] | None = None) -> None:
        """Record a value of a distribution."""
        self._api.record(value, attributes or self._attributes)


class GlobalMeter(Meter):
    """Makes instruments of the global provider."""

    def __init__(self, api: otel_metrics.Meter, scope: int, buffer: kernel.Buffer, **options: Any) -> None:
        super().__init__(scope, buffer, lambda: None, **options)
        self._api = api

    def _make(self, kind: str, make: Any, name: str, unit: str, description: str, **options: Any) -> Any:
        def create(*_: Any, **__: Any) -> Any:
            create_one = getattr(self._api, f"create_{kind}")
            if callback := options.get("callback"):
                return create_one(name, [functools.partial(_observed, callback)], unit, description)
            more: dict[str, Any] = {}
            if (bounds := options.get("bounds")) not in (None, DEFAULT_BOUNDS):
                more["explicit_bucket_boundaries_advisory"] = bounds
            return GlobalInstrument(create_one(name, unit, description, **more))

        return super()._make(kind, create, name, unit, description, **options)


def _observed(
    callback: Callable[[], Iterable[Observation]], options: otel_metrics.CallbackOptions
) -> Iterable[otel_metrics.Observation]:
    for each in callback():
        yield otel_metrics.Observation(*each) if isinstance(each, tuple) else otel_metrics.Observation(each)


class GlobalTelemetryService(TelemetryService):
    """Traces, logs and metrics through the global providers; sampling, limits, exporters and counters are theirs."""

    def __init__(self, context: ClientContext) -> None:
        super().__init__(context)
        kernel.bridge(_bridge())
        self.measures = True
        self._flush = _flush

    def tracer(self, name: str, version: str | None = None, schema_url: str | None = None) -> Any:
        """Return a tracer; see `TelemetryService.tracer`."""
        self._scope(name, version, schema_url)
        return GlobalTracer(trace.get_tracer(name, version, schema_url=schema_url))

    def meter(self, name: str, version: str | None = None, schema_url: str | None = None) -> Meter:
        """Return a meter; see `TelemetryService.meter`."""
        scope = self._scope(name, version, schema_url)
        with self._lock:
            meter = self._meters.get(scope)
            if meter is None:
                api = otel_metrics.get_meter(name, version or "", schema_url=schema_url)
                meter = GlobalMeter(api, scope, self._pipeline.buffers["metrics"], **self._measuring)
                self._meters[scope] = meter
        return meter

    def logger(self, name: str, version: str | None = None, schema_url: str | None = None) -> Any:
        """Return a logger; see `TelemetryService.logger`."""
        self._scope(name, version, schema_url)
        return GlobalLogger(otel_logs.get_logger(name, version or "", schema_url=schema_url))

    def _opentelemetry(self) -> Any:
        return SimpleNamespace(**{signal: get() for signal, get in _PROVIDERS.items()})


_PROVIDERS: Final[Mapping[str, Callable[[], Any]]] = {
    "traces": trace.get_tracer_provider,
    "metrics": otel_metrics.get_meter_provider,
    "logs": otel_logs.get_logger_provider,
}


def _flush(timeout: float | None) -> bool:
    """Flush each provider that can; return whether all say that they did so in time."""
    end = None if timeout is None else time.monotonic() + timeout
    good = True
    for signal, get in _PROVIDERS.items():
        flush = getattr(get(), "force_flush", None)
        if flush is not None:
            try:
                # without a number it is the provider's own time-out
                limit = () if end is None else (max(1, int((end - time.monotonic()) * 1000)),)
                good &= flush(*limit) is not False
            except Exception as error:
                repeated(f"global-flush-{signal}", "telemetry: the global provider of %s failed: %s", signal, error)
                good = False
    return good
