"""CloudEvents and the log's records, beside the CloudEvents SDK."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from cloud_runtimes._native import batch, events
from cloud_runtimes.codec import cloudevents

sdk = pytest.importorskip("cloudevents.core.v1.event")
sdk_json = pytest.importorskip("cloudevents.core.formats.json")


@pytest.mark.benchmark(group="CloudEvents JSON, write")
def bench_write_ours(benchmark: Any, event: dict[str, Any]) -> None:
    assert orjson.loads(benchmark(cloudevents.encode, event, "/bench", "bench.event"))["data"] == event


@pytest.mark.benchmark(group="CloudEvents JSON, write")
def bench_write_sdk(benchmark: Any, event: dict[str, Any]) -> None:
    attributes = {"id": "x", "source": "/bench", "type": "bench.event", "specversion": "1.0"}

    def write() -> Any:
        return sdk_json.JSONFormat().write(sdk.CloudEvent(attributes=attributes, data=event))

    assert orjson.loads(benchmark(write))["data"] == event


@pytest.mark.benchmark(group="CloudEvents JSON, read")
def bench_read_ours(benchmark: Any, event: dict[str, Any]) -> None:
    text = cloudevents.encode(event, "/bench", "bench.event")
    assert benchmark(lambda: cloudevents.decode(text).data) == event


@pytest.mark.benchmark(group="CloudEvents JSON, read")
def bench_read_sdk(benchmark: Any, event: dict[str, Any]) -> None:
    text = cloudevents.encode(event, "/bench", "bench.event")
    assert benchmark(lambda: sdk_json.JSONFormat().read(None, text).get_data()) == event


@pytest.mark.benchmark(group="publisher's buffer")
def bench_append(benchmark: Any, event: dict[str, Any]) -> None:
    buffer = batch.BatchBuffer(
        "bench", "t", "topic", batch_events=1000, batch_bytes=1 << 20, buffer_bytes=1 << 26, ready=lambda: None
    )
    payload = orjson.dumps(event)

    def append() -> None:
        for _ in range(1000):
            buffer.append(payload, "application/json", "key")
        for chunk in buffer.take(1 << 26):
            buffer.settle(chunk.count, len(chunk.body), 0)

    benchmark(append)
    assert buffer.stats()[4] == 0


@pytest.mark.benchmark(group="ids")
def bench_uuid7(benchmark: Any) -> None:
    assert len(benchmark(events.uuid7)) == 16


@pytest.mark.benchmark(group="ids")
def bench_uuid4(benchmark: Any) -> None:
    import uuid

    assert benchmark(uuid.uuid4).version == 4
