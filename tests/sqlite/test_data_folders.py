"""A data folder that the version before has written is opened by this one: ``tests/golden/home-1.tar.xz``."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ConflictError

GOLDEN = Path(__file__).parents[1] / "golden" / "home-1.tar.xz"
TOKEN = 1795765375929
"""The last fencing token that was given."""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[CloudRuntimesClient]:
    with tarfile.open(GOLDEN) as archive:
        archive.extractall(tmp_path, filter="data")
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": str(tmp_path / "home")}}) as made:
        yield made


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
