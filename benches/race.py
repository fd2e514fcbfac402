"""Times calls beside each other: short slices in turn, so that what else runs on the machine meets all of them.

A ratio is the median of the ratios of the same round. Slices are timed by the processor time of the process; one in which the process lost its core is run again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any

__all__ = ["Call", "calibrate", "race", "ratio", "run"]

Call = Callable[[], Any]
SLICE = 0.002
"""Seconds of one slice."""


def run(call: Call, count: int) -> None:
    """Call it so often; the loop costs about ten nanoseconds a call, for everybody."""
    for _ in repeat(None, count):
        call()


def timed(call: Call, count: int, attempts: int = 5) -> float:
    """Return processor seconds of one call."""
    best = float("inf")
    for _ in range(attempts):
        wall, used = time.perf_counter(), time.process_time()
        run(call, count)
        used = time.process_time() - used
        wall = time.perf_counter() - wall
        best = min(best, used)
        if wall <= 1.1 * used + 2e-5:
            return used / count
    return best / count


def calibrate(call: Call, seconds: float = SLICE) -> int:
    """Return how many calls fill a slice."""
    run(call, 10)  # what is loaded or made by the first call is no part of it
    count = 1
    while True:
        begin = time.perf_counter()
        run(call, count)
        taken = time.perf_counter() - begin
        if taken >= seconds / 4:
            return max(1, round(count * seconds / taken))
        count *= 4


def race(calls: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    """Return for each name the seconds of a call, one of each round."""
    counts = {name: calibrate(call) for name, call in calls.items()}
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            times[name].append(timed(calls[name], counts[name]))
    return times


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return how many times as fast as theirs ours is: the median over the rounds."""
    return statistics.median(their / our for our, their in zip(ours, theirs, strict=True))
