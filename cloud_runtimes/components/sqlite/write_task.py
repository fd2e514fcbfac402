"""One write of a database, as it waits for its commit batch."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["WriteTask"]


class WriteTask:
    """One write.

    Args:
        body: does it, inside a transaction; its result is that of the task.
        durable: commit with ``synchronous=FULL``.
        single: the body is one statement, so that its failure leaves nothing behind.
        rows: instead of a body: rows of ``frames``, stored together with those of other such tasks.
        size: bytes it writes, roughly.
        channels: those to notify once it is committed.
    """

    __slots__ = (
        "_token",
        "body",
        "channels",
        "done",
        "durable",
        "error",
        "future",
        "loop",
        "result",
        "rows",
        "single",
        "size",
    )

    def __init__(
        self,
        body: Callable[[sqlite3.Connection], Any] | None,
        *,
        durable: bool,
        single: bool = False,
        rows: list[tuple[Any, ...]] | None = None,
        size: int = 0,
        channels: tuple[str, ...] = (),
    ) -> None:
        self.body = body
        self.durable = durable
        self.single = single
        self.rows = rows
        self.size = size
        self.channels = channels
        self.result: Any = None
        self.error: Exception | None = None
        self.done: threading.Lock | None = None
        self.future: asyncio.Future[Any] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._token = [None]

    def take(self) -> bool:
        """Take the task, to run it or to withdraw it; only one of all who try succeeds."""
        try:
            self._token.pop()
        except IndexError:
            return False
        return True

    def give_back(self) -> None:
        """Make a task that was taken and then not applied free again."""
        self._token = [None]

    @property
    def grace(self) -> float:
        """Seconds that a task under way may take beyond its deadline: almost always it ends at once, later with much data."""
        return 0.1 + self.size / (2 * 1024 * 1024)
