"""One thread of an engine that polls for changes without a notification, so that its waiters need not.

Four times a second it asks whether another process has written or the database's files are gone. If so, it wakes all waiters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..._core.threads import Background, Changes

__all__ = ["Poller"]

EVERY: Final = 0.25


class Poller:
    """See the module.

    Args:
        changed: tells whether there may be a change that nobody was notified of.
        wake: wakes all waiters if its argument is true; returns whether there are any.
    """

    def __init__(self, changed: Callable[[], bool], wake: Callable[[bool], bool]) -> None:
        self._changed = changed
        self._wake = wake
        self._changes = Changes()
        self._closed = self._idle = False
        self._thread = Background(self._run, "cloud-runtimes-poller")

    def start(self) -> None:
        """Poll from now on, as long as anybody waits."""
        if not self._thread.started:
            self._thread.start()
        elif self._idle:
            self._changes.announce()

    def close(self) -> None:
        """End the thread, without waiting for it."""
        self._closed = True
        self._changes.announce()

    def _run(self) -> None:
        while not self._closed:
            ticket = self._changes.ticket()
            self._idle = True  # a waiter that comes from here on announces itself
            self._idle = not self._wake(self._changed())
            if not self._closed:
                self._changes.wait(ticket, None if self._idle else EVERY)
