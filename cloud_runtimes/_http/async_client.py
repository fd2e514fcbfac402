"""The async HTTP client: one `asyncio.Protocol` a connection, one pool for each running loop.

Chosen by measurement (``benches/bench_rpc.py``): one call at a time it is 1.5 times as fast as aiohttp and 4 times as fast as httpx2, with 50 in flight never slower, and it needs nothing installed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any, cast

from .._core import fork
from .._core.os_sockets import POLLIN, poll
from ..spi.operation import Operation, mark_interrupted
from ..spi.rpc import RpcCall, RpcReply
from .http1 import Endpoint, ProtocolError, ResponseParser, TooLargeError, chunk, last_chunk, pieces_async
from .limits import MAX_CONNECTIONS
from .sync_client import BasePool, Connection, ConnectionLost, tls_context


class LoopConnection(Connection, asyncio.Protocol):
    """A transport of a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self.transport: asyncio.Transport
        self._poll = poll()
        self._parser: ResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), POLLIN)

    def data_received(self, data: bytes) -> None:
        parser, waiter = self._parser, self._waiter
        if parser is None or waiter is None or waiter.done():  # nobody asked
            self.lost = True
            self.transport.abort()
            return
        try:
            if parser.feed(data):
                waiter.set_result(None)
        except (ProtocolError, TooLargeError) as error:
            waiter.set_exception(error)
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        waiter, drained = self._waiter, self._drained
        if waiter is not None and not waiter.done():
            if exc is None and self._parser is not None and self._parser.eof():
                waiter.set_result(None)
            else:
                lost = ConnectionLost("the server closed it" if exc is None else str(exc) or type(exc).__name__)
                lost.__cause__ = exc
                waiter.set_exception(lost)
        if drained is not None and not drained.done():
            drained.set_result(None)

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def usable(self) -> bool:
        return not self.lost and not self.transport.is_closing() and super().usable()

    def abort(self) -> None:
        # not `close`, which waits until the server has taken all, or over TLS has said goodbye: the loop may end before
        self.transport.abort()

    def peername(self) -> Any:
        return self.transport.get_extra_info("peername")

    async def ask(self, data: bytes, body: Any, parser: ResponseParser, timeout: float | None) -> None:
        if self.lost:
            data = b""
            raise ConnectionLost("the server closed it", sent=False)
        self._parser = parser
        waiter = self._waiter = self._loop.create_future()
        timer = None if timeout is None else self._loop.call_later(timeout, _time_up, waiter)
        try:
            self.transport.write(data)
            data = b""  # tokens are in it, and frames of errors hold it
            if body is not None:
                await self._race(body, waiter)
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if waiter.done() and not waiter.cancelled():
                waiter.exception()  # seen, also where the stream's own error goes before it
            self._parser = self._waiter = None
        if body is not None or self.lost or self.transport.get_write_buffer_size():
            parser.keep_alive = False  # the answer came before all had left

    async def _race(self, body: Any, waiter: asyncio.Future[None]) -> None:
        """Send a stream until it ends, or there is an answer, or the time is up: the stream itself may wait for ever."""
        sending = asyncio.ensure_future(self._stream(body, waiter))
        try:
            await asyncio.wait((sending, waiter), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not sending.done():
                sending.cancel()
        if sending.done():
            sending.result()

    async def _stream(self, body: Any, waiter: asyncio.Future[None]) -> None:
        async for piece in pieces_async(body):
            if waiter.done() or self.lost:
                return
            self.transport.write(chunk(piece))
            if self._drained is not None:
                await asyncio.wait((self._drained, waiter), return_when=asyncio.FIRST_COMPLETED)
        self.transport.write(last_chunk)


def _time_up(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


class _LoopPool(BasePool[LoopConnection]):
    """The connections of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Any) -> None:
        super().__init__(context)
        self.loop = loop
        self._slots: dict[Endpoint, asyncio.Semaphore] = {}
        self._ending = self._end()

    async def _end(self) -> AsyncGenerator[None, None]:
        """An async generator that was begun is closed by `asyncio.run` before the loop: what ends with it leaves no open transport behind."""
        try:
            yield
        finally:
            self.close()
            await asyncio.sleep(0)

    async def begin(self) -> None:
        """Tie the pool to the loop's end."""
        await self._ending.__anext__()

    async def call(
        self, op: Operation, endpoint: Endpoint, call: RpcCall, caller: str, limit: float | None
    ) -> RpcReply:
        slots = self._slots.get(endpoint)
        if slots is None:
            slots = self._slots[endpoint] = asyncio.Semaphore(MAX_CONNECTIONS)
        try:
            async with asyncio.timeout(op.remaining() if slots.locked() else None):
                await slots.acquire()
        except TimeoutError:
            raise op.timed_out(f"one of {MAX_CONNECTIONS} connections to {endpoint.url}") from None
        except asyncio.CancelledError as error:
            mark_interrupted(error, False)
            raise
        try:
            return await super().call(op, endpoint, call, caller, limit)
        finally:
            slots.release()

    async def _connect(self, endpoint: Endpoint, limit: float | None) -> LoopConnection:
        async with asyncio.timeout(limit):
            _, connection = await self.loop.create_connection(
                lambda: LoopConnection(self.loop),
                endpoint.host,
                endpoint.port,
                ssl=(self._context or tls_context()) if endpoint.tls else None,
            )
            return connection


class AsyncPool:
    """The connections of one client, by loop; ``context`` as in `BasePool`."""

    def __init__(self, context: Any = None) -> None:
        self._context = context
        self._pools: dict[asyncio.AbstractEventLoop, _LoopPool] = {}
        self._lock = threading.Lock()

    async def call(
        self, op: Operation, endpoint: Endpoint, call: RpcCall, caller: str, limit: float | None
    ) -> RpcReply:
        """Make a call; see `Pool.call`."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = _LoopPool(loop, self._context)
            with self._lock:
                self._pools = {each: kept for each, kept in self._pools.items() if not each.is_closed()}
                self._pools[loop] = pool
            await pool.begin()
        return await pool.call(op, endpoint, call, caller, limit)

    def forget(self) -> None:
        """In a forked child: the transports are of the parent's loops; they are kept from being closed."""
        self._lock = threading.Lock()
        fork.keep(*self._pools.values())
        self._pools = {}

    def close(self) -> None:
        """Close all idle connections, each in its loop."""
        with self._lock:
            pools = list(self._pools.values())
        for pool in pools:
            pool.closed = True
            try:
                if pool.loop is _running():
                    pool.close()
                else:
                    pool.loop.call_soon_threadsafe(pool.close)
            except RuntimeError:  # that loop is closed, and its connections with it
                continue


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
