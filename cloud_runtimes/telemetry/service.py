"""TelemetryService: spans, log records and metrics, on the wire OTLP."""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .._core import propagation
from .._core.arguments import CLIENT_TIMEOUT, check_timeout
from .._core.home import home_folder, is_memory
from .._core.sigterm import flush_on_sigterm
from .._core.threads import Mutex
from .._native import telemetry as kernel
from .._service import Service, ServiceFrame, error_context
from .._version import __version__
from ..config import without_values
from ..errors import InvalidArgumentError, UnsupportedError
from ..spi.operation import Method, Operation
from ..spi.telemetry import Exporter
from ._meter import Meter
from ._pipeline import Pipeline, keep
from ._sampling import LiveSampler
from ._sdk_metrics import measure_itself
from ._wire import resource, scope
from .other_sdk import join_other
from .settings import SIGNALS, Loaded, load, pairs
from .types import TelemetrySpool, TelemetryStats

if TYPE_CHECKING:
    import logging

    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from .._service import ClientContext
    from ._otel import Providers
    from ._spool import Spool

__all__ = ["TelemetryService"]

_FLUSH: Final = Method("telemetry", "flush", repeatable=False, writes=False)
_SPOOL: Final = Method("telemetry", "spool", repeatable=True, writes=False)
_OFF: Final = 100
_SIGTERM_SECONDS: Final = 2.0


class _Frame(ServiceFrame):
    """A frame with one way out, whatever the component's name."""

    exporter: Any

    def driver(self, name: str) -> Any:
        """Return what exports spans, whatever the name."""
        return self.exporter


