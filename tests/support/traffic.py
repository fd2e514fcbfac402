"""Numbers that are published and received, by both APIs at once, while a test harms the servers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError
from cloud_runtimes.testing import Api, AsyncApi, SyncApi
from tests.support.redis_sets import until

__all__ = ["Traffic"]


class Traffic:
    """Traffic until the block ends, with a producer and a consumer for each API.

    Attributes:
        acknowledged: numbers whose publish was acknowledged.
        failed: how many publishes failed.
        seen: how often each number was received.
    """

    def __init__(self, client: Callable[[], CloudRuntimesClient], topic: str = "t", timeout: float = 20) -> None:
        """With ``timeout`` seconds for each publish."""
        self.acknowledged: set[int] = set()
        self.failed = 0
        self.seen: Counter[int] = Counter()
        self._topic = topic
        self._timeout = timeout
        self._client = client
        self._produced, self._ends = threading.Event(), threading.Event()
        apis: tuple[type[Api], ...] = (SyncApi, AsyncApi)
        self._consumers = [threading.Thread(target=self._consume, args=(api(),)) for api in apis]
        self._producers = [
            threading.Thread(target=self._produce, args=each) for each in enumerate(api() for api in apis)
        ]

    def __enter__(self) -> Traffic:
        for thread in (*self._consumers, *self._producers):
            thread.start()
        self.go_on()
        return self

    def _produce(self, number: int, api: Api) -> None:
        with self._client() as client:
            while not self._produced.is_set():
                try:
                    api.call(client.pubsub, "publish", "bus", self._topic, number, timeout=self._timeout)
                    self.acknowledged.add(number)
                except CloudRuntimesError:
                    self.failed += 1
                number += 2
        api.close()

    def _consume(self, api: Api) -> None:
        with self._client() as client:
            events = client.pubsub.subscribe("bus", self._topic, start="earliest", ack_wait=2)
            with api.opened(events) as sub:
                while not self._ends.is_set():
                    event = api.call(sub, "receive", 0.1)
                    if event is not None:
                        self.seen[event.data] += 1
                        event.ack()
        api.close()

    @property
    def lost(self) -> set[int]:
        """Events that were acknowledged and not received."""
        return self.acknowledged - self.seen.keys()

    @property
    def twice(self) -> int:
        """How many were received once more."""
        return sum(self.seen.values()) - len(self.seen)

    def go_on(self) -> None:
        """Wait until what is published from now on is received."""
        sent = max(self.acknowledged, default=-1)
        until(lambda: max(self.seen, default=-1) > sent)

    def __exit__(self, *_: object) -> None:
        self._produced.set()
        for thread in self._producers:
            thread.join(30)
        try:
            until(lambda: not self.lost)
        finally:
            self._ends.set()
            for thread in self._consumers:
                thread.join(30)
        assert not [thread for thread in (*self._producers, *self._consumers) if thread.is_alive()]
