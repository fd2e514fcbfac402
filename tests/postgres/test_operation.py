"""Operation of a schema by the guide's commands: use by an account that may not create, dump, restore elsewhere."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import PermissionDeniedError
from cloud_runtimes.schedule import TopicTarget
from tests.support.harnesses.postgres import PostgresHome
from tests.support.postgres import PostgresServer, program

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "run-on-postgresql.md"
DAY_MS = 86_400_000


def home_client(url: str, **more: Any) -> CloudRuntimesClient:
    return CloudRuntimesClient(app_id="suite", config={"capa": {"home": {"url": url, **more}}}, timeout=10)


def grants() -> list[str]:
    """The statements of the guide that make both accounts."""
    match = re.search(r"```sql\n(CREATE ROLE.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    return [each for each in match[1].split(";\n") if each]


def received(sub: Any, count: int) -> list[Any]:
    events = []
    while len(events) < count:
        event = sub.receive(5.0)
        assert event is not None, f"only {events} came"
        event.ack()
        events.append(event.data)
    assert sub.receive(0.05) is None
    return events


@pytest.fixture
def accounts(home: PostgresHome) -> Iterator[tuple[str, str]]:
    """The URLs of the schema's owner and of the application's account, in a database whose owner they are not."""
    roles = f"{home.schema}_owner", f"{home.schema}_app"
    with psycopg.connect(home.url, autocommit=True) as connection:
        for statement in grants():
            text = re.sub(r"\bshop_owner\b", roles[0], statement)
            text = re.sub(r"\bcloud_runtimes\b", home.schema, re.sub(r"\bshop\b", roles[1], text))
            connection.execute(text.encode())
        yield tuple(home.url.replace("postgres@", f"{role}@") for role in roles)  # type: ignore[misc]
        for role in roles:
            connection.execute(f"DROP OWNED BY {role} CASCADE".encode())
            connection.execute(f"DROP ROLE {role}".encode())


def test_an_account_that_may_not_create_has_every_service(home: PostgresHome, accounts: tuple[str, str]) -> None:
    owner, app = accounts
    with home_client(owner, schema=home.schema) as client:
        client.state.save("s", "first", 1)
    with psycopg.connect(app) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(f"CREATE TABLE {home.schema}.mine (id int)")
    with home_client(app, schema=home.schema, ensure="check") as client:
        with client.lock.hold("l", "printer") as lock, client.state.transaction("s") as tx:
            tx.save("order", {"total": 1}, fence=lock.token)
            tx.publish("bus", "orders", 0)
        client.state.delete("s", "first")
        client.configuration.save_configuration("c", {"colour": "red"})
        client.file.put_file("f", "a.txt", b"x" * 2_000_000)
        client.schedule.schedule_job("report", schedule="@daily", target=TopicTarget("bus", "reports"))
        client.pubsub.publish("bus", "orders", 1, delay=0.01)
        client.pubsub.publish("bus", "orders", 2)
        with client.pubsub.subscribe("bus", "orders", start="earliest") as sub:
            assert sorted(received(sub, 3)) == [0, 1, 2]
        assert client.file.get_file("f", "a.txt") == b"x" * 2_000_000


def test_an_account_that_may_not_create_makes_and_drops_partitions(
    home: PostgresHome, accounts: tuple[str, str]
) -> None:
    owner, app = accounts
    with home_client(owner, schema=home.schema) as client:
        client.state.save("s", "k", 1)

    def partitions() -> set[str]:
        with psycopg.connect(home.url) as connection:
            rows = connection.execute(
                f"SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '{home.schema}.frames'::regclass"
            )
            return {row[0] for row in rows}

    with home_client(app, schema=home.schema, ensure="check") as client:
        client.pubsub.publish("bus", "orders", 1)
        first = partitions()
        assert first
        home.advance(3 * DAY_MS / 1000)
        client.pubsub.publish("bus", "orders", 2)
        assert partitions() > first
        home.sweep(app)
        assert not partitions() & first
        with client.pubsub.subscribe("bus", "orders", start="earliest") as sub:
            assert received(sub, 1) == [2]


def test_without_its_rights_an_account_is_told_so(home: PostgresHome, accounts: tuple[str, str]) -> None:
    owner, app = accounts
    with home_client(owner, schema=home.schema) as client:
        client.state.save("s", "k", 1)
    with psycopg.connect(owner, autocommit=True) as connection:
        role = app.partition("//")[2].partition("@")[0]
        connection.execute(f"REVOKE SELECT ON {home.schema}.state FROM {role}")
    with home_client(app, schema=home.schema, ensure="check") as client:
        with pytest.raises(PermissionDeniedError, match="state"):
            client.state.get("s", "k")


def test_a_dump_is_restored_into_another_server(home: PostgresHome, tmp_path: Path) -> None:
    dump = tmp_path / "home.dump"
    with psycopg.connect(home.url, autocommit=True) as connection:
        # the other server has not come so far with its numbers of transactions
        connection.execute("DO $$ BEGIN FOR i IN 1..20000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
    client = home.client()
    client.state.save("s", "k", {"total": 1})
    item = client.state.get_item("s", "k")
    assert item is not None
    client.file.put_file("f", "a.txt", b"content")
    with client.lock.hold("l", "printer") as lock:
        token = lock.token
    for number in range(4):
        client.pubsub.publish("bus", "orders", number)
    with client.pubsub.subscribe("bus", "orders", group="ahead", start="earliest") as sub:
        assert received(sub, 4) == [0, 1, 2, 3]
    with client.pubsub.subscribe("bus", "orders", group="behind", start="earliest", max_in_flight=2) as sub:
        first, second = sub.receive(5.0), sub.receive(5.0)
        assert first is not None
        assert second is not None
        second.ack()
        first.retry()
    client.pubsub.publish("bus", "orders", 4)
    subprocess.run([program("pg_dump"), "-Fc", "-n", home.schema, "-f", dump, home.url], check=True)
    with PostgresServer() as server:
        url = server.url
        subprocess.run([program("pg_restore"), "--no-owner", "--exit-on-error", "-d", url, dump], check=True)
        with home_client(url, schema=home.schema, ensure="check") as other:
            other.state.save("s", "k", {"total": 2}, etag=item.etag)
            assert other.file.get_file("f", "a.txt") == b"content"
            before = time.time_ns() // 1_000_000
            with other.lock.hold("l", "printer") as lock:
                assert lock.token > max(token, before - 60_000)
            for number in (5, 6):
                other.pubsub.publish("bus", "orders", number)
            with other.pubsub.subscribe("bus", "orders", group="ahead") as sub:
                assert received(sub, 3) == [4, 5, 6]
            with other.pubsub.subscribe("bus", "orders", group="behind") as sub:
                assert sorted(received(sub, 6)) == [0, 2, 3, 4, 5, 6]
        with home_client(
            url, schema=home.schema, max_connections=3
        ) as again:  # it looks once more: there is nothing to do
            again.pubsub.publish("bus", "orders", 7)
            with again.pubsub.subscribe("bus", "orders", group="ahead") as sub:
                assert received(sub, 1) == [7]
            with again.pubsub.subscribe("bus", "orders", group="late", start="earliest") as sub:
                assert sorted(received(sub, 8)) == list(range(8))
