"""Spans of the telemetry kernel, in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import Token
from typing import Any, Final, Self

from ..errors import InvalidArgumentError
from .otlp_py import Limits, attributes_into, bytes_field, fixed32_field, fixed64_field, text, varint
from .telemetry_buffer_py import FAILED, Buffer, draw, monotonic, wall
from .telemetry_context_py import SAMPLED, Sampler, SpanContext, baggage, current
from .telemetry_text import (
    KINDS,
    STATUSES,
    attributes_of,
    entered_already,
    exception_attributes,
    frozen,
    frozen_attributes,
    not_bridged,
    refuse_parent,
    time_of,
    wrong,
)

__all__ = ["ApiScopeBase", "ApiSpanBase", "Span", "Tracer", "Traces", "outgoing"]

_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200


def outgoing() -> tuple[str | None, bool]:
    """Return the header ``traceparent`` of this context (`None`: nothing), and whether there is a trace state, baggage, or a context that only its own class can write: then the caller has to look, and there is no header."""
    parent = current.get()
    if baggage.get():
        return None, True
    if parent is None:
        return None, False
    if isinstance(parent, Span):
        trace, flags, state = parent._trace, parent._flags, parent._state
    elif isinstance(parent, SpanContext):
        trace, flags, state = parent._trace, parent.trace_flags, parent.trace_state
    else:
        return None, True
    if state:
        return None, True
    return f"00-{trace.hex()}-{parent._span.hex()}-{flags:02x}", False


class Traces:
    """State that the tracers of one service share. `sampler` may be replaced at any time, for later spans."""

    def __init__(self, buffer: Buffer, limits: Limits, sampler: Sampler) -> None:
        self._buffer = buffer
        self._limits = Limits(*limits)
        self.sampler = sampler


class Tracer:
    """Makes spans of one instrumentation scope."""

    def __init__(self, traces: Traces, scope: int) -> None:
        self._traces = traces
        self._scope = scope

    def span(
        self,
        name: str,
        *,
        attributes: Mapping[str, Any] | None = None,
        kind: str = "internal",
        parent: Span | SpanContext | None = None,
        links: Iterable[Any] = (),
    ) -> Span:
        """Start a span that is current inside ``with`` (or ``async with``), which ends it.

        Args:
            name: a low-cardinality name.
            attributes: text → text, bool, int, float, bytes, or lists and mappings of them; other values are written as ``str(value)`` when the span ends.
            kind: ``"internal"``, ``"server"``, ``"client"``, ``"producer"`` or ``"consumer"``.
            parent: else the current span of this context.
            links: `Span` or `SpanContext`, or pairs of one with attributes.

        Raises:
            InvalidArgumentError: an argument of the wrong type.
        """
        return self._span(name, attributes, kind, parent, links, True)

    def start_span(
        self,
        name: str,
        *,
        attributes: Mapping[str, Any] | None = None,
        kind: str = "internal",
        parent: Span | SpanContext | None = None,
        links: Iterable[Any] = (),
    ) -> Span:
        """Start a span that becomes nobody's parent by itself; ``end()`` or ``with`` ends it. Arguments as of `span`."""
        return self._span(name, attributes, kind, parent, links, False)

    def _span(self, name: str, attributes: Any, kind: str, parent: Any, links: Iterable[Any], scoped: bool) -> Span:
        number = KINDS.get(kind) if isinstance(kind, str) else None
        if number is None:
            raise wrong("kind", kind, KINDS)
        span = Span(self, name, attributes_of(attributes), number, current.get() if parent is None else parent)
        span._makes_current = scoped
        if span._flags & SAMPLED:
            for link in links:
                if isinstance(link, (Span, SpanContext)):
                    span.add_link(link)
                else:
                    span.add_link(*link)
        return span

    def _begin(
        self, name: str, attributes: Any, kind: int, parent: Any, time: int | None, records: bool, marks: bool
    ) -> Any:
        """Start a span of OpenTelemetry's API, of the bridge's class. Its parent is the current span for ``...``."""
        bridge = current._bridge
        if bridge is None:
            raise not_bridged()
        span = Span(self, name, frozen_attributes(attributes), kind, current.get() if parent is ... else parent)
        if time is not None:
            span._start = time
        return bridge.span_class(span, records, marks)


