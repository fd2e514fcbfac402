"""The end of the process. SIGTERM: the records go out first, then the signal does what it did before, so the exit status stays 143. At exit a client that was not closed sends its records itself; here are those of clients that are gone."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .._service import ClientContext
    from ._pipeline import Pipeline

__all__ = ["flush_on_sigterm", "keep"]

_SECONDS: Final = 2.0
_pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()
_previous: Any = None
_kept: list[tuple[Pipeline, weakref.ref[ClientContext]]] = []


def keep(pipeline: Pipeline, context: ClientContext) -> None:
    """Have what is in a pipeline sent at exit, also if its client is collected before: tracers outlive it."""
    _kept[:] = [entry for entry in _kept if not entry[0].closed]
    _kept.append((pipeline, weakref.ref(context)))


@atexit.register
def _send_orphans() -> None:
    for pipeline, context in _kept:
        if context() is None:
            pipeline.close(5.0)


def flush_on_sigterm(pipeline: Pipeline) -> None:
    """Have a pipeline flushed on SIGTERM. Only the main thread can set that up; elsewhere, and where SIGTERM is ignored, nothing is done."""
    global _previous
    _pipelines.add(pipeline)
    if threading.current_thread() is not threading.main_thread():
        return
    present = signal.getsignal(signal.SIGTERM)
    if present is _on_sigterm or present is None or present is signal.SIG_IGN:
        return
    _previous = present
    signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, frame: Any) -> None:
    end = time.monotonic() + _SECONDS
    for pipeline in list(_pipelines):
        pipeline.flush(max(0.0, end - time.monotonic()))
    if callable(_previous):
        _previous(number, frame)
    else:
        signal.signal(signal.SIGTERM, _previous)
        os.kill(os.getpid(), signal.SIGTERM)
