"""Relays: events a second that reach a broker through a spool beside those that a publisher sends there, and from an outbox.

``python -m benches.bench_relay ENGINE …`` starts a server of each engine and measures in turn. A producer sends dicts in
default settings; the time ends when the broker has all of them. ``--outbox`` measures state transactions on PostgreSQL that
publish to each engine: several threads, a few events in each transaction. Kafka and Redis stand beside an outbox that is
written by hand with the usual clients. ``--away`` measures how long `send` takes through
a spool before Redis, at 20,000 events a second, while the server is there and once it is killed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benches.bench_order import say, served
from benches.outbox_by_hand import ByHand, to_kafka, to_redis
from cloud_runtimes import CloudRuntimesClient

ENGINES = ("redis", "kafka", "nats", "rabbitmq")
EVENT = {"id": "42", "sku": "s", "quantity": 3, "price": 1.5}
KEYS = 1000
THREADS = 8
EVENTS = 5
"""Of a transaction."""


def _config(engine: str, config: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return a configuration with the broker as ``direct`` and, behind a spool, as ``spooled``."""
    tables = config.get("pubsub", {})
    table = tables["bus"] if tables else {"component": engine, "url": config["capa"]["home"]}
    return {"capa": {"home": folder}, "pubsub": {"direct": table, "spooled": {**table, "spool": True}}}


def arrived(client: CloudRuntimesClient, name: str, topic: str, count: int, publish: Callable[[], None]) -> float:
    """Return how many events a second the broker has got."""
    with client.pubsub.subscribe(name, topic):
        pass  # the group counts what comes
    begun = time.perf_counter()
    publish()
    while client.pubsub.lag(name, topic) < count:
        time.sleep(0.005)
    return count / (time.perf_counter() - begun)


def spool(client: CloudRuntimesClient, engine: str, count: int, rounds: int) -> None:
    """Measure a publisher with and without a spool."""
    rates: dict[str, list[float]] = {"direct": [], "spooled": []}
    for number in range(rounds):
        for name, some in rates.items():
            topic = f"{name}-{number}"

            def publish(name: str = name, topic: str = topic) -> None:
                with client.pubsub.publisher(name, topic, delivery_timeout=600) as publisher:
                    for each in range(count):
                        publisher.send(EVENT, key=f"k{each % KEYS}")

            some.append(arrived(client, name, topic, count, publish))
    direct, spooled = (statistics.median(some) for some in rates.values())
    ratio = statistics.median(two / one for one, two in zip(*rates.values(), strict=True))
    say(f"| {engine} | {direct:,.0f}/s | {spooled:,.0f}/s | {ratio:.2f} |")


def outbox(client: CloudRuntimesClient, engine: str, count: int, rounds: int, peer: ByHand | None) -> None:
    """Measure transactions that publish to another engine."""
    rates, theirs = [], []
    for number in range(rounds):
        topic = f"outbox-{number}"

        def transact(first: int, topic: str = topic) -> None:
            for each in range(first, count // EVENTS, THREADS):
                with client.state.transaction("orders") as tx:
                    tx.save(f"k{each % KEYS}", EVENT)
                    for _ in range(EVENTS):
                        tx.publish("direct", topic, EVENT, key=f"k{each % KEYS}")

        def publish(transact: Callable[[int], None] = transact) -> None:
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(transact, range(THREADS)))

        rates.append(arrived(client, "direct", topic, count, publish))
        if peer is not None:
            theirs.append(peer.rate(f"by-hand-{number}", EVENT, count, THREADS, EVENTS, KEYS))
    hand = "| |"
    if theirs:
        ratio = statistics.median(one / two for one, two in zip(rates, theirs, strict=True))
        hand = f"{statistics.median(theirs):,.0f} | {ratio:.2f} |"
    say(f"| PostgreSQL → {engine} | {statistics.median(rates):,.0f} | {hand}")


def _by_hand(engine: str, table: dict[str, Any], url: str, rounds: int) -> ByHand | None:
    if engine == "kafka":
        return ByHand(url, to_kafka(table["servers"], [f"by-hand-{number}" for number in range(rounds)]))
    return ByHand(url, to_redis(table["url"])) if engine == "redis" else None


def away(seconds: float, rounds: int) -> None:
    """Measure `send` with a broker and without one."""
    from tests.support import redis

    ratios = []
    for _ in range(rounds):
        with redis.serve("redis") as server, tempfile.TemporaryDirectory() as folder:
            bus = {"component": "redis", "url": server.url, "spool": True}
            with CloudRuntimesClient(
                app_id="bench", config={"capa": {"home": folder}, "pubsub": {"bus": bus}}
            ) as client:
                with client.pubsub.publisher("bus", "t") as publisher:
                    there = _sends(publisher, seconds)
                    server.kill()
                    gone = _sends(publisher, seconds)
                ratios.append(gone / there)
                say(f"| redis, p99 of send | {there * 1e6:,.1f} µs | {gone * 1e6:,.1f} µs | {ratios[-1]:.2f} |")
    say(f"| median | | | {statistics.median(ratios):.2f} |")


def _sends(publisher: Any, seconds: float) -> float:
    """Send 20,000 events a second; return the 99th percentile of how long `send` took, in seconds."""
    times: list[float] = []
    begun = time.perf_counter()
    while (now := time.perf_counter()) < begun + seconds:
        while len(times) < 20_000 * (now - begun):
            start = time.perf_counter()
            publisher.send(EVENT, key=f"k{len(times) % KEYS}")
            times.append(time.perf_counter() - start)
        time.sleep(0.001)
    return statistics.quantiles(times, n=100)[98]


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=ENGINES)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--outbox", action="store_true")
    parser.add_argument("--away", type=float, metavar="SECONDS")
    given = parser.parse_args()
    if given.away:
        say("| | server there | server away | ratio |\n|---|--:|--:|--:|")
        away(given.away, given.rounds)
        return
    say(
        "| events a second from an outbox | ours | by hand | ratio |\n|---|--:|--:|--:|"
        if given.outbox
        else "| | direct | through a spool | ratio |\n|---|--:|--:|--:|"
    )
    for engine in given.engines:
        if engine not in ENGINES:
            sys.exit(f"{engine}: name one of {', '.join(ENGINES)}")
        with served(engine) as config, served("postgres") as postgres, tempfile.TemporaryDirectory() as folder:
            tables = _config(engine, config, folder)
            tables["state"] = {"orders": {"component": "postgres", "url": postgres["capa"]["home"]}}
            with CloudRuntimesClient(app_id="bench", config=tables) as client:
                if given.outbox:
                    peer = _by_hand(engine, tables["pubsub"]["direct"], postgres["capa"]["home"], given.rounds)
                    outbox(client, engine, given.events, given.rounds, peer)
                else:
                    spool(client, engine, given.events, given.rounds)


if __name__ == "__main__":
    os.environ.setdefault("CLOUD_RUNTIMES_NATIVE", "require")
    main()
