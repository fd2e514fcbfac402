"""A broker that is away while a process publishes through a spool and is killed: nothing that was durable is lost, and keys keep their order."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.client import context_of
from tests.pubsub.spooling import KEYS
from tests.support import Figure, Rounds
from tests.support.redis import RedisServer
from tests.support.waiting import until

pytestmark = [pytest.mark.process, pytest.mark.long]

ROOT = Path(__file__).parents[2]
RATE = 20_000
KILLS = 5


@pytest.mark.promise("B4", figure="a broker away")
def test_a_broker_away(tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    seconds, chance = rounds(6, 3600), random.Random()
    memory: list[int] = []
    durable = 0
    with ExitStack() as stack:
        server = RedisServer(stack, "redis", {})  # it starts later
        # an hour of them has room in its memory so
        bus = {"component": "redis", "url": server.url, "layout": "frame", "spool": {"max_bytes": 1 << 36}}
        config: dict[str, Any] = {"capa": {"home": str(tmp_path / "home")}, "pubsub": {"bus": bus}}
        for _ in range(KILLS + 1):
            # what was not told to be durable is published again, under its id
            command = [sys.executable, "-m", "tests.pubsub.spooling", json.dumps(config), str(durable), str(RATE)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
                assert process.stdout is not None
                end = time.monotonic() + seconds / (KILLS + 1) * chance.uniform(0.8, 1.2)
                while time.monotonic() < end:
                    number, size = map(int, process.stdout.readline().split())
                    durable = number
                    memory.append(size)
                process.kill()
        client = stack.enter_context(CloudRuntimesClient(app_id="shop", config=config))
        waiting = client.pubsub.spool("bus").events
        assert waiting >= durable
        server.start()
        begun = time.monotonic()
        context_of(client).frame("pubsub").relays.resume()
        until(lambda: client.pubsub.spool("bus").events == 0, seconds=60 + waiting / RATE)
        took = time.monotonic() - begun
        stats = client.pubsub.spool("bus")
        seen = bytearray(durable + RATE)
        last = dict.fromkeys(range(KEYS), -1)
        arrived = 0
        with client.pubsub.subscribe("bus", "t", group="all", start="earliest", batch=1000) as batches:
            while (batch := batches.receive(2.0)) is not None:
                for event in batch:
                    arrived += 1
                    number = int(event.id)
                    if not seen[number]:
                        seen[number] = 1
                        assert number > last[number % KEYS], "a key out of order"
                        last[number % KEYS] = number
                batch.ack()
    assert seen.count(0, 0, durable) == 0
    assert (stats.forwarded, stats.dropped, stats.refused) == (waiting, 0, 0)
    settled = memory[len(memory) // 4 :]
    assert max(settled) < 1.3 * min(settled) + (32 << 20), "memory grows"
    figure(
        f"a broker away for {seconds} s at {RATE:,} events a second, {KILLS} SIGKILLs",
        f"{durable:,} durable, 0 lost, {arrived - seen.count(1):,} repeated, in order of keys; forwarded in {took:.1f} s; "
        f"memory {min(settled) >> 20} to {max(settled) >> 20} MiB",
    )
