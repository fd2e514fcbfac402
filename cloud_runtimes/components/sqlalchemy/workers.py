"""Threads that do for the main thread what a ``KeyboardInterrupt`` must not hit.

Only the main thread gets interrupts. SQLAlchemy and the drivers beneath it lose connections, and locks of their pools, where one comes between two of their steps; here it comes to the one who waits, and the work goes on to its own end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from .holds import told

__all__ = ["Workers", "is_main_thread"]

R = TypeVar("R")

_IDLE: Final = 30.0
"""Seconds that a thread waits for something to do."""


def is_main_thread() -> bool:
    """Tell whether the caller may be interrupted."""
    return threading.get_ident() == threading.main_thread().ident


class _Job:
    __slots__ = ("error", "result", "ticket", "work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work: Callable[[], Any] | None = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.ticket = threading.Lock()
        self.ticket.acquire()

    def run(self) -> None:
        work, self.work = self.work, None
        assert work is not None
        try:
            self.result = work()
        except BaseException as error:
            self.error = error
        self.ticket.release()


def _logged(work: Callable[[], Any]) -> None:
    try:
        work()
    except Exception as error:
        told("what a call of a database left behind could not be ended", error)


class Workers:
    """As many threads as there are jobs at once; they have no bound, since the places of a pool bound the jobs.

    Not a pool of ``concurrent.futures``: an interrupt in the Python code of its conditions and semaphores leaves them locked. Here are only queues and locks of C, which are left whole.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._idle: set[int] = set()
        self._rest = _IDLE

    def run(self, work: Callable[[], R]) -> R:
        """Run something in another thread, and wait for it; an interrupt ends only the waiting."""
        job = _Job(work)
        self._begin(job)
        job.ticket.acquire()
        if job.error is None:
            result: R = job.result
            return result
        try:
            raise job.error
        finally:
            job.error = None  # and so no cycle

    def post(self, work: Callable[[], Any]) -> None:
        """Run something in another thread that nobody waits for; its error is logged."""
        self._begin(_Job(partial(_logged, work)))

    def _begin(self, job: _Job) -> None:
        self._jobs.put(job)
        self._see_to_it()

    def _see_to_it(self) -> None:
        if self._jobs.qsize() > len(self._idle):
            try:
                threading.Thread(target=self._serve, name=self._name, daemon=True).start()
            except RuntimeError as error:
                # from leaving the Condition in which it waited, in vain
                if isinstance(error.__context__, KeyboardInterrupt):
                    raise error.__context__ from None
                raise

    def _serve(self) -> None:
        from queue import Empty

        me = threading.get_ident()
        while True:
            self._idle.add(me)
            try:
                job = self._jobs.get(timeout=self._rest)
            except Empty:
                job = None
            self._idle.discard(me)
            # who counted this thread as idle while it took its job has started none
            self._see_to_it()
            if job is not None:
                job.run()
                del job  # what it holds must not live until the next one
            elif self._jobs.empty():
                return

    def close(self) -> None:
        """Let idle threads end; what is posted later is still done."""
        self._rest = 0.01
        for _ in self._idle.copy():
            self._jobs.put(None)
