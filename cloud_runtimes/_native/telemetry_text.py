"""What both twins of the telemetry kernel say about an exception and about wrong arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..errors import InvalidArgumentError

__all__ = ["KINDS", "SEVERITIES", "STATUSES", "attributes_of", "exception_attributes", "refuse_parent", "wrong"]

KINDS: Final[Mapping[str, int]] = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
"""A span's ``kind`` → ``SpanKind`` of OTLP."""
STATUSES: Final[Mapping[str, int]] = {"unset": 0, "ok": 1, "error": 2}
"""A span's status → ``StatusCode`` of OTLP."""
SEVERITIES: Final[Mapping[str, int]] = {"trace": 1, "debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
"""A level → ``SeverityNumber`` of OTLP (Logs data model, "Mapping of SeverityNumber")."""
MAX_STACKTRACE: Final = 16_384


def exception_attributes(error: BaseException, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe an exception by the semantic conventions for exceptions; its stack trace is cut to 16,384 characters, the end kept."""
    import traceback

    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except Exception:
        message = "<str() failed>"
    try:
        stack = "".join(traceback.format_exception(error))[-MAX_STACKTRACE:]
    except Exception:
        stack = ""
    return {
        "exception.type": name,
        "exception.message": message,
        "exception.stacktrace": stack,
        **(attributes_of(more) or {}),
    }


def attributes_of(attributes: Any) -> dict[Any, Any] | None:
    """Return a copy of attributes.

    Raises:
        InvalidArgumentError: no mapping.
    """
    if attributes is None:
        return None
    if not isinstance(attributes, Mapping):
        raise InvalidArgumentError(f"attributes must be a mapping, not {type(attributes).__name__}")
    return dict(attributes)


def wrong(what: str, value: Any, known: Mapping[str, int]) -> InvalidArgumentError:
    """Return the error for a name that is none of those known."""
    return InvalidArgumentError(f"{what}={value!r}: give one of {', '.join(known)}")


def refuse_parent(value: Any) -> InvalidArgumentError:
    """Return the error for what is no parent and no link."""
    return InvalidArgumentError(f"expected a Span or a SpanContext, not {type(value).__name__}")
