"""uvicorn as `RpcServer` uses it: strict about what a request is, patient with nobody, silent, and without signals of its own.

h11 forgives bare LF and folded headers, which other parsers read differently (RFC 9112, sections 2.2 and 5.2), and looks at the size of a head only while it is not whole. uvicorn gives a request's head and the reading of an answer any time they want, and has no limit of connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from .._core import extras
from .._core.logs import logger, repeated
from .._core.os_processes import most_files
from .._core.os_sockets import unsent
from .limits import HEAD_TIME, IDLE_SERVER, MAX_HEAD, MAX_SERVED, SLOWEST

with extras.importing("serving over HTTP", "rpc"):
    import h11
    import uvicorn
    from h11._receivebuffer import ReceiveBuffer
    from uvicorn.protocols.http.h11_impl import H11Protocol

_AUTHORITY: Final = re.compile(rb": ?authority: [A-Za-z0-9.:\[\]_-]*$")
"""A line that Layotto writes for what gRPC has beside its headers. It is no header and says nothing about the framing, so it is left out; anything like it is refused."""
_OTHER_VERSION: Final = re.compile(rb" HTTP/(?!1\.[01]$)[^ ]*$")
_TIMEOUT: Final = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_QUEUE: Final = 1024
_AT_A_TIME: Final = 128
"""Connections that are accepted in one turn of the loop, so also how many there may be too many until the others are closed. asyncio goes on accepting after "too many open files", again and again, each time with a traceback."""
_PIECE: Final = 64 * 1024
"""Bytes that are read in one turn of the loop, a quarter of what asyncio does, so that large bodies let others in between."""
_AT_ONCE: Final = struct.pack("ii", 1, 0)
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"


class _StrictBuffer(ReceiveBuffer):
    """Refuses what h11 would repair."""

    def maybe_extract_lines(self) -> Any:
        before = bytes(self._data)
        lines = super().maybe_extract_lines()
        if lines is None:
            return None
        head = before[: len(before) - len(self._data)]
        if len(head) > MAX_HEAD:
            raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
        ends = head.count(b"\r\n")
        if head.count(b"\n") != ends or head.count(b"\r") != ends:
            raise h11.RemoteProtocolError("a line must end with CRLF")
        if b"\n " in head or b"\n\t" in head:
            raise h11.RemoteProtocolError("a header must not be folded")
        if b"\0" in head:
            raise h11.RemoteProtocolError("NUL in a head")
        if lines and _OTHER_VERSION.search(lines[0]):
            raise h11.RemoteProtocolError("HTTP/1.1 is spoken here")
        return [line for line in lines if not _AUTHORITY.match(line)]

    def maybe_extract_next_line(self) -> Any:
        line = super().maybe_extract_next_line()
        if line is not None and b";" in line:
            raise h11.RemoteProtocolError("chunk extensions are not taken")
        return line


class _Logger:
    """Logs uvicorn's messages about requests at most once a minute each, since clients decide how many there are."""

    level = 30

    @staticmethod
    def warning(message: str) -> None:
        repeated(f"uvicorn {message}", message)

    @staticmethod
    def error(message: str, *args: Any, exc_info: BaseException | None = None) -> None:
        if not isinstance(exc_info, asyncio.CancelledError):  # `Server.shutdown` tells of those that it breaks off
            logger().error(message.rstrip(), *args, exc_info=exc_info)

    @staticmethod
    def log(*args: Any) -> None:
        """Traces, which nobody asks for."""


