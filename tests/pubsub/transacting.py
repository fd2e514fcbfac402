"""Processes that publish and settle in transactions, to be killed at any moment; a parent that has imported everything forks them."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import Event


def produce(client: CloudRuntimesClient, first: int) -> None:
    """Save orders and publish them, in one transaction each."""
    for number in itertools.count(first):
        with client.state.transaction("orders") as tx:
            tx.save(f"order-{number}", number)
            tx.publish("bus", "orders", number)


def handler(client: CloudRuntimesClient) -> Callable[[Event[int]], None]:
    """Return what handles an order, in one transaction with what comes of it."""

    def handle(event: Event[int]) -> None:
        if client.state.get("orders", f"done-{event.data}") is not None:
            client.state.save("orders", f"twice-{event.data}", event.delivery_count)
        with event.transaction("orders") as tx:
            tx.save(f"done-{event.data}", event.delivery_count)
            tx.publish("bus", "results", event.data)

    return handle


def consume(client: CloudRuntimesClient, first: int) -> None:
    """Handle orders."""
    client.pubsub.subscribe("bus", "orders", handler(client), group="shop", ack_wait=1.0, workers=2).wait()


def _round(config: dict[str, Any], role: str, first: int, seconds: float) -> None:
    child = os.fork()
    if child == 0:
        {"produce": produce, "consume": consume}[role](CloudRuntimesClient(app_id="shop", config=config), first)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WTERMSIG(status) == signal.SIGKILL, status


def _warm_up(config: dict[str, Any]) -> None:
    """Import what the rounds use, so that a kill finds them at work."""
    with CloudRuntimesClient(app_id="shop", config=config) as client, client.pubsub.subscribe("bus", "warm") as sub:
        with client.state.transaction("warm") as tx:
            tx.publish("bus", "warm", 0)
        event = sub.receive(10.0)
        assert event is not None
        with event.transaction("warm") as tx:
            tx.save("warm", 0)


if __name__ == "__main__":
    settings, dice, rounds = json.loads(sys.argv[1]), random.Random(int(sys.argv[2])), int(sys.argv[3])
    _warm_up(settings)
    for number in range(rounds):
        for each in ("produce", "consume"):
            _round(settings, each, number * 100_000, dice.uniform(0.005, 0.15))
    sys.stdout.write(json.dumps({"rounds": rounds}) + "\n")
