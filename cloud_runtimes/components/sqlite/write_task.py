"""One write of a database, and how its caller waits for it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from ...spi.operation import Operation, mark_interrupted

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
        channels: those to notify once it is committed; the body may set them.
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
        """Make a task that was taken and not applied free again."""
        self._token = [None]

    @property
    def grace(self) -> float:
        """Seconds that a task under way may take beyond its deadline. It ends with the commit, so a moment more mostly tells how."""
        return 0.1 + self.size / (2 * 1024 * 1024)

    # -- waiting ----------------------------------------------------------

    def wait(self, op: Operation, path: str) -> None:
        """Wait for the writer thread, at most to the deadline; withdraws the task if it has not begun by then."""
        assert self.done is not None
        remaining = op.remaining()
        if not self.done.acquire(timeout=-1 if remaining is None else remaining):
            if self.take():
                raise op.timed_out(f"the turn to write {path}")
            if not self.done.acquire(timeout=self.grace):
                raise op.timed_out(f"the disk of {path}", maybe_applied=True)

    async def wait_async(self, op: Operation, path: str) -> Any:
        """Asynchronous `wait`; returns the result."""
        import asyncio

        assert self.future is not None
        assert self.loop is not None
        timer = None
        if op.deadline is not None:
            timer = self.loop.call_later(max(0.0, op.deadline - monotonic()), self._expire, op, path)
        try:
            return await self.future
        except asyncio.CancelledError as error:
            mark_interrupted(error, not self.take())
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, op: Operation, path: str) -> None:
        if self.future is None or self.future.done() or self.loop is None:
            return
        if self.take():
            self.future.set_exception(op.timed_out(f"the turn to write {path}"))
        else:
            self.loop.call_later(self.grace, self._give_up, op, path)

    def _give_up(self, op: Operation, path: str) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_exception(op.timed_out(f"the disk of {path}", maybe_applied=True))

    def resolve(self) -> None:
        """Hand the outcome to the caller's future; in its loop."""
        if self.future is not None and not self.future.done():
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)
