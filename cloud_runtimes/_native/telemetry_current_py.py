"""Where the current span of the telemetry kernel lives, in Python."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Any, Final, Protocol

__all__ = ["Bridge", "Current", "current", "current_span"]


class Bridge(Protocol):
    """What leads to the place where OpenTelemetry's API keeps the current span.

    Attributes:
        variable: of its contexts, immutable dictionaries.
        key: under which a context has its span.
        context_class: of a context.
    """

    variable: ContextVar[Any]
    key: str
    context_class: Any

    def inward(self, span: Any) -> Any:
        """Return the `Span` or `SpanContext` that a span of the API stands for, `None` for an invalid one."""

    def outward(self, span: Any) -> Any:
        """Return the span of the API that stands for a `Span`, a `SpanContext` or `None`."""


class Current:
    """The current span: of a context variable of its own or, once there is a bridge, of OpenTelemetry's context, so that there is one truth for both.

    Spans that were current before the bridge came stay so where OpenTelemetry's context has none.
    """

    def __init__(self) -> None:
        self._own: ContextVar[Any] = ContextVar("cloud_runtimes_telemetry_span", default=None)
        self._bridge: Bridge | None = None

    def get(self) -> Any:
        """Return the `Span` or remote `SpanContext` that is the parent of what starts next, or `None`."""
        bridge = self._bridge
        if bridge is not None:
            context = bridge.variable.get(None)
            found = context.get(bridge.key) if isinstance(context, dict) else None
            if found is not None:
                return bridge.inward(found)
        return self._own.get()

    def set(self, span: Any) -> Token[Any]:
        """Make a `Span`, a `SpanContext` or `None` the current one.

        Returns:
            What `reset` takes.
        """
        bridge = self._bridge
        return self._own.set(span) if bridge is None else self.attach(bridge.outward(span))

    def attach(self, span: Any) -> Token[Any]:
        """Make a span of OpenTelemetry's API the current one; there must be a bridge."""
        bridge = self._bridge
        assert bridge is not None
        context = bridge.variable.get(None)
        base = context if isinstance(context, dict) else {}
        return bridge.variable.set(bridge.context_class({**base, bridge.key: span}))

    def reset(self, token: Token[Any]) -> None:
        """Give back what was current before.

        Raises:
            ValueError: a token of another context.
        """
        token.var.reset(token)


current: Final = Current()
"""The `Span` or remote `SpanContext` that is the parent of what starts next."""


def current_span() -> Any:
    """Return the `Span` or remote `SpanContext` that new spans have as parent here, or `None`."""
    return current.get()
