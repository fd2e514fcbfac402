"""The OTLP of metrics, written by both telemetry kernels: once per collection, so one form in Python is enough."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..errors import InvalidArgumentError
from .otlp_py import Limits, attributes_into, bytes_field, fixed64_field, text, varint
from .telemetry_text import attributes_of

SUM, UP_DOWN, GAUGE, EXPLICIT, EXPONENTIAL = range(5)
SERIES: Final = 2000
"""Sets of attributes that an instrument tells apart, and the one of all others."""
INVALID: Final = 7
"""Place of the cause ``invalid`` among `CAUSES`."""
OVERFLOW: Final = {"otel.metric.overflow": True}
"""Attributes of the series that holds all sets beyond the limit (Metrics SDK, "Cardinality limits")."""

_INT64_MIN: Final = -(1 << 63)
_INT64_MAX: Final = (1 << 63) - 1
_DOUBLE: Final = struct.Struct("<d")
_UNLIMITED: Final = Limits(1 << 30)
# by kind: the field of a metric that holds its data, and the field of a point that holds its attributes
_DATA_TAGS: Final = (0x3A, 0x3A, 0x2A, 0x4A, 0x52)
_ATTRIBUTE_TAGS: Final = (0x3A, 0x3A, 0x3A, 0x4A, 0x0A)


class Point(NamedTuple):
    """State of a series at its collection.

    It has encoded attributes and the number of measurements; index of the first bucket and the counts on each side
    of zero (explicit buckets are all in `positive`); exemplars with time, value, and trace and span id or ``b""``."""

    attributes: bytes
    times: int
    total: float
    minimum: float
    maximum: float
    scale: int
    zeros: int
    positive: tuple[int, Sequence[int]]
    negative: tuple[int, Sequence[int]]
    exemplars: Iterable[tuple[int, float, bytes]]


def metric_head(name: str, unit: str, description: str) -> bytes:
    """Return the first fields of a ``Metric``."""
    head = bytearray()
    for tag, value in ((0x0A, name), (0x12, description), (0x1A, unit)):
        if value or tag == 0x0A:
            bytes_field(head, tag, text(value))
    return bytes(head)


def attributes_key(kind: int, attributes: Any) -> bytes:
    """Return the encoding of attributes, sorted by key, which identifies their series. Raises `InvalidArgumentError`: no mapping."""
    given = attributes_of(attributes) or {}
    out = bytearray()
    kept = {key: given[key] for key in sorted(key for key in given if isinstance(key, str))}
    attributes_into(out, _ATTRIBUTE_TAGS[kind], kept, _UNLIMITED)
    return bytes(out)


def real_number(value: Any) -> float:
    """Return a measurement as a float, infinite where it is too large for one. Raises `InvalidArgumentError`: no number."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"a measurement is a number, not {type(value).__name__}") from None


def measured(value: Any) -> int | float:
    """Return a measurement as an integer of 64 bits, or else as a float. Raises `InvalidArgumentError`: no number."""
    return int(value) if isinstance(value, int) and _INT64_MIN <= value <= _INT64_MAX else real_number(value)


def added(total: int | float, number: int | float) -> int | float:
    """Return the sum of both, a float where it has no 64-bit integer."""
    both = total + number
    if isinstance(both, int) and not _INT64_MIN <= both <= _INT64_MAX:
        return float(total) + float(number)
    return both


def metric(
    head: bytes, kind: int, delta: bool, bounds: Sequence[float], begun: int, now: int, points: Sequence[Point]
) -> tuple[bytes, int]:
    """Return a ``Metric`` and how many points it has."""
    data = bytearray()
    for point in points:
        inner = bytearray()
        _point(inner, kind, bounds, begun, now, point)
        bytes_field(data, 0x0A, inner)
    if kind != GAUGE:
        data += bytes((0x10, 1 if delta else 2))
    if kind == SUM:
        data += b"\x18\x01"
    out = bytearray(head)
    bytes_field(out, _DATA_TAGS[kind], data)
    return bytes(out), len(points)


def _point(out: bytearray, kind: int, bounds: Sequence[float], begun: int, now: int, point: Point) -> None:
    if kind == EXPONENTIAL:
        out += point.attributes
    if kind != GAUGE:
        fixed64_field(out, 0x11, begun)
    fixed64_field(out, 0x19, now)
    if kind <= GAUGE:
        if isinstance(point.total, float):
            _double(out, 0x21, point.total)
        _exemplars(out, 0x2A, point)
        if not isinstance(point.total, float):
            fixed64_field(out, 0x31, point.total & (1 << 64) - 1)
        out += point.attributes
        return
    fixed64_field(out, 0x21, point.times)
    _double(out, 0x29, point.total)
    if kind == EXPLICIT:
        bytes_field(out, 0x32, b"".join(count.to_bytes(8, "little") for count in point.positive[1]))
        if bounds:
            bytes_field(out, 0x3A, b"".join(map(_DOUBLE.pack, bounds)))
        _exemplars(out, 0x42, point)
        out += point.attributes
        _double(out, 0x59, point.minimum)
        _double(out, 0x61, point.maximum)
        return
    if point.scale:
        out.append(0x30)
        out += varint(_zigzag(point.scale))
    if point.zeros:
        fixed64_field(out, 0x39, point.zeros)
    for tag, (low, counts) in ((0x42, point.positive), (0x4A, point.negative)):
        if counts:
            inner = bytearray()
            if low:
                inner.append(0x08)
                inner += varint(_zigzag(low))
            bytes_field(inner, 0x12, b"".join(map(varint, counts)))
            bytes_field(out, tag, inner)
    _exemplars(out, 0x5A, point)
    _double(out, 0x61, point.minimum)
    _double(out, 0x69, point.maximum)


def _exemplars(out: bytearray, tag: int, point: Point) -> None:
    for when, number, ids in point.exemplars:
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


def _double(out: bytearray, tag: int, value: float) -> None:
    out.append(tag)
    out += _DOUBLE.pack(value)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


class Observable:
    """Observations of a callback at each collection.

    Sums are since the start, whatever the temporality of others. `kind` is ``"counter"``, ``"up_down_counter"`` or
    ``"gauge"``."""

    def __init__(self, buffer: Any, name: str, unit: str = "", description: str = "", *, kind: str) -> None:
        self._kind = {"counter": SUM, "up_down_counter": UP_DOWN, "gauge": GAUGE}[kind]
        self._buffer = buffer
        self._head = metric_head(name, unit, description)
        self.reset()

    def reset(self) -> None:
        """Begin anew, in a forked child."""
        self._begun = time.time_ns()
        self.begin()

    def begin(self) -> None:
        """Forget what was observed before."""
        self._totals: dict[bytes, float] = {}

    def observe(self, value: float, attributes: Mapping[str, Any] | None = None) -> None:
        """Take one observation; another of the same attributes adds to it, or, of a gauge, replaces it."""
        number = measured(value)
        if (self._kind == SUM and number < 0) or not math.isfinite(number):
            self._buffer.drop(1, INVALID)
            return
        key = attributes_key(self._kind, attributes)
        if key not in self._totals and len(self._totals) >= SERIES - 1:
            key = attributes_key(self._kind, OVERFLOW)
        self._totals[key] = number if self._kind == GAUGE else added(self._totals.get(key, 0), number)

    def collect(self, now: int) -> tuple[bytes, int]:
        """Return the ``Metric`` of OTLP and how many points it has."""
        points = [Point(key, 1, total, 0, 0, 0, 0, (0, ()), (0, ()), ()) for key, total in self._totals.items()]
        return metric(self._head, self._kind, False, (), self._begun, now, points)
