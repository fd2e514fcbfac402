"""Metrics of the telemetry kernel, in Python: instruments that aggregate what is recorded, and write it as OTLP when they are collected.

Sets of attributes, of which each has its `Series`, are compared by their encoding, sorted by key. At most `SERIES` of them are kept, the last for all further sets (Metrics SDK, "Cardinality limits").
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from threading import RLock
from typing import Any, Final

from .telemetry_buffer_py import Buffer, wall
from .telemetry_context_py import SpanContext, current
from .telemetry_points import (
    EXPLICIT,
    EXPONENTIAL,
    GAUGE,
    INVALID,
    OVERFLOW,
    SERIES,
    SUM,
    UP_DOWN,
    Point,
    added,
    attributes_key,
    measured,
    metric,
    metric_head,
)
from .telemetry_spans_py import Span

__all__ = ["BoundCounter", "BoundGauge", "BoundHistogram", "Counter", "Gauge", "Histogram", "UpDownCounter"]

_EXPONENTIAL_EXEMPLARS: Final = 20
_MAX_SCALE: Final = 20
_MAX_BUCKETS: Final = 160


class Series:
    """State of one series; `count` is 0 where there is nothing to tell."""

    def __init__(self, attributes: bytes, size: int) -> None:
        self.attributes = attributes
        self.bound = False
        self.clear(size)

    def clear(self, size: int) -> None:
        self.count = self.zeros = self.seen = 0
        self.total: int | float = 0
        self.minimum = self.maximum = 0.0
        self.scale = _MAX_SCALE
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


def _grow(series: Series, buckets: dict[int, int], value: float) -> None:
    """Count a value; where the buckets become too many, halve the scale until they do not."""
    index = _index(value, series.scale)
    low, high = (min(index, min(buckets)), max(index, max(buckets))) if buckets else (index, index)
    change = 0
    while (high >> change) - (low >> change) >= _MAX_BUCKETS:
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


class _Instrument:
    """Base of all instruments.

    With `delta` a collection reports what came since the one before. `exemplars` are 0: none, 1: of sampled spans,
    2: always (Metrics SDK, "ExemplarFilter")."""

    _kind = SUM

    def __init__(
        self,
        buffer: Buffer,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        delta: bool = False,
        exemplars: int = 1,
        bounds: Sequence[float] | None = None,
    ) -> None:
        if bounds is not None:
            self._kind = EXPLICIT
        self._buffer = buffer
        self._head = metric_head(name, unit, description)
        self._delta = delta
        self._filter = exemplars
        self._bounds = tuple(float(bound) for bound in bounds or ())
        self._size = len(self._bounds) + 1 if self._kind == EXPLICIT else 0
        self._lock = RLock()
        self._known: dict[bytes, Series] = {}
        self._begun = wall()

    def reset(self) -> None:
        """Begin anew, in a forked child; what is bound stays so."""
        self._lock = RLock()
        for series in self._known.values():
            series.clear(self._size)
        self._known = {key: series for key, series in self._known.items() if series.bound}
        self._begun = wall()

    def _find(self, attributes: Any) -> Series:
        key = attributes_key(self._kind, attributes)
        with self._lock:
            series = self._known.get(key)
            if series is None:
                if len(self._known) >= SERIES - 1:
                    key = attributes_key(self._kind, OVERFLOW)
                    series = self._known.get(key)
                if series is None:
                    series = self._known[key] = Series(key, self._size)
        return series

    def _measure(self, value: Any, series: Series | None, attributes: Any) -> None:
        number = measured(value)
        if (self._kind == SUM and number < 0) or not math.isfinite(number):
            self._buffer.drop(1, INVALID)
            return
        if series is None:
            series = self._find(attributes)
        ids = b""
        if self._filter:
            span = current.get()
            if (isinstance(span, Span) and span._flags & 1) or (isinstance(span, SpanContext) and span.trace_flags & 1):
                ids = span._trace + span._span
        now = wall() if ids or self._filter == 2 else 0
        with self._lock:
            if not series.bound:  # a collection may have forgotten it meanwhile
                series = self._known.setdefault(series.attributes, series)
            slot = self._add(series, number)
            if now:
                series.exemplars[slot] = (now, number, ids)

    def _add(self, series: Series, number: int | float) -> int:
        series.count += 1
        if self._kind == GAUGE:
            series.total = number
            return 0
        if self._kind <= UP_DOWN:
            series.total = added(series.total, number)
            return 0
        real = float(number)
        series.total = float(series.total) + real
        series.minimum = real if series.count == 1 else min(series.minimum, real)
        series.maximum = real if series.count == 1 else max(series.maximum, real)
        if self._kind == EXPLICIT:
            slot = bisect_left(self._bounds, real)
            series.buckets[slot] += 1
            return slot
        if real == 0.0:
            series.zeros += 1
        else:
            _grow(series, series.buckets if real > 0 else series.negative, abs(real))
        series.seen += 1
        return (series.seen - 1) % _EXPONENTIAL_EXEMPLARS

    # -- collecting --

    def collect(self, now: int) -> tuple[bytes, int]:
        """Return the ``Metric`` of OTLP and how many points it has; what was told by delta is forgotten."""
        begun = self._begun
        with self._lock:
            points = [series.point() for series in self._known.values() if series.count]
            if self._delta:
                # the limit of series is one of each interval; what is bound stays
                for series in self._known.values():
                    series.clear(self._size)
                self._known = {key: each for key, each in self._known.items() if each.bound}
                self._begun = now
        return metric(self._head, self._kind, self._delta, self._bounds, begun, now, points)


class _Bound:
    def __init__(self, instrument: _Instrument, attributes: Mapping[str, Any] | None) -> None:
        self._instrument = instrument
        self._series = instrument._find(attributes)
        self._series.bound = True


class BoundCounter(_Bound):
    """A sum with its attributes given once; made by `Counter.bind` and `UpDownCounter.bind`."""

    def add(self, value: float = 1) -> None:
        """Add to the sum; see `Counter.add`."""
        self._instrument._measure(value, self._series, None)


class BoundGauge(_Bound):
    """A gauge with its attributes given once; made by `Gauge.bind`."""

    def set(self, value: float) -> None:
        """Set the value."""
        self._instrument._measure(value, self._series, None)


class BoundHistogram(_Bound):
    """A histogram with its attributes given once; made by `Histogram.bind`."""

    def record(self, value: float) -> None:
        """Record a value."""
        self._instrument._measure(value, self._series, None)


class _Sum(_Instrument):
    def add(self, value: float = 1, attributes: Mapping[str, Any] | None = None) -> None:
        """Add to the sum of these attributes. An infinite value or NaN, and a negative one of a counter, is dropped and counted as ``invalid``.

        Raises:
            InvalidArgumentError: no number, or attributes that are no mapping.
        """
        self._measure(value, None, attributes)

    def bind(self, attributes: Mapping[str, Any] | None = None) -> BoundCounter:
        """Return a counter of these attributes alone, which does not look for them each time."""
        return BoundCounter(self, attributes)


class Counter(_Sum):
    """A sum that only grows."""

    _kind = SUM


class UpDownCounter(_Sum):
    """A sum that goes up and down."""

    _kind = UP_DOWN


class Gauge(_Instrument):
    """A value of which the last counts."""

    _kind = GAUGE

    def set(self, value: float, attributes: Mapping[str, Any] | None = None) -> None:
        """Set the value of these attributes; an infinite value or NaN is dropped and counted as ``invalid``."""
        self._measure(value, None, attributes)

    def bind(self, attributes: Mapping[str, Any] | None = None) -> BoundGauge:
        """Return a gauge of these attributes alone."""
        return BoundGauge(self, attributes)


class Histogram(_Instrument):
    """A distribution: in explicit buckets, or, without bounds, in exponential ones of at most 160 on each side of zero."""

    _kind = EXPONENTIAL  # without bounds

    def record(self, value: float, attributes: Mapping[str, Any] | None = None) -> None:
        """Record a value of these attributes; an infinite one or NaN is dropped and counted as ``invalid``."""
        self._measure(value, None, attributes)

    def bind(self, attributes: Mapping[str, Any] | None = None) -> BoundHistogram:
        """Return a histogram of these attributes alone."""
        return BoundHistogram(self, attributes)
