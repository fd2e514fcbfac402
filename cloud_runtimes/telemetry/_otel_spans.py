"""Spans of OpenTelemetry's API over those of either telemetry kernel, and what the kernel has to know of that API.

An `ApiSpan` stands in OpenTelemetry's context: it has the methods of `opentelemetry.trace.Span` and leads to a `Span`. Once there is a `Bridge` the kernel keeps the current span in that context, so both APIs see one truth.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
from typing import Any, Final, Self, TypeVar, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from .._native import telemetry as _kernel
from .._native.telemetry_text import exception_attributes, frozen_attributes, message_of, time_of
from ..errors import InvalidArgumentError, UnsupportedError

F = TypeVar("F", bound=Callable[..., Any])

# in the order of OTLP's numbers
_KINDS: Final = tuple(trace.SpanKind)
_CODES: Final = tuple(trace.StatusCode)


class _Remote(trace.NonRecordingSpan):
    """Span of OpenTelemetry's API that stands in its context for a `SpanContext` of ours."""

    def __init__(self, native: Any) -> None:
        super().__init__(_api_context(native))
        self.native = native


def _api_context(native: Any) -> trace.SpanContext:
    state = native.trace_state
    return trace.SpanContext(
        int(native.trace_id, 16),
        int(native.span_id, 16),
        native.is_remote,
        trace.TraceFlags(native.trace_flags),
        trace.TraceState.from_header([state]) if state else None,
    )


def _time(value: Any) -> int | None:
    return None if value is None else time_of(value)


