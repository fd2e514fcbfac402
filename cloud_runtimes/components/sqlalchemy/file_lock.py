"""The lock of who writes an SQLite file. First come, first served."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any, Final

from ..._core import fork
from ..._core.backoff import NONE, Backoff
from ..._core.os_files import real_path
from ..._core.os_locks import try_lock, unlock
from .calls import Call

_LOOK: Final = 0.05
"""Seconds between two looks whether a call that waits for another thread was stopped."""
_PAUSES: Final = Backoff(0.0005, 0.004, growth=1.5, jitter=NONE)


class FileLock:
    """A lock between the threads of this process and between processes.

    SQLite lets waiting writers poll, so that of two busy processes one gets nothing. Here they queue on two locked files beside the database: whoever holds *turn* is next, whoever holds *gate* writes. The system releases both when a process dies. Waiting polls, so that it can be given up.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: tuple[int, ...] = ()
        fork.register(self)
        self.forked()

    @contextmanager
    def held(self, call: Call[Any]) -> Iterator[None]:
        """Wait for the lock, and hold it."""
        call.waiting_for = "another writer of the file"
        with self._first(call):
            try:
                self._lock(call)
                call.waiting_for = "the database"
                yield
            finally:
                for file in self._files:
                    unlock(file)

    @contextmanager
    def _first(self, call: Call[Any]) -> Iterator[None]:
        """Wait until no thread of this process is before."""
        ticket = threading.Lock()
        ticket.acquire()
        with self._mutex:
            self._waiters.append(ticket)
            if self._waiters[0] is ticket:
                ticket.release()
        try:
            while not ticket.acquire(timeout=_LOOK):
                call.check()
            yield
        finally:
            with self._mutex:
                is_first = self._waiters[0] is ticket
                self._waiters.remove(ticket)
                if is_first and self._waiters:
                    self._waiters[0].release()

    def _lock(self, call: Call[Any]) -> None:
        for name in ("turn", "gate")[len(self._files) :]:
            self._files += (os.open(f"{self._path}-{name}", os.O_RDWR | os.O_CREAT, 0o600),)
        tries = 0
        for file in self._files:
            while not try_lock(file):
                call.check()
                tries += 1
                sleep(_PAUSES.after(tries))
        unlock(self._files[0])

    def forked(self) -> None:
        """In a forked child: close the files, which does not unlock them, since the parent has them open too."""
        self._mutex = threading.Lock()
        self._waiters: deque[threading.Lock] = deque()
        self._close()

    def _close(self) -> None:
        files, self._files = self._files, ()
        for file in files:
            os.close(file)

    __del__ = _close


_locks: weakref.WeakValueDictionary[str, FileLock] = weakref.WeakValueDictionary()


def file_lock(path: str) -> FileLock:
    """Return the process's lock of a file, one for all clients; the caller holds `_fork.importing`."""
    return _locks.setdefault(key := real_path(path), FileLock(key))
