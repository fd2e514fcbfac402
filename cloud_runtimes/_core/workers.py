"""A pool of daemon threads: a call that hangs holds up neither the process's end nor its client's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias

from . import fork
from .threads import Background, Mutex

_Item: TypeAlias = tuple[Future[Any], Callable[[], Any]]


class Workers:
    """A pool that grows to ``limit`` threads as calls need them; further calls wait for one."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        fork.register(self)
        self.forked()

    def forked(self) -> None:
        """In a forked child: no thread is there."""
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._threads: list[Background] = []
        # one entry for each; a semaphore of Python's could stay locked behind a KeyboardInterrupt
        self._idle: list[None] = []
        self._lock = Mutex()

    def submit(self, body: Callable[[], Any]) -> Future[Any]:
        """Have a thread run ``body``; a future that nobody has begun can be cancelled."""
        future: Future[Any] = Future()
        with self._lock:
            if self._idle:
                self._idle.pop()
            elif len(self._threads) < self._limit:
                thread = Background(partial(self._run, self._queue, self._idle), self._name)
                thread.start()
                self._threads.append(thread)
            self._queue.put((future, body))
        return future

    @staticmethod
    def _run(queue: SimpleQueue[_Item | None], idle: list[None]) -> None:
        while (item := queue.get()) is not None:
            future, body = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(body())
                except BaseException as error:  # SystemExit too: it ends a program, not its server
                    future.set_exception(error)
            del item, future, body
            idle.append(None)

    def close(self) -> None:
        """Let the threads end: what waits is still run, and a later call gets new ones."""
        with self._lock:
            queue, threads = self._queue, self._threads
            self._queue, self._threads, self._idle = SimpleQueue(), [], []
        for _ in threads:
            queue.put(None)
