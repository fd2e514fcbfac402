"""Members of a group with ``order="key"`` are killed, stopped beyond their lease, join and leave: each key is handled in order, without a gap, on every engine."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.postgres import ordered as postgres
from cloud_runtimes.spi.broker import ordered
from tests.support import Figure, Rounds
from tests.support.harnesses.kafka import KafkaHome
from tests.support.harnesses.nats import NatsHome
from tests.support.harnesses.postgres import PostgresHome
from tests.support.harnesses.rabbitmq import RabbitHome
from tests.support.harnesses.redis import RedisHome
from tests.support.key_order import SESSION, Members, check
from tests.support.members import join

pytestmark = pytest.mark.process


def _postgres(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Callable[[], None]]:
    harness = PostgresHome(request.getfixturevalue("postgres_url"))
    return {"capa": {"home": {"url": harness.url, "schema": harness.schema}}}, harness.close


def _kafka(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Callable[[], None]]:
    harness = KafkaHome(request.getfixturevalue("kafka_servers"))
    table = harness.table("bus", partitions=8, session_timeout=SESSION)
    return {"pubsub": {"bus": table}}, harness.close


def _redis(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Callable[[], None]]:
    harness = RedisHome(request.getfixturevalue("redis_server"))
    return harness.config(), harness.close


def _nats(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Callable[[], None]]:
    harness = NatsHome(request.getfixturevalue("nats_server"))
    return harness.config(), harness.close


def _rabbitmq(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Callable[[], None]]:
    harness = RabbitHome(request.getfixturevalue("rabbitmq_url"))
    return harness.config(), harness.close


ENGINES: dict[str, Callable[[pytest.FixtureRequest], tuple[dict[str, Any], Callable[[], None]]]] = {
    "postgres": _postgres,
    "redis": _redis,
    "nats": _nats,
    "rabbitmq": _rabbitmq,
    "kafka": _kafka,
}


def _left(path: Path, keys: int, events: int) -> int:
    """Return how many keys have events that were not handled; 1 while events are handled again."""
    done = [line for line in path.read_text().splitlines() if line[0] == "E" and line.split()[2] == str(events - 1)]
    return keys - len({line.split()[1] for line in done}) or int(time.time() < path.stat().st_mtime + 1)


@pytest.fixture(params=["sqlite", *ENGINES])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    if request.param == "sqlite":
        yield {"capa": {"home": str(tmp_path / "home")}}
        return
    config, close = ENGINES[request.param](request)
    yield config
    close()


def test_members_die_and_stop(
    config: dict[str, Any], tmp_path: Path, rounds: Rounds, figure: Figure, request: Any
) -> None:
    keys, events, size, workers, turns = rounds(60, 1000), rounds(100, 1000), rounds(3, 4), rounds(4, 16), rounds(6, 90)
    seed = random.randrange(10_000)
    chance = random.Random(seed)
    path = tmp_path / "handled"
    engine = request.node.callspec.params["config"]
    options: dict[str, Any] = {"workers": workers}
    if engine != "rabbitmq":  # where a group begins with its first member
        options["start"] = "earliest"
    standstill = SESSION + 2
    if "pubsub" not in config:  # Kafka has a session of its own
        options["ack_wait"] = 2.0 if engine == "rabbitmq" else 1.5  # heartbeats come by the second
        standstill = 3.5 if engine == "rabbitmq" else 2.5
    members = Members(config, options, path)
    begun = time.monotonic()
    try:
        for _ in range(size):
            members.join()
        with CloudRuntimesClient(app_id="suite", config=config) as client:
            with client.pubsub.publisher("bus", "t", delivery_timeout=600) as publisher:
                for turn in range(turns):
                    for number in range(turn * events // turns, (turn + 1) * events // turns):
                        for key in range(keys):
                            publisher.send([key, number], key=f"key {key}")
                    what = ("kill", "stop", "leave")[turn % 3]
                    time.sleep(chance.uniform(0, 0.3))
                    {"kill": members.kill, "stop": lambda: members.stop(standstill), "leave": members.leave}[what]()
                    members.join()
                    time.sleep(chance.uniform(0, 0.3))
                    members.wake()
                    while members.count > size:
                        members.leave()
            end = time.monotonic() + 60
            left = partial(client.pubsub.lag, "bus", "t")
            if not client.supports("pubsub.lag", "bus"):
                left = partial(_left, path, keys, events)
            while left() and time.monotonic() < end:
                members.wake()
                time.sleep(0.05)
            assert left() == 0, f"seed {seed}"
        while members.count:
            members.leave()
            members.wake()
    finally:
        members.close()
    faults, last, again, late = check(path.read_text().splitlines())
    assert late <= workers * turns
    assert faults == [], f"seed {seed}"
    assert last == dict.fromkeys(range(keys), events - 1), f"seed {seed}"
    seconds = time.monotonic() - begun
    figure(
        f"order of keys on {engine} while members are killed and stopped",
        f"{turns} turns in {seconds:.0f} s: {keys * events:,} events of {keys:,} keys in order, {again:,} of them again, {late} begun by stopped members",
    )


@pytest.mark.parametrize(
    ("config", "parts"), [("sqlite", ordered.PARTS), ("postgres", postgres.PARTS)], indirect=["config"]
)
def test_a_member_that_is_alone_takes_all_parts_at_once(config: dict[str, Any], parts: int) -> None:
    with CloudRuntimesClient(app_id="suite", config=config) as client:
        source = join(client, order="key")
        assert not source.poll((), 10, 0.0)
        assert source._owned == set(range(parts))
        source.close(())


def test_the_checker_finds_faults() -> None:
    for lines, fault in (
        (["B 1 0 7", "E 1 0 7", "B 1 2 7"], "key 1: 2 began after 0"),
        (["B 1 0 7", "B 1 0 8"], "key 1: 0 began in 8 while 7 handled 0"),
        (["B 1 0 7", "E 1 0 7", "B 1 1 7", "E 1 1 7", "B 1 0 7", "E 1 0 7", "B 1 2 7"], "key 1: 2 began after 0"),
        (["B 1 0 7", "F 1 0 7", "B 1 1 7"], "key 1: 1 began after -1"),
    ):
        assert check(lines).faults == [fault]
    assert check(["B 1 0 7", "S 7", "B 1 0 8", "E 1 0 7", "E 1 0 8", "B 1 1 8", "E 1 1 8"]) == ([], {1: 1}, 0, 0)
