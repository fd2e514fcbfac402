"""The end of a test that lets SIGALRM come."""

from __future__ import annotations

import signal
import time
from typing import Any

__all__ = ["silence"]


def silence(before: Any) -> None:
    """Stop the alarm and give its old handler back.

    First a handler that does nothing: one that is on its way, or that the test's own sets while it is the last to run, would come to the old handler, which ends the process; and where it is ignored instead, CPython reports one that came while it was being ignored.
    """
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0)
    time.sleep(0.001)  # the last one comes now, to whichever thread
    signal.signal(signal.SIGALRM, before)
