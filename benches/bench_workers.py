"""Events that come one by one: processor time of the process that handles them, and the time from sending to the handler.

``python -m benches.bench_workers`` publishes 2,000 events a second from another process, over the embedded store, Redis and NATS, to a handler with 1, 16 and 64 workers. Beside it stands redis-py as applications use it: a loop over ``XREADGROUP`` that gives each event to a ``ThreadPoolExecutor``, whose thread acknowledges it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from cloud_runtimes import CloudRuntimesClient

from .bench_order import say, served

ENGINES = ("sqlite", "redis", "nats")
WORKERS = (1, 16, 64)
EACH = 0.0005


def produce(config: dict[str, Any], url: str | None, seconds: float) -> None:
    """Publish an event each half millisecond, through us or, where a URL is given, through redis-py."""

    def events() -> Iterator[float]:
        begun = time.time()
        for number in range(int(seconds / EACH)):
            time.sleep(max(0.0, begun + number * EACH - time.time()))
            yield time.time()

    if url is not None:
        import redis

        with redis.Redis.from_url(url) as connection:
            for sent in events():
                connection.xadd("events", {"data": json.dumps({"sent": sent})})
        return
    with CloudRuntimesClient(app_id="bench", config=config) as client:
        with client.pubsub.publisher("bus", "events", linger=0.0) as publisher:
            for sent in events():
                publisher.send({"sent": sent})


@contextmanager
def ours(config: dict[str, Any], workers: int, ages: list[float]) -> Iterator[None]:
    """Handle events with so many workers."""

    def handle(data: dict[str, float]) -> None:
        ages.append(time.time() - data["sent"])

    with CloudRuntimesClient(app_id="bench", config=config) as client:
        with client.pubsub.subscribe("bus", "events", handle, workers=workers):
            yield


@contextmanager
def theirs(url: str, workers: int, ages: list[float]) -> Iterator[None]:
    """Handle events with so many threads of a pool, by redis-py."""
    import redis

    connection = redis.Redis.from_url(url, decode_responses=True)
    connection.xgroup_create("events", "bench", "$", mkstream=True)
    over = threading.Event()

    def handle(id: str, fields: dict[str, str]) -> None:
        ages.append(time.time() - json.loads(fields["data"])["sent"])
        connection.xack("events", "bench", id)

    def read() -> None:
        with ThreadPoolExecutor(workers) as pool:
            while not over.is_set():
                for _, messages in connection.xreadgroup("bench", "one", {"events": ">"}, count=100, block=200) or ():
                    for message in messages:
                        pool.submit(handle, *message)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()
        connection.delete("events")
        connection.close()


def measure(config: dict[str, Any], url: str | None, workers: int, seconds: float) -> tuple[float, float, float]:
    """Return microseconds of processor time for each event, and milliseconds that half and 99 of 100 events took at most."""
    ages: list[float] = []
    with ours(config, workers, ages) if url is None else theirs(url, workers, ages):
        time.sleep(1.0)
        begun = time.process_time()
        command = [sys.executable, "-m", "benches.bench_workers", "--produce", json.dumps([config, url, seconds])]
        subprocess.run(command, check=True)
        while len(ages) < int(seconds / EACH):
            time.sleep(0.01)
        used = time.process_time() - begun
    percent = statistics.quantiles(ages, n=100)
    return used / len(ages) * 1e6, percent[49] * 1e3, percent[98] * 1e3


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--produce", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.produce:
        produce(*json.loads(given.produce))
        return
    say("| | workers | processor time an event | half within | 99 of 100 within |\n|---|--:|--:|--:|--:|")
    for engine in ENGINES:
        with served(engine) as config:
            clients = {"ours": None, **({"redis-py": config["capa"]["home"]} if engine == "redis" else {})}
            for workers in WORKERS:
                found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in clients}
                for _ in range(given.rounds):
                    for name, url in clients.items():
                        found[name].append(measure(config, url, workers, given.seconds))
                for name, rounds in found.items():
                    used, half, most = map(statistics.median, zip(*rounds, strict=True))
                    say(f"| {engine}, {name} | {workers} | {used:.0f} µs | {half:.2f} ms | {most:.2f} ms |")


if __name__ == "__main__":
    os.environ.setdefault("CLOUD_RUNTIMES_NATIVE", "require")
    main()