class ApiSpan:
    """A span with the methods of `opentelemetry.trace.Span`; made by `ApiTracer`, and for each `Span` that becomes the current one.

    A kernel's `ApiSpanBase` has the rest of it, which has to be fast; `_joined` makes the class of both.
    """

    __slots__ = ()
    native: _kernel.Span
    _records: bool
    _marks: bool
    _context: trace.SpanContext | None
    set_attribute: Callable[[str, Any], None]
    end: Callable[..., None]

    # -- what it is --

    def get_span_context(self) -> trace.SpanContext:
        """Return what of it travels."""
        if self._context is None:
            self._context = _api_context(self.native.context)  # type: ignore[misc]  # a slot of the other base
        return self._context

    def is_recording(self) -> bool:
        """Return whether it is sampled and has not ended."""
        return self.native.is_recording

    @property
    def context(self) -> trace.SpanContext:
        """Span context, the part that is propagated."""
        return self.get_span_context()

    @property
    def name(self) -> str:
        """Its name."""
        return self.native.name

    @property
    def kind(self) -> trace.SpanKind:
        """Its kind."""
        return _KINDS[self.native._kind - 1]

    @property
    def attributes(self) -> dict[str, Any]:
        """A copy of its attributes."""
        return self.native.attributes

    def __repr__(self) -> str:
        return f"<Api{repr(self.native)[1:]}"

    # -- what is told to it --

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        self.native.set_attributes(frozen_attributes(attributes) or {})

    def update_name(self, name: str) -> None:
        """Give it another name."""
        self.native.update_name(name)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Add an event; its time is now, or given in nanoseconds since 1970 UTC."""
        self.native._event(name, frozen_attributes(attributes), _time(timestamp))

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an event ``exception`` with its type, message and stack trace."""
        if not isinstance(exception, BaseException):
            raise InvalidArgumentError(f"expected an exception, not {type(exception).__name__}")
        if self.native.is_recording:
            more = {"exception.escaped": str(escaped), **(frozen_attributes(attributes) or {})}
            self.native._event("exception", exception_attributes(exception, more), _time(timestamp))

    def add_link(self, context: Any, attributes: Mapping[str, Any] | None = None) -> None:
        """Add a link to the span of a context; an invalid context counts only with attributes or a trace state (Trace API, "Link")."""
        if context is not None and (context.is_valid or attributes or context.trace_state):
            ids = context.trace_id.to_bytes(16, "big") + context.span_id.to_bytes(8, "big")
            state = context.trace_state.to_header()
            copied = frozen_attributes(attributes)
            self.native._link(ids, context.trace_flags & 0xFF, state, context.is_remote, copied)

    def set_status(self, status: Any, description: str | None = None) -> None:
        """Set the status, given as a ``Status``, or as a ``StatusCode`` with a description: ok is final, unset changes nothing (Trace API, "Set status")."""
        code = status
        if code not in _CODES:
            code, description = getattr(status, "status_code", None), getattr(status, "description", None)
        if code not in _CODES:
            raise InvalidArgumentError(f"expected a Status or a StatusCode, not {type(status).__name__}")
        self.native._mark(_CODES.index(code), description if isinstance(description, str) else "")

    # -- with --

    def _failed(self, error: BaseException, escaped: bool) -> None:
        if self._records:
            self.record_exception(error, escaped=escaped)
        if self._marks and self.native.is_recording:
            self.native._mark(2, f"{type(error).__name__}: {message_of(error)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self._failed(error, True)
        self.native.end()


trace.Span.register(ApiSpan)


class _Scope:
    """Also decorates functions, plain and async: each call runs inside a scope of its own."""

    __slots__ = ()

    def again(self) -> Any:
        """Return another one of the same arguments."""
        raise NotImplementedError

    def __call__(self, function: F) -> F:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                with self.again():
                    return await function(*args, **kwargs)

            return cast(F, call_async)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.again():
                return function(*args, **kwargs)

        return cast(F, call)


class ApiScope(_Scope):
    """Starts a span when it is entered, which is the current one inside ``with``; joined with a kernel's `ApiScopeBase`, which has to be fast."""

    __slots__ = ()
    _start: Callable[..., ApiSpan]
    _arguments: tuple[Any, ...]
    _ends: bool

    def again(self) -> Any:
        cls: Any = type(self)
        return cls(self._start, self._arguments, self._ends)


@functools.cache
def _joined(kind: type, base: type) -> Any:
    return type(kind.__name__, (kind, base), {"__slots__": (), "__module__": __name__})


class ApiTracer:
    """A tracer with the methods of `opentelemetry.trace.Tracer`."""

    def __init__(self, tracer: _kernel.Tracer, bridge: Bridge) -> None:
        self._begin = tracer._begin
        self._bridge = bridge
        self._scope = bridge.scope_class

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind | None = None,
        attributes: Mapping[str, Any] | None = None,
        links: Iterable[Any] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> ApiSpan:
        """Start a span that becomes nobody's parent by itself.

        An OpenTelemetry context without a span makes a root. An exception that leaves ``with`` becomes an event, and the status, if `record_exception` and `set_status_on_exception` say so.
        """
        number = 1
        if kind is not None:
            if kind not in _KINDS:
                raise InvalidArgumentError(f"kind={kind!r}: give a SpanKind")
            number = _KINDS.index(kind) + 1
        start = None if start_time is None else time_of(start_time)
        parent = ... if context is None else self._bridge.inward(context.get(self._bridge.key))
        span: ApiSpan = self._begin(name, attributes, number, parent, start, record_exception, set_status_on_exception)
        if links and span.is_recording():
            for link in filter(None, links):
                span.add_link(link.context, link.attributes)
        return span

    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind | None = None,
        attributes: Mapping[str, Any] | None = None,
        links: Iterable[Any] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> ApiScope:
        """Return what starts a span for ``with``, or decorates a function; arguments as of `start_span`."""
        start: Any = self._begin  # most: straight to the kernel
        arguments: Any = (name, attributes, 1, ..., None, record_exception, set_status_on_exception)
        if context is not None or kind is not None or links is not None or start_time is not None:
            start = self.start_span
            arguments = (name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception)
        scope: ApiScope = self._scope(start, arguments, end_on_exit)
        return scope


trace.Tracer.register(ApiTracer)


class Bridge:
    """Access of the telemetry kernel to OpenTelemetry's API, found by the public API only.

    `variable` is that of OpenTelemetry's contexts, immutable dictionaries, and `key` that of the span in one.
    `UnsupportedError`: its contexts are not those of `contextvars`.
    """

    context_class = Context

    def __init__(self, kernel: Any = _kernel) -> None:
        token: Any = otel_context.attach(otel_context.get_current())
        otel_context.detach(token)
        if not isinstance(token, Token):
            raise UnsupportedError(
                "telemetry: OTEL_PYTHON_CONTEXT chooses contexts that are not those of contextvars; unset it",
                service="telemetry",
            )
        self.variable: Any = token.var
        (self.key,) = trace.set_span_in_context(trace.INVALID_SPAN, Context())
        self.span_class = _joined(ApiSpan, kernel.ApiSpanBase)
        self.scope_class = _joined(ApiScope, kernel.ApiScopeBase)
        self.current = kernel.current
        self._kernel = kernel

    def inward(self, span: Any) -> Any:
        """Return the `Span` or `SpanContext` that a span of the API stands for; `None` for an invalid one."""
        if isinstance(span, (ApiSpan, _Remote)):
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

    def outward(self, span: Any) -> Any:
        """Return the span of the API that stands for a `Span`, a `SpanContext` or `None`."""
        if span is None:
            return trace.INVALID_SPAN
        if isinstance(span, self._kernel.Span):
            return self.span_class(span)
        return getattr(span, "api", None) or _Remote(span)  # a `GlobalSpan` leads to one of the API


@contextmanager
def quiet() -> Iterator[None]:
    """Tell instrumentations inside ``with`` that they are not wanted."""
    context = otel_context.get_current()
    for key in {"suppress_instrumentation", getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", None)}:
        if key is not None:
            context = otel_context.set_value(key, True, context)
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)


class _PassingScope(_Scope):
    """Has the span of a context as the current one inside ``with``."""

    def __init__(self, context: Context | None) -> None:
        self._context = context

    def again(self) -> _PassingScope:
        return _PassingScope(self._context)

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
