"""Members of a group without a thread behind them, for tests of drivers."""

from __future__ import annotations

import time
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.spi.operation import Method, Operation
from cloud_runtimes.spi.pubsub import EventSource, Settlement, Settlements, SubscribeRequest

__all__ = ["SOON", "answer", "die", "join", "operation", "poll"]

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


def die(source: Any) -> None:
    """End a member that does not leave."""
    source._disconnect()
    source.waker.close()


def answer(deliveries: list[Any], settlement: Settlement = Settlement.ACK, delay: float | None = None) -> Settlements:
    settled = Settlements()
    settled.add([each.token for each in deliveries], settlement, delay)
    return settled
