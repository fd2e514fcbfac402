"""A source whose events another thread brings: an `EventSource` without polling."""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from itertools import count
from time import monotonic
from typing import Any, Final

from .._core.threads import Changes
from .pubsub import Delivery, EventSource, Settled, Settlement

__all__ = ["PushSource"]

_FIRST_DELAY: Final = 1.0
"""Seconds until another try where nobody says when: what is retried at once would go round and round."""


class PushSource(EventSource):
    """Keeps what `push` brings until the service has room for it.

    A subclass says how a delivery is settled at the broker. A retry with a delay is held back here, for brokers that only know "again, at once".
    """

    def __init__(self) -> None:
        self._changes = Changes()
        self._events: deque[Delivery] = deque()
        self._woken = False
        self._wanted = 0
        # retries that are held back: (when, number, token)
        self._later: list[tuple[float, int, Any]] = []
        self._numbers = count()

    @property
    def waiting(self) -> int:
        """How many events wait here."""
        return len(self._events)

    def push(self, delivery: Delivery) -> None:
        """Bring an event. Thread-safe."""
        self._events.append(delivery)
        if self._wanted:
            self._changes.announce()

    @abstractmethod
    def _settle(self, token: Any, settled: Settled) -> None:
        """Settle a delivery at the broker, at once."""

    def _look(self) -> float | None:
        """Raise what has ended the connection, or connect anew; return the seconds until the next look, ``None``: when something changes."""
        return None

    def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Sequence[Delivery]:
        for each in settled:
            self._take(each)
        self._wanted = want
        end = None if timeout is None else monotonic() + timeout
        try:
            while True:
                ticket = self._changes.ticket()
                self._retry(monotonic())
                again = self._look()
                deliveries = [self._events.popleft() for _ in range(min(want, len(self._events)))]
                now = monotonic()
                if self._woken:
                    self._woken = False
                    return deliveries
                if deliveries or (end is not None and now >= end):
                    return deliveries
                limits = [end - now] if end is not None else []
                if again is not None:
                    limits.append(again)
                if self._later:
                    limits.append(self._later[0][0] - now)
                self._changes.wait(ticket, max(0.0, min(limits)) if limits else None)
        finally:
            self._wanted = 0

    def wake(self) -> None:
        self._woken = True
        self._changes.announce()

    def _take(self, settled: Settled) -> None:
        if settled.settlement is Settlement.RETRY and settled.delay != 0:
            delay = _FIRST_DELAY if settled.delay is None else settled.delay
            heapq.heappush(self._later, (monotonic() + delay, next(self._numbers), settled.token))
        else:
            self._settle(settled.token, settled)

    def _retry(self, now: float) -> None:
        """Settle the retries that were held back until now."""
        while self._later and self._later[0][0] <= now:
            token = heapq.heappop(self._later)[2]
            self._settle(token, Settled(token, Settlement.RETRY))

    def _forget(self) -> None:
        """Drop what is here, since the connection that brought it has ended: it comes again."""
        self._events.clear()
        self._later.clear()
