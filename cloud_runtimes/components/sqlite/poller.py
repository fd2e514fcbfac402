"""One thread of an engine that polls for changes without a notification, so that its waiters need not.

Four times a second it asks whether another process has written, whether the database's files are gone, and whether a clock has jumped: a step of the wall clock, or a suspended machine. If so, it wakes all waiters.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

from ..._core.clocks import Clocks
from ..._core.threads import Background, Changes

__all__ = ["Poller"]

EVERY: Final = 0.25
_JUMP: Final = 0.1
"""Seconds by which a clock must have gone wrong."""


class Poller:
    """See the module.

    Args:
        clocks: of the engine.
        changed: tells whether there may be a change that nobody was notified of.
        wake: wakes all waiters if its argument is true; returns whether there are any.
    """

    def __init__(self, clocks: Clocks, changed: Callable[[], bool], wake: Callable[[bool], bool]) -> None:
        self._clocks = clocks
        self._changed = changed
        self._wake = wake
        self._changes = Changes()
        self._closed = self._idle = False
        self._offsets = self._read()
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
            self._idle = not self._wake(self._poll())
            if not self._closed:
                self._changes.wait(ticket, None if self._idle else EVERY)

    def _poll(self) -> bool:
        offsets, before = self._read(), self._offsets
        self._offsets = offsets
        jumped = any(abs(now - then) > _JUMP for now, then in zip(offsets, before, strict=True))
        return self._changed() or jumped

    def _read(self) -> tuple[float, float]:
        """Return how far the clocks that others see are from the monotonic one."""
        now = monotonic()
        return self._clocks.wall_ms() / 1000 - now, self._clocks.boot_ms() / 1000 - now
