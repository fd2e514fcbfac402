"""Who may go on: a semaphore for threads and tasks, and the lock of who writes an SQLite file. First come, first served."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from time import sleep
from typing import Any, Final, TypeAlias

from ..._core import fork
from ..._core.threads import Mutex
from ...spi.flow import run_sync
from .calls import Call

__all__ = ["FairSemaphore", "FileLock", "Wait", "file_lock", "wait_in_task", "wait_in_thread"]

_POLL: Final = 0.0005
_MAX_POLL: Final = 0.004

Wait: TypeAlias = Callable[[Future[Any], float | None], Coroutine[Any, Any, None]]
"""Waits for a future, at most so many seconds."""


async def wait_in_thread(future: Future[Any], seconds: float | None) -> None:
    """Block the thread."""
    with suppress(TimeoutError, CancelledError):
        future.exception(seconds)


async def wait_in_task(future: Future[Any], seconds: float | None) -> None:
    """Let the running loop go on."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def wake(future: Future[Any]) -> None:
        with suppress(RuntimeError):  # that loop is closed
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(wake)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await done.wait()


class FairSemaphore:
    """So many permits; who finds none waits for the next in order, at most to the deadline of the call.

    Args:
        permits: how many.
        what: a caller whose time is up has waited for.
    """

    def __init__(self, permits: int, what: str) -> None:
        self._permits = self._free = permits
        self._what = what
        self._waiters: deque[Future[None]] = deque()
        self._lock = Mutex()

    @property
    def is_unused(self) -> bool:
        """Whether nobody has a permit."""
        return self._free == self._permits

    async def acquire(self, wait: Wait, call: Call) -> None:
        """Wait for a permit."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            waiter: Future[None] = Future()
            self._waiters.append(waiter)
        call.on_stop = waiter.cancel
        try:
            call.check()
            await wait(waiter, call.op.remaining())
        except BaseException:
            if not waiter.cancel():  # a permit came all the same
                self.release()
            raise
        if not waiter.cancel():  # a permit came
            return
        call.on_stop = None
        if call.is_stopped:
            call.check()
        raise call.op.timed_out(self._what)

    def release(self) -> None:
        """Give a permit to the next."""
        with self._lock:
            while self._waiters:
                waiter = self._waiters.popleft()
                if waiter.set_running_or_notify_cancel():
                    waiter.set_result(None)
                    return
            self._free += 1


class FileLock:
    """The lock of who writes a file, between the threads of this process and between processes.

    SQLite lets waiting writers poll, so that of two busy processes one gets nothing. Here they queue on two ``flock`` files beside the database: whoever holds *turn* is next, whoever holds *gate* writes. The kernel releases both when a process dies. Waiting polls, so that it can be given up.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._threads = FairSemaphore(1, "another writer of the file")
        self._files: tuple[int, ...] = ()
        fork.register(self)

    def acquire(self, call: Call) -> None:
        """Wait for it, at most to the deadline of the call."""
        run_sync(self._threads.acquire(wait_in_thread, call))
        try:
            for name in ("turn", "gate")[len(self._files) :]:
                self._files += (os.open(f"{self._path}-{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600),)
            pause = _POLL
            for file in self._files:
                while not _try(file):
                    if call.op.remaining() == 0.0:
                        raise call.op.timed_out("a writer in another process")
                    call.check()
                    sleep(pause)
                    pause = min(pause * 1.5, _MAX_POLL)
            flock(self._files[0], LOCK_UN)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let the next writer go on."""
        for file in self._files:
            flock(file, LOCK_UN)
        self._threads.release()

    def forked(self) -> None:
        """In a forked child: close the files, which does not unlock them, since the parent has them open too."""
        self._threads = FairSemaphore(1, "another writer of the file")
        self._close()

    def _close(self) -> None:
        files, self._files = self._files, ()
        for file in files:
            os.close(file)

    __del__ = _close


def _try(file: int) -> bool:
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


_locks: weakref.WeakValueDictionary[str, FileLock] = weakref.WeakValueDictionary()


def file_lock(path: str) -> FileLock:
    """Return the process's lock of a file, one for all clients; the caller holds `_fork.importing`."""
    return _locks.setdefault(key := os.path.realpath(path), FileLock(key))
