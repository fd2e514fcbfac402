"""A consumer beside ``cloud-runtimes top``: events a second while it looks, beside those while nobody does.

``python -m benches.bench_top ENGINE …`` starts a server of each engine and makes 1,000 topics. A member handles events that wait, typed, in default settings; rounds with the command and without it alternate.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from benches.bench_order import ENGINES, Order, say, served
from cloud_runtimes import CloudRuntimesClient

TOPICS, GROUPS = 1000, 100
SECONDS = 4.0
"""Seconds that a round takes, about."""
ORDER = {"id": "42", "sku": "s", "quantity": 3, "price": 1.5}


@contextmanager
def watchable(engine: str) -> Iterator[dict[str, Any]]:
    """Start a server that tells what it has."""
    if engine != "rabbitmq":
        with served(engine) as config:
            yield config
        return
    from tests.support.rabbitmq import management_of, serve_managed

    with serve_managed() as server:
        bus = {"component": "rabbitmq", "url": server.url, "management": management_of(server.url)}
        yield {"capa": {"home": ":memory:"}, "pubsub": {"bus": bus}}


@contextmanager
def top(config: dict[str, Any], folder: Path) -> Iterator[None]:
    """Run the command, which has looked once."""
    file, seen = folder / "cloud-runtimes.toml", folder / "seen"
    tables = {"capa": config["capa"], **{f"pubsub.{name}": table for name, table in config.get("pubsub", {}).items()}}
    with file.open("w", encoding="utf-8") as text:
        for name, table in tables.items():
            text.writelines([f"[{name}]\n", *(f'{key} = "{value}"\n' for key, value in table.items())])
    command = [sys.executable, "-m", "cloud_runtimes", "--config", str(file), "top"]
    with seen.open("wb") as output, subprocess.Popen(command, stdout=output) as process:
        while not seen.stat().st_size:
            time.sleep(0.05)
        try:
            yield
        finally:
            process.terminate()


def rate(client: CloudRuntimesClient, count: int) -> float:
    """Return how many events a second a member handles."""
    with client.pubsub.publisher("bus", "orders", delivery_timeout=600) as publisher:
        for number in range(count):
            publisher.send(ORDER, key=str(number % TOPICS))

    def handle(order: Order) -> None:
        """Do nothing with it."""

    begun = time.perf_counter()
    with client.pubsub.subscribe("bus", "orders", handle, group="g") as sub:
        while sub.stats().handled < count:
            time.sleep(0.001)
        return count / (time.perf_counter() - begun)


def compare(config: dict[str, Any], engine: str, rounds: int, folder: Path) -> None:
    """Print both rates, and the median of their ratios."""
    with CloudRuntimesClient(app_id="bench", config=config) as client:
        client.pubsub.subscribe("bus", "orders", group="g", dead_letter_topic="orders.dead").close()
        for number in range(TOPICS):
            if number < GROUPS:
                client.pubsub.subscribe("bus", f"t{number}", group="g").close()
            if engine != "rabbitmq":  # where an event without a group is an error
                client.pubsub.publish("bus", f"t{number}", ORDER)
        count = int(rate(client, 20_000) * SECONDS)
        pairs = []
        for number in range(rounds):
            found: dict[bool, float] = {}
            for watched in (number % 2 == 0, number % 2 == 1):
                with top(config, folder) if watched else nullcontext():
                    found[watched] = rate(client, count)
            pairs.append((found[False], found[True]))
    alone, beside = (statistics.median(some) for some in zip(*pairs, strict=True))
    ratio = statistics.median(two / one for one, two in pairs)
    say(f"| {engine} | {alone:,.0f}/s | {beside:,.0f}/s | {ratio:.3f} |")


def main() -> None:
    """Measure the engines that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=ENGINES)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    say("| engine | alone | beside top | ratio |\n|---|---|---|---|")
    for engine in given.engines:
        with tempfile.TemporaryDirectory() as folder, watchable(engine) as config:
            compare(config, engine, given.rounds, Path(folder))


if __name__ == "__main__":
    main()
