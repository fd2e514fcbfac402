"""How many events a subscription hands to its handler in a time."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple

from .._core.threads import Mutex
from ..errors import InvalidArgumentError


class Rate(NamedTuple):
    """At most so many events in a time, over all workers of a subscription in one process (a token bucket).

    Attributes:
        events: handed to the handler in ``per`` seconds.
        per: seconds.
        burst: events at once after a pause, default: ``events``, and at least one.
    """

    events: float
    per: float = 1.0
    burst: int | None = None


class Bucket:
    """Gives out the tokens of a `Rate`. Thread-safe.

    Raises:
        InvalidArgumentError: the rate has values that mean nothing.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = monotonic) -> None:
        for name, value in (("events", rate.events), ("per", rate.per)):
            if not _is_number(value) or not 0 < value < float("inf"):
                raise InvalidArgumentError(f"rate: {name} must be more than 0, got {value!r}")
        burst = rate.burst
        if burst is not None and (not _is_number(burst) or burst < 1):
            raise InvalidArgumentError(f"rate: burst must be at least 1, got {burst!r}")
        self._size = max(1.0, rate.events if burst is None else burst)
        self._each = rate.per / rate.events
        self._clock = clock
        self._lock = Mutex()
        self._tokens = self._size
        self._at = clock()

    def take(self, want: int) -> tuple[int, float]:
        """Take up to ``want`` tokens; return how many, and for none the seconds until there is one."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._size, self._tokens + (now - self._at) / self._each)
            self._at = now
            count = min(want, int(self._tokens))
            self._tokens -= count
            return count, 0.0 if count else (1 - self._tokens) * self._each

    def give_back(self, count: int) -> None:
        """Return tokens that were not used."""
        with self._lock:
            self._tokens = min(self._size, self._tokens + count)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
