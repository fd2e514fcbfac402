"""What flows of several calls, with waiting between them, stand on: written once, driven by both APIs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ...spi.operation import Operation
from .connection import Connection, Flow
from .notifier import Waiter

if TYPE_CHECKING:
    from ...spi.executor import Executor
    from .database import PostgresDatabase

__all__ = ["AsyncCalls", "SyncCalls"]

T = TypeVar("T")


class SyncCalls:
    """Calls of the sync API: what is awaited has been done."""

    def __init__(self, database: PostgresDatabase, executor: Executor) -> None:
        self.database = database
        self._executor = executor

    async def run(self, op: Operation, work: Callable[[Connection], Flow[T]]) -> T:
        """Run a flow on a connection."""
        return self.database.run(op, work)

    async def wait(self, waiter: Waiter, seconds: float) -> None:
        """Wait to be woken."""
        waiter.wait(seconds)


class AsyncCalls(SyncCalls):
    """Calls of the async API."""

    async def run(self, op: Operation, work: Callable[[Connection], Flow[T]]) -> T:
        return await self.database.run_async(op, work, self._executor)

    async def wait(self, waiter: Waiter, seconds: float) -> None:
        await waiter.wait_async(seconds)
