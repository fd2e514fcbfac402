"""Growing pauses between attempts."""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Pauses that double from ``first`` to ``limit`` seconds, each by up to half shorter, so that processes do not try together."""

    def __init__(self, first: float, limit: float) -> None:
        self._first = first
        self._limit = limit
        self._last = 0.0

    def next(self) -> float:
        """Return the next pause in seconds."""
        self._last = min(self._limit, self._last * 2 or self._first)
        return random.uniform(self._last / 2, self._last)

    def reset(self) -> None:
        """Begin again with the first pause, after an attempt that worked."""
        self._last = 0.0
