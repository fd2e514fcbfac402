"""Events that are published by transactions of a database beside their broker, on each that can be had here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support.waiting import in_threads, until

WRITERS, EACH = 12, 20


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CloudRuntimesClient]:
    """A client with the database ``shop``, and all else in the embedded home."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/shop.db"
    elif request.param == "postgres":
        url = "postgresql+psycopg" + request.getfixturevalue("postgres_database").removeprefix("postgresql")
    else:
        url = request.getfixturevalue("mariadb_url")
    database = {"shop": {"component": "sqlalchemy", "url": url, "pool_size": WRITERS}}
    with CloudRuntimesClient(
        app_id="shop", config={"capa": {"home": str(tmp_path / "home")}, "database": database}
    ) as client:
        yield client


def test_writers_at_once(client: CloudRuntimesClient) -> None:
    """What each of many writers publishes stays in its order, though their transactions commit across each other."""
    client.database.execute("shop", "DROP TABLE IF EXISTS orders")
    client.database.execute("shop", "CREATE TABLE orders (id BIGINT PRIMARY KEY)")

    def write(writer: int) -> None:
        for number in range(EACH):
            with client.database.transaction("shop") as tx:
                tx.publish("bus", "orders", number, key=str(writer))
                tx.execute("INSERT INTO orders (id) VALUES (:id)", {"id": writer * EACH + number})

    seen: dict[str | None, list[int]] = {}
    with client.pubsub.subscribe("bus", "orders") as sub:
        in_threads(*[threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)])
        for _ in range(WRITERS * EACH):
            event = sub.receive(30)
            assert event is not None
            seen.setdefault(event.key, []).append(event.data)
            event.ack()
        assert sub.receive(0.3) is None
    assert seen == {str(writer): list(range(EACH)) for writer in range(WRITERS)}
    assert client.database.query("shop", "SELECT COUNT(*) AS n FROM orders") == [{"n": WRITERS * EACH}]
    until(lambda: not client.database.query("shop", "SELECT id FROM cloud_runtimes_outbox"))


def test_large_late_and_undone(client: CloudRuntimesClient) -> None:
    with client.pubsub.subscribe("bus", "orders") as sub:
        with pytest.raises(ZeroDivisionError), client.database.transaction("shop") as tx:
            tx.publish("bus", "orders", "never")
            raise ZeroDivisionError
        with client.database.transaction("shop") as tx:
            tx.publish("bus", "orders", "later", delay=0.5)
            tx.publish("bus", "orders", "ü😀" * 100_000)
        for data in ("ü😀" * 100_000, "later"):
            event = sub.receive(30)
            assert event is not None
            assert event.data == data
            event.ack()