class Span:
    """A span; made by `Tracer.span` and `Tracer.start_span`. It is encoded when it ends; what comes later is ignored."""

    def __init__(self, tracer: Tracer, name: str, attributes: dict[Any, Any] | None, kind: int, parent: Any) -> None:
        if not isinstance(name, str):
            raise InvalidArgumentError(f"a span's name is text, not {type(name).__name__}")
        self._tracer = tracer
        self._name = name
        self._kind = kind
        self._makes_current = False
        self._attributes = attributes
        self._dropped = self._dropped_events = self._dropped_links = self._status = 0
        self._message = ""
        self._events: list[bytes] = []
        self._links: list[bytes] = []
        self._token: Token[Any] | None = None
        self._context: SpanContext | None = None
        self._ended = False
        flags = -1
        self._trace: bytes
        self._span: bytes
        self._parent: bytes
        self._state: str
        self._flags: int
        self._offset: int | None = None
        if isinstance(parent, Span):
            self._trace, self._parent, self._state = parent._trace, parent._span, parent._state
            self._parent_remote = False
            flags = parent._flags
            self._offset = parent._offset
        elif isinstance(parent, SpanContext):
            self._trace, self._parent, self._state = parent._trace, parent._span, parent.trace_state
            self._parent_remote = parent.is_remote
            flags = parent.trace_flags
        elif parent is None:
            self._trace = draw().to_bytes(8, "little") + draw().to_bytes(8, "little")
            self._parent = b""
            self._parent_remote = False
            self._state = ""
        else:
            raise refuse_parent(parent)
        self._span = draw().to_bytes(8, "little")
        sampled = tracer._traces.sampler._sample(flags, int.from_bytes(self._trace[8:], "big"))
        self._flags = (max(flags, 0) & ~SAMPLED) | (SAMPLED if sampled else 0)
        now = monotonic()
        if self._offset is None:
            # one reading of the wall clock for a trace: its spans are ordered, and no step of the clock bends them
            self._offset = wall() - now
        self._start = now + self._offset

    # -- what it is --

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def context(self) -> SpanContext:
        """Its propagated context."""
        if self._context is None:
            self._context = SpanContext(self._trace.hex(), self._span.hex(), self._flags, self._state)
        return self._context

    @property
    def is_recording(self) -> bool:
        """Whether it is sampled and has not ended."""
        return bool(self._flags & SAMPLED) and not self._ended

    @property
    def attributes(self) -> dict[str, Any]:
        """A copy of its attributes."""
        return dict(self._attributes or {})

    def __repr__(self) -> str:
        return f"<Span {self._name!r} {self.context.traceparent}{' ended' if self._ended else ''}>"

    # -- what is told to it --

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute; the last value counts."""
        if self._ended or not self._flags & SAMPLED:
            return
        if self._attributes is None:
            self._attributes = {}
        if len(self._attributes) >= self._tracer._traces._limits.attributes and key not in self._attributes:
            self._dropped += 1
            return
        self._attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        for key, value in (attributes_of(attributes) or {}).items():
            self.set_attribute(key, value)

    def update_name(self, name: str) -> None:
        """Give it another name."""
        if not isinstance(name, str):
            raise InvalidArgumentError(f"a span's name is text, not {type(name).__name__}")
        if not self._ended:
            self._name = name

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Add an event, with the present time."""
        self._event(name, attributes_of(attributes), None)

    def _event(self, name: str, attributes: dict[Any, Any] | None, time: int | None) -> None:
        if not isinstance(name, str):
            raise InvalidArgumentError(f"an event's name is text, not {type(name).__name__}")
        if self._ended or not self._flags & SAMPLED:
            return
        limits = self._tracer._traces._limits
        if len(self._events) >= limits.events:
            self._dropped_events += 1
            return
        out = bytearray()
        fixed64_field(out, 0x09, monotonic() + (self._offset or 0) if time is None else time)
        if name:
            bytes_field(out, 0x12, text(name))
        if dropped := attributes_into(out, 0x1A, attributes, limits):
            out.append(0x20)
            out += varint(dropped)
        self._events.append(bytes(out))

    def record_exception(self, exception: BaseException, attributes: Mapping[str, Any] | None = None) -> None:
        """Add an event ``exception`` with its type, message and stack trace."""
        if not isinstance(exception, BaseException):
            raise InvalidArgumentError(f"expected an exception, not {type(exception).__name__}")
        if self.is_recording:
            self.add_event("exception", exception_attributes(exception, attributes))

    def add_link(self, context: Span | SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """Add a link to a span of this or another trace."""
        if not isinstance(context, (Span, SpanContext)):
            raise refuse_parent(context)
        copied = attributes_of(attributes)
        if isinstance(context, Span):
            state, flags, remote = context._state, context._flags, False
        else:
            state, flags, remote = context.trace_state, context.trace_flags, context.is_remote
        self._link(context._trace + context._span, flags, state, remote, copied)

    def _link(self, ids: bytes, flags: int, state: str, remote: bool, attributes: dict[Any, Any] | None) -> None:
        if self._ended or not self._flags & SAMPLED:
            return
        limits = self._tracer._traces._limits
        if len(self._links) >= limits.links:
            self._dropped_links += 1
            return
        out = bytearray()
        bytes_field(out, 0x0A, ids[:16])
        bytes_field(out, 0x12, ids[16:])
        if state:
            bytes_field(out, 0x1A, text(state))
        if dropped := attributes_into(out, 0x22, attributes, limits):
            out.append(0x28)
            out += varint(dropped)
        fixed32_field(out, b"\x35", flags | _HAS_IS_REMOTE | (_IS_REMOTE if remote else 0))
        self._links.append(bytes(out))

    def set_status(self, status: str, description: str | None = None) -> None:
        """Set the status: ``"ok"`` is final, ``"unset"`` changes nothing (Trace API, "Set status").

        Args:
            status: ``"ok"``, ``"error"`` or ``"unset"``.
            description: of an error; ignored otherwise.

        Raises:
            InvalidArgumentError: another status.
        """
        number = STATUSES.get(status) if isinstance(status, str) else None
        if number is None:
            raise wrong("status", status, STATUSES)
        if description is not None and not isinstance(description, str):
            raise InvalidArgumentError(f"a status's description is text, not {type(description).__name__}")
        self._mark(number, description or "")

    def _mark(self, number: int, message: str) -> None:
        if self._ended or not number or self._status == 1:
            return
        self._status = number
        self._message = message if number == 2 else ""

    def end(self) -> None:
        """End it: it is encoded now. Ending twice does nothing."""
        self._finish(None)

    def _finish(self, time: int | None) -> None:
        traces = self._tracer._traces
        with traces._buffer._lock:  # of two threads that end it one does
            ended, self._ended = self._ended, True
        if ended or not self._flags & SAMPLED:
            return
        try:
            record = self._encode(monotonic() + (self._offset or 0) if time is None else time, traces._limits)
        except BaseException:
            traces._buffer.drop(1, FAILED)
            raise
        traces._buffer.add(self._tracer._scope, record)

    def _encode(self, end: int, limits: Limits) -> bytes:
        out = bytearray()
        bytes_field(out, 0x0A, self._trace)
        bytes_field(out, 0x12, self._span)
        if self._state:
            bytes_field(out, 0x1A, text(self._state))
        if self._parent:
            bytes_field(out, 0x22, self._parent)
        if self._name:
            bytes_field(out, 0x2A, text(self._name))
        out.append(0x30)
        out.append(self._kind)
        fixed64_field(out, 0x39, self._start)
        fixed64_field(out, 0x41, end)
        dropped = self._dropped + attributes_into(out, 0x4A, self._attributes, limits)
        if dropped:
            out.append(0x50)
            out += varint(dropped)
        for event in self._events:
            bytes_field(out, 0x5A, event)
        if self._dropped_events:
            out.append(0x60)
            out += varint(self._dropped_events)
        for link in self._links:
            bytes_field(out, 0x6A, link)
        if self._dropped_links:
            out.append(0x70)
            out += varint(self._dropped_links)
        if self._status:
            status = bytearray()
            if self._message:
                bytes_field(status, 0x12, text(self._message))
            status += bytes((0x18, self._status))
            bytes_field(out, 0x7A, status)
        fixed32_field(out, b"\x85\x01", self._flags | _HAS_IS_REMOTE | (_IS_REMOTE if self._parent_remote else 0))
        return bytes(out)

    # -- with --

    def __enter__(self) -> Self:
        if self._makes_current and self._token is None:
            self._token = current.set(self)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        token = self._token
        if token is not None:
            self._token = None
            current.give_back(token)
        if error is not None and isinstance(error, Exception) and self.is_recording:
            self.record_exception(error)
            if not self._status:
                described = exception_attributes(error)
                self.set_status("error", f"{described['exception.type']}: {described['exception.message']}")
        self.end()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.__exit__(kind, error, trace)


class ApiSpanBase:
    """The fast part of a span of OpenTelemetry's API; the rest is `telemetry._otel_spans.ApiSpan`.

    Attributes:
        native: the span of `cloud_runtimes.telemetry` that it is.
    """

    __slots__ = ("__weakref__", "_context", "_marks", "_records", "native")

    def __init__(self, native: Span, records: bool = True, marks: bool = True) -> None:
        self.native = native
        self._records = records
        self._marks = marks
        self._context: Any = None

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute; the last value counts. A list or mapping is copied."""
        if self.native.is_recording:
            self.native.set_attribute(key, frozen(value))

    def end(self, end_time: int | None = None) -> None:
        """End it: it is encoded now. Ending twice does nothing. Its time is now, or given in nanoseconds since 1970 UTC."""
        self.native._finish(None if end_time is None else time_of(end_time))


class ApiScopeBase:
    """Starts a span of OpenTelemetry's API by ``start(*arguments)`` when it is entered, which is the current one inside ``with``; the rest is `telemetry._otel_spans.ApiScope`."""

    __slots__ = ("_arguments", "_ends", "_span", "_start", "_token")

    def __init__(self, start: Callable[..., Any], arguments: tuple[Any, ...], ends: bool) -> None:
        self._start = start
        self._arguments = arguments
        self._ends = ends
        self._span: Any = None
        self._token: Token[Any] | None = None

    def __enter__(self) -> Any:
        if self._span is not None:
            raise entered_already()
        span = self._start(*self._arguments)
        self._token = current.attach(span)
        self._span = span
        return span

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        span, token = self._span, self._token
        if span is None or token is None:
            return
        self._span = self._token = None
        current.give_back(token)
        if isinstance(error, Exception):
            span._failed(error, False)
        if self._ends:
            span.native.end()
