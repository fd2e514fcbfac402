"""Files of other releases: older ones are brought forward with all that is in them, newer ones refused untouched."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.sqlite import schema
from cloud_runtimes.errors import UnsupportedError


def _client(path: Path) -> CloudRuntimesClient:
    table = {"component": "sqlite", "path": str(path)}
    return CloudRuntimesClient(config={"state": {"s": table}, "lock": {"l": table}, "pubsub": {"b": table}})


def _tables(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(path)
    try:
        return dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    finally:
        connection.close()


@pytest.mark.parametrize("version", range(1, len(schema.STEPS)))
def test_an_older_file_is_brought_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    path, fresh = tmp_path / "old.db", tmp_path / "new.db"
    with monkeypatch.context() as older:
        older.setattr(schema, "STEPS", schema.STEPS[:version])
        with _client(path) as client:
            client.state.save("s", "k", {"kept": True}, fence=7)
            client.pubsub.publish("b", "t", "kept")
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (version,)
    connection.close()
    with _client(path) as client, _client(fresh) as other:
        assert client.state.get("s", "k") == {"kept": True}
        with client.pubsub.subscribe("b", "t") as events:
            event = events.receive(10)
            assert event is not None
            assert event.data == "kept"
        lease = client.lock.try_lock("l", "r")
        assert lease is not None
        assert lease.token == 1
        other.state.save("s", "k", 1)
    assert _tables(path) == _tables(fresh)


def test_a_newer_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new.db"
    with _client(path) as client:
        client.state.save("s", "k", 1)
    before = path.read_bytes()
    monkeypatch.setattr(schema, "STEPS", schema.STEPS[:1])
    with _client(path) as client, pytest.raises(UnsupportedError, match=r"newer release.*upgrade"):
        client.state.get("s", "k")
    assert path.read_bytes() == before


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.db"
    with monkeypatch.context() as older:
        older.setattr(schema, "STEPS", schema.STEPS[:1])
        with _client(path) as client:
            client.state.save("s", "k", 1)
    before = _tables(path)
    with monkeypatch.context() as broken:
        broken.setattr(schema, "STEPS", (*schema.STEPS, ("CREATE TABLE locks (twice)",)))
        with _client(path) as client, pytest.raises(Exception, match="already exists"):
            client.state.get("s", "k")
    assert _tables(path) == before
    with _client(path) as client:
        assert client.state.get("s", "k") == 1
