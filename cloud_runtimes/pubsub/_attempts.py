"""What one attempt of a publisher holds, and how long it may take. Both follow what the broker takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final, TypeAlias

from .._native import batch as kernel
from .._native import events
from ..errors import CloudRuntimesError
from .types import DeliveryReport, FailedEvent

__all__ = ["ATTEMPT", "Batch", "Chosen", "Window", "choose", "mark", "passing"]

ATTEMPT: Final = 2.0
"""Seconds of an attempt at a broker that keeps up. A longer stall is another attempt with the same ids."""
_SLOW: Final = 4 * ATTEMPT
"""Seconds that an attempt at several events may have before one has come through."""


class Window:
    """What the next attempt may be.

    When time runs out, it shrinks to half of the bytes and gets twice the time. It grows by doubling while attempts take less than four seconds. So a steady broker soon times out no more.

    Attributes:
        size: bytes that an attempt may hold. One event is always allowed.
        seconds: that it may take.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = most
        self.seconds = ATTEMPT

    def took(self, size: int, seconds: float) -> None:
        """Note that the broker took ``size`` bytes in so many seconds."""
        if seconds <= _SLOW / 2:
            self.size = max(self.size, min(2 * size, self._most))
        self.seconds = max(ATTEMPT, 3 * seconds)

    def ran_out(self, size: int, taken: int, *, alone: bool) -> None:
        """Note that time ran out for ``size`` bytes, of which the broker took ``taken``; ``alone``: they were one event."""
        self.refused(size, taken)
        longer = 2 * self.seconds
        self.seconds = longer if alone else min(longer, max(self.seconds, _SLOW))

    def refused(self, size: int, taken: int) -> None:
        """Note that ``size`` bytes were too many, of which the broker took ``taken``."""
        self.size = taken or size // 2


class Batch:
    """A chunk on its way: which of its events are still to be sent, and which were given up.

    Attributes:
        chunk: as it was taken from the buffer.
        left: places of the events that are neither delivered nor given up, in order.
        failed: place → error of those that were given up.
    """

    def __init__(self, chunk: kernel.Chunk) -> None:
        self.chunk = chunk
        self.left: Sequence[int] = range(chunk.count)
        self.failed: dict[int, CloudRuntimesError] = {}

    @property
    def last(self) -> int:
        """The sequence number of its last event."""
        return self.chunk.first + self.chunk.count - 1

    @cached_property
    def records(self) -> events.Frame:
        """Its events."""
        return events.Frame(self.chunk.body)

    def fitting(self, room: int) -> tuple[Sequence[int], int]:
        """Return as many places of ``left`` as ``room`` bytes hold, and their size."""
        if len(self.left) == self.chunk.count and len(self.chunk.body) <= room:
            return self.left, len(self.chunk.body)
        size = 0
        for number, place in enumerate(self.left):
            needs = len(self.records.record_bytes(place))
            if size + needs > room:
                return self.left[:number], size
            size += needs
        return self.left, size

    def frame(self, places: Sequence[int]) -> bytes:
        """Return a frame of these events, under their ids."""
        return self.chunk.body if len(places) == self.chunk.count else self.records.select(places)

    def give_up(self, places: Sequence[int], error: CloudRuntimesError) -> None:
        """Fail the events at these first places of ``left``."""
        self.failed.update(dict.fromkeys(places, error))
        self.left = self.left[len(places) :]

    def report(self) -> DeliveryReport:
        """Return what became of it."""
        failed = []
        for place, error in sorted(self.failed.items()):
            record = self.records[place]
            failed.append(FailedEvent(self.chunk.first + place, record.id, record.to_json(), error))
        return DeliveryReport(self.chunk.first, self.last, failed)


Chosen: TypeAlias = list[tuple[Batch, Sequence[int]]]
"""What an attempt holds: batches with the places of their events."""


def choose(batches: Sequence[Batch], room: int) -> Chosen:
    """Return the first events that are left, as many as ``room`` bytes hold; one at least."""
    chosen: Chosen = []
    for batch in batches:
        places, size = batch.fitting(room)
        if not chosen and not places:
            places = batch.left[:1]
        if places:
            chosen.append((batch, places))
        if len(places) < len(batch.left):
            break
        room -= size
    return chosen


def mark(chosen: Chosen, found: Mapping[tuple[int, int], CloudRuntimesError]) -> CloudRuntimesError | None:
    """Take in what became of an attempt.

    An event that arrived while an earlier one of its key failed is sent again behind that one. So the last event of a key stays the last.

    Args:
        chosen: what the attempt held.
        found: (batch, event) → error, by their numbers in ``chosen``.

    Returns:
        Why something is to be tried again, ``None``: nothing is.
    """
    why: CloudRuntimesError | None = None
    keys: set[str] = set()
    for number, (batch, places) in enumerate(chosen):
        again: list[int] = []
        if found:
            for event, place in enumerate(places):
                error = found.get((number, event))
                if error is None:
                    if keys and batch.records[place].key in keys:
                        again.append(place)
                elif passing(error):
                    why = why or error
                    again.append(place)
                    if (key := batch.records[place].key) is not None:
                        keys.add(key)
                else:
                    batch.failed[place] = error
        rest = batch.left[len(places) :]
        batch.left = [*again, *rest] if again else rest
    return why


def passing(error: CloudRuntimesError) -> bool:
    """Tell whether an attempt that failed with this may go well another time."""
    return error.retryable or error.code in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
