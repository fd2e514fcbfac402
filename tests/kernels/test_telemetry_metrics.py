"""Instruments of the telemetry kernel, each body on both twins; opentelemetry-proto reads what they write."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from fractions import Fraction
from types import ModuleType
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from cloud_runtimes.errors import InvalidArgumentError
from tests.support import Rounds

START = 1_700_000_000_123_456_789  # of the fixtures' clock
NOW = START + 10**10
BOUNDS = [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0]


def buffer(kernel: ModuleType) -> Any:
    return kernel.Buffer(buffer_bytes=1 << 30, chunk_bytes=4 << 20, ready=lambda: None)


def collected(instrument: Any) -> tuple[Metric, list[Any]]:
    data, count = instrument.collect(NOW)
    metric = Metric.FromString(data)
    points = list(getattr(metric, metric.WhichOneof("data")).data_points)
    assert len(points) == count
    assert metric.SerializeToString(deterministic=True) == data, "not the canonical bytes"
    return metric, points


def attributes(point: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in point.attributes}


def test_a_counter(kernel: ModuleType) -> None:
    counter = kernel.Counter(buffer(kernel), "requests", "1", "how many")
    counter.add()
    counter.add(2, {"b": 1, "a": "x"})
    counter.add(3, {"a": "x", "b": 1})
    counter.add(1, {"a": "x", "b": True})
    counter.add(0.5, {"a": "x", "b": 1.0})
    metric, points = collected(counter)
    assert (metric.name, metric.unit, metric.description) == ("requests", "1", "how many")
    assert (metric.sum.aggregation_temporality, metric.sum.is_monotonic) == (2, True)
    assert [(attributes(p), p.as_int or p.as_double) for p in points] == [
        ({}, 1),
        ({"a": "x", "b": 1}, 5),
        ({"a": "x", "b": True}, 1),
        ({"a": "x", "b": 1.0}, 0.5),
    ]
    assert {(p.start_time_unix_nano, p.time_unix_nano) for p in points} == {(START, NOW)}
    assert [list(attributes(p)) for p in points[1:]] == [["a", "b"]] * 3


def test_a_sum_becomes_a_float_where_it_must(kernel: ModuleType) -> None:
    counter = kernel.UpDownCounter(buffer(kernel), "n")
    for value in (2**62, 2**62, -1):
        counter.add(value)
    counter.add(-5, {"i": 1})
    counter.add(0.25, {"i": 1})
    counter.add(10**30, {"i": 2})
    metric, points = collected(counter)
    assert not metric.sum.is_monotonic
    assert [p.as_double for p in points] == [2.0**63 - 1, -4.75, 1e30]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400])
def test_what_cannot_be_recorded_is_counted(kernel: ModuleType, value: Any) -> None:
    into = buffer(kernel)
    kernel.Counter(into, "c").add(value)
    kernel.Counter(into, "c").add(-1)
    kernel.Counter(into, "c").add(-0.5)
    kernel.UpDownCounter(into, "u").add(value)
    kernel.Gauge(into, "g").set(value)
    kernel.Histogram(into, "h").record(value)
    assert into.stats() == (6, 0, (0, 0, 0, 0, 0, 0, 0, 6), 0, 0)


@pytest.mark.parametrize("value", ["1", None, [], b"1", 1j])
def test_no_number(kernel: ModuleType, value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="a measurement is a number"):
        kernel.Counter(buffer(kernel), "c").add(value)
    with pytest.raises(InvalidArgumentError, match="mapping"):
        kernel.Counter(buffer(kernel), "c").add(1, [1])


def test_other_numbers_are_floats(kernel: ModuleType) -> None:
    gauge = kernel.Gauge(buffer(kernel), "g")
    gauge.set(Fraction(1, 4))
    gauge.set(True, {"b": 1})
    assert [(p.as_double, p.as_int) for p in collected(gauge)[1]] == [(0.25, 0), (0, 1)]


def test_a_gauge_has_the_last_value(kernel: ModuleType) -> None:
    gauge = kernel.Gauge(buffer(kernel), "g")
    for value in (1, 2.5, 7):
        gauge.set(value, {"a": [1, "x"]})
    metric, (point,) = collected(gauge)
    assert (metric.WhichOneof("data"), point.as_int, point.start_time_unix_nano) == ("gauge", 7, 0)


def test_an_explicit_histogram(kernel: ModuleType) -> None:
    histogram = kernel.Histogram(buffer(kernel), "h", bounds=BOUNDS)
    for value in (0, 5, 5.1, 10, 600, -3):
        histogram.record(value)
    metric, (point,) = collected(histogram)
    assert list(point.explicit_bounds) == BOUNDS
    assert list(point.bucket_counts) == [2, 1, 2, 0, 0, 0, 0, 0, 0, 1]
    assert (point.count, point.sum, point.min, point.max) == (6, 617.1, -3, 600)
    assert metric.histogram.aggregation_temporality == 2
    nothing = kernel.Histogram(buffer(kernel), "h", bounds=[])
    nothing.record(1)
    assert list(collected(nothing)[1][0].bucket_counts) == [1]


def holds(index: int, scale: int, value: float) -> bool:
    """Whether a bucket holds a value, told by logarithms with room for their error."""
    exact = math.log2(value) * 2.0**scale
    return index - 1e-6 * max(1, abs(exact)) <= exact <= index + 1 + 1e-6 * max(1, abs(exact))


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [1.0, 2.0, 4.0],
        [0.001, 1000.0],
        [5e-324, 1.7976931348623157e308],
        [2.0**n for n in range(-80, 80)],
        [1 + n / 1000 for n in range(400)],
    ],
)
def test_an_exponential_histogram(kernel: ModuleType, values: list[float]) -> None:
    histogram = kernel.Histogram(buffer(kernel), "h")
    for value in values:
        histogram.record(value)
        histogram.record(-value)
    histogram.record(0)
    _, (point,) = collected(histogram)
    assert point.count == 2 * len(values) + 1
    assert point.zero_count == 1
    assert list(point.positive.bucket_counts) == list(point.negative.bucket_counts)
    assert point.positive.offset == point.negative.offset
    assert len(point.positive.bucket_counts) <= 160
    if len(values) > 1:  # one scale finer would not fit
        assert len(point.positive.bucket_counts) > 80 or point.scale == 20
    for at, count in enumerate(point.positive.bucket_counts):
        index = point.positive.offset + at
        expected = sum(holds(index, point.scale, value) for value in values)
        assert count <= expected, (index, count, expected)
    assert sum(point.positive.bucket_counts) == len(values)
    assert (point.min, point.max) == (-max(values), max(values))


def test_a_power_of_two_is_the_upper_end_of_its_bucket(kernel: ModuleType) -> None:
    for scale_of, expected in (([1.0], -1), ([1.0, 4.0], None)):
        histogram = kernel.Histogram(buffer(kernel), "h")
        for value in scale_of:
            histogram.record(value)
        point = collected(histogram)[1][0]
        if expected is not None:
            assert (point.scale, point.positive.offset) == (20, expected)
        else:
            step = 2**point.scale
            assert point.positive.offset == -1
            assert point.positive.offset + len(point.positive.bucket_counts) - 1 == 2 * step - 1


def test_delta(kernel: ModuleType) -> None:
    counter = kernel.Counter(buffer(kernel), "c", delta=True)
    bound = counter.bind({"bound": 1})
    counter.add(5, {"a": 1})
    bound.add(2)
    metric, points = collected(counter)
    assert metric.sum.aggregation_temporality == 1
    assert [p.as_int for p in points] == [2, 5]
    assert collected(counter)[1] == []
    bound.add(1)
    counter.add(3, {"a": 1})
    _, points = collected(counter)
    assert sorted(p.as_int for p in points) == [1, 3]
    assert {p.start_time_unix_nano for p in points} == {NOW}
    histogram = kernel.Histogram(buffer(kernel), "h", delta=True)
    for _ in range(2):
        histogram.record(3.0)
        histogram.record(-3e9)
        _, (point,) = collected(histogram)
        assert (point.count, sum(point.positive.bucket_counts), point.max) == (2, 1, 3.0)


@pytest.mark.promise("F6")
def test_at_most_2000_series(kernel: ModuleType) -> None:
    counter = kernel.Counter(buffer(kernel), "c")
    for _ in range(2):
        for number in range(2500):
            counter.add(1, {"n": number})
    _, points = collected(counter)
    assert len(points) == 2000
    assert attributes(points[-1]) == {"otel.metric.overflow": True}
    assert points[-1].as_int == 2 * 501
    assert sum(p.as_int for p in points) == 5000
    delta = kernel.Counter(buffer(kernel), "c", delta=True)
    for start in (0, 2500):
        for number in range(start, start + 1999):
            delta.add(1, {"n": number})
        assert all("n" in attributes(point) for point in collected(delta)[1])


@pytest.mark.parametrize("bounds", [BOUNDS, None])
def test_exemplars_of_sampled_spans(kernel: ModuleType, bounds: Any) -> None:
    tracer = kernel.Tracer(kernel.Traces(buffer(kernel), kernel.Limits(), kernel.Sampler()), 0)
    silent = kernel.Tracer(kernel.Traces(buffer(kernel), kernel.Limits(), kernel.Sampler(0.0)), 0)
    histogram = kernel.Histogram(buffer(kernel), "h", bounds=bounds)
    counter = kernel.Counter(buffer(kernel), "c")
    histogram.record(7)
    with silent.span("off"):
        histogram.record(8)
    with tracer.span("on") as span:
        histogram.record(7.5)
        histogram.record(60)
        counter.add(1)
        counter.add(4)
    _, (point,) = collected(histogram)
    assert [(e.as_double, e.as_int) for e in point.exemplars] == [(7.5, 0), (0, 60)]
    assert {e.span_id.hex() for e in point.exemplars} == {span.context.span_id}
    assert {e.trace_id.hex() for e in point.exemplars} == {span.context.trace_id}
    assert [e.as_int for e in collected(counter)[1][0].exemplars] == [4]
    assert not collected(histogram)[1][0].exemplars
    without = kernel.Counter(buffer(kernel), "c", exemplars=0)
    always = kernel.Counter(buffer(kernel), "c", exemplars=2)
    with tracer.span("on"):
        without.add(1)
    always.add(1)
    assert not collected(without)[1][0].exemplars
    assert collected(always)[1][0].exemplars[0].span_id == b""


def test_an_observable(kernel: ModuleType) -> None:
    observable = kernel.Observable(buffer(kernel), "o", kind="counter")
    for total in (5, 9):
        observable.begin()
        observable.observe(total, {"a": 1})
        observable.observe(1, {"a": total})
        metric, points = collected(observable)
        assert [p.as_int for p in points] == [total, 1]
        assert metric.sum.is_monotonic
    gauge = kernel.Observable(buffer(kernel), "o", kind="gauge")
    gauge.observe(1.5)
    assert collected(gauge)[0].WhichOneof("data") == "gauge"


def test_a_child_begins_anew(kernel: ModuleType) -> None:
    counter = kernel.Counter(buffer(kernel), "c")
    bound = counter.bind({"b": 1})
    counter.add(5, {"a": 1})
    bound.add(7)
    counter.reset()
    assert collected(counter)[1] == []
    bound.add(1)
    counter.add(1, {"a": 1})
    assert [p.as_int for p in collected(counter)[1]] == [1, 1]


def test_what_is_bound_keeps_its_place(kernel: ModuleType) -> None:
    counter = kernel.Counter(buffer(kernel), "c", delta=True)
    counter.add(1, {"a": 1})
    counter.add(1, {"gone": 1})
    later, first = counter.bind({"b": 1}), counter.bind({"a": 1})
    for _ in range(3):
        later.add()
        first.add()
        names = [name for point in collected(counter)[1] for name in attributes(point)]
        assert [name for name in names if name != "gone"] == ["a", "b"]
    assert collected(counter)[1] == []


KINDS: dict[str, Callable[[ModuleType], tuple[Any, str]]] = {
    "counter": lambda kernel: (kernel.Counter(buffer(kernel), "i", delta=True), "add"),
    "histogram": lambda kernel: (kernel.Histogram(buffer(kernel), "i", delta=True, bounds=BOUNDS), "record"),
    "exponential": lambda kernel: (kernel.Histogram(buffer(kernel), "i", delta=True), "record"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_collections_lose_nothing(kernel: ModuleType, kind: str, rounds: Rounds) -> None:
    """Sets that stand in the table, and that do not, none, and a bound one; some that another thread changes meanwhile."""
    instrument, name = KINDS[kind](kernel)
    measure, bound = getattr(instrument, name), getattr(instrument.bind({"bound": True}), name)
    each, total, seen = rounds(600, 40_000), 0, set()
    over = threading.Event()
    changing: dict[str, Any] = {"n": 0}

    def add() -> None:
        for number in range(each):
            measure(1, {"n": number % 50})
            measure(1, {"n": [number % 3]})
            measure(1, {"fresh": number})
            measure(1, changing)
            measure(1)
            bound(1)

    def collect() -> None:
        nonlocal total
        while not over.is_set():
            for n in range(20):
                changing["n"] = n
            for point in collected(instrument)[1]:
                total += point.as_int if kind == "counter" else point.count
                seen.add(tuple(attributes(point)))

    threads = [threading.Thread(target=add) for _ in range(4)]
    collector = threading.Thread(target=collect)
    for thread in (*threads, collector):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    collector.join()
    total += sum(p.as_int if kind == "counter" else p.count for p in collected(instrument)[1])
    assert total == 6 * 4 * each
    assert seen >= {(), ("n",), ("bound",), ("fresh",)}


# -- random measurements -----------------------------------------------------


def some_set(draw: random.Random) -> dict[Any, Any]:
    values = [1, 1.0, True, "1", 0, -0.0, 0.0, "é", "\ud800", [1], None, b"x", float("nan"), 2**70]
    return {draw.choice(["a", "b", "c", 5, ""]): draw.choice(values) for _ in range(draw.randrange(4))}


def measure(kernel: ModuleType, seed: int, count: int) -> list[bytes]:
    draw = random.Random(seed)
    into = buffer(kernel)
    options = {"delta": draw.random() < 0.5, "exemplars": draw.randrange(3)}
    counter, updown = kernel.Counter(into, "c", "s", "d", **options), kernel.UpDownCounter(into, "u", **options)
    gauge = kernel.Gauge(into, "g", exemplars=options["exemplars"])
    explicit, exponential = kernel.Histogram(into, "h", bounds=BOUNDS, **options), kernel.Histogram(
        into, "e", **options
    )
    methods = [counter.add, updown.add, gauge.set, explicit.record, exponential.record]
    out = []
    for number in range(count):
        value = draw.choice(
            [draw.randrange(-3, 200), draw.random() * 10 ** draw.randrange(-9, 9), 2**62, draw.gauss(0, 50)]
        )
        draw.choice(methods)(value, some_set(draw))
        if number % (count // 3) == 0:
            out += [each.collect(NOW)[0] for each in (counter, updown, gauge, explicit, exponential)]
    out += [each.collect(NOW)[0] for each in (counter, updown, gauge, explicit, exponential)]
    return out


@pytest.mark.native_only
def test_the_twins_write_equal_bytes(twins: tuple[ModuleType, ModuleType], rounds: Rounds) -> None:
    for seed in range(rounds(20, 500)):
        native, python = (measure(kernel, seed, 200) for kernel in twins)
        assert native == python


def test_random_measurements_are_read_back(kernel: ModuleType, rounds: Rounds) -> None:
    draw = random.Random(3)
    counter, histogram = kernel.Counter(buffer(kernel), "c"), kernel.Histogram(buffer(kernel), "h", bounds=BOUNDS)
    sums: dict[tuple[tuple[str, Any], ...], int] = {}
    values: dict[tuple[tuple[str, Any], ...], list[float]] = {}
    for _ in range(rounds(2000, 100_000)):
        its = {key: draw.choice([1, "x", True, "é"]) for key in draw.sample("abc", draw.randrange(4))}
        known = tuple(sorted((key, repr(value)) for key, value in its.items()))
        whole, real = draw.randrange(1000), draw.random() * 600
        counter.add(whole, its)
        histogram.record(real, its)
        sums[known] = sums.get(known, 0) + whole
        values.setdefault(known, []).append(real)

    def name(point: Any) -> tuple[tuple[str, Any], ...]:
        return tuple(sorted((key, repr(value)) for key, value in attributes(point).items()))

    assert {name(point): point.as_int for point in collected(counter)[1]} == sums
    _, points = collected(histogram)
    assert len(points) == len(values)
    for point in points:
        expected = values[name(point)]
        assert (point.count, point.min, point.max) == (len(expected), min(expected), max(expected))
        assert point.sum == pytest.approx(sum(expected))
        below = [sum(value <= bound for value in expected) for bound in BOUNDS]
        assert list(point.bucket_counts) == [b - a for a, b in zip([0, *below], [*below, len(expected)], strict=True)]
