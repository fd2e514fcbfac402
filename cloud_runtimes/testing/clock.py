"""A clock that tests set forward."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property

from .._core.clocks import Clocks
from ..components.sqlite import SqliteComponent
from ..components.sqlite.engine import engines


class Clock(Clocks):
    """The clock of the embedded store: the real time, and what a test adds to it.

    Time to live, leases, redelivery, delays and schedules go by it. Deadlines of calls, and what a holder believes of its own lease, go by the real time.

    Attributes:
        ahead_ms: milliseconds that a test has added.
    """

    def __init__(self) -> None:
        self.ahead_ms = 0

    def advance(self, seconds: float | timedelta) -> None:
        """Set it forward, and have whoever waits look at once.

        Args:
            seconds: how far; 0 or more.
        """
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        if seconds < 0:
            raise ValueError("a clock is set forward: give 0 seconds or more")
        self.ahead_ms += round(seconds * 1000)
        for engine in engines():
            if engine.clocks is self:
                engine.notifier.wake_all()

    def wall_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return super().wall_ms() + self.ahead_ms

    def boot_ms(self) -> int:
        """Milliseconds since boot."""
        return super().boot_ms() + self.ahead_ms

    @cached_property
    def component(self) -> type[SqliteComponent]:
        """The component ``sqlite`` with this clock."""
        return type("ClockedSqlite", (SqliteComponent,), {"clocks": self})
