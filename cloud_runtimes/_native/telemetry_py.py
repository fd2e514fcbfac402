"""Spans and log records that become OTLP bytes when they end, and the bounded buffer that holds them: the reference of the compiled kernel `src_ext/telemetry.pyx`.

A record is encoded first, outside of any lock (``str`` of a value may run anything), then appended to the open chunk of its scope in one section without calls, in which the counters change with it. So recorded = exported + dropped + buffered in every snapshot, and a signal handler that records finds the buffer whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from threading import RLock
from typing import Any, Final, Self

from ..errors import InvalidArgumentError
from .otlp_py import Limits, attributes_into, bytes_field, fixed32_field, fixed64_field, text, varint
from .telemetry_text import KINDS, SEVERITIES, STATUSES, attributes_of, exception_attributes, refuse_parent, wrong

__all__ = [
    "CAUSES",
    "Buffer",
    "Chunk",
    "Limits",
    "Logger",
    "Sampler",
    "Span",
    "SpanContext",
    "Tracer",
    "Traces",
    "current",
    "current_span",
    "reseed",
]

CAUSES: Final = ("buffer_full", "too_large", "closed", "failed", "rejected", "unreachable", "export_error", "invalid")
"""Why records are dropped; a cause is given to the kernel as its place here."""
_FULL, _TOO_LARGE, _CLOSED, _FAILED = range(4)
_MASK: Final = (1 << 64) - 1
_SAMPLED: Final = 1
_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200


# ---- clock and ids ----


class _State:
    __slots__ = ("clock", "lock", "words")

    def __init__(self) -> None:
        self.clock: Callable[[], int] | None = None
        self.lock = RLock()
        self.words = (0, 0, 0, 0)


_state = _State()


def _set_clock(fn: Callable[[], int] | None) -> None:
    """Replace both clocks by a function of nanoseconds; `None` gives them back. For tests."""
    _state.clock = fn


def _wall() -> int:
    clock = _state.clock
    return time.time_ns() if clock is None else clock()


def _monotonic() -> int:
    clock = _state.clock
    return time.monotonic_ns() if clock is None else clock()


def reseed() -> None:
    """Draw the generator's state from the system; a forked child must, or its ids repeat its parent's."""
    _state.lock = RLock()
    words = [int.from_bytes(os.urandom(8), "little") for _ in range(4)]
    _state.words = (words[0] | 1, words[1], words[2], words[3])


def _set_seed(seed: int) -> None:
    """Set the generator's state from a number, so that ids repeat. For tests."""
    _state.words = (seed | 1, seed * 3 & _MASK, seed * 5 & _MASK, seed * 7 & _MASK)


def _draw() -> int:
    """Draw 64 bits that are not zero (xoshiro256**, Blackman and Vigna)."""
    result = 0
    while not result:
        with _state.lock:
            s0, s1, s2, s3 = _state.words
            x = s1 * 5 & _MASK
            result = ((x << 7 | x >> 57) & _MASK) * 9 & _MASK
            t = s1 << 17 & _MASK
            s2 ^= s0
            s3 ^= s1
            s1 ^= s2
            s0 ^= s3
            s2 ^= t
            s3 = (s3 << 45 | s3 >> 19) & _MASK
            _state.words = (s0, s1, s2, s3)
    return result


reseed()


