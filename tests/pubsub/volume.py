"""A producer and a consumer of typed events, each in a process of its own that may be killed at any moment.

``python volume.py produce|produce-again|consume CONFIGURATION COUNT``. The consumer has what it has counted in the store, in one commit with each batch.
The producer begins behind the last event that is stored where those are in order, as they are in the embedded log. Elsewhere it begins behind what it knows to be stored: some events come again then under their ids, and the inbox finds them.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import Final

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import NotFoundError
from cloud_runtimes.pubsub import EventBatch

PRIME: Final = 2**61 - 1
BASE: Final = 1_234_567_890_123_456_789
AHEAD: Final = 1_000_000
"""Events that the producer is ahead of the consumer at most."""


@dataclass(slots=True)
class Reading:
    """A measurement, as applications have it."""

    number: int
    sensor: str
    value: float
    ok: bool


@dataclass(slots=True)
class Seen:
    """Numbers that were handled: how many, and the sum of ``BASE ** number`` modulo `PRIME`, which tells any other multiset."""

    count: int = 0
    digest: int = 0
    next: int = 0


def expected(count: int) -> int:
    """Return the digest of all numbers below one."""
    return (pow(BASE, count, PRIME) - 1) * pow(BASE - 1, -1, PRIME) % PRIME


def lag(client: CloudRuntimesClient) -> int:
    try:
        return client.pubsub.lag("bus", "readings", group="consume")
    except NotFoundError:  # it has not begun
        return 0


def keep_near(client: CloudRuntimesClient) -> None:
    """Wait for the consumer: what it has before it stays with the broker."""
    while lag(client) > AHEAD:
        time.sleep(0.01)


def produce(client: CloudRuntimesClient, count: int) -> None:
    latest = client.admin.peek("bus", "readings", start="latest", limit=1)
    seen = client.state.get("seen", "seen", type=Seen) or Seen()
    first = max([seen.next, *(event.data["number"] + 1 for event in latest)])
    with client.pubsub.publisher("bus", "readings") as publisher:
        for number in range(first, count):
            publisher.send(Reading(number, "north", number / 8, True))
            if number % 100_000 == 0:
                keep_near(client)
    sys.stdout.write("done\n")


def produce_again(client: CloudRuntimesClient, count: int) -> None:
    first = client.state.get("sent", "next", type=int) or 0
    with client.pubsub.publisher("bus", "readings") as publisher:
        for number in range(first, count):
            publisher.send(Reading(number, "north", number / 8, True), attributes={"id": str(number)})
            if number % 100_000 == 99_999:
                publisher.flush()
                client.state.save("sent", "next", number + 1)
                keep_near(client)
    sys.stdout.write("done\n")


def consume(client: CloudRuntimesClient, count: int) -> None:
    at, power = -2, 0  # of the last event

    def known() -> Seen:
        return client.state.get("seen", "seen", type=Seen) or Seen()

    def handle(batch: EventBatch[Reading]) -> None:
        nonlocal at, power
        seen = known()  # a batch that was handled before changes nothing
        sum = seen.digest
        for event in batch:
            number = event.data.number
            power = power * BASE % PRIME if number == at + 1 else pow(BASE, number, PRIME)
            at = number
            sum += power
        new = Seen(seen.count + len(batch), sum % PRIME, max(seen.next, at + 1))
        with batch.transaction("seen") as tx:
            tx.save("seen", new)

    lease = 2.0 if client.supports("pubsub.ack_wait", "bus") else None
    with client.pubsub.subscribe("bus", "readings", handle, batch=20_000, start="earliest", ack_wait=lease):
        while known().count < count:
            time.sleep(0.1)
    sys.stdout.write("done\n")


if __name__ == "__main__":
    work, configuration, count = sys.argv[1:]
    with CloudRuntimesClient(app_id=work, config=json.loads(configuration)) as instance:
        {"produce": produce, "produce-again": produce_again, "consume": consume}[work](instance, int(count))
