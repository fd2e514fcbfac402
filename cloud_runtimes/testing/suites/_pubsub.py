"""What the parts of the suite of a `PubSubDriver` share: receiving what must come, and nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..faces import Face

__all__ = ["NEVER", "SOON", "Reading", "collect", "nothing"]

SOON = 10.0
"""Seconds in which what must come has come."""
NEVER = 0.3
"""Seconds in which what must not come would have come."""


@dataclass
class Reading:
    """A typed payload."""

    sensor: str
    value: float


def collect(face: Face, sub: Any, count: int, *, ack: bool = True) -> list[Any]:
    """Receive ``count`` events."""
    events: list[Any] = []
    while len(events) < count:
        event = face.call(sub, "receive", SOON)
        assert event is not None, f"only {len(events)} of {count} came"
        events.append(event)
        if ack:
            event.ack()
    return events


def nothing(face: Face, sub: Any) -> None:
    """Assert that nothing (more) comes."""
    event = face.call(sub, "receive", NEVER)
    assert event is None, f"unexpected {event!r} with {event.data!r}"
