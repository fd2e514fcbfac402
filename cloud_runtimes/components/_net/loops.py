"""Connections that the calls of one event loop share."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from ..._core.os_loops import running_loop
from ...errors import ClosedError, CloudRuntimesError
from ...spi.operation import Operation
from .connections import ConnectionLost, ServerConnection, SharedConnection

C = TypeVar("C")
S = TypeVar("S", bound="LoopConnection")


class LoopConnection(SharedConnection):
    """A connection that all calls of one event loop share: what they send in one turn of the loop leaves together."""

    _waiting: dict[asyncio.Future[None], float]
    """With their deadlines."""

    def __init__(self, connection: ServerConnection) -> None:
        super().__init__(connection)
        self._unsent = b""
        self._flushing = False
        self._waiting = {}
        # when it is looked who has waited too long: one timer for all, since it mostly finds nobody
        self._look_at = inf
        self._timer: asyncio.TimerHandle | None = None
        self._loop = running_loop()
        self._descriptor = connection.fileno()
        self._loop.add_reader(self._descriptor, self._readable)

    @abstractmethod
    def _read(self) -> None:
        """Take in what has come.

        Raises:
            ConnectionLost: the connection ended.
        """

    # -- waiting ----------------------------------------------------------

    def _watch(self, at: float) -> None:
        """Look at that time who has waited too long."""
        if self._timer is not None:
            self._timer.cancel()
        self._look_at = at
        self._timer = self._loop.call_later(max(0.0, at - monotonic()), self._expire)

    def _expire(self) -> None:
        self._timer, self._look_at = None, inf
        now = monotonic()
        for future, deadline in self._waiting.items():
            if deadline <= now and not future.done():
                future.set_exception(TimeoutError())
        following = self._check(now)
        for future, deadline in self._waiting.items():
            if not future.done():
                following = min(following, deadline)
        if following < inf:
            self._watch(following)

    def look(self) -> None:
        """Take in what came since the loop last ran, so that a connection that has ended serves nobody."""
        if not self._waiting and self.closed is None:
            try:
                readable = self.connection.is_readable()
            except ConnectionLost as error:
                self._end(error)
            else:
                if readable:
                    self._readable()

    # -- sending and receiving --------------------------------------------

    def _send_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        waits = bool(self._unsent)
        self._unsent += self._outgoing()
        if self._descriptor >= 0 and not waits and self._send():
            self._loop.add_writer(self._descriptor, self._writable)

    def _answer(self, size: int) -> None:
        """Send so many bytes that answer the server's own questions."""
        self.connection.owe(size, bool(self._unsent))
        self._flush()

    def _writable(self) -> None:
        if not self._send():
            self._loop.remove_writer(self._descriptor)

    def _send(self) -> bool:
        """Send what is left; returns whether something still is."""
        try:
            if self._unsent:
                self._unsent = self._unsent[self.connection.send_now(self._unsent) :]
        except ConnectionLost as error:
            self._end(error)
        return bool(self._unsent)

    def _readable(self) -> None:
        try:
            self._read()
            while self.connection.has_decrypted():
                self._read()
        except ConnectionLost as error:
            self._end(error)

    # -- the end ----------------------------------------------------------

    def _end(self, reason: ConnectionLost) -> None:
        self.closed = self.closed or reason
        self._unsent = b""
        for future in self._waiting:
            if not future.done():
                future.set_exception(ConnectionLost(str(reason)))
        if self._descriptor >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
        self._descriptor = -1
        if self._timer is not None:
            self._timer.cancel()
        self.connection.avoid()
        self.connection.close()

    def close(self) -> None:
        """End it, in its loop or once that is closed; who waits gets `ConnectionLost`."""
        self._end(ConnectionLost("the client was closed"))


class LoopConnections(Generic[S]):
    """Connections of the client, one for each event loop."""

    def __init__(self, where: str) -> None:
        """``where`` is what messages call the servers."""
        self._where = where
        self._connections: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[S]] = WeakKeyDictionary()
        self._closed = False

    async def get(self, op: Operation, connect: Callable[[Operation], Awaitable[S]]) -> S:
        """Return the connection of the running loop. The first call that needs it makes it, and the others wait."""
        loop = asyncio.get_running_loop()
        while True:
            future = self._connections.get(loop)
            if future is not None and future.done():
                if (connection := made_by(future)) is not None:
                    connection.look()
                    if connection.closed is None:
                        return connection
                future = None
            if self._closed:
                raise ClosedError("this client is closed: make another")
            if future is None:
                future = self._connections[loop] = asyncio.ensure_future(connect(op))
                future.add_done_callback(made_by)
            try:
                async with asyncio.timeout_at(None if op.deadline is None else loop.time() + op.deadline - monotonic()):
                    return await asyncio.shield(future)
            except TimeoutError as error:
                remaining = op.remaining()
                if remaining is not None and remaining <= 0:
                    raise error if isinstance(error, CloudRuntimesError) else op.timed_out(self._where) from None
                # the time of the call that began to connect was over, not that of this one

    def close(self) -> None:
        """Close them; no more are made."""
        self._closed = True
        for loop, future in list(self._connections.items()):
            if (connection := made_by(future)) is not None:
                close_soon(loop, connection.close)


def made_by(future: asyncio.Future[C]) -> C | None:
    """Return a connection if it was made by now. This looks at an error that nobody waits for any more."""
    if not future.done() or future.cancelled() or future.exception() is not None:
        return None
    return future.result()


def close_soon(loop: asyncio.AbstractEventLoop, close: Callable[[], None]) -> None:
    """Close a connection where its loop runs it."""
    if loop.is_closed():
        close()
    else:
        loop.call_soon_threadsafe(close)


def resolve(future: asyncio.Future[None]) -> None:
    """Let who waits for it go on."""
    if not future.done():
        future.set_result(None)
