"""The end of a test that lets SIGALRM come."""

from __future__ import annotations

import signal
from typing import Any

__all__ = ["silence"]


def silence(before: Any) -> None:
    """Stop the alarm and give its old handler back.

    Ignored first: an alarm that is on its way, or that a handler sets while it is the last to run, would come to the old handler, which ends the process.
    """
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
