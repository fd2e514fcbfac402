"""Processes around an outbox between two engines, each to be killed at any moment."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
import uuid
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError
from cloud_runtimes.pubsub import Event


def produce(client: CloudRuntimesClient, name: str, count: str) -> None:
    """Place orders of ten keys until there are ``count`` of each, in one transaction with their event each. Goes on where an earlier process was killed."""
    keys = [f"{name}{number}" for number in range(10)]
    following = {key: client.state.get("orders", f"next-{key}") or 0 for key in keys}
    os.write(1, b"ready\n")
    while min(following.values()) < int(count):
        for key, number in following.items():
            if number < int(count):
                try:
                    with client.state.transaction("orders") as tx:
                        tx.save(f"next-{key}", number + 1)
                        tx.save(f"order-{key}-{number}", number)
                        tx.publish("bus", "orders", {"key": key, "number": number}, key=key)
                except CloudRuntimesError:
                    following[key] = client.state.get("orders", f"next-{key}") or 0
                else:
                    following[key] = number + 1
    os.write(1, b"done\n")
    time.sleep(3600)


def beat(client: CloudRuntimesClient, name: str) -> None:
    """Publish a number of one key every 20 ms, each in a transaction, for ever."""
    os.write(1, b"ready\n")
    last = client.state.get("orders", f"beat-{name}")
    for number in itertools.count(0 if last is None else last + 1):
        with client.state.transaction("orders") as tx:
            tx.save(f"beat-{name}", number)
            tx.publish("bus", "beats", {"key": name, "number": number}, key=name)
        time.sleep(0.02)


def consume(client: CloudRuntimesClient) -> None:
    """Handle orders in transactions of the store. Each time that one is handled leaves a key of its own, and so does one out of order."""

    def handle(event: Event[dict[str, Any]]) -> None:
        key, number = event.data["key"], event.data["number"]
        before = client.state.get("orders", f"at-{key}")
        with event.transaction("orders") as tx:
            if number != (-1 if before is None else before) + 1:
                tx.save(f"odd-{key}-{number}", before)
            tx.save(f"at-{key}", number)
            tx.save(f"done-{key}-{number}-{uuid.uuid4()}", number)

    options: dict[str, Any] = {"ack_wait": 1.0} if client.supports("pubsub.ack_wait", "bus") else {}
    client.pubsub.subscription("bus", "orders", group="shop", order="key", workers=4, **options)(handle)
    with client.running():
        os.write(1, b"ready\n")
        time.sleep(3600)


if __name__ == "__main__":
    with CloudRuntimesClient(app_id="shop", config=json.loads(sys.argv[1])) as application:
        {"produce": produce, "consume": consume, "beat": beat}[sys.argv[2]](application, *sys.argv[3:])
