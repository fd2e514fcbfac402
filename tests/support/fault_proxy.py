"""A TCP proxy that does to connections what networks and dying servers do to them: it delays, slices, loses, cuts, resets, and answers in the server's place."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

__all__ = ["End", "FaultProxy", "Way"]

T = TypeVar("T")
End = Literal["reset", "close", "half-open"]
_READ = 65536


@dataclass
class Way:
    """Treatment of the bytes in one direction, from now on.

    Attributes:
        latency: delay in seconds before a piece is passed on.
        piece: size of a piece in bytes; 0: as they come.
        lost: data is read and never passed on. A connection that has lost some stays dead, as in TCP.
        cut: number of bytes that all connections together still pass on; the connection that passes the last one
            comes to its `FaultProxy.end`. ``None``: no limit.
        once: only the first connection is cut.
        replacement: data that each connection passes on once; it replaces the received data, which is discarded.
    """

    latency: float = 0.0
    piece: int = 0
    lost: bool = False
    cut: int | None = None
    once: bool = False
    replacement: bytes = b""


class _Connection:
    """Connection of a client, with the matching connection to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.dead: set[str] = set()

    def end(self, how: End) -> None:
        """Bring it to an end: both sides learn of it, or with ``"half-open"`` the server alone."""
        if how == "half-open":
            self.dead = {"up", "down"}
            _reset(self.server)
            return
        for each in (self.client, self.server):
            if how == "reset":
                _reset(each)
            else:
                each.close()


class FaultProxy:
    """Listens on all of 127/8 and passes to a port of 127.0.0.1: ``with FaultProxy(port) as proxy``.

    Attributes:
        port: where it listens.
        up, down: what happens to what clients send, and to what comes back; tests set it.
        end: what a connection comes to where its way is cut.
        accepted: connections so far.
    """

    def __init__(self, server: int, *, pem: Path | None = None) -> None:
        """With ``pem`` clients speak TLS to it, and it speaks plainly to the server."""
        self._server = server
        self._tls: ssl.SSLContext | None = None
        if pem is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(pem)
            self._tls.set_alpn_protocols(["h2", "http/1.1"])
        self.port = 0
        self.end: End = "reset"
        self.accepted = 0
        self.heal()
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._listening: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self.back()
        return self

    def __exit__(self, *error: object) -> None:
        self._do(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    # -- what tests do ------------------------------------------------------

    def heal(self) -> None:
        """Pass everything on; what has happened to connections stays."""
        self.up, self.down = Way(), Way()

    def break_all(self, how: End) -> None:
        """Bring all connections to an end."""
        self._do(self._break(how))

    def gone(self) -> None:
        """End all connections, and let nobody connect."""
        self._do(self._go())

    def back(self) -> None:
        """Listen, after `gone` on the same port."""
        self._do(self._listen())

    def clients(self) -> int:
        """Return how many clients are connected."""
        return len(self._connections)

    def sockets(self) -> int:
        """Return how many sockets of this process are connected to the proxy: what clients have not closed."""
        return sum(_peer(name) == self.port for name in os.listdir("/proc/self/fd"))

    # -- in its loop --------------------------------------------------------

    def _do(self, what: Awaitable[T]) -> T:
        async def run() -> T:
            return await what

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(20)

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._accept, "", self.port, family=socket.AF_INET, ssl=self._tls)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def _go(self) -> None:
        if self._listening is not None:
            for each in self._listening.sockets:
                self._loop.remove_reader(each.fileno())
            await self._turns()  # of a server that closes, asyncio loses those whom it is just letting in
            self._listening.close()
        await self._break("reset")

    async def _break(self, how: End) -> None:
        for each in list(self._connections):
            each.end(how)

    async def _leave(self) -> None:
        await self._go()
        while tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for writer in self._writers:  # one that was closed waits for what its other side does not take
            with suppress(AttributeError):  # one that has just ended has no loop any more (CPython 3.11)
                writer.transport.abort()
        await self._turns()

    @staticmethod
    async def _turns() -> None:
        """Wait while the loop does in a few turns what it has begun."""
        for _ in range(5):
            await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # a task of its own: of one that asyncio makes it logs when it is cancelled
        self.accepted += 1
        self._writers.add(writer)
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            beyond, server = await asyncio.open_connection("127.0.0.1", self._server)
        except OSError:
            _reset(writer)
            return
        self._writers.add(server)
        connection = _Connection(writer, server)
        self._connections.add(connection)
        up = asyncio.ensure_future(self._pass("up", reader, server, connection))
        down = asyncio.ensure_future(self._pass("down", beyond, writer, connection))
        self._tasks |= {up, down}
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            if connection.dead:  # what the server ends its client does not hear of
                await asyncio.wait((up,))
        finally:
            self._connections.discard(connection)
            for way in (up, down):
                way.cancel()
                self._tasks.discard(way)
            for each in (writer, server):
                each.close()

    async def _pass(
        self, name: Literal["up", "down"], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, of: _Connection
    ) -> None:
        sent = False
        try:
            while data := await reader.read(_READ):
                way: Way = getattr(self, name)
                if way.lost:
                    of.dead.add(name)
                if way.replacement and name not in of.dead:
                    data = b"" if sent else way.replacement
                    sent = True
                while data and name not in of.dead:
                    way = getattr(self, name)
                    piece = data[: way.piece or len(data)]
                    data = data[len(piece) :]
                    if way.latency:
                        await asyncio.sleep(way.latency)
                    over = False
                    if way.cut is not None:
                        piece = piece[: way.cut]
                        way.cut -= len(piece)
                        over = way.cut == 0
                    writer.write(piece)
                    await writer.drain()
                    if over:
                        way.cut = None if way.once else 0
                        of.end(self.end)
                        data = b""
        except OSError:
            pass


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST."""
    plain = writer.get_extra_info("socket")
    if plain is not None:  # else it has ended already, under TLS
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        except OSError:
            pass  # so has this
    writer.transport.abort()


def _peer(descriptor: str) -> int:
    """Return the port to which a descriptor is connected by TCP; 0: it is not."""
    try:
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
            return 0
        copy = os.dup(int(descriptor))
    except OSError:
        return 0  # closed meanwhile
    with socket.socket(fileno=copy) as each:
        try:
            port: int = each.getpeername()[1] if each.family in (socket.AF_INET, socket.AF_INET6) else 0
        except OSError:
            return 0
        return port
