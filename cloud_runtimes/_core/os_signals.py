"""Signals that a system has, and handlers of them for as long as a block runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final


def signals(*names: str) -> tuple[signal.Signals, ...]:
    """Return those signals of these names that this system has."""
    return tuple(signal.Signals[name] for name in names if name in signal.Signals.__members__)


ENDING: Final = signals("SIGINT", "SIGTERM", "SIGBREAK")
"""Those that ask a program to end; SIGBREAK is what a process of Windows can send to another."""
HANGING_UP: Final = signals("SIGHUP", "SIGQUIT")
"""Those of a terminal that ask for it too."""
PASSED: Final = signals("SIGUSR1", "SIGUSR2")
"""Those whose meaning is a program's own."""


_ONE: Final = 0.1
"""Seconds within which a signal is the one before: timeout(1) signals its child, then the group that the child is in."""


@contextmanager
def handling(
    numbers: Iterable[signal.Signals], handler: Callable[[int, Any], None], *, ignored: bool = True
) -> Iterator[None]:
    """Have signals call ``handler`` instead of what they did; only the main thread can.

    Args:
        ignored: also those that are ignored, as by nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: list[tuple[signal.Signals, Any]] = []
    try:
        for each in numbers:
            if ignored or signal.getsignal(each) is not signal.SIG_IGN:
                before.append((each, signal.signal(each, handler)))
        yield
    finally:
        for each, old in before:
            signal.signal(each, old)


@contextmanager
def ending_signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call ``handle`` instead of what they did; only the main thread can."""
    last: list[Any] = [0, 0.0]

    def signalled(number: int, frame: Any) -> None:
        number_before, when = last
        last[:] = number, monotonic()
        if number != number_before or last[1] - when > _ONE:
            handle(number)

    with handling(ENDING, signalled):
        yield
