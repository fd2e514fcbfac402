"""SIGKILL at any moment of redriving: the group that failed gets each event once, and nobody else gets one."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.kafka.removals import LEASE
from tests.support import Figure, Rounds
from tests.support.harnesses.kafka import KafkaHome
from tests.support.harnesses.nats import NatsHome
from tests.support.harnesses.postgres import PostgresHome
from tests.support.harnesses.rabbitmq import StreamHome
from tests.support.harnesses.redis import RedisHome

pytestmark = pytest.mark.process
_REDRIVER = """
import json, sys
from cloud_runtimes import CloudRuntimesClient
with CloudRuntimesClient(app_id="shop", config=json.loads(sys.argv[1])) as client:
    print("ready", flush=True)
    while client.admin.redrive("bus", "dead", group="g", limit=20).count:
        pass
"""
_EVENTS = 4000


_HOMES: dict[str, tuple[str, Any]] = {
    "postgres": ("postgres_url", PostgresHome),
    "redis": ("valkey_server", RedisHome),
    "nats": ("nats_server", NatsHome),
    "rabbitmq": ("rabbitmq_url", StreamHome),
}


@pytest.fixture(params=["sqlite", "postgres", "redis", "nats", "kafka", "rabbitmq"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    if request.param == "sqlite":
        yield {"capa": {"home": str(tmp_path / "home")}}
        return
    if request.param == "kafka":
        home = KafkaHome(request.getfixturevalue("kafka_servers"))
        yield {"pubsub": {"bus": home.table("bus")}}
        home.close()
        return
    server, make = _HOMES[request.param]
    harness = make(request.getfixturevalue(server))
    yield harness.config()
    harness.close()


@pytest.fixture
def within(request: pytest.FixtureRequest) -> float:
    """Seconds within which a redriver is killed. On Kafka the next one waits until the lease is over."""
    return {"kafka": 2 * LEASE, "rabbitmq": 1.5}.get(request.node.callspec.params["config"], 0.15)


def _lag(client: CloudRuntimesClient, group: str) -> int | None:
    if client.supports("pubsub.lag", "bus"):
        return client.pubsub.lag("bus", "t", group=group)
    return client.admin.delete_group("bus", "t", group, dry_run=True)


def test_killed_redrivers(config: dict[str, Any], within: float, rounds: Rounds, figure: Figure) -> None:
    kills, interrupted = rounds(2 if within > LEASE else 5, 20), 0
    with CloudRuntimesClient(app_id="shop", config=config) as client:
        for group in ("g", "other"):
            client.pubsub.subscribe("bus", "t", group=group).close()
        with client.pubsub.publisher("bus", "dead", batch_events=50) as publisher:
            for number in range(_EVENTS):
                group = "g" if number % 4 else "other"
                publisher.send(number, attributes={"dlgroup": group, "dltopic": "t", "dlreason": "dropped"})
        for _ in range(kills):
            with subprocess.Popen(
                [sys.executable, "-c", _REDRIVER, json.dumps(config)], stdout=subprocess.PIPE
            ) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                time.sleep(random.uniform(0.0, within))
                process.kill()
            if within > 1:
                time.sleep(0.5)  # for what was on its way
            sent, left = _lag(client, "g"), sum(each.count for each in client.admin.dead_letters("bus", "dead"))
            assert sent is not None
            assert sent + left == _EVENTS
            interrupted += left > _EVENTS // 4
        client.admin.redrive("bus", "dead", group="g")
        assert _lag(client, "other") == 0
        letters = client.admin.peek("bus", "dead", limit=_EVENTS)
        assert [event.data for event in letters] == list(range(0, _EVENTS, 4))
        got: list[int] = []
        with client.pubsub.subscribe("bus", "t", group="g", batch=500) as sub:
            while len(got) < _EVENTS * 3 // 4 and (batch := sub.receive(10)) is not None:
                got += [event.data for event in batch]
                batch.ack()
            assert sub.receive(0.2) is None
        assert sorted(got) == [number for number in range(_EVENTS) if number % 4]
    figure("redrivers killed", f"{kills}, {interrupted} of them at work")
