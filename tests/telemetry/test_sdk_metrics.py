"""Metrics of telemetry itself (``instrument = true``), by the conventions for SDKs: what a receiver reads is what `stats` tells."""

from __future__ import annotations

from typing import Any

from opentelemetry.semconv._incubating.metrics import otel_metrics as names

from cloud_runtimes import CloudRuntimesClient
from tests.support import Make
from tests.telemetry.emitting import record
from tests.telemetry.otlp_receiver import Receiver
from tests.telemetry.test_calls import attributes

COMPONENT = {"otel.component.type": "cloud_runtimes", "otel.component.name": "cloud_runtimes/0"}


def last(instance: CloudRuntimesClient, receiver: Receiver) -> dict[str, dict[str | None, int]]:
    """Return the newest values by metric and ``error.type``."""
    instance.telemetry.flush(30)
    found: dict[str, dict[str | None, int]] = {}
    for metric in receiver.metrics():
        if metric.name.startswith("otel.sdk."):
            values = found[metric.name] = {}
            for point in metric.sum.data_points:
                own: dict[str, Any] = attributes(point)
                values[own.pop("error.type", None)] = point.as_int
                assert own == COMPONENT
            assert metric.sum.is_monotonic is not metric.name.endswith("queue.size")
    return found


def test_what_was_exported(client: Make) -> None:
    with Receiver() as receiver:
        instance = client(endpoint=receiver.url, instrument=True)
        record(instance.telemetry, 5)
        instance.telemetry.logger("l").info("said")
        first = last(instance, receiver)
        second = last(instance, receiver)
    assert first[names.OTEL_SDK_PROCESSOR_SPAN_QUEUE_SIZE] == {None: 5}
    assert first[names.OTEL_SDK_PROCESSOR_LOG_QUEUE_SIZE] == {None: 1}
    assert second[names.OTEL_SDK_PROCESSOR_SPAN_QUEUE_SIZE] == {None: 0}
    for name in (names.OTEL_SDK_PROCESSOR_SPAN_PROCESSED, names.OTEL_SDK_EXPORTER_SPAN_EXPORTED):
        assert (first[name], second[name]) == ({None: 0}, {None: 5})
    for name in (names.OTEL_SDK_PROCESSOR_LOG_PROCESSED, names.OTEL_SDK_EXPORTER_LOG_EXPORTED):
        assert second[name] == {None: 1}
    points = sum(len(metric.sum.data_points) for metric in receiver.metrics()) // 2
    assert second[names.OTEL_SDK_EXPORTER_METRIC_DATA_POINT_EXPORTED] == {None: points}


def test_what_was_dropped(client: Make) -> None:
    def answer(number: int) -> tuple[int, dict[str, str], bytes]:
        return (400 if number == 0 else 200), {}, b""

    with Receiver(answer) as receiver:
        instance = client(endpoint=receiver.url, instrument=True, buffer_bytes=20_000)
        record(instance.telemetry, 3)
        assert not instance.telemetry.flush(30)
        record(instance.telemetry, 1, text="x" * 30_000)  # larger than the buffer
        found = last(instance, receiver)
    assert found[names.OTEL_SDK_EXPORTER_SPAN_EXPORTED] == {None: 0, "rejected": 3}
    assert found[names.OTEL_SDK_PROCESSOR_SPAN_PROCESSED] == {None: 3, "too_large": 1}
    assert instance.telemetry.stats().spans.dropped == {"rejected": 3, "too_large": 1}


def test_without_instrument_there_are_none(client: Make) -> None:
    with Receiver() as receiver:
        instance = client(endpoint=receiver.url)
        record(instance.telemetry, 1)
        assert last(instance, receiver) == {}
