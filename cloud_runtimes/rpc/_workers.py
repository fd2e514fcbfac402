"""Threads for plain handlers. They are daemons: a handler that hangs holds up neither the process's end nor its client's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Final

from .. import _fork
from .._thread import Background

__all__ = ["WORKERS", "Workers"]

WORKERS: Final = 64
"""Plain handlers of one client that run at once; further calls wait, within their deadlines."""


class Workers:
    """A pool that grows to `WORKERS` threads as calls need them."""

    def __init__(self) -> None:
        _fork.register(self)
        self.forked()

    def forked(self) -> None:
        """In a forked child: no thread is there."""
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads: list[Background] = []
        self._idle = threading.Semaphore(0)
        self._lock = threading.RLock()

    def submit(self, body: Callable[[], Any]) -> Future[Any]:
        """Have a thread run ``body``; a future that nobody has begun can be cancelled."""
        future: Future[Any] = Future()
        if not self._idle.acquire(blocking=False):
            with self._lock:
                if len(self._threads) < WORKERS:
                    thread = Background(self._run, "cloud-runtimes-rpc-worker")
                    self._threads.append(thread)
                    thread.start()
        self._queue.put((future, body))
        return future

    def _run(self) -> None:
        queue, idle = self._queue, self._idle
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
        """Let idle threads end; busy ones end with their handlers."""
        with self._lock:
            for _ in self._threads:
                self._queue.put(None)
