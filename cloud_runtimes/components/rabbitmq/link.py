"""Steps on a connection; the connection of a process, and the thread that has it: what callers submit leaves in their order, and what the server answers resolves it."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic
from typing import Final

from ..._core.threads import Background, Mutex
from ..._core.waker import Waker
from .._net.connections import ConnectionLost
from .connection import Connection
from .failures import ServerError
from .session import CLOSE, Publish, Step

PATIENCE: Final = 5.0
"""Seconds that a server has for an answer which no caller gives it time for."""


class Waiting:
    """Steps that were submitted together.

    Attributes:
        future: resolved once all have settled.
        since: `time.monotonic` at which they were submitted.
    """

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self.steps = steps
        self.since = monotonic()
        self.future: Future[None] = Future()
        self._remaining = len(steps)
        for step in steps:
            step.settled = self._settled
        if not steps:
            self.future.set_result(None)

    def _settled(self) -> None:  # in the thread of the connection
        self._remaining -= 1
        if not self._remaining and self.future.set_running_or_notify_cancel():
            self.future.set_result(None)


def ask(connection: Connection, *asks: Step) -> None:
    """Send steps on a connection that its caller has alone, and wait for their answers.

    Raises:
        Lost, Refused: the connection ended, or the server refuses.
        TimeoutError: it did not answer.
    """
    waits, end = Waiting(asks), monotonic() + PATIENCE
    connection.send_all(b"".join([connection.session.begin(each) for each in asks]), end)
    while not waits.future.done():
        if not connection.wait(end):
            raise TimeoutError
        connection.receive()
        connection.send_all(b"", end)
    for each in asks:
        if each.failure is not None:
            raise each.failure


class Link:
    """See the module; made of a connection that is open.

    Attributes:
        closed: why it serves nobody any more; ``None``: it does.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.closed: Exception | None = None
        self._register = Mutex()
        self._new: deque[Step] = deque()
        self._waker = Waker()
        Background(self._run, "cloud-runtimes-rabbitmq").start()

    @property
    def blocked(self) -> str | None:
        """Why the server takes no messages now."""
        return self.connection.session.blocked

    def submit(self, steps: tuple[Step, ...]) -> Waiting:
        """Send steps.

        Raises:
            ConnectionLost: the connection has ended.
        """
        waiting = Waiting(steps)
        with self._register:
            if self.closed is not None:
                raise ConnectionLost(str(self.closed))
            self._new.extend(steps)
        self._waker.wake()
        return waiting

    def forget(self, waiting: Waiting) -> bool:
        """Wait no longer for steps; returns whether one that publishes has been sent."""
        sent = False
        with self._register:
            for step in waiting.steps:
                self.connection.session.forget(step)
                try:
                    self._new.remove(step)
                except ValueError:
                    sent = sent or isinstance(step, Publish)
        return sent

    def _run(self) -> None:
        connection = self.connection
        try:
            while self.closed is None:
                due = connection.beat()
                whole = connection.send(self._begin())
                remaining = min(due - monotonic(), 60.0)
                if connection.has_decrypted() or self._waker.wait(connection, remaining, writes=not whole):
                    connection.receive()
        except (ConnectionLost, ServerError) as error:
            self.end(error)
        finally:
            self.end(ConnectionLost("the connection failed"))
            self._finish(self.closed or ConnectionLost(""))

    def _finish(self, reason: Exception) -> None:
        """Tell all who wait."""
        connection = self.connection
        connection.avoid()
        connection.session.end(reason)
        with self._register:
            steps, self._new = self._new, deque()
        for step in steps:
            step.fail(reason)
        with suppress(ConnectionLost):
            connection.send(CLOSE)
        connection.close()
        self._waker.close()

    def _begin(self) -> bytes:
        """Return what is to be sent now: nothing more where the server does not read."""
        connection = self.connection
        if connection.unsent or self.blocked is not None or not self._new:
            return b""
        with self._register:
            steps, self._new = self._new, deque()
            return b"".join([connection.session.begin(step) for step in steps])

    def end(self, reason: Exception) -> None:
        """Serve nobody any more; who waits gets the reason. Thread-safe."""
        with self._register:
            self.closed = self.closed or reason
        self._waker.wake()
