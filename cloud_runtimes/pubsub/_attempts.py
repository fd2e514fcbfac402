"""How much one attempt of a publisher holds, and how long it may take. Both follow what the broker takes."""

from __future__ import annotations

from typing import Final

from ..errors import CloudRuntimesError

__all__ = ["ATTEMPT", "Window", "is_passing"]

ATTEMPT: Final = 2.0
"""Seconds of an attempt at a broker that keeps up. A longer stall is another attempt with the same ids."""
_SLOW: Final = 4 * ATTEMPT
"""Seconds that an attempt at several events may have before one has come through."""


class Window:
    """What the next attempt may be.

    When time runs out, it shrinks to half of the bytes and gets twice the time. It grows by doubling while attempts take less than four seconds. So a steady broker soon times out no more.

    Attributes:
        size: bytes that an attempt may hold. One event is always allowed.
        seconds: that it may take.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = most
        self.seconds = ATTEMPT

    def took(self, size: int, seconds: float) -> None:
        """Note that the broker took ``size`` bytes in so many seconds."""
        if seconds <= _SLOW / 2:
            self.size = max(self.size, min(2 * size, self._most))
        # by half at most: a small attempt says little of how long a large one takes
        self.seconds = max(ATTEMPT, 3 * seconds, self.seconds / 2)

    def ran_out(self, size: int, taken: int, *, alone: bool) -> None:
        """Note that time ran out for ``size`` bytes, of which the broker took ``taken``; ``alone``: they were one event."""
        self.refused(size, taken)
        longer = 2 * self.seconds
        self.seconds = longer if alone else min(longer, max(self.seconds, _SLOW))

    def refused(self, size: int, taken: int) -> None:
        """Note that ``size`` bytes were too many, of which the broker took ``taken``."""
        self.size = taken or size // 2


def is_passing(error: CloudRuntimesError) -> bool:
    """Tell whether an attempt that failed with this may go well another time."""
    return error.retryable or error.code in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
