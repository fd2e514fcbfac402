"""Producers, consumers and the server are killed: what was acknowledged is there, and comes at least once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from cloud_runtimes import CloudRuntimesClient
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
