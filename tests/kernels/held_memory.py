"""Program of a memory test, in a process of its own, where no memory that others freed hides the allocations."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

from cloud_runtimes._native import batch, events
from cloud_runtimes.codec import json, msgpack

EVENT = {
    "id": "01J9ZQ4T8W3N5V6X7Y8Z9A0B1C",
    "level": "INFO",
    "error": None,
    "ratio": 0.875,
    "tags": ["a", "b"],
    "n": 184467,
}


def buffer_and_send(**limits: int) -> tuple[Any, Any]:
    settings = {"batch_events": 1000, "batch_bytes": 1 << 20, "buffer_bytes": 1 << 30, **limits}
    buffer = batch.BatchBuffer("/s", "t", "topic", ready=lambda: None, **settings)
    entry = batch.Entry(json.encode, lambda *_, **__: 0, lambda error: None)
    entry.aim(buffer, 1 << 20)
    return buffer, entry.send


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def buffered(count: int) -> float:
    """Return the bytes that a buffered event holds beyond its payload."""
    buffer, send = buffer_and_send()
    event = {**EVENT, "text": "x" * 250}
    size = len(json.encode(event))
    for _ in range(3000):
        send(event)
    before = resident()
    for _ in range(count):
        send(event)
    assert buffer.stats()[0] == count + 3000
    return (resident() - before) / count - size


def flat(count: int) -> float:
    """Return the bytes by which memory grows while events are encoded, batched, taken, settled and read."""
    buffer, send = buffer_and_send()

    def some(count: int) -> None:
        for _ in range(count // 1000):
            for _ in range(1000):
                send(EVENT)
            for chunk in buffer.take(1 << 26):
                frame = events.Frame(chunk.body)
                assert frame[0].id < frame[len(frame) - 1].id
                assert msgpack.decode(msgpack.encode(EVENT)) == EVENT
                buffer.settle(chunk.count, len(chunk.body), 0)

    some(20_000)
    before = resident()
    some(count)
    return resident() - before


if __name__ == "__main__":
    sys.stdout.write(str({"buffered": buffered, "flat": flat}[sys.argv[1]](int(sys.argv[2]))))
