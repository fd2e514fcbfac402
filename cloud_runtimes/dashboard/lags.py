"""Lag of groups over time, as it was at each look of the last hour. It is in memory alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from time import monotonic
from typing import Final, TypeAlias

EVERY: Final = 15.0
"""Seconds between two looks."""
_KEPT: Final = 240
_GROUPS: Final = 1000
GroupName: TypeAlias = tuple[str, str, str]
"""Component, topic and group."""


class Lags:
    """See the module. Any thread may call it."""

    def __init__(self) -> None:
        self._samples: dict[GroupName, deque[tuple[float, int]]] = {}

    def note(self, lags: Iterable[tuple[GroupName, int | None]]) -> None:
        """Take what a look has found; a lag of ``None`` is not known."""
        now = monotonic()
        for name, lag in lags:
            samples = self._samples.get(name)
            if samples is None and len(self._samples) < _GROUPS:
                samples = self._samples.setdefault(name, deque(maxlen=_KEPT))
            if samples is not None and lag is not None and (not samples or now >= samples[-1][0] + EVERY / 2):
                samples.append((now, lag))

    def of(self, name: GroupName) -> list[tuple[float, int]]:
        """Return samples of a group: seconds ago, and its lag then."""
        now = monotonic()
        return [(round(now - at, 1), lag) for at, lag in list(self._samples.get(name, ()))]
