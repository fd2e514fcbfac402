"""Events that a transaction of one engine publishes at another: both or neither, each at least once, in order of keys, whoever is killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.client import context_of
from tests.support import Figure, Rounds
from tests.support.pairs import pair

pytestmark = [pytest.mark.process, pytest.mark.long]

ROOT = Path(__file__).parents[2]
_IN_CI = ["postgres kafka", "sqlite redis", "redis nats", "nats rabbitmq", "etcd sqlite"]
_IN_SOAK = [
    "postgres rabbitmq",
    "postgres nats",
    "postgres redis",
    "sqlite kafka",
    "sqlite rabbitmq",
    "sqlite nats",
    "redis redis",
    "nats nats",
]


@pytest.fixture(params=[*_IN_CI, *(pytest.param(each, marks=pytest.mark.soak) for each in _IN_SOAK)])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    with pair(request, tmp_path, request.param) as config:
        yield config


def start(config: dict[str, Any], *arguments: object, prefix: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    command = [*prefix, sys.executable, "-m", "tests.pubsub.relaying", json.dumps(config), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def _waiting(client: CloudRuntimesClient) -> int:
    relays: Any = getattr(context_of(client).frame("pubsub"), "relays")  # noqa: B009
    return sum(relays.stores(relay)[0].backlog().events for relay in relays.known())


def test_killed_around_an_outbox(config: dict[str, Any], rounds: Rounds, figure: Figure, request: Any) -> None:
    count, kills, seed = rounds(20, 500), rounds(8, 400), random.randrange(10_000)
    chance = random.Random(seed)
    # consumers first: RabbitMQ keeps nothing for a group that there is not yet
    roles: list[tuple[object, ...]] = [("consume",), ("consume",), ("produce", "a", count), ("produce", "b", count)]
    processes = [start(config, *role) for role in roles]
    expected = {f"{name}{number}-{each}" for name in "ab" for number in range(10) for each in range(count)}
    try:
        for _ in range(kills):
            time.sleep(chance.uniform(0.02, 0.3))
            victim = chance.randrange(len(roles))
            processes[victim].kill()
            processes[victim].communicate()
            processes[victim] = start(config, *roles[victim])
        with CloudRuntimesClient(app_id="shop", config=config) as client:
            end = time.monotonic() + 120
            while len(client.state.list_keys("orders", "done-")) < len(expected):
                assert time.monotonic() < end, f"{len(client.state.list_keys('orders', 'done-'))} of {len(expected)}"
                time.sleep(0.5)
            while _waiting(client):
                assert time.monotonic() < end, f"{_waiting(client)} wait"
                time.sleep(0.5)
            time.sleep(1.5)
            done = Counter(key[5:].rsplit("-", 5)[0] for key in client.state.list_keys("orders", "done-"))
            orders = {key.removeprefix("order-") for key in client.state.list_keys("orders", "order-")}
            odd = client.state.list_keys("orders", "odd-")
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert orders == expected, f"seed {seed}"
    assert done == dict.fromkeys(expected, 1), f"seed {seed}"
    assert not odd, f"seed {seed}"
    store, bus = request.node.callspec.params["config"].split()
    figure(
        f"SIGKILL of producers, forwarders and consumers, outbox of {store}, events of {bus}",
        f"{kills} kills, {len(expected):,} orders, each published with its transaction, handled once and in order",
    )
