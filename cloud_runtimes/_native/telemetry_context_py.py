"""Span contexts, the sampling of new traces, and the current span: a part of the telemetry kernel, in Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Any, Final

from ..errors import InvalidArgumentError
from .telemetry_buffer_py import monotonic
from .telemetry_text import id_bytes, not_bridged

__all__ = ["Sampler", "SpanContext", "baggage", "bridge", "current", "current_span", "remote_context"]

SAMPLED: Final = 1
"""The bit of the flags: the trace is recorded."""
baggage: Final[ContextVar[Mapping[str, str] | None]] = ContextVar("cloud_runtimes_baggage", default=None)
"""The entries of W3C Baggage that travel with it."""


class SpanContext:
    """Propagated part of a span: its ids, flags and trace state (Trace API, "SpanContext").

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
        self._trace = id_bytes(trace_id, 16)
        self._span = id_bytes(span_id, 8)
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
        return bool(self.trace_flags & SAMPLED)

    @property
    def traceparent(self) -> str:
        """The header of W3C Trace Context."""
        return f"00-{self._trace.hex()}-{self._span.hex()}-{self.trace_flags:02x}"

    def __repr__(self) -> str:
        return f"<SpanContext {self.traceparent}>"


# Trace Context, section 3.2: lower case; version 00 has nothing behind the flags, a later one may
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)
# level 2, section 3.2.2.5: sampled and random; the other bits are zero for whoever does not know them
_REMOTE_FLAGS: Final = 0x03


def remote_context(text: str, trace_state: str = "") -> SpanContext | None:
    """Return the context of a ``traceparent`` from elsewhere (W3C Trace Context); ``None``: it is not valid."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    return SpanContext(match[2], match[3], int(match[4], 16) & _REMOTE_FLAGS, trace_state, True)


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
        self._last = monotonic()

    def _sample(self, parent_flags: int, low: int) -> bool:
        # `parent_flags` -1: there is no parent
        if self._parent_based and parent_flags >= 0:
            return bool(parent_flags & SAMPLED)
        if low >= self._bound:
            return False
        if not self._rate:
            return True
        now = monotonic()
        self._tokens = min(self._room, self._tokens + max(0, now - self._last) * 1e-9 * self._rate)
        self._last = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


# ---- the current span ----


class Current:
    """The current span: of a context variable of its own or, once there is a bridge, of OpenTelemetry's context, so that there is one truth for both.

    Spans that were current before the bridge came stay so where OpenTelemetry's context has none.
    """

    def __init__(self) -> None:
        self._own: ContextVar[Any] = ContextVar("cloud_runtimes_telemetry_span", default=None)
        self._bridge: Any = None

    def get(self) -> Any:
        """Return the `Span` or remote `SpanContext` that is the parent of what starts next, or `None`."""
        bridge = self._bridge
        if bridge is not None:
            context = bridge.variable.get(None)
            value = context.get(bridge.key) if isinstance(context, dict) else None
            if value is not None:
                return bridge.inward(value)
        return self._own.get()

    def set(self, span: Any) -> Token[Any]:
        """Make a `Span`, a `SpanContext` or `None` the current one; `reset` takes what it returns."""
        bridge = self._bridge
        return self._own.set(span) if bridge is None else self.attach(bridge.outward(span))

    def attach(self, span: Any) -> Token[Any]:
        """Make a span of OpenTelemetry's API the current one; there must be a bridge."""
        bridge = self._bridge
        if bridge is None:
            raise not_bridged()
        context = bridge.variable.get(None)
        base = context if isinstance(context, dict) else {}
        token: Token[Any] = bridge.variable.set(bridge.context_class({**base, bridge.key: span}))
        return token

    def reset(self, token: Token[Any]) -> None:
        """Give back what was current before; `ValueError` for a token of another context."""
        token.var.reset(token)

    def give_back(self, token: Token[Any]) -> None:
        """As `reset`, but a token of another context, as a generator may leave one, changes nothing: there is nothing to give back there."""
        with suppress(ValueError):
            self.reset(token)


current: Final = Current()
"""The `Span` or remote `SpanContext` that is the parent of what starts next."""


def current_span() -> Any:
    """Return the `Span` or remote `SpanContext` that new spans have as parent here, or `None`."""
    return current.get()


def bridge(given: Any) -> None:
    """Keep the current span where OpenTelemetry's API does from now on (`telemetry._otel_spans.Bridge`); `None`, for tests: no longer."""
    current._bridge = given