class _Protocol(H11Protocol):
    """Protocol of one connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger: Any = _Logger
        assert type(self.conn._receive_buffer) is ReceiveBuffer  # else what we refuse would be let through
        self.conn._receive_buffer = _StrictBuffer()
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._unread: tuple[int, float] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if hasattr(transport, "max_size"):
            transport.max_size = _PIECE
        self._idle_since = self.loop.time()
        limit = most_connections()
        if len(self.connections) > limit and not self._make_room():
            repeated("connections", "a connection is refused: there are %d with requests under way", limit)
            transport.write(_FULL)
            transport.close()
            return
        self._head_timer = self.loop.call_later(HEAD_TIME, self._head_is_late)

    def _make_room(self) -> bool:
        """Close the connection that has been without a request for longest, which HTTP allows at any time (RFC 9112, section 9.5)."""
        idle = [each for each in self.connections if each is not self and isinstance(each, _Protocol) and each._is_idle]
        if not idle:
            return False
        min(idle, key=lambda each: each._idle_since).transport.abort()
        return True

    @property
    def _is_idle(self) -> bool:
        return (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        self._idle_since, self._unread = self.loop.time(), None
        super().on_response_complete()
        self._watch()

    def _watch(self) -> None:
        """See that a head that has begun is there in time."""
        if self.conn.their_state is h11.IDLE and len(self.conn._receive_buffer):
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_TIME, self._head_is_late)
        else:
            self._stop_timer()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.write(_TIMEOUT)
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request; in the middle of an answer there is nothing to say."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def resume_writing(self) -> None:
        self._unread = None
        super().resume_writing()

    def look(self, now: float) -> bool:
        """See that its answers are read, no slower than `SLOWEST`; called now and then. An answer that could be written whole begins the time anew. Returns whether it is over with it."""
        size = self.transport.get_write_buffer_size()
        if not size:
            self._unread = None
            return False
        # the kernel asks for more in steps of a third of its own buffer, so what it holds must count
        size += unsent(self.transport.get_extra_info("socket"))
        if self._unread is None or size <= self._unread[0] - SLOWEST * HEAD_TIME:
            self._unread = size, now + HEAD_TIME
        elif now > self._unread[1]:
            self._reset()
            return True
        return False

    def _reset(self) -> None:
        """Break off, without what the kernel would keep trying to send."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # it does not even read its answer
            self._reset()
        super().timeout_keep_alive_handler()


class Server(uvicorn.Server):
    """Tells when it has started, and looks up once a second instead of ten times."""

    started_callback: Callable[[], None]
    _wake: asyncio.Event | None = None
    _loop: asyncio.AbstractEventLoop

    async def main_loop(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        while not await self.on_tick(0):
            try:
                async with asyncio.timeout(1.0):
                    await self._wake.wait()
            except TimeoutError:
                await self._look()

    async def _look(self) -> None:
        now = self._loop.time()
        for each in list(self.server_state.connections):
            if isinstance(each, _Protocol) and each.look(now):
                # many may be over at once, and what they hold is not let go for nothing: others come in between
                await asyncio.sleep(0)

    async def shutdown(self, sockets: Any = None) -> None:
        """End; who does not read its answer does not hold it up longer than others may. Requests that are under way after the grace are broken off."""
        watch = asyncio.create_task(self._keep_looking())
        # uvicorn would tell of them by a logger of its own, which writes to stderr where nobody has set it up
        grace, self.config.timeout_graceful_shutdown = self.config.timeout_graceful_shutdown, None
        try:
            await self._let_in_no_more()
            async with asyncio.timeout(grace):
                await super().shutdown(sockets)
        except TimeoutError:
            tasks = self.server_state.tasks
            logger().warning("requests under way %g s after the stop are broken off: %d", grace, len(tasks))
            for each in tasks:
                each.cancel()
            await asyncio.sleep(0)  # they may answer
        finally:
            watch.cancel()
            # also one that was accepted just before the end
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)

    async def _let_in_no_more(self) -> None:
        """Stop accepting, and wait for those that are being let in: of a server that closes meanwhile, asyncio loses them, open."""
        for server in self.servers:
            for each in server.sockets:
                with contextlib.suppress(NotImplementedError):  # Windows' loop
                    asyncio.get_running_loop().remove_reader(each.fileno())
        for _ in range(3):
            await asyncio.sleep(0)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self._look()

    def stop(self) -> None:
        """Stop the server. Thread-safe."""
        self.should_exit = True
        if self._wake is not None:
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:  # it has ended
                return

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `RpcServer`."""
        yield

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets=sockets)
        for each in sockets or ():
            each.listen(_QUEUE)
        self.started_callback()


def most_connections() -> int:
    """Return how many connections are taken: `MAX_SERVED`, but no more than a third of the files that the process may have open, since each may need another one to be answered."""
    return max(8, min(MAX_SERVED, most_files() // 3))


def make_server(app: Any, started: Callable[[], None]) -> Server:
    """Return a server for an ASGI application that is not yet listening."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        loop="none",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=int(IDLE_SERVER),
        h11_max_incomplete_event_size=MAX_HEAD,
        backlog=max(4, min(_AT_A_TIME, most_files() // 16)),
    )
    server = Server(config)
    server.started_callback = started
    return server
