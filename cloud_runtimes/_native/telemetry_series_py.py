"""Series of the telemetry kernel's metrics, in Python: what one instrument knows of one set of attributes."""

from __future__ import annotations

import math
from typing import Final

from .telemetry_points import Point

__all__ = ["Series", "grow"]

MAX_SCALE: Final = 20
MAX_BUCKETS: Final = 160


class Series:
    """State of one series; `count` is 0 where there is nothing to tell."""

    __slots__ = (
        "attributes",
        "bound",
        "buckets",
        "count",
        "exemplars",
        "maximum",
        "minimum",
        "negative",
        "scale",
        "seen",
        "total",
        "zeros",
    )

    def __init__(self, attributes: bytes, size: int) -> None:
        self.attributes = attributes
        self.bound = False
        self.clear(size)

    def clear(self, size: int) -> None:
        self.count = self.zeros = self.seen = 0
        self.total: int | float = 0
        self.minimum = self.maximum = 0.0
        self.scale = MAX_SCALE
        self.buckets: dict[int, int] = dict.fromkeys(range(size), 0)
        self.negative: dict[int, int] = {}
        self.exemplars: dict[int, tuple[int, int | float, bytes]] = {}

    def point(self) -> Point:
        """Return what is told of it; exemplars are told once."""
        exemplars, self.exemplars, self.seen = self.exemplars, {}, 0
        return Point(
            self.attributes,
            self.count,
            self.total,
            self.minimum,
            self.maximum,
            self.scale,
            self.zeros,
            _range(self.buckets),
            _range(self.negative),
            [each for _, each in sorted(exemplars.items())],
        )


def _range(buckets: dict[int, int]) -> tuple[int, list[int]]:
    if not buckets:
        return 0, []
    low = min(buckets)
    return low, [buckets.get(n, 0) for n in range(low, max(buckets) + 1)]


def _index(value: float, scale: int) -> int:
    """The bucket of a positive value: those of index i hold (base**i, base**(i+1)], base = 2**(2**-scale) (Metrics data model, "Exponential Buckets")."""
    fraction, exponent = math.frexp(value)
    exact = fraction == 0.5
    if scale <= 0:
        return (exponent - 2 if exact else exponent - 1) >> -scale
    if exact:
        return ((exponent - 1) << scale) - 1
    return math.ceil(math.log(value) * math.ldexp(1.4426950408889634, scale)) - 1


def grow(series: Series, buckets: dict[int, int], value: float) -> None:
    """Count a value; where the buckets become too many, halve the scale until they do not."""
    index = _index(value, series.scale)
    low, high = (min(index, min(buckets)), max(index, max(buckets))) if buckets else (index, index)
    change = 0
    while (high >> change) - (low >> change) >= MAX_BUCKETS:
        change += 1
    if change:
        series.scale -= change
        for each in (series.buckets, series.negative):
            old = dict(each)
            each.clear()
            for number, count in old.items():
                each[number >> change] = each.get(number >> change, 0) + count
        index >>= change
    buckets[index] = buckets.get(index, 0) + 1
