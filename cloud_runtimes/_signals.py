"""SIGINT and SIGTERM as the end of what runs until then."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["ending_signals"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ending_signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call ``handle`` instead of what they did; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: list[tuple[signal.Signals, Any]] = []
    try:
        for each in _SIGNALS:
            before.append((each, signal.signal(each, lambda number, frame: handle(number))))
        yield
    finally:
        for each, old in before:
            signal.signal(each, old)
