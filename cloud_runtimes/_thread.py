"""Threads and waiting that a ``KeyboardInterrupt`` cannot leave half-done.

``Thread.start`` waits for the new thread, and an interrupt in that wait leaves the caller not knowing; ``Condition.wait`` may leave without its lock, which ``with`` then releases in vain.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Background", "Changes"]


class Background:
    """A daemon thread that runs its target once: `start` may be called again, and whichever thread comes first runs it."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        self._target = target
        self._name = name
        self._first = threading.Lock()
        self._ended = threading.Event()
        self._ident: int | None = None
        self.started = False

    def start(self) -> None:
        """Start it; again after an interrupted start."""
        if not self.started:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
            self.started = True

    def _run(self) -> None:
        if not self._first.acquire(blocking=False):
            return
        self.started = True
        self._ident = threading.get_ident()
        try:
            self._target()
        finally:
            self._ended.set()

    def is_current(self) -> bool:
        """Tell whether the caller runs in it."""
        return self._ident == threading.get_ident()

    def join(self, timeout: float | None) -> bool:
        """Wait for its end at most ``timeout`` seconds; tells whether it has ended, or never began."""
        if not self.started or self.is_current():
            return not self.started
        return self._ended.wait(timeout)


class Changes:
    """Where threads wait for a change that another announces; what changed is guarded elsewhere.

    Unlike `threading.Condition` it has no lock that an interrupted wait would have to take again, so a ``KeyboardInterrupt`` leaves it whole. Take a `ticket`, look whether the change has come, then `wait` with the ticket.
    """

    def __init__(self) -> None:
        self._tickets: deque[threading.Lock] = deque()

    def ticket(self) -> threading.Lock:
        """Return what the next `announce` releases."""
        ticket = threading.Lock()
        ticket.acquire()
        self._tickets.append(ticket)
        return ticket

    def wait(self, ticket: threading.Lock, timeout: float | None) -> bool:
        """Wait for the announcement at most ``timeout`` seconds; tells whether it came."""
        if ticket.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            return True
        try:
            self._tickets.remove(ticket)
        except ValueError:  # announced just now
            return True
        return False

    def announce(self) -> None:
        """Wake all who have a ticket."""
        for _ in range(len(self._tickets)):
            try:
                self._tickets.popleft().release()
            except IndexError:
                return
