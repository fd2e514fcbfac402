"""Signals that a system has."""

from __future__ import annotations

import signal
from typing import Final


def signals(*names: str) -> tuple[signal.Signals, ...]:
    """Return those signals of these names that this system has."""
    return tuple(signal.Signals[name] for name in names if name in signal.Signals.__members__)


ENDING: Final = signals("SIGINT", "SIGTERM", "SIGBREAK")
"""Those that ask a program to end; SIGBREAK is what a process of Windows can send to another."""
HANGING_UP: Final = signals("SIGHUP", "SIGQUIT")
"""Those of a terminal that ask for it too."""
PASSED: Final = signals("SIGUSR1", "SIGUSR2")
"""Those whose meaning is a program's own."""
