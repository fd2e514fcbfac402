"""Waiting for sockets in an event loop. asyncio's default loop of Windows waits for data, and cannot tell when a socket is ready."""

from __future__ import annotations

import asyncio
import socket
import sys

from ..errors import UnsupportedError

if sys.platform == "win32":

    def running_loop() -> asyncio.AbstractEventLoop:
        """Return the running loop, one that can tell when a socket is ready.

        Raises:
            UnsupportedError: it cannot.
        """
        loop = asyncio.get_running_loop()
        if isinstance(loop, asyncio.ProactorEventLoop):
            raise UnsupportedError(
                "this component cannot be used in asyncio's default loop of Windows: "
                "run asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)"
            )
        return loop

    async def readable(waiting: socket.socket) -> None:
        """Wait for something to read; it may be taken."""
        await asyncio.get_running_loop().sock_recv(waiting, 64)

else:
    running_loop = asyncio.get_running_loop

    async def readable(waiting: socket.socket) -> None:
        """Wait for something to read; it may be taken."""
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_reader(waiting, _resolve, ready)
        try:
            await ready
        finally:
            loop.remove_reader(waiting)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
