"""Waiting without notifications, until `.notifier` is there: a waiter looks five times a second."""

from __future__ import annotations

from ..._core.threads import Changes

__all__ = ["Waiter", "channel", "subscribe"]

_LOOK = 0.2


def channel(prefix: str, name: str) -> str:
    """Return the name by which a script publishes to a channel."""
    return f"{prefix}:{name}"


def subscribe(name: str) -> Waiter:
    """Return a waiter of a channel."""
    return Waiter()


class Waiter:
    """A subscriber of a channel. One thread waits; any may `wake` it."""

    def __init__(self) -> None:
        self._changes = Changes()
        self._woken = False

    def wake(self) -> None:
        """Wake it. A call before the wait counts."""
        self._woken = True
        self._changes.announce()

    def wait(self, timeout: float) -> None:
        """Return when woken, or after ``timeout`` seconds, a fifth at most."""
        ticket = self._changes.ticket()
        if not self._woken:
            self._changes.wait(ticket, min(timeout, _LOOK))
        self._woken = False

    def close(self) -> None:
        """Unsubscribe."""
