"""Connections that the calls of one event loop share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from ..errors import ClosedError, CloudRuntimesError
from ..spi.operation import Operation

__all__ = ["LoopConnections", "close_soon", "made_by"]


class _Shared(Protocol):
    @property
    def closed(self) -> Exception | None:
        """Why it serves no further calls; ``None``: it does."""

    def look(self) -> None:
        """Take in what came since the loop last ran, so that a connection that has ended serves nobody."""

    def close(self) -> None:
        """End it, in its loop or once that is closed."""


C = TypeVar("C")
S = TypeVar("S", bound=_Shared)


class LoopConnections(Generic[S]):
    """One connection for each event loop."""

    def __init__(self, where: str) -> None:
        """``where`` is what messages call the servers."""
        self._where = where
        self._made: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[S]] = WeakKeyDictionary()
        self._closed = False

    async def get(self, op: Operation, connect: Callable[[Operation], Awaitable[S]]) -> S:
        """Return the connection of the running loop. The first call that needs it makes it, and the others wait."""
        loop = asyncio.get_running_loop()
        while True:
            made = self._made.get(loop)
            if made is not None and made.done():
                if (found := made_by(made)) is not None:
                    found.look()
                    if found.closed is None:
                        return found
                made = None
            if self._closed:
                raise ClosedError("this client is closed: make another")
            if made is None:
                made = self._made[loop] = asyncio.ensure_future(connect(op))
                made.add_done_callback(made_by)
            try:
                async with asyncio.timeout_at(None if op.deadline is None else loop.time() + op.deadline - monotonic()):
                    return await asyncio.shield(made)
            except TimeoutError as error:
                left = op.remaining()
                if left is not None and left <= 0:
                    raise error if isinstance(error, CloudRuntimesError) else op.timed_out(self._where) from None
                # the time of the call that began to connect was over, not that of this one

    def close(self) -> None:
        """Close them; no more are made."""
        self._closed = True
        for loop, made in list(self._made.items()):
            if (found := made_by(made)) is not None:
                close_soon(loop, found.close)


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
