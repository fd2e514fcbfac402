"""The embedded store beside SQLite by hand, with the same guarantees."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest

from cloud_runtimes import CloudRuntimesClient


@pytest.fixture
def client(tmp_path: Path) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(config={"capa": {"home": str(tmp_path / "home")}}, app_id="bench") as new_client:
        yield new_client


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "hand.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB)")
    yield connection
    connection.close()


@pytest.mark.benchmark(group="state get")
def bench_get_ours(benchmark: Any, client: CloudRuntimesClient, event: dict[str, Any]) -> None:
    client.state.save("store", "k", event)
    assert benchmark(client.state.get, "store", "k") == event


@pytest.mark.benchmark(group="state get")
def bench_get_by_hand(benchmark: Any, by_hand: sqlite3.Connection, event: dict[str, Any]) -> None:
    by_hand.execute("INSERT INTO state VALUES ('k', ?)", (orjson.dumps(event),))
    sql = "SELECT value FROM state WHERE key = ?"
    assert benchmark(lambda: orjson.loads(by_hand.execute(sql, ("k",)).fetchone()[0])) == event


@pytest.mark.benchmark(group="state save, synced")
def bench_save_ours(benchmark: Any, client: CloudRuntimesClient, event: dict[str, Any]) -> None:
    numbers = count()  # SQLite writes nothing when nothing changed
    benchmark(lambda: client.state.save("store", "k", {**event, "n": next(numbers)}))
    assert client.state.get("store", "k") == {**event, "n": next(numbers) - 1}


@pytest.mark.benchmark(group="state save, synced")
def bench_save_by_hand(benchmark: Any, by_hand: sqlite3.Connection, event: dict[str, Any]) -> None:
    sql = "INSERT INTO state VALUES ('k', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    numbers = count()
    benchmark(lambda: by_hand.execute(sql, (orjson.dumps({**event, "n": next(numbers)}),)))


@pytest.mark.benchmark(group="10,000 events stored, synced")
def bench_publisher(benchmark: Any, client: CloudRuntimesClient, event: dict[str, Any]) -> None:
    publisher = client.pubsub.publisher("bus", "t")

    def publish() -> None:
        for _ in range(10_000):
            publisher.send(event)
        publisher.flush()

    benchmark(publish)
    assert publisher.stats().delivered == publisher.stats().accepted


@pytest.mark.benchmark(group="10,000 events stored, synced")
def bench_rows_by_hand(benchmark: Any, by_hand: sqlite3.Connection, event: dict[str, Any]) -> None:
    by_hand.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, body BLOB)")

    def publish() -> None:
        by_hand.execute("BEGIN IMMEDIATE")
        by_hand.executemany("INSERT INTO events (body) VALUES (?)", ((orjson.dumps(event),) for _ in range(10_000)))
        by_hand.execute("COMMIT")

    benchmark(publish)
