"""Metrics of the telemetry kernel, in Python: instruments that aggregate what is recorded, and write it as OTLP when they are collected.

Sets of attributes, of which each has its `Series`, are compared by their encoding, sorted by key. At most `SERIES` of them are kept, the last for all further sets (Metrics SDK, "Cardinality limits").
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from threading import RLock
from typing import Any, Final

from ..errors import InvalidArgumentError
from .otlp_py import Limits, attributes_into, bytes_field, fixed64_field, text, varint
from .telemetry_buffer_py import INVALID, Buffer, wall
from .telemetry_context_py import SpanContext
from .telemetry_current_py import current
from .telemetry_series_py import Series, grow
from .telemetry_spans_py import Span
from .telemetry_text import attributes_of

__all__ = [
    "BoundCounter",
    "BoundGauge",
    "BoundHistogram",
    "BoundUpDownCounter",
    "Counter",
    "Gauge",
    "Histogram",
    "Observable",
    "UpDownCounter",
]

SERIES: Final = 2000
_EXPONENTIAL_EXEMPLARS: Final = 20
_DOUBLE: Final = struct.Struct("<d")
_UNLIMITED: Final = Limits(1 << 30)
_INT64_MIN: Final = -(1 << 63)
_INT64_MAX: Final = (1 << 63) - 1
_SUM, _UP_DOWN, _GAUGE, _EXPLICIT, _EXPONENTIAL = range(5)
# the field of `attributes` in the data point of each kind
_TAGS: Final = (0x3A, 0x3A, 0x3A, 0x4A, 0x0A)


class _Instrument:
    """What all instruments share.

    Args:
        buffer: counts values that cannot be recorded.
        name, unit, description: as they are written.
        delta: whether a collection tells what came since the one before, not since the start.
        exemplars: 0: none; 1: of sampled spans; 2: always (Metrics SDK, "ExemplarFilter").
        bounds: of explicit buckets.
    """

    _kind = _SUM

    def __init__(
        self,
        buffer: Buffer,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        delta: bool = False,
        exemplars: int = 1,
        bounds: Sequence[float] = (),
    ) -> None:
        self._buffer = buffer
        head = bytearray()
        bytes_field(head, 0x0A, text(name))
        if description:
            bytes_field(head, 0x12, text(description))
        if unit:
            bytes_field(head, 0x1A, text(unit))
        self._head = bytes(head)
        self._delta = delta
        self._filter = exemplars
        self._bounds = tuple(float(bound) for bound in bounds)
        self._size = len(self._bounds) + 1 if self._kind == _EXPLICIT else 0
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
        given = attributes_of(attributes) or {}
        out = bytearray()
        kept = {key: given[key] for key in sorted(key for key in given if isinstance(key, str))}
        attributes_into(out, _TAGS[self._kind], kept, _UNLIMITED)
        key = bytes(out)
        with self._lock:
            series = self._known.get(key)
            if series is None:
                if len(self._known) >= SERIES - 1:
                    out = bytearray()
                    attributes_into(out, _TAGS[self._kind], {"otel.metric.overflow": True}, _UNLIMITED)
                    key = bytes(out)
                    series = self._known.get(key)
                if series is None:
                    series = self._known[key] = Series(key, self._size)
        return series

    def _bind(self, attributes: Any) -> Series:
        series = self._find(attributes)
        series.bound = True
        return series

    def _measure(self, value: Any, series: Series | None, attributes: Any) -> None:
        if isinstance(value, int):
            number: int | float = int(value) if _INT64_MIN <= value <= _INT64_MAX else _real(value)
        else:
            number = _real(value)
        if (self._kind == _SUM and number < 0) or not math.isfinite(number):
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
        if self._kind == _GAUGE:
            series.total = number
            return 0
        if self._kind <= _UP_DOWN:
            total = series.total + number
            if isinstance(total, int) and not _INT64_MIN <= total <= _INT64_MAX:
                total = float(series.total) + float(number)
            series.total = total
            return 0
        real = float(number)
        series.total = float(series.total) + real
        series.minimum = real if series.count == 1 else min(series.minimum, real)
        series.maximum = real if series.count == 1 else max(series.maximum, real)
        if self._kind == _EXPLICIT:
            slot = bisect_left(self._bounds, real)
            series.buckets[slot] += 1
            return slot
        if real == 0.0:
            series.zeros += 1
        else:
            grow(series, series.buckets if real > 0 else series.negative, abs(real))
        series.seen += 1
        return (series.seen - 1) % _EXPONENTIAL_EXEMPLARS

    # -- collecting --

    def collect(self, now: int) -> tuple[bytes, int]:
        """Return the ``Metric`` of OTLP and how many points it has; what was told by delta is forgotten.

        Args:
            now: nanoseconds since 1970 UTC.
        """
        points = bytearray()
        number = 0
        with self._lock:
            for series in self._known.values():
                if series.count:
                    point = bytearray()
                    self._point(point, series, now)
                    bytes_field(points, 0x0A, point)
                    number += 1
                    series.exemplars = {}
                    series.seen = 0
            if self._delta:
                # the limit of series is one of each interval; what is bound stays
                for series in self._known.values():
                    series.clear(self._size)
                self._known = {key: each for key, each in self._known.items() if each.bound}
                self._begun = now
        temporality = 1 if self._delta else 2
        if self._kind != _GAUGE:
            points += bytes((0x10, temporality))
        if self._kind == _SUM:
            points += b"\x18\x01"
        out = bytearray(self._head)
        bytes_field(out, (0x3A, 0x3A, 0x2A, 0x4A, 0x52)[self._kind], points)
        return bytes(out), number

    def _point(self, out: bytearray, series: Series, now: int) -> None:
        kind = self._kind
        if kind == _EXPONENTIAL:
            out += series.attributes
        if kind != _GAUGE:
            fixed64_field(out, 0x11, self._begun)
        fixed64_field(out, 0x19, now)
        if kind <= _GAUGE:
            if isinstance(series.total, float):
                _double(out, 0x21, series.total)
            self._exemplars(out, 0x2A, series)
            if not isinstance(series.total, float):
                fixed64_field(out, 0x31, series.total & (1 << 64) - 1)
            out += series.attributes
            return
        fixed64_field(out, 0x21, series.count)
        _double(out, 0x29, float(series.total))
        if kind == _EXPLICIT:
            counts = b"".join(count.to_bytes(8, "little") for count in series.buckets.values())
            bytes_field(out, 0x32, counts)
            if self._bounds:
                bytes_field(out, 0x3A, b"".join(map(_DOUBLE.pack, self._bounds)))
            self._exemplars(out, 0x42, series)
            out += series.attributes
            _double(out, 0x59, series.minimum)
            _double(out, 0x61, series.maximum)
            return
        if series.scale:
            out.append(0x30)
            out += varint(_zigzag(series.scale))
        if series.zeros:
            fixed64_field(out, 0x39, series.zeros)
        for tag, buckets in ((0x42, series.buckets), (0x4A, series.negative)):
            if buckets:
                inner = bytearray()
                low, high = min(buckets), max(buckets)
                if low:
                    inner.append(0x08)
                    inner += varint(_zigzag(low))
                bytes_field(inner, 0x12, b"".join(varint(buckets.get(n, 0)) for n in range(low, high + 1)))
                bytes_field(out, tag, inner)
        self._exemplars(out, 0x5A, series)
        _double(out, 0x61, series.minimum)
        _double(out, 0x69, series.maximum)

    def _exemplars(self, out: bytearray, tag: int, series: Series) -> None:
        for _, (when, number, ids) in sorted(series.exemplars.items()):
            inner = bytearray()
            fixed64_field(inner, 0x11, when)
            if isinstance(number, float):
                _double(inner, 0x19, number)
            if ids:
                bytes_field(inner, 0x22, ids[16:])
                bytes_field(inner, 0x2A, ids[:16])
            if not isinstance(number, float):
                fixed64_field(inner, 0x31, number & (1 << 64) - 1)
            bytes_field(out, tag, inner)


def _real(value: Any) -> float:
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"a measurement is a number, not {type(value).__name__}") from None


def _double(out: bytearray, tag: int, value: float) -> None:
    out.append(tag)
    out += _DOUBLE.pack(value)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


class BoundCounter:
    """A counter with its attributes given once; made by `Counter.bind`."""

    _instrument: _Instrument

    def __init__(self, instrument: Any, attributes: Mapping[str, Any] | None) -> None:
        self._instrument = instrument
        self._series = self._instrument._bind(attributes)

    def add(self, value: float = 1) -> None:
        """Add to the sum; see `Counter.add`."""
        self._instrument._measure(value, self._series, None)


class Counter(_Instrument):
    """A sum that only grows."""

    _kind = _SUM

    def add(self, value: float = 1, attributes: Mapping[str, Any] | None = None) -> None:
        """Add to the sum of these attributes. A negative or infinite value, or NaN, is dropped and counted as ``invalid``.

        Raises:
            InvalidArgumentError: no number, or attributes that are no mapping.
        """
        self._measure(value, None, attributes)

    def bind(self, attributes: Mapping[str, Any] | None = None) -> BoundCounter:
        """Return a counter of these attributes alone, which does not look for them each time."""
        return BoundCounter(self, attributes)


class BoundUpDownCounter(BoundCounter):
    """An up-down counter with its attributes given once; made by `UpDownCounter.bind`."""


class UpDownCounter(_Instrument):
    """A sum that goes up and down."""

    _kind = _UP_DOWN

    def add(self, value: float = 1, attributes: Mapping[str, Any] | None = None) -> None:
        """Add to the sum of these attributes; an infinite value or NaN is dropped and counted as ``invalid``."""
        self._measure(value, None, attributes)

    def bind(self, attributes: Mapping[str, Any] | None = None) -> BoundUpDownCounter:
        """Return an up-down counter of these attributes alone."""
        return BoundUpDownCounter(self, attributes)


class BoundGauge:
    """A gauge with its attributes given once; made by `Gauge.bind`."""

    def __init__(self, instrument: Gauge, attributes: Mapping[str, Any] | None) -> None:
        self._instrument: _Instrument = instrument
        self._series = self._instrument._bind(attributes)

    def set(self, value: float) -> None:
        """Set the value."""
        self._instrument._measure(value, self._series, None)


class Gauge(_Instrument):
    """A value of which the last counts."""

    _kind = _GAUGE

    def set(self, value: float, attributes: Mapping[str, Any] | None = None) -> None:
        """Set the value of these attributes; an infinite value or NaN is dropped and counted as ``invalid``."""
        self._measure(value, None, attributes)

    def bind(self, attributes: Mapping[str, Any] | None = None) -> BoundGauge:
        """Return a gauge of these attributes alone."""
        return BoundGauge(self, attributes)


class BoundHistogram:
    """A histogram with its attributes given once; made by `Histogram.bind`."""

    def __init__(self, instrument: Histogram, attributes: Mapping[str, Any] | None) -> None:
        self._instrument: _Instrument = instrument
        self._series = self._instrument._bind(attributes)

    def record(self, value: float) -> None:
        """Record a value."""
        self._instrument._measure(value, self._series, None)


class Histogram(_Instrument):
    """A distribution: in explicit buckets, or, without bounds, in exponential ones of at most 160 on each side of zero."""

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
        self._kind = _EXPONENTIAL if bounds is None else _EXPLICIT
        super().__init__(buffer, name, unit, description, delta=delta, exemplars=exemplars, bounds=bounds or ())

    def record(self, value: float, attributes: Mapping[str, Any] | None = None) -> None:
        """Record a value of these attributes; an infinite one or NaN is dropped and counted as ``invalid``."""
        self._measure(value, None, attributes)

    def bind(self, attributes: Mapping[str, Any] | None = None) -> BoundHistogram:
        """Return a histogram of these attributes alone."""
        return BoundHistogram(self, attributes)


class Observable(_Instrument):
    """What a callback observes at each collection: its sums are since the start, whatever the temporality of others.

    Args:
        kind: ``"counter"``, ``"up_down_counter"`` or ``"gauge"``.
    """

    def __init__(self, buffer: Buffer, name: str, unit: str = "", description: str = "", *, kind: str) -> None:
        self._kind = {"counter": _SUM, "up_down_counter": _UP_DOWN, "gauge": _GAUGE}[kind]
        super().__init__(buffer, name, unit, description, exemplars=0)

    def begin(self) -> None:
        """Forget what was observed before."""
        with self._lock:
            self._known = {}

    def observe(self, value: float, attributes: Mapping[str, Any] | None = None) -> None:
        """Take one observation; another of the same attributes adds to it, or, of a gauge, replaces it."""
        self._measure(value, None, attributes)
