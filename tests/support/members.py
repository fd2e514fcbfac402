"""Members of a group without a thread behind them, for tests of drivers."""

from __future__ import annotations

import json
import time
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import OutgoingEvent
from cloud_runtimes.spi.operation import Method, Operation
from cloud_runtimes.spi.pubsub import EventSource, Settlement, Settlements, SubscribeRequest

__all__ = ["SOON", "answer", "collect", "die", "join", "keyed", "numbers", "operation", "poll", "survey"]

SOON = 30.0


def operation(seconds: float = 10.0) -> Operation:
    return Operation(Method("t", "t", repeatable=False), "bus", seconds)


def join(client: CloudRuntimesClient, **asked: Any) -> Any:
    """A member without a thread behind it."""
    driver: Any = client.pubsub._frame.driver("bus")
    fields = dict.fromkeys(SubscribeRequest._fields) | {"topic": "t", "group": "suite", "raw": False} | asked
    source: EventSource = driver.subscribe(operation(), SubscribeRequest(**fields))
    return source


def poll(source: Any, settled: Any = (), want: int = 256, timeout: float = SOON) -> list[Any]:
    end = time.monotonic() + timeout
    while True:
        events = list(source.poll(settled, want, max(0.0, end - time.monotonic())))
        settled = ()
        if events or time.monotonic() >= end:
            return events


def collect(source: Any, count: int) -> list[Any]:
    """Poll until so many events were delivered; by the numbers that they have as data."""
    deliveries: list[Any] = []
    while len(deliveries) < count:
        some = poll(source)
        assert some, f"only {len(deliveries)} events came"
        deliveries += some
    return sorted(deliveries, key=lambda each: int(each.record.payload))


def survey(source: Any, settled: Any = ()) -> None:
    """Settle, and have a member of a group with an order look who is there."""
    source._surveyed = 0.0
    assert not source.poll(settled, 0, 0.0)


def keyed(*numbers: int) -> list[OutgoingEvent]:
    """Return events with a number as data, each with a key of its own."""
    return [OutgoingEvent(number, f"k{number}") for number in numbers]


def numbers(deliveries: list[Any]) -> list[int]:
    """Return the numbers that deliveries have as data."""
    return [json.loads(each.record.payload) for each in deliveries]


def die(source: Any) -> None:
    """End a member that does not leave."""
    source._disconnect()
    source.waker.close()


def answer(deliveries: list[Any], settlement: Settlement = Settlement.ACK, delay: float | None = None) -> Settlements:
    settled = Settlements()
    settled.add([each.token for each in deliveries], settlement, delay)
    return settled
