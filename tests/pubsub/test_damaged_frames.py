"""Frames of the log that cannot be read, by a flipped byte on the disk or by a later version: neither their group nor others stop for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support.odd_messages import LATER
from tests.support.waiting import until

SOON = 30.0


class _Sqlite:
    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._home: Path = request.getfixturevalue("home")
        self.client = CloudRuntimesClient(app_id="suite", config={"capa": {"home": str(self._home)}})

    def spoil(self, body: bytes) -> bytes:
        """Change the bytes of the first frame; return those that it had."""
        (path,) = self._home.glob("*.db")
        with sqlite3.connect(path, timeout=30) as connection:
            ((id, before),) = connection.execute("SELECT id, body FROM frames ORDER BY id LIMIT 1").fetchall()
            connection.execute("UPDATE frames SET body = ? WHERE id = ?", (body, id))
        connection.close()
        return bytes(before)

    def close(self) -> None:
        self.client.close()


class _Postgres:
    def __init__(self, request: pytest.FixtureRequest) -> None:
        from tests.support.harnesses.postgres import PostgresHome

        self._home = PostgresHome(request.getfixturevalue("postgres_url"))
        self.client = self._home.client()

    def spoil(self, body: bytes) -> bytes:
        """Change the bytes of the first frame; return those that it had."""
        frames, run = f"{self._home.schema}.frames", self._home._connection.execute
        ((id, before),) = run(f"SELECT id, body FROM {frames} ORDER BY id LIMIT 1").fetchall()
        run(f"UPDATE {frames} SET body = %s WHERE id = %s", (body, id))
        return bytes(before)

    def close(self) -> None:
        self._home.close()


LOGS: dict[str, Any] = {"sqlite": _Sqlite, "postgres": _Postgres}


@pytest.fixture(params=LOGS)
def log(request: pytest.FixtureRequest) -> Iterator[Any]:
    made = LOGS[request.param](request)
    yield made
    made.close()


def spoiled(log: Any, body: bytes) -> tuple[Any, bytes]:
    """Publish three events, of which the frame of the first two cannot be read; return the service and what the frame had."""
    pubsub = log.client.pubsub
    pubsub.publish_bulk("bus", "t", [1, 2])
    before = log.spoil(body)
    pubsub.publish("bus", "t", 3)
    return pubsub, before


@pytest.mark.parametrize("body", [b"CRF\x01\x02damaged", LATER], ids=["damaged", "later"])
def test_it_becomes_a_dead_letter(log: Any, body: bytes) -> None:
    pubsub, _ = spoiled(log, body)
    with pubsub.subscribe("bus", "dead") as letters, pubsub.subscribe("bus", "t", dead_letter_topic="dead") as sub:
        event = sub.receive(SOON)
        assert event.data == 3
        event.ack()
        letter = letters.receive(SOON)
        assert letter.data == body
        assert (letter.extensions["dlreason"], letter.extensions["dltopic"]) == ("undecodable", "t")
        letter.ack()
        assert letters.receive(0.1) is None
    with pubsub.subscribe("bus", "t") as sub:
        assert sub.receive(0.1) is None


def test_without_a_dead_letter_topic_it_is_tried_again(log: Any, caplog: pytest.LogCaptureFixture) -> None:
    pubsub, _ = spoiled(log, b"CRF\x01\x02damaged")
    with pubsub.subscribe("bus", "t", max_deliveries=2) as sub:
        event = sub.receive(SOON)
        assert event.data == 3
        event.ack()
        until(lambda: "1 events are lost, since they cannot be read" in caplog.text)
        assert sub.receive(0.1) is None
    assert "2 events cannot be read" in caplog.text


def test_what_is_mended_is_delivered(log: Any, caplog: pytest.LogCaptureFixture) -> None:
    pubsub, before = spoiled(log, LATER)
    with pubsub.subscribe("bus", "t") as sub:
        assert sub.receive(SOON).data == 3
        assert "2 events cannot be read: frame: version 2" in caplog.text
        log.spoil(before)
        events = [sub.receive(SOON), sub.receive(SOON)]
        assert {(event.data, event.delivery_count) for event in events} == {(1, 2), (2, 2)}
