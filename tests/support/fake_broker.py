"""A broker in memory whose calls take time and fail as told, under the SPI of pub/sub: a fake, named so."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

from cloud_runtimes.config import ClientSettings
from cloud_runtimes.errors import CloudRuntimesError
from cloud_runtimes.spi import pubsub as spi
from cloud_runtimes.spi.component import Runtime
from cloud_runtimes.spi.driver import Driver
from cloud_runtimes.spi.executor import Executor
from cloud_runtimes.spi.operation import Operation
from cloud_runtimes.spi.pubsub import (
    AsyncEventSource,
    BatchLimits,
    Delivery,
    EventSource,
    Failures,
    OutgoingBatch,
    PubSubDriver,
    Settled,
    SubscribeRequest,
)
from cloud_runtimes.spi.push import PushSource

Fails = Callable[[str], CloudRuntimesError | None]


class FakeBroker(PubSubDriver):
    """Stores events after ``latency`` seconds, those of one call in order.

    Attributes:
        stored: (key, data) in the order of storing, events that came again included.
        peak: calls that were under way at once.
        fails: id → error of an event that fails alone.
    """

    features = frozenset({spi.SUBSCRIBE})

    def __init__(self, limits: BatchLimits, latency: float = 0.0) -> None:
        self.limits = limits
        self.latency = latency
        self.stored: list[tuple[str | None, Any]] = []
        self.fails: Fails = lambda id: None
        self.peak = self._now = 0
        self._lock = threading.Lock()

    def publish(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        with self._lock:
            self._now += 1
            self.peak = max(self.peak, self._now)
        time.sleep(self.latency)
        with self._lock:
            self._now -= 1
            return self.store(batch)

    async def publish_async(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        return self.publish(op, batch)

    def store(self, batch: OutgoingBatch) -> Failures:
        assert batch.count <= self.limits.events
        failed: dict[int, CloudRuntimesError] = {}
        for index, record in enumerate(batch):
            if (error := self.fails(record.id)) is not None:
                failed[index] = error
            else:
                self.stored.append((record.key, int(record.payload)))
        return failed

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource | AsyncEventSource:
        raise NotImplementedError

    async def subscribe_async(self, op: Operation, request: SubscribeRequest, /) -> EventSource | AsyncEventSource:
        raise NotImplementedError


class AcknowledgingBroker(FakeBroker):
    """Takes batches at once and acknowledges them later, from a thread of its own, one after the other."""

    def __init__(self, limits: BatchLimits, latency: float = 0.0) -> None:
        super().__init__(limits, latency)
        self._thread = ThreadPoolExecutor(1)  # ends with the broker

    def publish(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        raise AssertionError("a publisher begins")

    def begin(self, op: Operation, batch: OutgoingBatch, /) -> Future[Failures]:
        with self._lock:
            self._now += 1
            self.peak = max(self.peak, self._now)
        return self._thread.submit(self._acknowledge, time.monotonic() + self.latency, batch)

    def _acknowledge(self, due: float, batch: OutgoingBatch) -> Failures:
        time.sleep(max(0.0, due - time.monotonic()))
        with self._lock:
            self._now -= 1
            return self.store(batch)


class PushingBroker(FakeBroker):
    """Its subscriptions are pushed to.

    Attributes:
        source: of the last subscription.
        settled: (data, settlement) of its events.
    """

    source: CountedPush

    def __init__(self) -> None:
        super().__init__(BatchLimits())
        self.settled: list[tuple[int, str]] = []

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        self.source = CountedPush(self)
        return self.source

    async def subscribe_async(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        return self.subscribe(op, request)


class CountedPush(PushSource):
    """Counts how often it is asked."""

    def __init__(self, broker: PushingBroker) -> None:
        super().__init__()
        self.polls = 0
        self._broker = broker

    def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Sequence[Delivery]:
        self.polls += 1
        return super().poll(settled, want, timeout)

    def _settle(self, token: Any, settled: Settled) -> None:
        self._broker.settled.append((token, settled.settlement.value))

    def close(self, settled: Sequence[Settled], /) -> None:
        for each in settled:
            self._take(each)
        self._retry(float("inf"))


class AsyncBroker(PushingBroker):
    """Its subscriptions belong to an event loop."""

    source: AsyncQueue  # type: ignore[assignment]

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> AsyncEventSource:  # type: ignore[override]
        self.source = AsyncQueue(self)
        return self.source

    async def subscribe_async(self, op: Operation, request: SubscribeRequest, /) -> AsyncEventSource:  # type: ignore[override]
        return self.subscribe(op, request)


class AsyncQueue(AsyncEventSource):
    """Events in an `asyncio.Queue`.

    Attributes:
        polls: how often it was asked.
        threads: that asked.
    """

    def __init__(self, broker: AsyncBroker) -> None:
        self.polls = 0
        self.threads: set[str] = set()
        self._broker = broker
        self._events: deque[Delivery] = deque()
        self._changed: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def push(self, delivery: Delivery) -> None:
        self._events.append(delivery)
        self.wake()

    async def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Sequence[Delivery]:
        self.polls += 1
        self.threads.add(threading.current_thread().name)
        if self._changed is None:
            self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()
        self._broker.settled += [(each.token, each.settlement.value) for each in settled]
        if not (want and self._events):
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
            except TimeoutError:
                pass
        self._changed.clear()
        return [self._events.popleft() for _ in range(min(want, len(self._events)))]

    def wake(self) -> None:
        if self._loop is not None and self._changed is not None:
            self._loop.call_soon_threadsafe(self._changed.set)

    async def close(self, settled: Sequence[Settled], /) -> None:
        self._broker.settled += [(each.token, each.settlement.value) for each in settled]


class FakeRuntime(Runtime):
    """A runtime with one driver."""

    name = "fake"

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    settings: ClientSettings
    executor: Executor
    services: ClassVar[tuple[str, ...]] = ("pubsub",)

    def driver(self, service: str, name: str) -> Driver:
        return self._driver

    def ready(self) -> None: ...

    def close(self, timeout: float | None) -> None: ...

    def declared(self) -> Mapping[tuple[str, str], str]:
        return {}
