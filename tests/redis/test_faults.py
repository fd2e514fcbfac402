"""Producers, consumers and the server are killed: what was acknowledged is there, and comes at least once."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support.harnesses.redis import RedisHome
from tests.support.redis import serve

PRODUCER = """
import sys
from cloud_runtimes import CloudRuntimesClient
client = CloudRuntimesClient(app_id="suite", config={"capa": {"home": {"url": sys.argv[1], "layout": sys.argv[2]}}})
number = int(sys.argv[3])
with client.pubsub.publisher("bus", "t", batch_events=50, delivery_timeout=60) as publisher:
    while True:
        for _ in range(100):
            publisher.send(number)
            number += 1
        publisher.flush()
        print(number, flush=True)
"""
CONSUMER = """
import sys
from cloud_runtimes import CloudRuntimesClient
client = CloudRuntimesClient(app_id="suite", config={"capa": {"home": {"url": sys.argv[1]}}})
with client.pubsub.subscribe("bus", "t", start="earliest", ack_wait=1, batch=20) as sub:
    for batch in sub:
        for event in batch:
            print(event.data)
        sys.stdout.flush()
        batch[0].retry(0)
        batch.ack()
"""


def run(program: str, out: IO[bytes], *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=out, stderr=subprocess.DEVNULL)


def numbers(file: IO[bytes]) -> list[int]:
    """Return what was written whole."""
    file.seek(0)
    return [int(line) for line in file.read().rpartition(b"\n")[0].split()]


def test_nothing_acknowledged_is_lost(rounds: Callable[[int, int], int], tmp_path: Path) -> None:
    chance = random.Random(7)
    acknowledged: set[int] = set()
    seen: set[int] = set()
    start = 0
    with serve("valkey", appendonly="yes", appendfsync="always") as server:
        for turn in range(rounds(2, 100)):
            layout = ("event", "frame")[turn % 2]
            with open(tmp_path / "sent", "w+b") as sent, open(tmp_path / "got", "w+b") as got:
                producer = run(PRODUCER, sent, server.url, layout, str(start))
                consumer = run(CONSUMER, got, server.url)
                time.sleep(0.4)
                for victim in chance.sample(["producer", "consumer", "server"], 3):
                    time.sleep(chance.uniform(0.05, 0.3))
                    if victim == "server":
                        server.kill()
                        server.start()
                    else:
                        (producer if victim == "producer" else consumer).kill()
                producer.wait()
                consumer.wait()
                for end in numbers(sent):
                    acknowledged.update(range(start, end))
                seen.update(numbers(got))
                start += 1_000_000
        with CloudRuntimesClient(app_id="suite", config={"capa": {"home": {"url": server.url}}}) as client:
            with client.pubsub.subscribe("bus", "t", start="earliest", ack_wait=1, batch=100) as sub:
                while (batch := sub.receive(2)) is not None:
                    seen.update(event.data for event in batch)
                    batch.ack()
    assert acknowledged, "the producers had no time"
    assert not acknowledged - seen


@pytest.mark.parametrize("layout", ["event", "frame"])
def test_members_that_come_and_go_settle_all(home: RedisHome, layout: str, rounds: Callable[[int, int], int]) -> None:
    count = rounds(3_000, 500_000)
    config = {"capa": {"home": {"url": home.server.url, "prefix": home.prefix, "layout": layout}}}
    seen: Counter[int] = Counter()
    done = threading.Event()

    def consume(seed: int) -> None:
        chance = random.Random(seed)
        with CloudRuntimesClient(app_id="suite", config=config) as client:
            while not done.is_set():
                size = chance.choice([1, 20, 100])
                with client.pubsub.subscribe("bus", "t", start="earliest", batch=size) as sub:
                    for _ in range(chance.randrange(1, 30)):
                        batch = sub.receive(0.1)
                        if batch is None:
                            break
                        for event in batch:
                            if chance.random() < 0.02:
                                event.retry(chance.choice([0, 0.05]))
                            elif chance.random() < 0.98:  # else it is given back
                                seen[event.data] += 1
                                event.ack()

    threads = [threading.Thread(target=consume, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    with CloudRuntimesClient(app_id="suite", config=config) as client:
        with client.pubsub.publisher("bus", "t", batch_events=50) as publisher:
            for number in range(count):
                publisher.send(number)
    end = time.monotonic() + 30 + count / 1000
    while len(seen) < count and time.monotonic() < end:
        time.sleep(0.05)
    done.set()
    for thread in threads:
        thread.join()
    assert set(seen) == set(range(count))
    assert set(seen.values()) == {1}
    stream = f"{{{home.prefix}:pubsub:bus}}:topic:t"
    assert home.server.command("XPENDING", stream, "suite").startswith(b"*4\r\n:0\r\n")
    assert home.server.command("XINFO", "CONSUMERS", stream, "suite") == b"*0\r\n"
