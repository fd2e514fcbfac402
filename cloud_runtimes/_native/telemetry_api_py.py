"""Spans as OpenTelemetry's API wants them, over the spans of the telemetry kernel, in Python.

An `ApiSpan` is what stands in OpenTelemetry's context: it has the methods of `opentelemetry.trace.Span`, and leads to a `Span`. The kernel imports nothing of OpenTelemetry: what it needs to know comes with `bridge`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import Token
from typing import Any, Protocol, Self, TypeVar

from ..errors import InvalidArgumentError
from .telemetry_context_py import SpanContext
from .telemetry_current_py import Bridge, current
from .telemetry_spans_py import Span, Tracer
from .telemetry_text import (
    decorated,
    exception_attributes,
    frozen,
    frozen_attributes,
    message_of,
    not_bridged,
    time_of,
)

__all__ = ["Api", "ApiScope", "ApiSpan", "ApiTracer", "bridge"]

F = TypeVar("F", bound=Callable[..., Any])


class Api(Protocol):
    """What the kernel has to know of OpenTelemetry's API.

    Attributes:
        variable, key, context_class: see `Bridge`.
        kinds: the members of ``SpanKind`` in the order of OTLP, internal first.
        codes: the members of ``StatusCode`` in the order of OTLP, unset first.
    """

    variable: Any
    key: str
    context_class: Any
    kinds: tuple[Any, ...]
    codes: tuple[Any, ...]

    def span_context(self, ids: bytes, flags: int, state: str) -> Any:
        """Return the API's context of a span of this process: trace id and span id, flags, ``tracestate``."""

    def foreign(self, span: Any) -> SpanContext | None:
        """Return the context of a span that is none of ours; `None` for an invalid one."""

    def link(self, context: Any, attributes: Any) -> tuple[bytes, int, str, bool] | None:
        """Return ids, flags, ``tracestate`` and whether it is remote of a context to link to; `None` where there is nothing to tell."""

    def non_recording(self, context: SpanContext | None) -> Any:
        """Return the API's span that only stands for a context."""


class _State:
    api: Any = None


class _Bridge:
    def __init__(self, api: Api) -> None:
        self.variable = api.variable
        self.key = api.key
        self.context_class = api.context_class
        self._api = api

    def inward(self, span: Any) -> Any:
        return span._span if type(span) is ApiSpan else self._api.foreign(span)

    def outward(self, span: Any) -> Any:
        return ApiSpan(span, True, True) if isinstance(span, Span) else self._api.non_recording(span)


def bridge(api: Api | None) -> None:
    """Keep the current span where OpenTelemetry's API does from now on; `None`, for tests: no longer."""
    made: Bridge | None = None
    if api is not None:
        _State.api = api
        made = _Bridge(api)
    current._bridge = made


