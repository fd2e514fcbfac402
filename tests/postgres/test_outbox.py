"""Events that are published by a transaction of SQL, and commits whose outcome is not known."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.client import context_of
from cloud_runtimes.errors import AlreadyExistsError, CloudRuntimesError
from cloud_runtimes.pubsub._relay_table import TableStore
from cloud_runtimes.testing import Api
from tests.packaging.builds import ROOT
from tests.packaging.programs import blocks
from tests.support.harnesses.postgres import PostgresHome
from tests.support.waiting import until


@pytest.fixture
def client(home: PostgresHome) -> CloudRuntimesClient:
    return home.client()


@pytest.fixture
def shop(home: PostgresHome, client: CloudRuntimesClient) -> str:
    name = home.store("shop")
    client.database.execute(name, "CREATE TABLE orders (id int PRIMARY KEY, total int)")
    return name


def _received(client: CloudRuntimesClient, api: Api, count: int) -> list[Any]:
    payloads: list[Any] = []
    with api.opened(client.pubsub.subscribe("bus", "orders")) as sub:
        while (event := api.call(sub, "receive", 0.3 if len(payloads) == count else 10.0)) is not None:
            payloads.append(event.data)
            event.ack()
    return payloads


def test_sql_and_events_are_one_commit(client: CloudRuntimesClient, shop: str, api: Api) -> None:
    insert = "INSERT INTO orders VALUES (:id, :total)"
    with api.opened(client.database.transaction(shop)) as tx:
        api.call(tx, "execute", insert, {"id": 1, "total": 5})
        tx.publish("bus", "orders", {"id": 1})
        tx.publish("bus", "orders", bytes(100_000), content_type="application/octet-stream")
    with api.opened(client.database.transaction(shop)) as tx:
        tx.publish("bus", "orders", "without a statement")
    with pytest.raises(AlreadyExistsError), api.opened(client.database.transaction(shop)) as tx:
        tx.publish("bus", "orders", "never")
        api.call(tx, "execute", insert, {"id": 1, "total": 6})
    with pytest.raises(ZeroDivisionError), api.opened(client.database.transaction(shop)) as tx:
        tx.publish("bus", "orders", "never")
        raise ZeroDivisionError
    assert _received(client, api, 3) == [{"id": 1}, bytes(100_000), "without a statement"]
    tx = client.database.transaction(shop)
    tx.publish("bus", "orders", "without a block")
    api.call(tx, "commit")
    assert _received(client, api, 1) == ["without a block"]


def test_the_example_of_the_documentation(client: CloudRuntimesClient, shop: str, api: Api) -> None:
    page = ROOT / "docs" / "how-to" / "outbox-and-inbox.md"
    (text,) = (each for each in blocks(page, "python") if "client.database" in each)
    exec(text.replace('"shop"', repr(shop)), {"client": client})
    assert client.database.query(shop, "SELECT id, total FROM orders") == [{"id": 7, "total": 12}]
    assert _received(client, api, 1) == [{"id": "order-7"}]


def test_a_waiting_subscriber_is_woken(client: CloudRuntimesClient, shop: str, api: Api) -> None:
    with api.opened(client.pubsub.subscribe("bus", "orders")) as sub:
        assert api.call(sub, "receive", 0.3) is None
        with api.opened(client.database.transaction(shop)) as tx:
            tx.publish("bus", "orders", 1)
        assert api.call(sub, "receive", 10.0).data == 1


def test_a_partition_that_is_missing_is_made(
    home: PostgresHome, client: CloudRuntimesClient, shop: str, api: Api
) -> None:
    client.pubsub.publish("bus", "orders", 0)
    home.advance(30 * 86400)
    with api.opened(client.database.transaction(shop)) as tx:
        api.call(tx, "execute", "INSERT INTO orders VALUES (1, 1)")
        tx.publish("bus", "orders", 1)
    with api.opened(client.state.transaction("s")) as tx:
        tx.save("a", 1)
        tx.publish("bus", "orders", 2)
    assert _received(client, api, 3) == [0, 1, 2]
    assert client.database.query(shop, "SELECT count(*) AS n FROM orders")[0]["n"] == 1


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql+psycopg"])
def test_a_database_elsewhere(
    dialect: str,
    home: PostgresHome,
    api: Api,
    tmp_path: Path,
    postgres_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"sqlite:///{tmp_path}/near.db" if dialect == "sqlite" else f"{dialect}{postgres_database[10:]}"
    config = {
        "capa": {"home": {"url": home.url, "schema": home.schema}},
        "database": {"near": {"component": "sqlalchemy", "url": url}},
    }
    with CloudRuntimesClient(config=config) as client, client.pubsub.subscribe("bus", "orders") as sub:
        for number in range(3):
            with suppress(ZeroDivisionError), api.opened(client.database.transaction("near")) as tx:
                tx.publish("bus", "orders", number, key="k")
                tx.publish("bus", "orders", number / (number - 1), key="k")
        for data in (0, 0.0, 2, 2.0):
            event = sub.receive(30)
            assert event is not None
            assert (event.data, event.key) == (data, "k")
            event.ack()
        until(lambda: not client.database.query("near", "SELECT id FROM cloud_runtimes_outbox"))
        relays: Any = getattr(context_of(client).frame("pubsub"), "relays")  # noqa: B009
        asked: list[str] = []
        run: Any = TableStore.run
        monkeypatch.setattr(TableStore, "run", lambda self, *call: asked.append(self.name) or run(self, *call))
        for looks in range(2):
            relays.resume()
            assert len([name for name in asked if not name]) == 4 + looks, "a table is made, or found, once"


@pytest.mark.parametrize("applied", [False, True])
def test_a_commit_in_doubt(
    home: PostgresHome, client: CloudRuntimesClient, api: Api, applied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost around COMMIT: the handler hears that it may have been applied, and the event comes again unless it was."""
    from cloud_runtimes.components.postgres import changes
    from cloud_runtimes.components.postgres.failures import ConnectionLost

    commit = changes.commit

    def lost(connection: Any, parts: Any, **options: Any) -> Any:
        if len(parts) < 2:  # not of an inbox
            return (yield from commit(connection, parts, **options))
        monkeypatch.setattr(changes, "commit", commit)
        if applied:
            yield from commit(connection, parts, **options)
        connection.sent = True
        raise ConnectionLost("cut")

    client.pubsub.publish("bus", "orders", 1)
    with api.opened(client.pubsub.subscribe("bus", "orders")) as sub:
        event = api.call(sub, "receive", 10.0)
        monkeypatch.setattr(changes, "commit", lost)
        with pytest.raises(CloudRuntimesError) as caught, api.opened(event.transaction("done")) as tx:
            tx.save("order", "written")
        assert caught.value.maybe_applied
        event.retry(0)  # as a handler that lets the error pass
        again = api.call(sub, "receive", 0.5 if applied else 10.0)
        assert client.state.get("done", "order") == ("written" if applied else None)
        if applied:
            assert again is None
        else:
            with api.opened(again.transaction("done")) as tx:
                tx.save("order", "written")
    with api.opened(client.pubsub.subscribe("bus", "orders")) as sub:
        assert api.call(sub, "receive", 0.3) is None
    assert client.state.get("done", "order") == "written"
