"""Waiting for what a test brought about."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from cloud_runtimes.testing.suites._stopwatch import Stopwatch

__all__ = ["Stopwatch", "longer", "until"]


def until(condition: Callable[[], Any], what: str = "", seconds: float = 60.0) -> Any:
    """Wait until a condition holds, and return what it gave."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what or condition}"
        time.sleep(0.005)
    return found


def longer(begun: Callable[[], Any], seconds: float = 0.2) -> Iterator[float]:
    """Give longer and longer timeouts, until something has begun within one: for what is to run out of time in the middle."""
    yield seconds
    while not begun():
        seconds *= 4
        assert seconds < 60, f"it never began: {begun}"
        yield seconds
