"""Files of older releases are migrated, whole or not at all; newer ones are refused."""

from __future__ import annotations

import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.sqlite import connections, schema
from cloud_runtimes.errors import ConflictError, InternalError, UnsupportedError
from tests.support.child import Start


def make(path: Path, version: int) -> None:
    """Make a file as a release that knew so many steps did, with one state in it."""
    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    for step in schema.STEPS[:version]:
        for statement in step:
            connection.execute(statement)
    connection.execute("INSERT INTO stores (name) VALUES ('store')")
    connection.execute(
        "INSERT INTO state (store, key, etag, content_type, value) VALUES (1, 'k', 7, 'application/json', '5')"
    )
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


def tables(path: Path) -> tuple[int, set[str]]:
    connection = sqlite3.connect(path)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        return version, {row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
    finally:
        connection.close()


@pytest.fixture
def path(home: Path) -> Path:
    return home / "cloud_runtimes.db"


@pytest.mark.parametrize("version", range(1, len(schema.STEPS)))
def test_an_older_file_is_migrated(path: Path, tmp_path: Path, version: int) -> None:
    make(path, version)
    with CloudRuntimesClient() as client:
        assert client.state.get("store", "k") == 5
        client.configuration.save_configuration("store", {"k": "1"})
        assert client.configuration.get_configuration("store") == {"k": "1"}
    with CloudRuntimesClient(config={"capa": {"home": str(tmp_path / "new")}}) as client:
        client.state.save("store", "k", 5)
    assert tables(path) == tables(tmp_path / "new" / "cloud_runtimes.db")
    assert tables(path)[0] == len(schema.STEPS)


def test_a_file_is_made_where_statements_stay_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyPy counts no references, so a cursor that nobody closes keeps its statement going."""
    kept = []

    class Keeping(connections.Connection):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            kept.append(super().execute(*arguments))
            return kept[-1]

    monkeypatch.setattr(connections, "Connection", Keeping)
    with CloudRuntimesClient() as client:
        client.state.save("store", "k", 5)
        assert client.state.get("store", "k") == 5
    assert kept


@pytest.mark.parametrize("page_size", [0, 4096, 512])
def test_pages(path: Path, page_size: int) -> None:
    """A new file has larger ones, one that there is keeps its own; both are checkpointed at 16 MiB."""
    if page_size:
        path.parent.mkdir(parents=True)
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("VACUUM")
        connection.close()
    with CloudRuntimesClient() as client:
        client.state.save("store", "k", 5)
        ours = client.state._frame.drivers["store"]._engine._group_commit.connection
        (size,) = ours.execute("PRAGMA page_size").fetchone()
        assert size == (page_size or 8192)
        assert ours.execute("PRAGMA wal_autocheckpoint").fetchone() == (16 * 1024 * 1024 // size,)


def test_an_older_file_that_can_only_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Existing data is readable, and calls that need missing tables raise an error that says why."""

    def refuse(path: str) -> Any:
        raise PermissionError(13, "Permission denied", path)

    make(path, 1)
    before = path.read_bytes()
    monkeypatch.setattr("cloud_runtimes.components.sqlite.connections.WriteLock", refuse)
    with CloudRuntimesClient() as client:
        assert client.state.get("store", "k") == 5
        for call in (client.configuration.get_configuration, client.configuration.subscribe_configuration):
            with pytest.raises(UnsupportedError, match=r"older release.*migrated"):
                call("store")
    assert path.read_bytes() == before


def test_a_newer_file_is_refused(path: Path) -> None:
    make(path, len(schema.STEPS))
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(schema.STEPS) + 1}")
    connection.close()
    before = path.read_bytes()
    with CloudRuntimesClient() as client:
        for call in (
            lambda: client.configuration.get_configuration("store"),
            lambda: client.configuration.save_configuration("store", {"k": "1"}),
            lambda: client.configuration.subscribe_configuration("store"),
        ):
            with pytest.raises(UnsupportedError, match="newer release"):
                call()
    assert path.read_bytes() == before


