"""Tests that let SIGALRM come, and their end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["alarms", "silence"]


@contextmanager
def alarms(handler: Callable[[], Any], seconds: float) -> Iterator[None]:
    """Call `handler` in the main thread again and again, each time so many seconds after its last call has returned.

    On a fixed beat each alarm would come into the call of the one before wherever a call takes longer than the beat, and none would return.
    """

    def ring(*_: Any) -> None:
        handler()
        signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        silence(before)


def silence(before: Any) -> None:
    """Stop the alarm and give its old handler back.

    First a handler that does nothing: one that is on its way, or that the test's own sets while it is the last to run, would come to the old handler, which ends the process; and where it is ignored instead, CPython reports one that came while it was being ignored.
    """
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0)
    time.sleep(0.001)  # the last one comes now, to whichever thread
    signal.signal(signal.SIGALRM, before)
