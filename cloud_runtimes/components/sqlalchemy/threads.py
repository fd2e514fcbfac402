"""Threads that run blocking code for the async API and for the main thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from ..._core.logs import repeated

__all__ = ["Threads"]

R = TypeVar("R")

_IDLE: Final = 30.0
"""Seconds that a thread waits for something to do."""


class Threads:
    """As many threads as there is work at once; the permits of the connections bound it.

    The main thread meets only queues and locks of C here. A ``KeyboardInterrupt`` in the conditions and semaphores of `concurrent.futures` may leave them locked.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle: set[int] = set()
        self._rest = _IDLE

    def run(self, work: Callable[[], R]) -> R:
        """Run something, and wait for it; an interrupt ends only the waiting."""
        outcome: list[Any] = []
        done = threading.Lock()
        done.acquire()

        def job() -> None:
            try:
                outcome.extend((work(), None))
            except BaseException as error:
                outcome.extend((None, error))
            done.release()

        self._begin(job)
        done.acquire()
        result, error = outcome
        outcome.clear()
        if error is None:
            found: R = result
            return found
        try:
            raise error
        finally:
            del error  # or it and this frame would keep each other

    def submit(self, work: Callable[[], R]) -> Future[R]:
        """Run something."""
        future: Future[R] = Future()

        def job() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self._begin(job)
        return future

    def post(self, work: Callable[[], Any]) -> None:
        """Run something that nobody waits for; its error is logged."""

        def job() -> None:
            try:
                work()
            except Exception as error:  # by its class alone, since its text may be a driver's
                what = "what a call of a database left behind could not be ended"
                repeated(f"sqlalchemy {type(error).__name__}", "%s: %s", what, type(error).__name__)

        self._begin(job)

    def _begin(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)
        self._start_missing()

    def _start_missing(self) -> None:
        if self._jobs.qsize() > len(self._idle):
            try:
                threading.Thread(target=self._serve, name=self._name, daemon=True).start()
            except RuntimeError as error:
                # from leaving the Condition in which it waited, in vain
                if isinstance(error.__context__, KeyboardInterrupt):
                    raise error.__context__ from None
                raise

    def _serve(self) -> None:
        me = threading.get_ident()
        while True:
            self._idle.add(me)
            try:
                job = self._jobs.get(timeout=self._rest)
            except Empty:
                job = None
            self._idle.discard(me)
            # who counted this thread as idle while it took its job has started none
            self._start_missing()
            if job is not None:
                job()
                del job  # what it holds must not live until the next one
            elif self._jobs.empty():
                return

    def close(self) -> None:
        """Let idle threads end; what comes later is still done."""
        self._rest = 0.01
        for _ in self._idle.copy():
            self._jobs.put(None)