def test_a_migration_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path, 1)
    before = tables(path)
    broken = (*schema.STEPS, ("CREATE TABLE more (x)", "this is no SQL"))
    monkeypatch.setattr(schema, "STEPS", broken)
    with CloudRuntimesClient() as client, pytest.raises(InternalError):
        client.state.get("store", "k")
    assert tables(path) == before


@pytest.mark.process
def test_two_processes_migrate_at_once(path: Path, start: Start) -> None:
    make(path, 1)
    children = [start("first_start", number).ready() for number in range(2)]
    for child in children:
        child.go()
    for child in children:
        assert child.line() == {"done": True}
        child.process.wait()
        assert child.process.returncode == 0
    assert tables(path)[0] == len(schema.STEPS)


# -- A data folder that the version before has written is opened by this one: ``tests/golden/home-1.tar.xz``

GOLDEN = Path(__file__).parents[1] / "golden" / "home-1.tar.xz"
TOKEN = 1795765375929
"""The last fencing token that was given."""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[CloudRuntimesClient]:
    with tarfile.open(GOLDEN) as archive:
        archive.extractall(tmp_path, filter="data")
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": str(tmp_path / "home")}}) as instance:
        yield instance


def received(client: CloudRuntimesClient, topic: str, group: str, **options: Any) -> list[Any]:
    events = []
    with client.pubsub.subscribe("bus", topic, group=group, **options) as sub:
        while client.pubsub.lag("bus", topic, group=group):
            if (event := sub.receive(0.5)) is not None:
                events.append(event)
                event.ack()
    return events


def test_state_locks_and_configuration(client: CloudRuntimesClient) -> None:
    state = client.state
    assert state.get("orders", "json") == {"n": 1, "f": 1.5, "big": 2**60, "text": "ü"}
    assert state.get("orders", "bytes") == b"\x00\xff"
    assert state.get("orders", "packed") == {"a": [1, 2, 3]}
    assert state.get("orders", "text") == "hello"
    assert state.get("orders", "short") is None
    assert state.get("orders", "long") == 1
    assert client.configuration.get_configuration("app") == {"color": "blue", "size": "9"}
    assert client.configuration.get_configuration("app", label="eu") == {"color": "red"}
    lease = client.lock.try_lock("locks", "r", "you")
    assert lease is not None
    assert lease.token is not None
    assert lease.token > TOKEN
    with pytest.raises(ConflictError):
        state.save("orders", "fenced", 2, fence=TOKEN - 1)
    state.save("orders", "fenced", 2, fence=lease.token)


def test_events(client: CloudRuntimesClient) -> None:
    again = {event.data["n"] for event in received(client, "t", "workers", dead_letter_topic="dead")}
    assert set(range(400, 1010)) <= again
    assert {0, 7, 14, 21, 98} <= again
    assert not again & {1, 2, 3, 4, 6, 8, 100, 105, 200, 300}
    assert [event.data["n"] for event in received(client, "t", "another")] == list(range(1010))
    (letter,) = received(client, "dead", "undertaker")
    assert (letter.data, letter.extensions["dlreason"]) == ({"n": 3}, "dropped")
    assert sorted(event.data["late"] for event in received(client, "later", "workers")) == [False, True]


def test_jobs_files_and_databases(client: CloudRuntimesClient) -> None:
    assert {job.name for job in client.schedule.list_jobs()} == {"nightly", "once"}
    # the time of both has passed, and neither waits for the other
    with client.pubsub.subscribe("bus", "jobs") as sub, client.schedule.running():
        events = [sub.receive(10), sub.receive(10)]
    assert sorted(list(event.data.items()) for event in events if event is not None) == [[("x", 1)], [("y", 2)]]
    assert client.file.get_file("docs", "a/b.txt") == b"content"
    assert [row["name"] for row in client.database.query("shop", "SELECT name FROM items")] == ["pen"]
