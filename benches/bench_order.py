"""Order by key: events a second of an ordered group beside one without an order, and what a hot key costs the others.

``python -m benches.bench_order ENGINE …`` starts a server of each engine and measures in turn: an ordered group, one without. Handlers take a dataclass, a producer writes meanwhile, and all settings are the default ones.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import Event

KEYS = 1000
WORKERS = 16
ORDERS = (None, "key")
HOT = 1000, 3000
"""Events a second of a hot key: as its handler keeps up with, and more."""
ENGINES = ("sqlite", "postgres", "redis", "nats", "rabbitmq", "kafka")


@dataclass
class Order:
    """Payload that handlers take."""

    id: str
    sku: str
    quantity: int
    price: float


@contextmanager
def served(engine: str) -> Iterator[dict[str, Any]]:
    """Start a server, and give a configuration for it."""
    with ExitStack() as resources:
        if engine == "sqlite":
            yield {"capa": {"home": resources.enter_context(tempfile.TemporaryDirectory())}}
        elif engine == "postgres":
            from tests.support.postgres import PostgresServer

            yield {"capa": {"home": resources.enter_context(PostgresServer()).url}}
        elif engine in ("redis", "nats"):
            from tests.support import nats, redis

            server = resources.enter_context(redis.serve("redis") if engine == "redis" else nats.serve())
            yield {"capa": {"home": server.url}}
        elif engine in ("rabbitmq", "kafka"):
            from tests.support import kafka, rabbitmq

            broker = resources.enter_context(rabbitmq.serve() if engine == "rabbitmq" else kafka.serve())
            table = {"url": broker.url} if engine == "rabbitmq" else {"servers": broker.url, "ensure": "create"}
            yield {"capa": {"home": ":memory:"}, "pubsub": {"bus": {"component": engine, **table}}}
        else:
            sys.exit(f"{engine}: name one of {', '.join(ENGINES)}")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def consume(config: dict[str, Any], group: str, order: Any) -> None:
    """Handle events, and tell how many were when asked."""
    with CloudRuntimesClient(app_id="bench", config=config) as client:

        def handle(order: Order) -> None:
            """Do nothing with it."""

        with client.pubsub.subscribe("bus", f"t-{group}", handle, group=group, order=order, workers=WORKERS) as sub:
            say("ready")
            for _ in sys.stdin:
                say(str(sub.stats().handled))


def throughput(
    client: CloudRuntimesClient, config: dict[str, Any], group: str, order: Any, processes: int, count: int
) -> float:
    """Return how many events a second so many processes handle."""
    command = [sys.executable, "-m", "benches.bench_order", "--consume", json.dumps([config, group, order])]
    members = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]

    def handled() -> int:
        total = 0
        for member in members:
            assert member.stdin is not None
            assert member.stdout is not None
            member.stdin.write("\n")
            member.stdin.flush()
            total += int(member.stdout.readline())
        return total

    try:
        for member in members:
            assert member.stdout is not None
            member.stdout.readline()
        time.sleep(2.0 + 2.0 * (processes > 1))  # members share the parts
        begun = time.perf_counter()
        with client.pubsub.publisher("bus", f"t-{group}", delivery_timeout=600) as publisher:
            for number in range(count):
                publisher.send(Order(str(number), "s", number, 1.5), key=f"k{number % KEYS}")
        while handled() < count:
            time.sleep(0.02)
        return count / (time.perf_counter() - begun)
    finally:
        for member in members:
            member.communicate()


def produce(config: dict[str, Any], topic: str, hot: int, seconds: float) -> None:
    """Publish 2,000 events a second of all keys, and so many of a hot one."""
    with CloudRuntimesClient(app_id="bench", config=config) as client:
        with client.pubsub.publisher("bus", topic, linger=0.002) as publisher:
            begun, cool, warm = time.time(), 0, 0
            while (passed := time.time() - begun) < seconds:
                while cool < 2000 * passed:
                    publisher.send(time.time(), key=f"k{random.randrange(KEYS)}")
                    cool += 1
                while warm < hot * passed:
                    publisher.send(time.time(), key="hot")
                    warm += 1
                time.sleep(0.001)


def age(client: CloudRuntimesClient, config: dict[str, Any], topic: str, hot: int) -> float:
    """Return how old events are when they are handled, the 99th percentile, in seconds; without those of the hot key."""
    ages: list[float] = []

    def handle(event: Event[float]) -> None:
        if event.key != "hot":
            ages.append(time.time() - event.data)
        time.sleep(0.0005)

    with client.pubsub.subscribe("bus", topic, handle, order="key", workers=WORKERS):
        time.sleep(2.0)
        subprocess.run(
            [sys.executable, "-m", "benches.bench_order", "--produce", json.dumps([config, topic, hot, 6.0])],
            check=True,
        )
        time.sleep(0.5)
    return statistics.quantiles(ages, n=100)[98]


def measure(engine: str, config: dict[str, Any], count: int, rounds: int) -> None:
    """Measure an engine, and print a row for each figure."""
    with CloudRuntimesClient(app_id="bench", config=config) as client:
        for processes in (1, 4):
            rates: dict[Any, list[float]] = {order: [] for order in ORDERS}
            for number in range(rounds):
                for order in ORDERS:
                    group = f"{processes}-{number}-{order}"
                    rates[order].append(throughput(client, config, group, order, processes, count))
            plain, ordered = (statistics.median(rates[order]) for order in ORDERS)
            ratio = statistics.median(two / one for one, two in zip(*rates.values(), strict=True))
            say(f"| {engine}, {processes} × {WORKERS} workers | {plain:,.0f}/s | {ordered:,.0f}/s | {ratio:.2f} |")
        ages: dict[int, list[float]] = {hot: [] for hot in (0, *HOT)}
        for number in range(rounds):
            for hot, some in ages.items():
                some.append(age(client, config, f"hot-{number}-{hot}", hot))
        without = 1000 * statistics.median(ages[0])
        for hot in HOT:
            beside = 1000 * statistics.median(ages[hot])
            row = f"{engine}, p99 beside a hot key of {hot:,}/s"
            say(f"| {row} | {without:.1f} ms | {beside:.1f} ms | {beside / without:.2f} |")


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=ENGINES)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--consume", help=argparse.SUPPRESS)
    parser.add_argument("--produce", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.consume:
        consume(*json.loads(given.consume))
    elif given.produce:
        produce(*json.loads(given.produce))
    else:
        say("| | without an order, or a hot key | with it | ratio |\n|---|--:|--:|--:|")
        for engine in given.engines:
            with served(engine) as config:
                measure(engine, config, given.events, given.rounds)


if __name__ == "__main__":
    os.environ.setdefault("CLOUD_RUNTIMES_NATIVE", "require")
    main()
