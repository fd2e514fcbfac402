"""Call of a database: its caller waits for it and may give it up, a thread works for it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, Final, Generic, TypeVar

from ..._core.threads import Background, Changes, Mutex
from ...errors import ClosedError, DeadlineExceededError
from ...spi.operation import Operation, mark_interrupted

R = TypeVar("R")

_GRACE: Final = 1.0
"""Seconds between the first request to cancel and the cut of the connection."""
_AGAIN: Final = 0.05
"""Seconds between two requests to cancel. A server ignores one that arrives before its statement."""


class Call(Generic[R]):
    """Call that its caller and the thread that works for it share.

    Attributes:
        op: the operation.
        waiting_for: what its caller waits for, in the words of a deadline error.
        committing: whether it may be applied from now on.
        reason: why it was stopped.
    """

    def __init__(self, op: Operation, work: Callable[[Call[R]], R], waiting_for: str) -> None:
        self.op = op
        self.waiting_for = waiting_for
        self.committing = False
        self.reason = "given up by its caller"
        self._work: Callable[[Call[R]], R] | None = work
        self._lock = Mutex()
        self._changes = Changes()
        self._stopped = self._begun = self._done = False
        # a connection of the database's driver, or the task of an async one
        self._target: Any = None
        self._result: Any = None
        self._error: BaseException | None = None

    # -- its caller -------------------------------------------------------

    def wait(self) -> R:
        """Return the result of the work, or raise its error."""
        ticket = self._changes.ticket()
        if not self._done:
            self._changes.wait(ticket, self.op.remaining())
        return self._take()

    async def wait_async(self) -> R:
        """Return the result of the work, or raise its error."""
        future = self._changes.future()
        if not self._done:
            await self._changes.wait_async(future, self.op.remaining())
        return self._take()

    def _take(self) -> R:
        if not self._done:
            raise self.op.timed_out(self.waiting_for)
        error, self._error = self._error, None
        if error is None:
            result: R = self._result
            return result
        try:
            raise error
        finally:
            del error  # or it and this frame would keep each other

    def failed(self, error: BaseException) -> None:
        """Stop it where ``error`` says that nobody waits any longer, and note on it whether it may be applied."""
        if isinstance(error, DeadlineExceededError):
            error.maybe_applied = self.stop()
        elif not isinstance(error, Exception):
            mark_interrupted(error, self.stop())

    def stop(self) -> bool:
        """End it soon, and return whether it may be applied. After ``False`` nothing is committed."""
        with self._lock:
            if not self._done and not self._stopped:
                self._stopped = True
                if self._begun:
                    Background(self._interrupt, "cloud-runtimes-cancel").start()
                else:
                    self._work = None
            return self.committing

    def _interrupt(self) -> None:
        """Ask the database to cancel until the work has ended; cut the connection of one that does not listen."""
        end = monotonic() + _GRACE
        while True:
            ticket = self._changes.ticket()
            pause: float | None = _AGAIN
            with self._lock:  # a request to cancel must not meet the next call
                if self._done:
                    return
                if self.committing and self.op.remaining() != 0.0:  # it cannot be taken back
                    pause = self.op.remaining()
                elif isinstance(self._target, asyncio.Task):
                    task = self._target
                    task.get_loop().call_soon_threadsafe(self._cancel_task, task)
                elif self._target is not None:
                    remaining = end - monotonic()
                    if remaining <= 0.0 or self.committing or not _cancelled(self._target, remaining):
                        _cut(self._target)
            self._changes.wait(ticket, pause)

    def _cancel_task(self, task: asyncio.Task[Any]) -> None:
        if self._target is task:  # else it puts its connection back by now
            task.cancel()

    # -- the thread that works --------------------------------------------

    @property
    def is_stopped(self) -> bool:
        """Whether nobody waits for it any longer."""
        return self._stopped

    def check(self) -> None:
        """Raise where it must end."""
        if self._stopped:
            raise ClosedError(self.reason, maybe_applied=self.committing)

    def commit(self) -> None:
        """Note that it may be applied from now on; raises where it must end before."""
        with self._lock:
            self.check()
            self.committing = self.op.method.writes

    @contextmanager
    def interruptible(self, target: Any) -> Iterator[None]:
        """Have a connection, or the running task, interrupted where the call is stopped meanwhile."""
        with self._lock:
            self.check()
            self._target = target
        try:
            yield
        finally:
            with self._lock:
                self._target = None

    def run(self) -> None:
        """Do the work."""
        with self._lock:
            work, self._work = self._work, None
            self._begun = True
            self.waiting_for = "the database"
        try:
            self.check()
            assert work is not None
            self._result = work(self)
        except BaseException as error:
            self._error = error
        with self._lock:
            self._done = True
        self._changes.announce()


def _cancelled(connection: Any, seconds: float) -> bool:
    """Ask the database to cancel; returns whether it could be asked."""
    with suppress(Exception):
        for name, arguments in (("interrupt", {}), ("cancel_safe", {"timeout": seconds}), ("cancel", {})):
            if hasattr(connection, name):
                getattr(connection, name)(**arguments)
                break
        return True
    return False


def _cut(connection: Any) -> None:
    with suppress(Exception):  # closed already, or without a socket
        own = socket.socket(fileno=connection.fileno())
        try:
            own.shutdown(socket.SHUT_RDWR)
        finally:
            own.detach()  # it stays the driver's
