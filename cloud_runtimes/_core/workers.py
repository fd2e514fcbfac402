"""A pool of daemon threads: a call that hangs holds up neither the process's end nor its client's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias

from . import fork
from .threads import Background, Mutex

__all__ = ["Workers"]

_Item: TypeAlias = tuple[Future[Any], Callable[[], Any]]


class Workers:
    """A pool that grows to ``most`` threads as calls need them; further calls wait for one."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        fork.register(self)
        self.forked()

    def forked(self) -> None:
        """In a forked child: no thread is there."""
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._threads: list[Background] = []
        self._idle = threading.Semaphore(0)
        self._lock = Mutex()

    def submit(self, body: Callable[[], Any]) -> Future[Any]:
        """Have a thread run ``body``; a future that nobody has begun can be cancelled."""
        future: Future[Any] = Future()
        with self._lock:
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
                run = partial(self._run, self._queue, self._idle)
                thread = Background(run, self._name)
                self._threads.append(thread)
                thread.start()
            self._queue.put((future, body))
        return future

    @staticmethod
    def _run(queue: SimpleQueue[_Item | None], idle: threading.Semaphore) -> None:
        while (item := queue.get()) is not None:
            future, body = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(body())
                except BaseException as error:  # SystemExit too: it ends a program, not its server
                    future.set_exception(error)
            del item, future, body
            idle.release()

    def close(self) -> None:
        """Let the threads end: what waits is still run, and a later call gets new ones."""
        with self._lock:
            queue, threads = self._queue, self._threads
            self._queue, self._threads, self._idle = SimpleQueue(), [], threading.Semaphore(0)
        for _ in threads:
            queue.put(None)
