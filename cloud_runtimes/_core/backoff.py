"""Growing pauses between attempts."""

from __future__ import annotations

from random import SystemRandom
from typing import Final

NONE: Final = (1.0, 1.0)
HALF: Final = (0.5, 1.0)
FULL: Final = (0.0, 1.0)
"""Ranges of jitter. Callers that failed together do not come back together."""
_chance: Final = SystemRandom()
"""Apart from the application's own numbers, which it may have seeded."""


class Backoff:
    """Pauses of ``first`` seconds, then each ``growth`` times the one before it, ``limit`` at most.

    Each is multiplied by a random factor from the range ``jitter``.
    """

    def __init__(self, first: float, limit: float, *, growth: float = 2.0, jitter: tuple[float, float] = HALF) -> None:
        self._first = first
        self._limit = limit
        self._growth = growth
        self._jitter = jitter
        self._failures = 0

    def after(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row."""
        if not failures:
            return 0.0
        try:
            pause = min(self._limit, self._first * self._growth ** (failures - 1))
        except OverflowError:
            pause = self._limit
        low, high = self._jitter
        return _chance.uniform(low * pause, high * pause)

    def next(self) -> float:
        """Note a failure, and return the seconds to wait."""
        self._failures += 1
        return self.after(self._failures)

    def reset(self) -> None:
        """Note an attempt that worked: the next pause is the first one again."""
        self._failures = 0
