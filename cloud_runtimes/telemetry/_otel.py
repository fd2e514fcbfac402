"""OpenTelemetry's API over this service: what the kernel has to know of it, and the provider of tracers. Imported when it is asked for, since it needs opentelemetry-api.

The current span lives in OpenTelemetry's context once there are providers: the kernel reads and writes it there (`Known`), so the sync and the async API see one truth. Only the public API is used to find the place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
from typing import TYPE_CHECKING, Any, Final, TypeVar

import opentelemetry._logs as otel_logs
import opentelemetry.metrics as otel_metrics
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from .._native import telemetry as kernel
from .._native.telemetry_text import decorated
from ..errors import UnsupportedError
from ._otel_logs import LoggerProvider
from ._otel_metrics import MeterProvider
from ._provider import Provider

if TYPE_CHECKING:
    from opentelemetry.util.types import Attributes

    from .service import TelemetryService

__all__ = ["Known", "PassingTracer", "Providers", "TracerProvider", "global_provider", "set_providers"]

F = TypeVar("F", bound=Callable[..., Any])


class _Remote(trace.NonRecordingSpan):
    """What stands in OpenTelemetry's context for a `SpanContext` of ours."""

    def __init__(self, context: trace.SpanContext, native: Any) -> None:
        super().__init__(context)
        self.native = native


class Known:
    """What the telemetry kernel has to know of OpenTelemetry's API; see `telemetry_api_py.Api`.

    Args:
        kernel: which of the twins.

    Raises:
        UnsupportedError: its contexts are not those of `contextvars`.
    """

    def __init__(self, kernel: Any = kernel) -> None:
        token: Any = otel_context.attach(otel_context.get_current())
        otel_context.detach(token)
        if not isinstance(token, Token):
            raise UnsupportedError(
                "telemetry: OTEL_PYTHON_CONTEXT chooses contexts that are not those of contextvars; unset it",
                service="telemetry",
            )
        self.variable = token.var
        (self.key,) = trace.set_span_in_context(trace.INVALID_SPAN, Context())
        self.context_class: Any = Context
        kinds = trace.SpanKind
        self.kinds: tuple[Any, ...] = (kinds.INTERNAL, kinds.SERVER, kinds.CLIENT, kinds.PRODUCER, kinds.CONSUMER)
        codes = trace.StatusCode
        self.codes: tuple[Any, ...] = (codes.UNSET, codes.OK, codes.ERROR)
        self._kernel = kernel
        trace.Span.register(kernel.ApiSpan)
        trace.Tracer.register(kernel.ApiTracer)

    def span_context(self, ids: bytes, flags: int, state: str) -> trace.SpanContext:
        """Return the API's context of a span of this process."""
        return _context(ids[:16], ids[16:], flags, state, False)

    def foreign(self, span: Any) -> Any:
        """Return the context of a span that is none of ours; `None` for an invalid one."""
        if type(span) is _Remote:
            return span.native
        try:
            context = span.get_span_context()
            if not context.is_valid:
                return None
            return self._kernel.SpanContext(
                f"{context.trace_id:032x}",
                f"{context.span_id:016x}",
                context.trace_flags & 0xFF,
                context.trace_state.to_header(),
                context.is_remote,
            )
        except Exception:  # whatever stands in the context: to the API it is no span either
            return None

    def link(self, context: Any, attributes: Any) -> tuple[bytes, int, str, bool] | None:
        """Return ids, flags, ``tracestate`` and whether it is remote of a context to link to; `None` where there is nothing to tell."""
        if context is None or not (context.is_valid or attributes or context.trace_state):
            return None
        ids = context.trace_id.to_bytes(16, "big") + context.span_id.to_bytes(8, "big")
        return ids, context.trace_flags & 0xFF, context.trace_state.to_header(), context.is_remote

    def non_recording(self, context: Any) -> trace.Span:
        """Return the API's span that only stands for a `SpanContext`."""
        if context is None:
            return trace.INVALID_SPAN
        ids = bytes.fromhex(context.trace_id), bytes.fromhex(context.span_id)
        return _Remote(_context(*ids, context.trace_flags, context.trace_state, context.is_remote), context)


def _context(trace_id: bytes, span_id: bytes, flags: int, state: str, remote: bool) -> trace.SpanContext:
    return trace.SpanContext(
        int.from_bytes(trace_id, "big"),
        int.from_bytes(span_id, "big"),
        remote,
        trace.TraceFlags(flags),
        trace.TraceState.from_header([state]) if state else None,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    # the keys by which instrumentations know that they are not wanted
    context = otel_context.get_current()
    for key in {"suppress_instrumentation", getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", None)}:
        if key is not None:
            context = otel_context.set_value(key, True, context)
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)


class _PassingScope:
    """Has the span of a context as the current one inside ``with``; also a decorator."""

    def __init__(self, context: Context | None) -> None:
        self._context = context

    def again(self) -> _PassingScope:
        return _PassingScope(self._context)

    def __call__(self, function: F) -> F:
        return decorated(self, function)

    def __enter__(self) -> trace.Span:
        self._inner = trace.use_span(_passed(self._context), record_exception=False, set_status_on_exception=False)
        return self._inner.__enter__()

    def __exit__(self, *error: Any) -> Any:
        return self._inner.__exit__(*error)


def _passed(context: Context | None) -> trace.Span:
    return trace.NonRecordingSpan(trace.get_current_span(context).get_span_context())


class PassingTracer(trace.NoOpTracer):
    """Records nothing and passes contexts on, which the API's own does not in all of its releases."""

    def start_span(self, name: str, context: Context | None = None, *args: Any, **kwargs: Any) -> trace.Span:
        """Return a span that only has the parent's context."""
        return _passed(context)

    def start_as_current_span(self, name: str, context: Context | None = None, *args: Any, **kwargs: Any) -> Any:
        """Return what makes that the current span."""
        return _PassingScope(context)


class TracerProvider(Provider, trace.TracerProvider):
    """Makes tracers of OpenTelemetry's API; made by `TelemetryService.tracer_provider`."""

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
        made: Any = kernel.ApiTracer(self._telemetry._tracer(number))
        return made  # type: ignore[no-any-return]

    def add_span_processor(self, span_processor: Any) -> None:
        """Refuse: there are no span processors.

        Raises:
            UnsupportedError: always.
        """
        raise self._unsupported("span processors")


class Providers:
    """The three providers of one service."""

    def __init__(self, telemetry: TelemetryService) -> None:
        known = Known()
        self.traces = TracerProvider(telemetry)
        self.metrics = MeterProvider(telemetry)
        self.logs = LoggerProvider(telemetry)
        kernel.bridge(known)
        telemetry._pipeline.quiet = _quiet


_ACCESS: Final[Mapping[str, Any]] = {
    "tracer provider": trace.get_tracer_provider,
    "meter provider": otel_metrics.get_meter_provider,
    "logger provider": otel_logs.get_logger_provider,
}


def global_provider() -> str | None:
    """Name the global provider that is set already, and its class."""
    for what, get in _ACCESS.items():
        kind = type(get())
        # until one is set there is a proxy, whose class is public for traces only
        if not (kind.__module__.startswith("opentelemetry.") and "Proxy" in kind.__name__):
            return f"{what} ({kind.__module__}.{kind.__qualname__})"
    return None


def set_providers(telemetry: TelemetryService) -> None:
    """Make a service's providers the global ones; there must be none."""
    made = telemetry._opentelemetry()
    trace.set_tracer_provider(made.traces)
    otel_metrics.set_meter_provider(made.metrics)
    otel_logs.set_logger_provider(made.logs)