class ApiSpan:
    """A span with the methods of `opentelemetry.trace.Span`; made by `ApiTracer`, and for each `Span` that becomes the current one."""

    __slots__ = ("__weakref__", "_context", "_marks", "_records", "_span")

    def __init__(self, span: Span, records: bool, marks: bool) -> None:
        if not isinstance(span, Span):
            raise InvalidArgumentError("spans are made by a tracer")
        self._span = span
        self._records = records
        self._marks = marks
        self._context: Any = None

    # -- what it is --

    def get_span_context(self) -> Any:
        """Return what of it travels, an `opentelemetry.trace.SpanContext`."""
        if self._context is None:
            span = self._span
            self._context = _State.api.span_context(span._trace + span._span, span._flags, span._state)
        return self._context

    def is_recording(self) -> bool:
        """Tell whether it is sampled and has not ended."""
        return self._span.is_recording

    @property
    def context(self) -> Any:
        """What of it travels."""
        return self.get_span_context()

    @property
    def name(self) -> str:
        """Its name."""
        return self._span._name

    @property
    def kind(self) -> Any:
        """Its kind, an `opentelemetry.trace.SpanKind`."""
        return _State.api.kinds[self._span._kind - 1]

    @property
    def attributes(self) -> dict[str, Any]:
        """A copy of its attributes."""
        return self._span.attributes

    @property
    def native(self) -> Span:
        """The span of `cloud_runtimes.telemetry` that it is."""
        return self._span

    def __repr__(self) -> str:
        return f"<Api{repr(self._span)[1:]}"

    # -- what is told to it --

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute; the last value counts. A list or mapping is copied."""
        if self._span.is_recording:
            self._span.set_attribute(key, frozen(value))

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        for key, value in (frozen_attributes(attributes) or {}).items():
            self._span.set_attribute(key, value)

    def update_name(self, name: str) -> None:
        """Give it another name."""
        self._span.update_name(name)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Add an event.

        Args:
            timestamp: nanoseconds since 1970 UTC; else now.
        """
        self._span._event(name, frozen_attributes(attributes), None if timestamp is None else time_of(timestamp))

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
        time = None if timestamp is None else time_of(timestamp)
        if self._span.is_recording:
            more = {"exception.escaped": str(escaped), **(frozen_attributes(attributes) or {})}
            self._span._event("exception", exception_attributes(exception, more), time)

    def add_link(self, context: Any, attributes: Mapping[str, Any] | None = None) -> None:
        """Add a link to the span of a context; an invalid context counts only with attributes or a trace state (Trace API, "Link")."""
        link = _State.api.link(context, attributes)
        if link is not None:
            ids, flags, state, remote = link
            self._span._link(ids, flags, state, remote, frozen_attributes(attributes))

    def set_status(self, status: Any, description: str | None = None) -> None:
        """Set the status: ok is final, unset changes nothing (Trace API, "Set status").

        Args:
            status: an `opentelemetry.trace.Status` or a ``StatusCode``.
            description: of an error that is given as a ``StatusCode``.

        Raises:
            InvalidArgumentError: neither of them.
        """
        codes = _State.api.codes
        code = status
        if code not in codes:
            code, description = getattr(status, "status_code", None), getattr(status, "description", None)
        if code not in codes:
            raise InvalidArgumentError(f"expected a Status or a StatusCode, not {type(status).__name__}")
        self._span._mark(codes.index(code), description if isinstance(description, str) else "")

    def end(self, end_time: int | None = None) -> None:
        """End it: it is encoded now. Ending twice does nothing.

        Args:
            end_time: nanoseconds since 1970 UTC; else now.
        """
        self._span._finish(None if end_time is None else time_of(end_time))

    # -- with --

    def _failed(self, error: BaseException, records: bool, marks: bool, escaped: bool) -> None:
        if not self._span.is_recording:
            return
        if records:
            self.record_exception(error, escaped=escaped)
        if marks:
            self._span._mark(2, f"{type(error).__name__}: {message_of(error)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self._failed(error, self._records, self._marks, True)
        self._span._finish(None)


class ApiScope:
    """Starts a span when it is entered, which is the current one inside ``with``; also a decorator of functions, plain and async."""

    __slots__ = ("_arguments", "_ends", "_marks", "_records", "_span", "_token", "_tracer")

    def __init__(
        self, tracer: ApiTracer, arguments: tuple[Any, Any, Any, Any, Any, Any], records: bool, marks: bool, ends: bool
    ) -> None:
        self._tracer = tracer
        self._arguments = arguments
        self._records = records
        self._marks = marks
        self._ends = ends
        self._span: ApiSpan | None = None
        self._token: Token[Any] | None = None

    def again(self) -> ApiScope:
        """Return another one of the same arguments."""
        return ApiScope(self._tracer, self._arguments, self._records, self._marks, self._ends)

    def __call__(self, function: F) -> F:
        return decorated(self, function)

    def __enter__(self) -> ApiSpan:
        if self._span is not None:
            raise InvalidArgumentError("start_as_current_span: it is entered already; each span wants one of its own")
        if current._bridge is None:
            raise not_bridged()
        span = self._tracer._start(*self._arguments, self._records, self._marks)
        self._token = current.attach(span)
        self._span = span
        return span

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        span, token = self._span, self._token
        if span is None or token is None:
            return
        self._span = self._token = None
        try:
            current.reset(token)
        except ValueError:  # left in another context, as generators may: there is nothing to give back there
            pass
        if isinstance(error, Exception):
            span._failed(error, self._records, self._marks, False)
        if self._ends:
            span._span._finish(None)


class ApiTracer:
    """A tracer with the methods of `opentelemetry.trace.Tracer`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start_span(
        self,
        name: str,
        context: Any = None,
        kind: Any = None,
        attributes: Mapping[str, Any] | None = None,
        links: Iterable[Any] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> ApiSpan:
        """Start a span that becomes nobody's parent by itself.

        Args:
            name: a low-cardinality name.
            context: an OpenTelemetry context that has the parent; one without makes a root. Else the current one.
            kind: an `opentelemetry.trace.SpanKind`; `None`: internal.
            attributes: copied.
            links: `opentelemetry.trace.Link` objects.
            start_time: nanoseconds since 1970 UTC; else now.
            record_exception, set_status_on_exception: whether an exception that leaves ``with`` becomes an event, and the status.

        Raises:
            InvalidArgumentError: an argument of the wrong type.
        """
        return self._start(
            name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception
        )

    def start_as_current_span(
        self,
        name: str,
        context: Any = None,
        kind: Any = None,
        attributes: Mapping[str, Any] | None = None,
        links: Iterable[Any] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> ApiScope:
        """Return what starts a span for ``with``, or decorates a function; arguments as of `start_span`.

        Args:
            end_on_exit: whether leaving ``with`` ends the span.
        """
        arguments = (name, context, kind, attributes, links, start_time)
        return ApiScope(self, arguments, record_exception, set_status_on_exception, end_on_exit)

    def _start(
        self, name: str, context: Any, kind: Any, attributes: Any, links: Any, time: Any, records: bool, marks: bool
    ) -> ApiSpan:
        bridge = current._bridge
        if bridge is None:
            raise not_bridged()
        if not isinstance(name, str):
            raise InvalidArgumentError(f"a span's name is text, not {type(name).__name__}")
        if kind is None:
            number = 1
        else:
            kinds = _State.api.kinds
            if kind not in kinds:
                raise InvalidArgumentError(f"kind={kind!r}: give a SpanKind")
            number = kinds.index(kind) + 1
        start = None if time is None else time_of(time)
        if context is None:
            parent = current.get()
        else:
            found = context.get(bridge.key)
            parent = None if found is None else bridge.inward(found)
        span = Span(self._tracer, name, frozen_attributes(attributes), number, parent, False)
        if start is not None:
            span._start = start
        made = ApiSpan(span, records, marks)
        if links and span.is_recording:
            for link in filter(None, links):
                made.add_link(link.context, link.attributes)
        return made
