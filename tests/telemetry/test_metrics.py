"""Meters: instruments by name, collection by time and flush, temporality, observable ones, in a forked child."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_runtimes.errors import InvalidArgumentError
from tests.support import Make
from tests.telemetry.otlp_receiver import Receiver


def values(metric: Any) -> list[float]:
    data = getattr(metric, metric.WhichOneof("data"))
    return [point.as_int or point.as_double for point in data.data_points]


def test_flush_collects(client: Make) -> None:
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        meter = telemetry.meter("shop")
        counter = meter.counter("orders", "1", "taken")
        counter.add(2, {"kind": "new"})
        counter.bind({"kind": "old"}).add(3)
        meter.up_down_counter("open").add(-1)
        meter.gauge("temperature", "Cel").set(20.5)
        meter.histogram("size").record(7)
        meter.histogram("time", bounds="exponential").record(0.25)
        assert telemetry.flush(10)
        metrics = {metric.name: metric for metric in receiver.metrics()}
        assert values(metrics["orders"]) == [2, 3]
        assert (values(metrics["open"]), values(metrics["temperature"])) == ([-1], [20.5])
        assert len(metrics["size"].histogram.data_points[0].explicit_bounds) == 15
        assert metrics["time"].exponential_histogram.data_points[0].sum == 0.25
        counter.add(5, {"kind": "new"})
        assert telemetry.flush(10)
        latest = [metric for metric in receiver.metrics() if metric.name == "orders"]
        assert [values(metric) for metric in latest] == [[2, 3], [7, 3]]
        assert len({point.start_time_unix_nano for m in latest for point in m.sum.data_points}) == 1
        stats = telemetry.stats().metrics
        assert (stats.recorded, stats.exported, stats.buffered) == (12, 12, 0)


def test_they_are_collected_in_time(client: Make) -> None:
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url, metric_interval="20ms").telemetry
        telemetry.meter("m").counter("c").add(1)
        over = threading.Event()
        for _ in range(1000):
            if len(receiver.metrics()) >= 3:
                break
            over.wait(0.01)
        assert len(receiver.metrics()) >= 3


def test_close_collects_once_more(client: Make) -> None:
    with Receiver() as receiver:
        instance = client(endpoint=receiver.url)
        instance.telemetry.meter("m").counter("c").add(4)
        instance.close()
        assert [values(metric) for metric in receiver.metrics()] == [[4]]


@pytest.mark.parametrize("temporality", ["delta", "lowmemory"])
def test_delta(client: Make, temporality: str) -> None:
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url, temporality=temporality).telemetry
        meter = telemetry.meter("m")
        counter, updown = meter.counter("c"), meter.up_down_counter("u")
        for _ in range(2):
            counter.add(3)
            updown.add(1)
            assert telemetry.flush(10)
        metrics = receiver.metrics()
        assert [values(metric) for metric in metrics if metric.name == "c"] == [[3], [3]]
        assert [values(metric) for metric in metrics if metric.name == "u"] == [[1], [2]]
        assert {m.sum.aggregation_temporality for m in metrics if m.name == "c"} == {1}
        assert {m.sum.aggregation_temporality for m in metrics if m.name == "u"} == {2}


def test_observable_ones(client: Make, caplog: pytest.LogCaptureFixture) -> None:
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        meter = telemetry.meter("m")

        def queue() -> Iterator[Any]:
            yield 3, {"name": "a"}
            yield 4, {"name": "b"}

        def broken() -> list[float]:
            raise RuntimeError("no value")

        meter.observable_gauge("queue", queue)
        meter.observable_counter("cpu", lambda: [1.5], "s")
        meter.observable_up_down_counter("threads", lambda: [-2])
        meter.observable_gauge("broken", broken)
        with caplog.at_level(logging.WARNING, "cloud_runtimes"):
            assert telemetry.flush(10)
        assert {metric.name: values(metric) for metric in receiver.metrics()} == {
            "queue": [3, 4],
            "cpu": [1.5],
            "threads": [-2],
        }
        assert "the callback of broken failed" in caplog.text


def test_one_instrument_of_a_name(client: Make) -> None:
    telemetry = client().telemetry
    meter = telemetry.meter("m")
    assert telemetry.meter("m") is meter
    assert meter.counter("c", "1") is meter.counter("c", "1")
    for again in (
        lambda: meter.counter("c", "s"),
        lambda: meter.gauge("c", "1"),
        lambda: meter.counter("c", "1", "other"),
        lambda: meter.histogram("h", bounds=[1]) and meter.histogram("h", bounds=[2]),
    ):
        with pytest.raises(InvalidArgumentError, match="of this name"):
            again()


@pytest.mark.parametrize("name", ["", "1a", "a b", "é", "a" * 256, 5])
def test_wrong_names(client: Make, name: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="name of an instrument"):
        client().telemetry.meter("m").counter(name)


@pytest.mark.parametrize("bounds", [[2, 1], [1, 1], [float("inf")], [float("nan")], ["x"], "linear", 5])
def test_wrong_bounds(client: Make, bounds: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="bounds"):
        client().telemetry.meter("m").histogram("h", bounds=bounds)


def test_other_wrong_arguments(client: Make) -> None:
    meter = client().telemetry.meter("m")
    with pytest.raises(InvalidArgumentError, match="unit"):
        meter.counter("c", 5)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="callback"):
        meter.observable_gauge("g", 5)  # type: ignore[arg-type]


def test_exponential_by_configuration_and_none(client: Make) -> None:
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url, histograms="base2_exponential_bucket_histogram").telemetry
        telemetry.meter("m").histogram("h").record(1)
        assert telemetry.flush(10)
        assert receiver.metrics()[0].WhichOneof("data") == "exponential_histogram"
    off = client(exporter="none").telemetry
    off.meter("m").counter("c").add(1)
    assert off.flush(10)
    assert off.stats().metrics.recorded == 0


def test_the_console_shows_them(client: Make, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = client(exporter="console").telemetry
    meter = telemetry.meter("m")
    with telemetry.tracer("t").span("s"):
        meter.counter("c").add(-0.0)
        meter.up_down_counter("u").add(-5, {"k": 1})
        meter.histogram("h", bounds=[0.5, 1]).record(0.75)
        meter.histogram("e", bounds="exponential").record(0.75)
    assert telemetry.flush(10)
    line = next(line for line in capsys.readouterr().out.splitlines() if "resourceMetrics" in line)
    metrics = {m["name"]: m for m in json.loads(line)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]}
    (point,) = metrics["u"]["sum"]["dataPoints"]
    assert (point["asInt"], point["attributes"]) == ("-5", [{"key": "k", "value": {"intValue": "1"}}])
    (point,) = metrics["h"]["histogram"]["dataPoints"]
    assert (point["bucketCounts"], point["explicitBounds"], point["count"]) == (["0", "1", "0"], [0.5, 1.0], "1")
    (point,) = metrics["e"]["exponentialHistogram"]["dataPoints"]
    assert (point["scale"], point["positive"]["bucketCounts"]) == (20, ["1"])
    assert int(point["positive"]["offset"]) < 0
    assert metrics["c"]["sum"]["isMonotonic"] is True
