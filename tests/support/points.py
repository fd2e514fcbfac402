"""Interrupts a call at every point at which the interpreter can raise a KeyboardInterrupt.

CPython runs signal handlers when it enters a function of Python and when it comes back from one of C; the profiler sees these points, so they are counted, and each is interrupted in a run of its own.
"""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["Interrupted", "every_point"]

_OURS = "cloud_runtimes"
_TESTS = str(Path(__file__).parent.parent)


def _interrupt() -> None:
    raise KeyboardInterrupt


class Interrupted:
    """Runs a call and interrupts it at its ``number``-th point, by what a signal handler does there."""

    def __init__(self, number: int | None = None, handler: Callable[[], None] = _interrupt) -> None:
        self.number = number
        self.handler = handler
        self.points = 0
        self.where = ""
        self.error: KeyboardInterrupt | None = None
        self.result: Any = None

    def run(self, call: Callable[[], Any]) -> None:
        """Without the collector, which comes at chance points: an interrupt in what it calls is swallowed, and the call completes where it should not."""

        def profile(frame: Any, event: str, argument: Any) -> None:
            # `return` is no such point; of C functions those that Python code of others calls count as well
            if event not in ("call", "c_return") or frame.f_code is mine:
                return
            if frame.f_code.co_filename.startswith(_TESTS):
                return
            self.points += 1
            if self.points == self.number:
                sys.setprofile(None)
                what = getattr(argument, "__qualname__", "") if event == "c_return" else "entry"
                self.where = (
                    f"{frame.f_code.co_filename.rpartition(_OURS)[2]}:{frame.f_lineno} {frame.f_code.co_name} ({what})"
                )
                self.handler()

        mine = sys._getframe().f_code
        before = sys.getprofile()
        collecting = gc.isenabled()
        gc.disable()
        try:
            sys.setprofile(profile)
            self.result = call()
        except KeyboardInterrupt as error:
            # its frames hold this run: without them, what was left half made is freed here, not during another test
            self.error = error.with_traceback(None)
        finally:
            sys.setprofile(before)
            if collecting:
                gc.enable()


def every_point(call: Callable[[int], Any], step: int = 1) -> Iterator[Interrupted]:
    """Yield one interrupted run after the other, until a run has fewer points than the number asked for; with ``step`` every so-many-th point, beginning anywhere."""
    number = random.randint(1, step)
    while True:
        run = Interrupted(number)
        run.run(lambda: call(number))  # noqa: B023
        over = run.points < number  # else one was swallowed, by a weak reference's callback
        yield run
        if over:
            assert number > 10, "the call has no points to speak of"
            return
        number += step
