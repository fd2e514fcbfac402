"""Producer: one `send` for each event, stored with synchronous=FULL."""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litequeue
import orjson
import persistqueue
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._native import batch
from cloud_runtimes.codec import json

COUNT = 20_000
FEW = 200


@pytest.fixture
def client(tmp_path: Path) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(config={"capa": {"home": str(tmp_path / "home")}}, app_id="bench") as new_client:
        yield new_client


def rows(path: Path) -> sqlite3.Connection:
    """A table that events could be kept in, with the same guarantee."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, body BLOB)")
    return connection


def bench_send_stored(beside: Any, client: CloudRuntimesClient, tmp_path: Path, event: dict[str, Any]) -> None:
    """From `send` to the disk, sustained. The peers write bytes that are ready; litequeue and persist-queue store one by one as they come, the first without a sync for each."""
    publisher = client.pubsub.publisher("bus", "t")
    body = orjson.dumps(event)
    ready = [(body,)] * 1000
    by_hand = rows(tmp_path / "hand.db")
    lite = litequeue.LiteQueue(str(tmp_path / "lite.db"))
    persist = persistqueue.SQLiteQueue(str(tmp_path / "persist"), auto_commit=True)

    def ours() -> None:
        for _ in range(COUNT):
            publisher.send(event)
        publisher.flush()

    def executemany() -> None:
        for _ in range(COUNT // 1000):
            by_hand.execute("BEGIN IMMEDIATE")
            by_hand.executemany("INSERT INTO events (body) VALUES (?)", ready)
            by_hand.execute("COMMIT")

    def slow(put: Any) -> Any:
        def run() -> None:
            for _ in range(FEW):
                put(body.decode())

        return run

    beside(
        "send to the disk, sustained",
        ours,
        {
            "SQLite executemany, 1,000 ready rows": executemany,
            "litequeue": slow(lite.put),
            "persist-queue": slow(persist.put),
        },
        goals={"SQLite executemany, 1,000 ready rows": 1.1, "litequeue": 16},
        per=COUNT,
        each={"litequeue": FEW, "persist-queue": FEW},
        unit="event",
        slices=True,
    )
    stats = publisher.stats()
    assert stats.delivered == stats.accepted
    assert stats.failed == stats.dropped == 0


def bench_send_beside_a_busy_thread(
    benchmark: Any, note: Any, client: CloudRuntimesClient, event: dict[str, Any]
) -> None:
    """Events stored a second while the main thread spins in Python: both want the interpreter."""
    publisher = client.pubsub.publisher("bus", "t")
    stop = threading.Event()

    def producer() -> None:
        while not stop.is_set():
            for _ in range(100):
                publisher.send(event)

    thread = threading.Thread(target=producer)

    def spin() -> None:
        end = time.perf_counter() + 2
        number = 0
        while time.perf_counter() < end:
            number += 1

    thread.start()
    before = publisher.stats().delivered
    begin = time.perf_counter()
    benchmark.pedantic(spin, rounds=1)
    rate = (publisher.stats().delivered - before) / (time.perf_counter() - begin)
    stop.set()
    thread.join()
    benchmark.extra_info["stored a second"] = rate
    note(f"send beside a main thread that spins: {rate:,.0f} events stored a second (goal: 100,000)")
    assert publisher.stats().failed == 0


@pytest.mark.parametrize("null", [True, False], ids=["with a null", "without a null"])
def bench_send_into_memory(beside: Any, note: Any, event: dict[str, Any], null: bool) -> None:
    """Send one event: JSON, id, time, and the record into the batch. The cost of JSON is the difference to bytes."""
    if not null:
        event = {name: each for name, each in event.items() if each is not None}
    buffer = batch.BatchBuffer(
        "bench", "t", "topic", batch_events=1000, batch_bytes=1 << 20, buffer_bytes=1 << 26, ready=lambda: None
    )
    entry = batch.Entry(json.encode, lambda *_, **__: 0, lambda error: None)
    entry.aim(buffer, 1 << 20)
    simple: queue.SimpleQueue[Any] = queue.SimpleQueue()
    body = orjson.dumps(event)

    def emptied(put: Any) -> Any:
        def run() -> None:
            for _ in range(1000):
                put(event)
            for chunk in buffer.take(1 << 26):
                buffer.settle(chunk.count, len(chunk.body), 0)
            while not simple.empty():
                simple.get()

        return run

    what = f"send into memory, small event {'with' if null else 'without'} a null"
    ratios = beside(
        what,
        emptied(entry.send),
        {
            "send of bytes that are ready": emptied(lambda _: entry.send(body)),
            "orjson.dumps alone": emptied(orjson.dumps),
            "SimpleQueue of orjson.dumps": emptied(lambda value: simple.put(orjson.dumps(value))),
        },
        per=1000,
        unit="event",
    )
    # all three are times over the same one of ours: orjson / (ours - that of bytes)
    share = ratios["orjson.dumps alone"] / (1 - ratios["send of bytes that are ready"])
    note(f"{what}: JSON into the batch is {share:.2f} times as fast as orjson.dumps (goal: {0.7 if null else 0.9})")
    assert buffer.stats()[4] == 0
