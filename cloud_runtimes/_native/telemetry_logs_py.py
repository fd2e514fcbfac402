"""Log records of the telemetry kernel, in Python."""

from __future__ import annotations

from typing import Any, Final

from ..errors import InvalidArgumentError
from .otlp_py import Limits, attributes_into, bytes_field, fixed32_field, fixed64_field, text, value_into, varint
from .telemetry_buffer_py import FAILED, Buffer, wall
from .telemetry_context_py import SpanContext, current
from .telemetry_spans_py import Span
from .telemetry_text import SEVERITIES, exception_attributes, wrong

__all__ = ["Logger"]


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
        """Record what another library logged, unless `level` holds it back; attributes are not copied."""
        if severity >= self.level:
            self._emit(time, severity, name, body, attributes)

    def record(
        self,
        time: int,
        observed: int,
        severity: int,
        name: str,
        body: Any,
        attributes: dict[str, Any] | None,
        trace: bytes,
        span: bytes,
        flags: int,
        event: str,
    ) -> None:
        """Record what came through OpenTelemetry's API, whatever `level` says; attributes are not copied. What is not known is 0 or empty."""
        if len(trace) not in (0, 16) or len(span) not in (0, 8):
            raise InvalidArgumentError("a trace id has 16 bytes, a span id 8")
        buffer = self._buffer
        try:
            out = bytearray()
            if time:
                fixed64_field(out, 0x09, time)
            if severity & 0x7F:
                out += bytes((0x10, severity & 0x7F))
            if name:
                bytes_field(out, 0x1A, text(name))
            value = bytearray()
            _body_into(value, body, self._limits)
            bytes_field(out, 0x2A, value)
            if dropped := attributes_into(out, 0x32, attributes, self._limits):
                out.append(0x38)
                out += varint(dropped)
            if trace:
                fixed32_field(out, b"\x45", flags)
                bytes_field(out, 0x4A, trace)
            if span:
                bytes_field(out, 0x52, span)
            if observed:
                fixed64_field(out, 0x59, observed)
            if event:
                bytes_field(out, 0x62, text(event))
        except BaseException:
            buffer.drop(1, FAILED)
            raise
        buffer.add(self._scope, bytes(out))

    def _emit(self, time: int, severity: int, name: str, body: Any, attributes: dict[str, Any] | None) -> None:
        now = wall()
        span = current.get()
        trace, ids, flags = b"", b"", 0
        if isinstance(span, (Span, SpanContext)):
            trace, ids = span._trace, span._span
            flags = span._flags if isinstance(span, Span) else span.trace_flags
        self.record(time or now, now, severity, name, body, attributes, trace, ids, flags, "")


def _body_into(out: bytearray, body: Any, limits: Limits) -> None:
    try:
        value_into(out, body, -1, 0)
    except Exception:
        del out[:]
        value_into(out, f"<str() of {type(body).__name__} failed>", -1, 0)


_NAMES: Final = {1: "TRACE", 5: "DEBUG", 9: "INFO", 13: "WARN", 17: "ERROR", 21: "FATAL"}
