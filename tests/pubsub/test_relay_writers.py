"""Events that wait in a store beside their broker, from many writers at once, on every store that can hold them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.sqlalchemy import driver as sql_driver
from tests.support import Rounds
from tests.support.pairs import pair
from tests.support.waiting import in_threads

WRITERS = 12


def own_database(url: str) -> str:
    """Return the URL of an empty database there: a forwarder of another test would carry on what waits in a shared one."""
    name = f"test_{uuid.uuid4().hex}"
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{url.rpartition('/')[0]}/{name}"


DATABASES = {
    "sqlite": lambda request, folder: f"sqlite:///{folder}/shop.db",
    "postgres": lambda request, folder: f"postgresql+psycopg{request.getfixturevalue('postgres_database')[10:]}",
    "mariadb": lambda request, folder: own_database(request.getfixturevalue("mariadb_url")),
}
Opened = tuple[CloudRuntimesClient, Callable[[], Any]]


@pytest.fixture(
    params=[
        *(f"database {name}" for name in DATABASES),
        "database postgres oracle.db",  # by the statements that Oracle and SQL Server get
        *(f"state {name}" for name in ("sqlite", "postgres", "redis", "nats", "etcd")),
    ]
)
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """A client whose events go to an embedded home, and what begins a transaction of the store where they wait."""
    service, engine, *told = request.param.split()
    if told:
        monkeypatch.setitem(sql_driver._SYSTEMS, "postgresql", *told)
    if service == "database":
        # as many writers as connections
        table = {"component": "sqlalchemy", "url": DATABASES[engine](request, tmp_path), "pool_size": WRITERS}
        config: dict[str, Any] = {"capa": {"home": str(tmp_path / "home")}, "database": {"shop": table}}
        with CloudRuntimesClient(app_id="shop", config=config) as client:
            yield client, lambda: client.database.transaction("shop")
    else:
        with (
            pair(request, tmp_path, f"{engine} sqlite") as config,
            CloudRuntimesClient(app_id="shop", config=config) as client,
        ):
            yield client, lambda: client.state.transaction("orders")


def test_each_keeps_its_order(opened: Opened, rounds: Rounds) -> None:
    """Though the transactions commit across each other."""
    (client, begin), each = opened, rounds(20, 400)

    def write(writer: int) -> None:
        for number in range(each):
            with begin() as tx:
                tx.publish("bus", "orders", number, key=str(writer))

    seen: dict[str | None, list[int]] = {}
    with client.pubsub.subscribe("bus", "orders") as sub:
        in_threads(*[threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)])
        for _ in range(WRITERS * each):
            event = sub.receive(30)
            assert event is not None
            seen.setdefault(event.key, []).append(event.data)
            event.ack()
        assert sub.receive(0.3) is None
    assert seen == {str(writer): list(range(each)) for writer in range(WRITERS)}


def test_large_late_and_undone(opened: Opened) -> None:
    client, begin = opened
    with client.pubsub.subscribe("bus", "orders") as sub:
        with pytest.raises(ZeroDivisionError), begin() as tx:
            tx.publish("bus", "orders", "never")
            raise ZeroDivisionError
        with begin() as tx:
            tx.publish("bus", "orders", "later", delay=0.5)
            tx.publish("bus", "orders", "ü😀" * 100_000)
        # which of them is first depends on how busy the machine is
        lengths = []
        for _ in range(2):
            event = sub.receive(30)
            assert event is not None
            lengths.append(len(event.data))
            event.ack()
        assert sorted(lengths) == [len("later"), 200_000]
        assert sub.receive(0.3) is None