class TelemetryService(Service):
    """Traces, logs and metrics of this application. Made by ``client.telemetry``.

    Recording never waits and never raises for what is on the way: what cannot be kept or sent is dropped and counted (`stats`). Where records go is configuration: the table ``[telemetry]``, or ``OTEL_*``; without an endpoint they go to rotating files under ``CLOUD_RUNTIMES_HOME/telemetry``.

    Attributes:
        measures: whether metrics are recorded.
    """

    name = "telemetry"
    _frame_type = _Frame
    _frame: _Frame
    closes_last = True
    outlives_fork = True

    def __init__(self, context: ClientContext) -> None:
        super().__init__(context)
        loaded = load(context.settings.telemetry, context.settings.origin)
        settings = loaded.settings
        self._exporters = _exporters(context, loaded)
        self._frame.exporter = self._exporters["traces"]
        self._given = _resource(context, loaded)
        self._pipeline = Pipeline(
            self._exporters,
            {"traces": settings.trace_delay, "logs": settings.log_delay, "metrics": settings.metric_interval},
            partial(_bytes, self._given),
            buffer_bytes=settings.buffer_bytes,
            timeout=settings.timeout,
            retry_timeout=settings.retry_timeout,
            spool=_spool(context, loaded, self._exporters),
            placed=loaded.placed,
        )
        self._flush: Callable[[float | None], bool] = self._pipeline.flush
        self._limits = kernel.Limits(settings.attributes, settings.value_length, settings.events, settings.links)
        off = {signal: loaded.disabled or loaded.exporters[signal] == "none" for signal in SIGNALS}
        sampler = kernel.Sampler(0.0, 0.0, False) if off["traces"] else kernel.Sampler(*settings.sampling)
        self._traces = kernel.Traces(self._pipeline.buffers["traces"], self._limits, sampler)
        self._live: LiveSampler | None = None
        if settings.sampler_store is not None and not off["traces"]:
            self._live = LiveSampler(
                context, self._traces, settings.sampling, settings.sampler_store, settings.sampler_key
            )
        self._level = _OFF if off["logs"] else 1
        self._lock = Mutex()
        self._scopes: dict[bytes, int] = {}
        self._off = off
        self._providers: Providers | None = None
        self._measuring: dict[str, Any] = {
            "delta": settings.temporality != "cumulative",
            "exemplars": {"always_off": 0, "trace_based": 1, "always_on": 2}[settings.exemplars],
            "explicit": settings.histograms == "explicit_bucket_histogram",
        }
        self.measures = not off["metrics"]
        self._meters: dict[int, Meter] = {}
        if settings.instrument and self.measures:
            measure_itself(self.meter("cloud_runtimes", __version__), self._pipeline.stats)
        keep(self._pipeline, context)
        if settings.flush_on_sigterm:
            flush_on_sigterm(self._pipeline, _SIGTERM_SECONDS)
        context.handles.add(self)
        join_other(placed=loaded.placed)

    @property
    def _resource(self) -> dict[str, Any]:
        return _all(self._given)

    def _scope(self, name: str, version: str | None, schema_url: str | None) -> int:
        if not isinstance(name, str) or not name:
            raise InvalidArgumentError(f"telemetry: a scope's name is text, usually __name__, not {name!r}")
        for what, value in (("version", version), ("schema_url", schema_url)):
            if value is not None and not isinstance(value, str):
                raise InvalidArgumentError(f"telemetry: a scope's {what} is text, not {type(value).__name__}")
        return self._scope_number(scope(name, version, schema_url))

    def _scope_number(self, head: bytes) -> int:
        with self._lock:
            number = self._scopes.get(head)
            if number is None:
                self._pipeline.scopes.append(head)
                number = self._scopes[head] = len(self._pipeline.scopes) - 1
        return number

    # -- recording --

    def tracer(self, name: str, version: str | None = None, schema_url: str | None = None) -> kernel.Tracer:
        """Return a tracer: ``with tracer.span("name", attributes={…}) as span:``.

        Args:
            name: of the instrumentation scope, usually ``__name__``.
            version: of what is instrumented.
            schema_url: of the conventions that names and attributes follow.

        Raises:
            InvalidArgumentError: ``name`` is no text, or empty.
        """
        return self._tracer(self._scope(name, version, schema_url))

    def _tracer(self, scope: int) -> kernel.Tracer:
        if self._live is not None:
            self._live.start()
        return kernel.Tracer(self._traces, scope)

    def meter(self, name: str, version: str | None = None, schema_url: str | None = None) -> Meter:
        """Return a meter: ``meter.counter("requests").add(1, {"route": "/"})``. The same arguments give the same meter.

        Args:
            name: of the instrumentation scope, usually ``__name__``.
            version: of what is instrumented.
            schema_url: of the conventions that names and attributes follow.

        Raises:
            InvalidArgumentError: ``name`` is no text, or empty.
        """
        scope = self._scope(name, version, schema_url)
        with self._lock:
            meter = self._meters.get(scope)
            if meter is None:
                buffer = self._pipeline.buffers["metrics"]
                watch = self._pipeline.watch if self.measures else (lambda: None)
                meter = self._meters[scope] = Meter(scope, buffer, watch, **self._measuring)
                if self.measures:
                    self._pipeline.meters.append(meter)
        return meter

    def logger(self, name: str, version: str | None = None, schema_url: str | None = None) -> kernel.Logger:
        """Return a logger: ``logger.info("message", key=value)``; its ``level`` is the least severity number recorded.

        Args:
            name: of the instrumentation scope, usually ``__name__``.
            version: of what is instrumented.
            schema_url: of the conventions that names and attributes follow.

        Raises:
            InvalidArgumentError: ``name`` is no text, or empty.
        """
        scope = self._scope(name, version, schema_url)
        return kernel.Logger(self._pipeline.buffers["logs"], self._limits, scope, self._level)

    def logging_handler(self, level: int = 0) -> logging.Handler:
        """Return a handler for `logging`: ``logging.getLogger().addHandler(client.telemetry.logging_handler())``.

        Args:
            level: of `logging`, below which the handler takes nothing.

        Raises:
            InvalidArgumentError: ``level`` is none of `logging`.
        """
        from ._handler import TelemetryHandler

        try:
            return TelemetryHandler(self.logger, self._pipeline.is_sender, level)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"level must be a level of logging, such as 20 or 'INFO': {error}") from None

    # -- OpenTelemetry's API --

    def _opentelemetry(self) -> Providers:
        if self._providers is None:
            from ._install import api_module

            providers = api_module().Providers(self)
            with self._lock:
                self._providers = self._providers or providers
        return self._providers

    def tracer_provider(self) -> TracerProvider:
        """Return a provider of OpenTelemetry's API for traces, always the same, to be given to an instrumentation. `install` makes it the global one. From the first call on, the current span is that of OpenTelemetry's context.

        Raises:
            InvalidArgumentError: the package opentelemetry-api is missing (extra ``[otel]``).
        """
        return self._opentelemetry().traces

    def meter_provider(self) -> MeterProvider:
        """Return a provider of OpenTelemetry's API for metrics; see `tracer_provider`.

        Raises:
            InvalidArgumentError: as in `tracer_provider`.
        """
        return self._opentelemetry().metrics

    def logger_provider(self) -> LoggerProvider:
        """Return a provider of OpenTelemetry's API for logs; see `tracer_provider`.

        Raises:
            InvalidArgumentError: as in `tracer_provider`.
        """
        return self._opentelemetry().logs

    # -- contexts --

    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Write ``traceparent``, ``tracestate`` and ``baggage`` of this context into headers (W3C Trace Context, W3C Baggage).

        Args:
            headers: what to write into.
        """
        propagation.inject(headers)

    def extract(self, headers: Any) -> kernel.SpanContext | None:
        """Return the context of incoming headers, to be given as ``parent=``; `None` where there is no valid one.

        Handlers of events and of RPC methods need not ask: they run in the context that came with what they handle.

        Args:
            headers: a mapping, or pairs of name and value, text or bytes; or an `Event` that was received.

        Raises:
            InvalidArgumentError: ``headers`` are none.
        """
        context: kernel.SpanContext | None = _extracted(propagation.extract, headers)
        return context

    def extract_baggage(self, headers: Any) -> dict[str, str]:
        """Return the baggage of incoming headers, for `use_baggage`.

        Args:
            headers: as in `extract`.

        Raises:
            InvalidArgumentError: ``headers`` are none.
        """
        baggage: dict[str, str] = _extracted(propagation.extract_baggage, headers)
        return baggage

    def baggage(self) -> Mapping[str, str]:
        """Return the baggage of this context."""
        return dict(propagation.current_baggage())

    def use_baggage(self, entries: Mapping[str, str]) -> AbstractContextManager[None]:
        """Add entries to the baggage inside ``with``; they travel by `inject`.

        Args:
            entries: tokens of HTTP → text.

        Raises:
            InvalidArgumentError: on entering: a key is no token of HTTP, or a value no text.
        """
        return propagation.use_baggage(entries)

    # -- sending --

    @error_context(_FLUSH)
    def flush(self, timeout: float | None = None) -> bool:
        """Send all that was recorded before; metrics are collected now.

        Args:
            timeout: seconds, ``None``: no limit but that of each batch's retries.

        Returns:
            ``True`` once the exporter accepted all of it, or the spool stored it. ``False`` when the time is up (it is sent nevertheless), or where something was dropped since the flush before.

        Raises:
            InvalidArgumentError: ``timeout`` is no number above 0.
        """
        return self._flush(check_timeout(timeout))

    @error_context(_FLUSH)
    async def flush_async(self, timeout: float | None = None) -> bool:
        """Send all that was recorded before; metrics are collected now.

        Args:
            timeout: seconds, ``None``: no limit but that of each batch's retries.

        Returns:
            ``True`` once the exporter accepted all of it, or the spool stored it. ``False`` when the time is up (it is sent nevertheless), or where something was dropped since the flush before.

        Raises:
            InvalidArgumentError: ``timeout`` is no number above 0.
        """
        import asyncio

        limit = check_timeout(timeout)
        return await asyncio.to_thread(self._flush, limit)

    def stats(self) -> TelemetryStats:
        """Return a snapshot of the counters; in each signal recorded = exported + dropped + buffered."""
        return TelemetryStats(*(self._pipeline.stats(signal) for signal in SIGNALS))

    @error_context(_SPOOL, named=False)
    def spool(self, *, timeout: float | None = CLIENT_TIMEOUT) -> TelemetrySpool:
        """Return what waits on this machine for the collector, and what became of the rest, of all processes of the home.

        Args:
            timeout: seconds; the client's if not given, ``None``: no limit.

        Raises:
            UnsupportedError: there is no spool.
            UnavailableError, DeadlineExceededError: its file cannot be read now.
        """
        spool, op = self._spooled(timeout)
        return self._frame.call(op, spool.stats)

    @error_context(_SPOOL, named=False)
    async def spool_async(self, *, timeout: float | None = CLIENT_TIMEOUT) -> TelemetrySpool:
        """Return what waits on this machine for the collector, and what became of the rest, of all processes of the home.

        Args:
            timeout: seconds; the client's if not given, ``None``: no limit.

        Raises:
            UnsupportedError: there is no spool.
            UnavailableError, DeadlineExceededError: its file cannot be read now.
        """
        import asyncio

        spool, op = self._spooled(timeout)
        return await asyncio.to_thread(self._frame.call, op, spool.stats)

    def _spooled(self, timeout: float | None) -> tuple[Spool, Operation]:
        limit = self._frame.timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        if self._pipeline.spool is None:
            raise UnsupportedError("telemetry has no spool: add spool = true to [telemetry], and an endpoint of OTLP")
        return self._pipeline.spool, Operation(_SPOOL, "telemetry", limit)

    def _close_by_client(self, end: float | None) -> None:
        if self._live is not None:
            self._live.close()
        self._pipeline.close(None if end is None else max(0.0, end - time.monotonic()))
        self._frame.context.handles.discard(self)


def _resource(context: ClientContext, loaded: Loaded) -> dict[str, Any]:
    given = {
        **pairs(loaded.settings.resource, "[telemetry] resource"),
        **pairs(os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""), "OTEL_RESOURCE_ATTRIBUTES"),
    }
    if loaded.settings.service_name:
        given["service.name"] = loaded.settings.service_name
    return {
        "service.name": context.settings.app_id,
        "telemetry.sdk.name": "cloud_runtimes",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": __version__,
        "process.runtime.name": sys.implementation.name,
        "process.runtime.version": sys.version.split()[0],
        **given,
    }


_instance = uuid.uuid4()


def _process() -> dict[str, Any]:
    """Return what tells the processes of one service apart; a forked child has its own."""
    pid = os.getpid()
    return {
        "service.instance.id": str(uuid.uuid5(_instance, str(pid))),
        "host.name": socket.gethostname(),
        "process.pid": pid,
    }


def _all(given: Mapping[str, Any]) -> dict[str, Any]:
    return {**_process(), **given}


def _bytes(given: Mapping[str, Any]) -> bytes:
    return resource(_all(given))


def _exporters(context: ClientContext, loaded: Loaded) -> dict[str, Exporter]:
    exporters: dict[str, Exporter] = {}
    for signal in SIGNALS:
        kind = loaded.exporters[signal]
        if kind == "none":
            kind = "file"  # nothing is recorded, so nothing comes to it
        if kind == "otlp":
            kind = loaded.protocols[signal]
        if kind not in exporters:
            exporters[kind] = _exporter(kind, context, loaded)
        exporters[signal] = exporters[kind]
    return {signal: exporters[signal] for signal in SIGNALS}


def _spool(context: ClientContext, loaded: Loaded, exporters: Mapping[str, Exporter]) -> Spool | None:
    targets = {signal: exporters[signal] for signal in SIGNALS if loaded.exporters[signal] == "otlp"}
    if loaded.spool is None or loaded.disabled or not targets:
        return None
    from ._spool import Spool

    return Spool(context, targets, loaded.spool, loaded.settings.timeout)


@without_values
def _exporter(kind: str, context: ClientContext, loaded: Loaded) -> Exporter:
    settings = loaded.settings
    if kind in ("http/protobuf", "grpc"):
        exporter_class: Any
        if kind == "grpc":
            from ._grpc import GrpcExporter as exporter_class
        else:
            from ._http import HttpExporter as exporter_class
        exporter: Exporter = exporter_class(
            {signal: url for signal, url in loaded.urls.items() if loaded.protocols[signal] == kind},
            pairs(settings.headers, "the headers of telemetry"),
            compression=settings.compression,
            certificate=settings.certificate,
        )
        return exporter
    from ._file import ConsoleExporter, FileExporter, MemoryExporter

    if kind == "console":
        return ConsoleExporter()
    home = home_folder(context.settings.runtime_settings.get("home"))
    if is_memory(home):
        return MemoryExporter(settings.file_bytes)
    return FileExporter(Path(home) / "telemetry", settings.file_bytes)


def _extracted(extract: Callable[[Any], Any], headers: Any) -> Any:
    try:
        return extract(propagation.headers_of(headers))
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"headers must be a mapping, pairs of name and value, or an Event that was received, not {type(headers).__name__}"
        ) from error
