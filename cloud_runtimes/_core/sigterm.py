"""Sending what is buffered in the process on SIGTERM. Then the signal does what it did before, so the exit status stays 143."""

from __future__ import annotations

import threading
import time
from signal import SIG_IGN, SIGTERM, getsignal, raise_signal
from signal import signal as set_signal
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from .logs import logger

_previous: Any = None


class Flushes(Protocol):
    """Sends what it holds."""

    def flush(self, timeout: float | None, /) -> Any: ...


_flushed: WeakKeyDictionary[Flushes, float] = WeakKeyDictionary()


def flush_on_sigterm(what: Flushes, seconds: float) -> bool:
    """Have something flushed on SIGTERM, for at most ``seconds``; return whether it will be.

    Only the main thread can set that up the first time. Where SIGTERM is ignored, it stays so.
    """
    global _previous
    _flushed[what] = seconds
    present = getsignal(SIGTERM)
    if present is _on_sigterm or present is SIG_IGN:
        return True
    if present is None or threading.current_thread() is not threading.main_thread():
        return False
    _previous = present
    set_signal(SIGTERM, _on_sigterm)
    return True


def _on_sigterm(number: int, frame: Any) -> None:
    begun = time.monotonic()
    # telemetry, which has least time, last: it records what the others do
    for what, seconds in sorted(_flushed.items(), key=lambda each: -each[1]):
        try:
            what.flush(max(0.001, begun + seconds - time.monotonic()))
        except Exception as error:
            logger().warning("SIGTERM: %s", error)
    if callable(_previous):
        _previous(number, frame)
    else:
        set_signal(SIGTERM, _previous)
        raise_signal(SIGTERM)
