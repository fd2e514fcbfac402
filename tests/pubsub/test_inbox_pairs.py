"""Events of one engine that are handled once in a store of another: their ids lie in the commit of what came of them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ConflictError, UnsupportedError
from cloud_runtimes.pubsub import OutgoingEvent
from cloud_runtimes.testing import Api
from tests.support import Figure, Rounds
from tests.support.pairs import pair

ROOT = Path(__file__).parents[2]
SOON = 30.0
PAIRS = ["sqlite redis", "postgres rabbitmq", "redis sqlite", "nats redis", "etcd nats"]


@pytest.fixture(params=PAIRS)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A store of the first engine, and events of the second."""
    with pair(request, tmp_path, request.param) as config:
        yield config


@pytest.fixture
def client(config: dict[str, Any]) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(app_id="shop", config=config) as client:
        yield client


def published(client: CloudRuntimesClient, *numbers: int, topic: str = "t") -> None:
    """Publish events whose ids are their numbers."""
    events = [OutgoingEvent(number, attributes={"id": f"id-{number}", "source": "/tests"}) for number in numbers]
    client.pubsub.publish_bulk("bus", topic, events)


def test_a_repetition_changes_nothing(client: CloudRuntimesClient, api: Api) -> None:
    handled = []
    with client.pubsub.subscribe("bus", "t") as sub:
        published(client, 1, 1, 2)
        for _ in range(3):
            event = sub.receive(SOON)
            assert event is not None
            with api.opened(event.transaction("orders")) as tx:
                tx.save(f"k{event.data}", len(handled))
            handled.append(event.data)
            # a conflict, unless the answer has not landed yet
            with suppress(ConflictError), api.opened(event.transaction("orders")) as tx:
                tx.save("never", 1)
        assert sub.receive(0.5) is None
    assert sorted(handled) == [1, 1, 2]
    assert client.state.get("orders", "k1") == handled.index(1)
    assert client.state.list_keys("orders") == ["k1", "k2"]
    assert client.state.list_keys("orders", limit=1) == ["k1"]
    assert client.state.list_keys("orders", limit=2, after="k1") == ["k2"]
    client.state.save("orders", "~", 0)
    assert client.state.list_keys("orders", limit=1, after="k2") == ["~"]
    # another group handles it too
    with client.pubsub.subscribe("bus", "t", group="other") as sub:
        published(client, 1)
        event = sub.receive(SOON)
        assert event is not None
        with event.transaction("orders") as tx:
            tx.save("of-the-other", 1)
    assert client.state.get("orders", "of-the-other") == 1


def test_what_fails_leaves_no_id(client: CloudRuntimesClient, api: Api) -> None:
    client.state.save("orders", "taken", 1)
    with client.pubsub.subscribe("bus", "t") as sub:
        published(client, 1)
        event = sub.receive(SOON)
        assert event is not None
        with pytest.raises(ConflictError), api.opened(event.transaction("orders")) as tx:
            tx.save("taken", 2, concurrency="first-write")
        with pytest.raises(ZeroDivisionError), api.opened(event.transaction("orders")) as tx:
            tx.save("taken", 1 / 0)
        with api.opened(event.transaction("orders")) as tx:
            tx.save("taken", 3)
    assert client.state.get("orders", "taken") == 3


def test_of_a_batch_the_rest_comes_again(client: CloudRuntimesClient) -> None:
    with client.pubsub.subscribe("bus", "t") as sub:
        published(client, 1)
        event = sub.receive(SOON)
        assert event is not None
        with event.transaction("orders") as tx:
            tx.save("k1", 1)
    seen: list[list[int]] = []

    def handle(batch: Any) -> None:
        seen.append([event.data for event in batch])
        with batch.transaction("orders") as tx:
            for event in batch:
                tx.save(f"k{event.data}", len(seen))

    published(client, 1, 2, 3)
    with client.pubsub.subscribe("bus", "t", handle, batch=10):
        end = time.monotonic() + SOON
        while client.state.get("orders", "k2") is None or client.state.get("orders", "k3") is None:
            assert time.monotonic() < end, seen
            time.sleep(0.05)
    assert client.state.get("orders", "k1") == 1


def test_a_batch_with_an_event_twice(client: CloudRuntimesClient, api: Api) -> None:
    with client.pubsub.subscribe("bus", "t", batch=10) as sub:
        published(client, 1, 2, 1, 1)
        handled: list[int] = []
        while len(handled) < 2:
            batch = sub.receive(SOON)
            assert batch is not None
            numbers = [event.data for event in batch]
            try:
                with api.opened(batch.transaction("orders")) as tx:
                    tx.save("-".join(map(str, numbers)), 1)
            except ConflictError:
                batch.retry()
            else:
                handled += numbers
        assert sorted(handled) == [1, 2]
    assert all(len(key) == len({*key}) for key in client.state.list_keys("orders"))


@pytest.mark.parametrize("config", ["redis sqlite"], indirect=True)
def test_ids_are_kept_for_a_time(config: dict[str, Any]) -> None:
    config["capa"]["inbox_retention"] = 0.5
    with CloudRuntimesClient(app_id="shop", config=config) as client:
        with client.pubsub.subscribe("bus", "t") as sub:
            for value in range(2):
                published(client, 1)
                event = sub.receive(SOON)
                assert event is not None
                with event.transaction("orders") as tx:
                    tx.save("k", value)
                time.sleep(0.7)
        assert client.state.get("orders", "k") == 1


@pytest.mark.process
@pytest.mark.parametrize("config", ["sqlite kafka", "postgres rabbitmq", "redis nats", "etcd redis"], indirect=True)
def test_killed_while_handling(config: dict[str, Any], rounds: Rounds, figure: Figure, request: Any) -> None:
    count, kills, seed = rounds(400, 20_000), rounds(3, 100), random.randrange(10_000)
    chance = random.Random(seed)

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.pubsub.once", json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    process = start()
    try:
        with CloudRuntimesClient(app_id="shop", config=config) as client:
            for turn in range(kills):
                numbers = range(turn * count // kills, (turn + 1) * count // kills)
                client.pubsub.publish_bulk("bus", "t", list(numbers))
                time.sleep(chance.uniform(0.01, 0.3))
                process.kill()
                process.communicate()
                process = start()
            end = time.monotonic() + 120
            while len(keys := client.state.list_keys("orders", "done-")) < count:
                assert time.monotonic() < end, f"{len(keys)} of {count}, seed {seed}"
                time.sleep(0.2)
            time.sleep(1.5)
            handled = Counter(int(key.split("-")[1]) for key in client.state.list_keys("orders", "done-"))
    finally:
        process.kill()
        process.communicate()
    assert handled == dict.fromkeys(range(count), 1), f"seed {seed}"
    store, bus = request.node.callspec.params["config"].split()
    figure(f"SIGKILL of handlers of {bus} in transactions of {store}", f"{kills} kills, {count:,} events handled once")


def test_a_store_without_transactions_is_refused(tmp_path: Path) -> None:
    config = {
        "capa": {"home": str(tmp_path)},
        "state": {"orders": {"component": "objectstore", "url": "s3://bucket/prefix"}},
    }
    with CloudRuntimesClient(app_id="shop", config=config) as client:
        with client.pubsub.subscribe("bus", "t") as sub:
            published(client, 1)
            event = sub.receive(SOON)
            assert event is not None
            with pytest.raises(UnsupportedError, match=r"event.transaction .*transaction"):
                event.transaction("orders")
