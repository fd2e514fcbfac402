"""SIGINT and SIGTERM as the end of what runs until then."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final

from .os_signals import ENDING

_ONE: Final = 0.1
"""Seconds within which a signal is the one before: timeout(1) signals its child, then the group that the child is in."""


@contextmanager
def ending_signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call ``handle`` instead of what they did; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: list[tuple[signal.Signals, Any]] = []
    last: list[Any] = [0, 0.0]

    def signalled(number: int, frame: Any) -> None:
        number_before, when = last
        last[:] = number, monotonic()
        if number != number_before or last[1] - when > _ONE:
            handle(number)

    try:
        for each in ENDING:
            before.append((each, signal.signal(each, signalled)))
        yield
    finally:
        for each, old in before:
            signal.signal(each, old)
