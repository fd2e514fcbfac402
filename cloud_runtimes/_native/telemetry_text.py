"""Texts and checks that both twins of the telemetry kernel share: exceptions, attributes and wrong arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..errors import InvalidArgumentError

__all__ = [
    "KINDS", "SEVERITIES", "STATUSES", "attributes_of", "entered_already", "exception_attributes", "frozen", "frozen_attributes", "id_bytes",
    "message_of", "not_bridged", "refuse_parent", "time_of", "wrong"
]  # fmt: skip

KINDS: Final[Mapping[str, int]] = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
"""A span's ``kind`` → ``SpanKind`` of OTLP."""
STATUSES: Final[Mapping[str, int]] = {"unset": 0, "ok": 1, "error": 2}
"""A span's status → ``StatusCode`` of OTLP."""
SEVERITIES: Final[Mapping[str, int]] = {"trace": 1, "debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
"""A level → ``SeverityNumber`` of OTLP (Logs data model, "Mapping of SeverityNumber")."""
MAX_STACKTRACE: Final = 16_384
MAX_DEPTH: Final = 16
"""As `otlp_py.MAX_DEPTH`."""


def exception_attributes(error: BaseException, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe an exception by the semantic conventions for exceptions; its stack trace is cut to 16,384 characters, the end kept."""
    import traceback

    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        stack = "".join(traceback.format_exception(error))[-MAX_STACKTRACE:]
    except Exception:
        stack = ""
    return {
        "exception.type": name,
        "exception.message": message_of(error),
        "exception.stacktrace": stack,
        **(attributes_of(more) or {}),
    }


def message_of(error: BaseException) -> str:
    """Return what an exception says."""
    try:
        return str(error)
    except Exception:
        return "<str() failed>"


def attributes_of(attributes: Any) -> dict[Any, Any] | None:
    """Return a copy of attributes. Raises `InvalidArgumentError`: no mapping."""
    if attributes is None:
        return None
    if not isinstance(attributes, Mapping):
        raise InvalidArgumentError(f"attributes must be a mapping, not {type(attributes).__name__}")
    return dict(attributes)


def wrong(what: str, value: Any, known: Mapping[str, int]) -> InvalidArgumentError:
    """Return the error for a name that is none of those known."""
    return InvalidArgumentError(f"{what}={value!r}: give one of {', '.join(known)}")


def id_bytes(text: Any, size: int) -> bytes:
    """Return the bytes of an id that is given in hexadecimal."""
    if isinstance(text, str) and len(text) == 2 * size and text.strip("0123456789abcdef") == "":
        raw = bytes.fromhex(text)
        if any(raw):
            return raw
    raise InvalidArgumentError(f"an id has {2 * size} lower-case hexadecimal digits, not all zero")


def not_bridged() -> InvalidArgumentError:
    """Return the error for what wants a bridge."""
    return InvalidArgumentError("the kernel does not know OpenTelemetry's API: call bridge first")


def entered_already() -> InvalidArgumentError:
    """Return the error for a scope of OpenTelemetry's API that is entered twice."""
    return InvalidArgumentError("start_as_current_span: it is entered already; each span wants one of its own")


def refuse_parent(value: Any) -> InvalidArgumentError:
    """Return the error for what is no parent and no link."""
    return InvalidArgumentError(f"expected a Span or a SpanContext, not {type(value).__name__}")


def frozen(value: Any, depth: int = 0) -> Any:
    """Return a value of an attribute that nobody can change any more: sequences and mappings are copied, what is no type of OTLP becomes ``str(value)``; if that fails the value itself, which is dropped when it is encoded."""
    if value is None or isinstance(value, (str, int, float, bytes)):
        return value
    try:
        if isinstance(value, bytearray):
            return bytes(value)
        if isinstance(value, (Mapping, Sequence)):
            if depth >= MAX_DEPTH:
                return "<nested too deeply>"
            if isinstance(value, Mapping):
                return {str(key): frozen(each, depth + 1) for key, each in value.items()}
            return tuple(frozen(each, depth + 1) for each in value)
        return str(value)
    except Exception:
        return value


def frozen_attributes(attributes: Any) -> dict[Any, Any] | None:
    """Return a copy of attributes whose values are `frozen`. Raises `InvalidArgumentError`: no mapping."""
    copied = attributes_of(attributes)
    return copied and {key: frozen(value) for key, value in copied.items()}


def time_of(value: Any) -> int:
    """Return a time in nanoseconds since 1970 UTC. Raises `InvalidArgumentError`: none."""
    try:
        time = int(value)
    except (TypeError, ValueError, OverflowError):
        time = -1
    if not 0 <= time < 1 << 63 or isinstance(value, str):
        raise InvalidArgumentError(f"a time is nanoseconds since 1970, not {value!r}")
    return time
