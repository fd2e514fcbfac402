"""Dead letters say why they are dead letters, in extensions of their CloudEvents."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from .._native import events as kernel
from ..spi.pubsub import Cause

if TYPE_CHECKING:
    from .._native.events_py import Record

__all__ = ["cause_of", "dead_letter"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ERROR_BYTES: Final = 1024
_NAMES: Final = ("dlreason", "dlerror", "dlcount", "dlfirst", "dllast", "dltopic", "dlgroup")


def cause_of(reason: str, error: BaseException) -> Cause:
    """Return a reason together with an error's type and message, at most 1 KiB, as text that an attribute may have (CloudEvents 1.0 §3.1)."""
    name = type(error).__name__
    try:
        text = str(error)[:_ERROR_BYTES]
    except Exception:  # of the application
        text = ""
    text = "".join(each if each.isprintable() else " " for each in (f"{name}: {text}" if text else name))
    return Cause(reason, text.encode()[:_ERROR_BYTES].decode(errors="ignore"))


def dead_letter(
    record: Record,
    cause: Cause,
    *,
    topic: str,
    group: str,
    count: int | None = None,
    first_us: int | None = None,
    last_us: int | None = None,
) -> bytes:
    """Return a record that is the same event and says why it is a dead letter.

    Args:
        record: the event.
        cause: why (``dlreason``, ``dlerror``).
        topic, group: of the subscription (``dltopic``, ``dlgroup``).
        count: how often the group got it (``dlcount``).
        first_us, last_us: when it got it first and last, in microseconds since 1970 UTC (``dlfirst``, ``dllast``).

        What is ``None`` is not known, and left out.

    Raises:
        CloudRuntimesError: the record holds what its attributes may not be.
    """
    extensions = {name: value for name, value in record.extensions.items() if name not in _NAMES}
    known = (cause.reason, cause.error, count, _time(first_us), _time(last_us), topic, group)
    extensions |= {name: value for name, value in zip(_NAMES, known, strict=True) if value is not None}
    return kernel.encode_record(
        record.payload,
        record.content_type,
        id=record.id,
        time=record.time_text,
        key=record.key,
        traceparent=record.traceparent,
        type=record.type,
        source=record.source,
        subject=record.subject,
        extensions=extensions,
        metadata=record.metadata or None,
        expires=record.expires_us,
        raw=record.raw,
    )


def _time(us: int | None) -> str | None:
    return None if us is None else f"{_EPOCH + timedelta(microseconds=us):%Y-%m-%dT%H:%M:%S.%fZ}"
