"""Quantiles of what a histogram recorded between two points, from buckets of either kind.

Within a bucket values count as spread evenly: linearly in one with explicit bounds, by their exponent in an exponential one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

QUANTILES: Final = (0.5, 0.9, 0.99)
_MAX_BUCKETS: Final = 2_000
_SCALES: Final = range(-10, 21)
"""Of the specification's buckets; others are nothing that can be told."""


class _Bucket(NamedTuple):
    low: float
    high: float
    held: int
    exponential: bool = False

    def at(self, share: float) -> float:
        """Return the value at a share of the way through it."""
        if self.exponential and self.low * self.high > 0:
            sign = 1 if self.low > 0 else -1
            return float(sign * abs(self.low) ** (1 - share) * abs(self.high) ** share)
        return self.low + (self.high - self.low) * share


def quantiles(point: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[float] | None:
    """Return `QUANTILES` of the values that came between two points of a cumulative histogram.

    Args:
        point: as `rows` keeps it.
        before: the point before; ``None``: the point counts for itself, as with delta temporality and after a restart.
    """
    buckets = _explicit(point, before) if "explicitBounds" in point else _exponential(point, before)
    total = sum(each.held for each in buckets)
    if before is not None and any(each.held < 0 for each in buckets):
        return quantiles(point, None)
    found = [_clamped(_value(buckets, share * total), point) for share in QUANTILES] if total else []
    return found if found and all(map(math.isfinite, found)) else None


def _value(buckets: list[_Bucket], rank: float) -> float:
    last = 0.0
    for each in buckets:
        if each.held and rank <= each.held:
            return each.at(rank / each.held)
        rank -= each.held
        last = each.high if each.held else last
    return last


def _clamped(value: float, point: Mapping[str, Any]) -> float:
    """Return a value within what was recorded, where the point says so: buckets are wider than that."""
    least, most = point.get("min"), point.get("max")
    if isinstance(least, (int, float)) and value < least:
        return float(least)
    return float(most) if isinstance(most, (int, float)) and value > most else value


def _counts(texts: Any) -> list[int]:
    return [int(each) for each in texts or ()]


def _explicit(point: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[_Bucket]:
    bounds, counts = [float(each) for each in point["explicitBounds"]], _counts(point.get("bucketCounts"))
    if len(counts) != len(bounds) + 1 or not bounds or len(counts) > _MAX_BUCKETS:
        return []
    if before is not None and before.get("explicitBounds") == point["explicitBounds"]:
        counts = [now - then for now, then in zip(counts, _counts(before.get("bucketCounts")), strict=False)]
    least, most = point.get("min"), point.get("max")
    # the outermost buckets have one bound: the other is the extreme where that is told
    lowest = float(least) if isinstance(least, (int, float)) and least < bounds[0] else min(0.0, bounds[0])
    highest = float(most) if isinstance(most, (int, float)) and most > bounds[-1] else bounds[-1]
    edges = [lowest, *bounds, highest]
    return [_Bucket(low, high, count) for low, high, count in zip(edges, edges[1:], counts, strict=False)]


def _exponential(point: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[_Bucket]:
    scale = point.get("scale", 0)
    if before is not None:
        scale = min(scale, before.get("scale", 0))
    if scale not in _SCALES or point.get("scale", 0) not in _SCALES:
        return []
    found: list[_Bucket] = []
    for side, sign in (("negative", -1), ("positive", 1)):
        counts = _by_index(point, side, scale)
        for index, count in _by_index(before, side, scale).items() if before is not None else ():
            counts[index] = counts.get(index, 0) - count
        if sign > 0:
            zeros = int(point.get("zeroCount", 0)) - (0 if before is None else int(before.get("zeroCount", 0)))
            found.append(_Bucket(0.0, 0.0, zeros))
        for index in sorted(counts, reverse=sign < 0):
            near, far = sign * _bound(index, scale), sign * _bound(index + 1, scale)
            found.append(_Bucket(min(near, far), max(near, far), counts[index], True))
    return found


def _by_index(point: Mapping[str, Any], side: str, scale: int) -> dict[int, int]:
    """Return counts by index of the buckets of a coarser scale."""
    part: Any = point.get(side, {})
    shift = point.get("scale", 0) - scale
    found: dict[int, int] = {}
    for number, count in enumerate(_counts(part.get("bucketCounts", ())[:_MAX_BUCKETS]), part.get("offset", 0)):
        if count:
            found[number >> shift] = found.get(number >> shift, 0) + count
    return found


def _bound(index: int, scale: int) -> float:
    exponent = index * 2.0**-scale
    return float(2.0 ** max(-1022.0, min(1023.0, exponent)))
