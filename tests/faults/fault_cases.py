"""How a way breaks, and what that must not do, over whatever sidecar."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.testing.apis import Api
from tests.support.fault_proxy import FaultProxy

__all__ = ["BREAKS", "SOON", "Consumer", "publish_through", "wait_for_value"]

SOON = 30.0


def _break(proxy: FaultProxy, how: Any, *, at: int | None = None, way: str = "down") -> None:
    """End all connections, at once or after so many more bytes."""
    proxy.end = how
    if at is None:
        proxy.break_all(how)
    else:
        getattr(proxy, way).cut = at


def _garbage(proxy: FaultProxy) -> None:
    proxy.down.replacement = b"\xff\xfe\x00 no frame of anything" * 20


def _lose(proxy: FaultProxy) -> None:
    proxy.up.lost = True


BREAKS: dict[str, Callable[[FaultProxy], None]] = {
    "reset": lambda proxy: _break(proxy, "reset"),
    "ended": lambda proxy: _break(proxy, "close"),
    "reset in an event": lambda proxy: _break(proxy, "reset", at=random.randrange(1, 600)),
    "ended in an event": lambda proxy: _break(proxy, "close", at=random.randrange(1, 600)),
    "reset in an answer": lambda proxy: _break(proxy, "reset", at=random.randrange(1, 40), way="up"),
    "half-open": lambda proxy: _break(proxy, "half-open"),
    "half-open in an event": lambda proxy: _break(proxy, "half-open", at=random.randrange(1, 600)),
    "answers are lost": _lose,
    "garbage": _garbage,
    "gone": lambda proxy: proxy.gone(),
}


class Consumer:
    """Takes events and acknowledges them, and remembers which."""

    def __init__(self, api: Api, sub: Any) -> None:
        self._api = api
        self._sub = sub
        self.acknowledged: dict[int, int] = {}

    def take(self, timeout: float) -> bool:
        """Take an event, if one comes in time."""
        event = self._api.call(self._sub, "receive", timeout)
        if event is None:
            return False
        self.acknowledged[event.data] = self.acknowledged.get(event.data, 0) + 1
        event.ack()
        return True

    def take_all(self, count: int, timeout: float = SOON) -> None:
        """Take until the events 0 … count - 1 have come."""
        end = time.monotonic() + timeout
        while len(self.acknowledged) < count:
            assert time.monotonic() < end, f"missing: {set(range(count)) - set(self.acknowledged)}"
            self.take(0.2)


def publish_through(
    direct: CloudRuntimesClient,
    client: CloudRuntimesClient,
    proxy: FaultProxy,
    api: Api,
    topic: str,
    count: int,
    *,
    every: int,
) -> None:
    """Publish so many events while the way is cut within each ``every``, forwards and then back; all of them come."""
    with direct.pubsub.subscribe("bus", topic) as sub:
        with api.opened(client.pubsub.publisher("bus", topic, batch_events=20)) as publisher:
            for number in range(count):
                publisher.send(number)
                if number % every == every * 2 // 3:
                    api.call(publisher, "flush", SOON)
                    proxy.end = "reset"
                    proxy.down.once = proxy.up.once = True
                    way = proxy.up if number < count / 2 else proxy.down
                    way.cut = 50
            api.call(publisher, "flush", SOON)
            stats = publisher.stats()
        assert (stats.delivered, stats.failed) == (count, 0)
        assert proxy.accepted > 1
        seen: set[int] = set()
        while len(seen) < count:
            event = sub.receive(SOON)
            assert event is not None, f"missing: {set(range(count)) - seen}"
            event.ack()
            seen.add(event.data)


def wait_for_value(api: Api, sub: Any, key: str, wanted: str) -> None:
    """Take changes of configuration until one brings a key to its value."""
    value, end = "", time.monotonic() + SOON
    while value != wanted:
        assert time.monotonic() < end
        items = api.call(sub, "receive", 1.0)
        value = items[key].value if items else value
