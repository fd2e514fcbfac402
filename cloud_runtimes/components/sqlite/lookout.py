"""One thread of an engine that looks for what nobody is notified of, so that its waiters need not look themselves, each at the same tables.

Four times a second it asks whether another process has written, whether the database's files are gone, and whether a clock has jumped (a step of the wall clock, or a suspended machine). Then all waiters look.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

from ..._core.clocks import Clocks
from ..._core.threads import Background, Changes

__all__ = ["Lookout"]

EVERY: Final = 0.25
_JUMP: Final = 0.1
"""Seconds by which a clock must have gone wrong."""


class Lookout:
    """See the module.

    Args:
        clocks: of the engine.
        news: tells whether there may be a change that nobody was notified of.
        wake: wakes all waiters; returns whether there are any.
    """

    def __init__(self, clocks: Clocks, news: Callable[[], bool], wake: Callable[[bool], bool]) -> None:
        self._clocks = clocks
        self._news = news
        self._wake = wake
        self._changes = Changes()
        self._closed = self._rests = False
        self._offsets = self._read()
        self._thread = Background(self._run, "cloud-runtimes-lookout")

    def start(self) -> None:
        """Look from now on, as long as anybody waits."""
        if not self._thread.started:
            self._thread.start()
        elif self._rests:
            self._changes.announce()

    def close(self) -> None:
        """End the thread, without waiting for it."""
        self._closed = True
        self._changes.announce()

    def _run(self) -> None:
        while not self._closed:
            ticket = self._changes.ticket()
            self._rests = True  # whoever comes from here on announces it
            self._rests = not self._wake(self._look())
            if not self._closed:
                self._changes.wait(ticket, None if self._rests else EVERY)

    def _look(self) -> bool:
        offsets, before = self._read(), self._offsets
        self._offsets = offsets
        jumped = any(abs(now - then) > _JUMP for now, then in zip(offsets, before, strict=True))
        return self._news() or jumped

    def _read(self) -> tuple[float, float]:
        """Return by how much the clocks that others see differ from the one that waits are measured by."""
        now = monotonic()
        return self._clocks.wall_ms() / 1000 - now, self._clocks.boot_ms() / 1000 - now
