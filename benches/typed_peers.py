"""Handlers of one dataclass by others: FastStream on Redis, Celery and taskiq in memory."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest

COUNT = 5000
ORDER = {"id": "o-1000017", "sku": "sku-4711", "qty": 3, "price": 19.99}


@dataclass
class Order:
    id: str
    sku: str
    qty: int
    price: float


class Handled:
    """Count of the events that a slice still has to handle."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._remaining = count
        self.done = threading.Event()

    def take(self, count: int = 1) -> None:
        self._remaining -= count
        if self._remaining <= 0:
            self._remaining = self._count
            self.done.set()


class FastStream:
    """The same dataclass by FastStream's own handlers, from a stream with a group, acknowledged."""

    count = 1000

    def __init__(self, url: str, batch: int | None) -> None:
        self._redis = pytest.importorskip("faststream.redis")
        self._url = url
        self._batch = batch

    async def fill(self) -> None:
        """Publish a slice."""
        async with self._redis.RedisBroker(self._url, logger=None) as broker:
            async with broker._connection.pipeline(transaction=False) as pipeline:
                for _ in range(self.count):
                    await broker.publish(ORDER, stream="fast", pipeline=pipeline)
                await pipeline.execute()

    async def handle(self) -> None:
        """Handle a slice."""
        broker = self._redis.RedisBroker(self._url, logger=None)
        done = asyncio.Event()
        remaining = self.count
        stream = self._redis.StreamSub(
            "fast",
            group="fast",
            consumer="m",
            max_records=self._batch or 100,
            batch=bool(self._batch),
            polling_interval=10,
        )

        def take(count: int) -> None:
            nonlocal remaining
            remaining -= count
            if remaining <= 0:
                done.set()

        async def one(order: Order) -> None:
            assert order.qty == 3
            take(1)

        async def many(orders: list[Order]) -> None:
            assert orders[0].qty == 3
            take(len(orders))

        broker.subscriber(stream=stream)(many if self._batch else one)
        await broker.start()
        await asyncio.wait_for(done.wait(), 60)
        await broker.stop()


class Celery:
    """A task of the same fields by a worker of Celery in this process, from its broker in memory; no results are kept."""

    def __init__(self) -> None:
        self._start = pytest.importorskip("celery.contrib.testing.worker").start_worker
        self._app = pytest.importorskip("celery").Celery("bench", broker="memory://", set_as_current=False)
        self._handled = handled = Handled(COUNT)

        @self._app.task(name="take", ignore_result=True)  # type: ignore[untyped-decorator]
        def take(id: str, sku: str, qty: int, price: float) -> None:
            assert Order(id, sku, qty, price).qty == 3
            handled.take()

        self._task = take

    def fill(self) -> None:
        """Send the tasks of a slice."""
        for _ in range(COUNT):
            self._task.delay(**ORDER)

    def handle(self) -> None:
        """Handle them."""
        self._handled.done.clear()
        with self._start(self._app, perform_ping_check=False):
            assert self._handled.done.wait(60)


class Taskiq:
    """An async task of the same dataclass by taskiq. Its broker in memory has no queue: what it is kicked with was encoded before."""

    def __init__(self) -> None:
        self._broker = pytest.importorskip("taskiq").InMemoryBroker()
        self._handled = handled = Handled(COUNT)
        self._messages: list[Any] = []

        @self._broker.task(task_name="take")  # type: ignore[untyped-decorator]
        async def take(order: Order) -> None:
            assert order.qty == 3
            handled.take()

        self._task = take

    def fill(self) -> None:
        """Encode the tasks of a slice."""
        order = Order(**ORDER)  # type: ignore[arg-type]
        for _ in range(COUNT):
            self._messages.append(self._broker.formatter.dumps(self._task.kicker()._prepare_message(order)))

    def handle(self) -> None:
        """Handle them."""
        self._handled.done.clear()
        asyncio.run(self._kick())
        assert self._handled.done.is_set()

    async def _kick(self) -> None:
        while self._messages:
            await self._broker.kick(self._messages.pop())
        await self._broker.wait_all()