# ---- the buffer ----


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one scope: each is a field of number 2, as ``ScopeSpans``, ``ScopeLogs`` and ``ScopeMetrics`` have them."""

    scope: int
    count: int
    body: bytes


class _Open:
    __slots__ = ("count", "parts", "size")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.count = 0
        self.size = 0


class Buffer:
    """Records of one signal in memory bounded by ``buffer_bytes``, in chunks of one scope each.

    Args:
        buffer_bytes: of all chunks, those taken and not settled included; a record that does not fit is dropped.
        chunk_bytes: of a chunk, so also of a record; a longer one is dropped.
        ready: called after a chunk became full, and after the first record came into an empty buffer; must not block.
    """

    def __init__(self, *, buffer_bytes: int, chunk_bytes: int, ready: Callable[[], Any]) -> None:
        if buffer_bytes < 1 or chunk_bytes < 1:
            raise InvalidArgumentError("buffer_bytes and chunk_bytes must be at least 1")
        self._limit = buffer_bytes
        self._chunk = chunk_bytes
        self._ready = ready
        self._lock = RLock()
        self._begin()

    def _begin(self) -> None:
        self._open: dict[int, _Open] = {}
        self._sealed: list[tuple[int, _Open]] = []
        self._recorded = self._exported = self._waiting = self._bytes = self._taken = self._taken_bytes = 0
        self._dropped = [0] * len(CAUSES)
        self._closed = False

    def reset(self) -> None:
        """Begin anew, in a forked child: empty, with counters of its own."""
        self._lock = RLock()
        self._begin()

    def add(self, scope: int, record: bytes, count: int = 1) -> bool:
        """Append one encoded record that counts as ``count`` (a metric: its points); tells whether it was kept."""
        entry = b"\x12" + varint(len(record)) + record
        size = len(entry)
        cell = [entry]
        fresh = _Open()
        pair = [(scope, fresh)]
        limit = self._limit
        chunk = self._chunk
        wake = False
        cause = -1
        with self._lock:
            # straight-line code without a call: a handler that records sees the state before or after
            self._recorded += count
            if self._closed:
                cause = _CLOSED
            elif size > chunk:
                cause = _TOO_LARGE
            elif self._bytes + size > limit:
                cause = _FULL
            if cause >= 0:
                self._dropped[cause] += count
            else:
                wake = not self._waiting
                block = self._open[scope] if scope in self._open else None  # noqa: SIM401 (a call)
                if block is not None and block.size + size > chunk:
                    pair[0] = (scope, block)
                    self._sealed += pair
                    block = None
                    wake = True
                if block is None:
                    block = fresh
                    self._open[scope] = block
                block.parts += cell
                block.size += size
                block.count += count
                self._bytes += size
                self._waiting += count
        if wake:
            self._ready()
        return cause < 0

    def seal(self) -> None:
        """Seal all open chunks, in the order of their scopes."""
        with self._lock:
            opened = self._open
            self._open = {}
            self._sealed += sorted(opened.items())

    def take(self, max_bytes: int) -> list[Chunk]:
        """Remove sealed chunks in order: at least one if there is any, else as many as ``max_bytes`` hold. One thread at a time takes."""
        with self._lock:
            total = events = number = 0
            for _, block in self._sealed:
                if number and total + block.size > max_bytes:
                    break
                total += block.size
                events += block.count
                number += 1
            taken = self._sealed[:number]
            del self._sealed[:number]
            self._taken += events
            self._taken_bytes += total
            self._waiting -= events
        return [Chunk(scope, block.count, b"".join(block.parts)) for scope, block in taken]

    def settle(self, count: int, size: int, dropped: int, cause: int) -> None:
        """Account for taken records: ``dropped`` of ``count`` are dropped by ``cause``, the rest is exported; ``size`` bytes are free again.

        Raises:
            InvalidArgumentError: more than was taken.
        """
        wrong = True
        with self._lock:
            if 0 <= dropped <= count <= self._taken and 0 <= size <= self._taken_bytes:
                self._taken -= count
                self._taken_bytes -= size
                self._bytes -= size
                self._dropped[cause] += dropped
                self._exported += count - dropped
                wrong = False
        if wrong:
            raise InvalidArgumentError(f"settle({count}, {size}, {dropped}): more than was taken")

    def drop(self, count: int, cause: int) -> None:
        """Count what never came into a chunk."""
        with self._lock:
            self._recorded += count
            self._dropped[cause] += count

    def close(self) -> None:
        """Take nothing any more: what comes is dropped and counted."""
        self._closed = True

    def stats(self) -> tuple[int, int, tuple[int, ...], int, int]:
        """One snapshot: recorded, exported, dropped by cause, buffered, bytes buffered."""
        with self._lock:
            recorded, exported, size = self._recorded, self._exported, self._bytes
            buffered = self._waiting + self._taken
            dropped = tuple(self._dropped)
        return recorded, exported, dropped, buffered, size


# ---- contexts and sampling ----


class SpanContext:
    """What of a span travels: its ids, flags and trace state (Trace API, "SpanContext").

    Args:
        trace_id: 32 lower-case hexadecimal digits, not all zero.
        span_id: 16 of them.
        trace_flags: 0 to 255; bit 0: sampled.
        trace_state: the header ``tracestate``, ``""`` for none.
        is_remote: whether it came from another process.

    Raises:
        InvalidArgumentError: ids that are none.
    """

    __slots__ = ("_span", "_trace", "is_remote", "trace_flags", "trace_state")

    def __init__(
        self, trace_id: str, span_id: str, trace_flags: int = 0, trace_state: str = "", is_remote: bool = False
    ) -> None:
        self._trace = _id(trace_id, 16)
        self._span = _id(span_id, 8)
        if not 0 <= trace_flags <= 255:
            raise InvalidArgumentError(f"trace_flags={trace_flags}: give 0 to 255")
        self.trace_flags = trace_flags
        self.trace_state = trace_state
        self.is_remote = is_remote

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return self._trace.hex()

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits."""
        return self._span.hex()

    @property
    def is_sampled(self) -> bool:
        """Whether the trace is recorded."""
        return bool(self.trace_flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """The header of W3C Trace Context."""
        return f"00-{self._trace.hex()}-{self._span.hex()}-{self.trace_flags:02x}"

    def __repr__(self) -> str:
        return f"<SpanContext {self.traceparent}>"


def _id(text: Any, size: int) -> bytes:
    if isinstance(text, str) and len(text) == 2 * size and text.strip("0123456789abcdef") == "":
        raw = bytes.fromhex(text)
        if any(raw):
            return raw
    raise InvalidArgumentError(f"an id has {2 * size} lower-case hexadecimal digits, not all zero")


class Sampler:
    """Decides which new traces are recorded; a span with a parent follows it if ``parent_based``.

    Args:
        ratio: share of trace ids, 0 to 1 (``TraceIdRatioBased``); 1 is always, 0 never.
        rate: traces per second at most, by a bucket that holds one second's worth (at least one); 0: no such limit.
        parent_based: whether the parent's flag decides where there is a parent.
    """

    def __init__(self, ratio: float = 1.0, rate: float = 0.0, parent_based: bool = True) -> None:
        if not 0.0 <= ratio <= 1.0:
            raise InvalidArgumentError(f"ratio={ratio}: give a share of traces, 0 to 1")
        if not 0.0 <= rate < float("inf"):
            raise InvalidArgumentError(f"rate={rate}: give traces per second, 0 for no limit")
        self._bound = round(ratio * (1 << 64))
        self._rate = float(rate)
        self._parent_based = bool(parent_based)
        self._room = max(1.0, self._rate)
        self._tokens = self._room
        self._last = _monotonic()

    def _sample(self, parent_flags: int, low: int) -> bool:
        # `parent_flags` -1: there is no parent
        if self._parent_based and parent_flags >= 0:
            return bool(parent_flags & _SAMPLED)
        if low >= self._bound:
            return False
        if not self._rate:
            return True
        now = _monotonic()
        self._tokens = min(self._room, self._tokens + max(0, now - self._last) * 1e-9 * self._rate)
        self._last = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


# ---- spans ----

current: Final[ContextVar[Any]] = ContextVar("cloud_runtimes_telemetry_span", default=None)
"""The `Span` or remote `SpanContext` that is the parent of what starts next."""


def current_span() -> Any:
    """Return the `Span` or remote `SpanContext` that new spans have as parent here, or `None`."""
    return current.get()


class Traces:
    """What the tracers of one service share.

    Attributes:
        sampler: may be replaced at any time; holds for spans that start from then on.
    """

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
        return Span(self, name, attributes, kind, parent, links, True)

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
        return Span(self, name, attributes, kind, parent, links, False)


class Span:
    """A span; made by `Tracer.span` and `Tracer.start_span`. It is encoded when it ends; what comes later is ignored."""

    __slots__ = (
        "__weakref__",
        "_attributes",
        "_context",
        "_dropped",
        "_dropped_events",
        "_dropped_links",
        "_ended",
        "_events",
        "_flags",
        "_kind",
        "_links",
        "_makes_current",
        "_message",
        "_name",
        "_offset",
        "_parent",
        "_parent_remote",
        "_span",
        "_start",
        "_state",
        "_status",
        "_token",
        "_trace",
        "_tracer",
    )

    def __init__(
        self, tracer: Tracer, name: str, attributes: Any, kind: str, parent: Any, links: Iterable[Any], scoped: bool
    ) -> None:
        if not isinstance(name, str):
            raise InvalidArgumentError(f"a span's name is text, not {type(name).__name__}")
        number = KINDS.get(kind) if isinstance(kind, str) else None
        if number is None:
            raise wrong("kind", kind, KINDS)
        self._tracer = tracer
        self._name = name
        self._kind = number
        self._makes_current = scoped
        self._attributes = attributes_of(attributes)
        self._dropped = self._dropped_events = self._dropped_links = self._status = 0
        self._message = ""
        self._events: list[bytes] = []
        self._links: list[bytes] = []
        self._token: Token[Any] | None = None
        self._context: SpanContext | None = None
        self._ended = False
        if parent is None:
            parent = current.get()
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
            self._trace = _draw().to_bytes(8, "little") + _draw().to_bytes(8, "little")
            self._parent = b""
            self._parent_remote = False
            self._state = ""
        else:
            raise refuse_parent(parent)
        self._span = _draw().to_bytes(8, "little")
        sampled = tracer._traces.sampler._sample(flags, int.from_bytes(self._trace[8:], "big"))
        self._flags = (max(flags, 0) & ~_SAMPLED) | (_SAMPLED if sampled else 0)
        if self._offset is None:
            # one reading of the wall clock for a trace: its spans are ordered, and no step of the clock bends them
            self._offset = _wall() - _monotonic()
        self._start = _monotonic() + self._offset
        if sampled:
            for link in links:
                if isinstance(link, (Span, SpanContext)):
                    self.add_link(link)
                else:
                    self.add_link(*link)

    # -- what it is --

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def context(self) -> SpanContext:
        """What of it travels."""
        if self._context is None:
            self._context = SpanContext(self._trace.hex(), self._span.hex(), self._flags, self._state)
        return self._context

    @property
    def is_recording(self) -> bool:
        """Whether it is sampled and has not ended."""
        return bool(self._flags & _SAMPLED) and not self._ended

    @property
    def attributes(self) -> dict[str, Any]:
        """A copy of its attributes."""
        return dict(self._attributes or {})

    def __repr__(self) -> str:
        return f"<Span {self._name!r} {self.context.traceparent}{' ended' if self._ended else ''}>"

    # -- what is told to it --

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute; the last value counts."""
        if self._ended or not self._flags & _SAMPLED:
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
        if not isinstance(name, str):
            raise InvalidArgumentError(f"an event's name is text, not {type(name).__name__}")
        copied = attributes_of(attributes)
        if self._ended or not self._flags & _SAMPLED:
            return
        limits = self._tracer._traces._limits
        if len(self._events) >= limits.events:
            self._dropped_events += 1
            return
        out = bytearray()
        fixed64_field(out, 0x09, _monotonic() + (self._offset or 0))
        if name:
            bytes_field(out, 0x12, text(name))
        if dropped := attributes_into(out, 0x1A, copied, limits):
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
        if self._ended or not self._flags & _SAMPLED:
            return
        limits = self._tracer._traces._limits
        if len(self._links) >= limits.links:
            self._dropped_links += 1
            return
        if isinstance(context, Span):
            state, flags, remote = context._state, context._flags, False
        else:
            state, flags, remote = context.trace_state, context.trace_flags, context.is_remote
        out = bytearray()
        bytes_field(out, 0x0A, context._trace)
        bytes_field(out, 0x12, context._span)
        if state:
            bytes_field(out, 0x1A, text(state))
        if dropped := attributes_into(out, 0x22, copied, limits):
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
        if self._ended or not number or self._status == 1:
            return
        self._status = number
        self._message = (description or "") if number == 2 else ""

    def end(self) -> None:
        """End it: it is encoded now. Ending twice does nothing."""
        if self._ended:
            return
        self._ended = True
        if not self._flags & _SAMPLED:
            return
        traces = self._tracer._traces
        try:
            record = self._encode(_monotonic() + (self._offset or 0), traces._limits)
        except BaseException:
            traces._buffer.drop(1, _FAILED)
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
            try:
                current.reset(token)
            except ValueError:  # left in another context, as generators may: there is nothing to give back there
                pass
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


# ---- log records ----


class Logger:
    """Writes log records of one scope, with the ids of the current span.

    Args:
        level: the least severity number that is recorded.
    """

    def __init__(self, buffer: Buffer, limits: Limits, scope: int, level: int = 1) -> None:
        self._buffer = buffer
        self._limits = Limits(*limits)
        self._scope = scope
        self.level = level

    def debug(self, message: str, /, **attributes: Any) -> None:
        """Record at level debug."""
        if self.level <= 5:
            self._emit(0, 5, "DEBUG", message, attributes)

    def info(self, message: str, /, **attributes: Any) -> None:
        """Record at level info."""
        if self.level <= 9:
            self._emit(0, 9, "INFO", message, attributes)

    def warning(self, message: str, /, **attributes: Any) -> None:
        """Record at level warning."""
        if self.level <= 13:
            self._emit(0, 13, "WARN", message, attributes)

    def error(self, message: str, /, **attributes: Any) -> None:
        """Record at level error."""
        if self.level <= 17:
            self._emit(0, 17, "ERROR", message, attributes)

    def critical(self, message: str, /, **attributes: Any) -> None:
        """Record at level critical."""
        if self.level <= 21:
            self._emit(0, 21, "FATAL", message, attributes)

    def exception(self, message: str, /, **attributes: Any) -> None:
        """Record at level error, with the exception that is being handled."""
        if self.level > 17:
            return
        import sys

        error = sys.exc_info()[1]
        if error is not None:
            attributes = exception_attributes(error, attributes)
        self._emit(0, 17, "ERROR", message, attributes)

    def log(self, level: str, message: str, /, **attributes: Any) -> None:
        """Record at a level by name: ``"trace"``, ``"debug"``, ``"info"``, ``"warning"``, ``"error"``, ``"critical"``.

        Raises:
            InvalidArgumentError: another level.
        """
        number = SEVERITIES.get(level) if isinstance(level, str) else None
        if number is None:
            raise wrong("level", level, SEVERITIES)
        if self.level <= number:
            self._emit(0, number, _NAMES[number], message, attributes)

    def emit(self, time: int, severity: int, name: str, body: Any, attributes: dict[str, Any] | None) -> None:
        """Record what another library logged.

        Args:
            time: nanoseconds since 1970 UTC.
            severity: a severity number of OTLP, 1 to 24, below which `level` holds it back.
            name: the severity in that library's words.
            body: any value of an attribute.
            attributes: not copied, so not to be changed by another thread meanwhile.
        """
        if severity >= self.level:
            self._emit(time, severity, name, body, attributes)

    def _emit(self, time: int, severity: int, name: str, body: Any, attributes: dict[str, Any] | None) -> None:
        buffer = self._buffer
        try:
            now = _wall()
            out = bytearray()
            fixed64_field(out, 0x09, time or now)
            out += bytes((0x10, severity & 0x7F))
            if name:
                bytes_field(out, 0x1A, text(name))
            value = bytearray()
            _body_into(value, body, self._limits)
            bytes_field(out, 0x2A, value)
            if dropped := attributes_into(out, 0x32, attributes, self._limits):
                out.append(0x38)
                out += varint(dropped)
            span = current.get()
            if isinstance(span, (Span, SpanContext)):
                fixed32_field(out, b"\x45", span._flags if isinstance(span, Span) else span.trace_flags)
                bytes_field(out, 0x4A, span._trace)
                bytes_field(out, 0x52, span._span)
            fixed64_field(out, 0x59, now)
        except BaseException:
            buffer.drop(1, _FAILED)
            raise
        buffer.add(self._scope, bytes(out))


def _body_into(out: bytearray, body: Any, limits: Limits) -> None:
    from .otlp_py import value_into

    try:
        value_into(out, body, -1, 0)
    except Exception:
        del out[:]
        value_into(out, f"<str() of {type(body).__name__} failed>", -1, 0)


_NAMES: Final = {1: "TRACE", 5: "DEBUG", 9: "INFO", 13: "WARN", 17: "ERROR", 21: "FATAL"}
