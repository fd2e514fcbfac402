"""uvicorn as `RpcServer` uses it: strict about what a request is, patient with nobody, silent, and without signals of its own.

h11 forgives bare LF and folded headers, which other parsers read differently (RFC 9112, sections 2.2 and 5.2); uvicorn gives a request's head any time it wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import h11
import uvicorn
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.h11_impl import H11Protocol

from .._log import logger
from ._limits import HEAD_TIME, IDLE_SERVER, MAX_HEAD

__all__ = ["Server", "make_server"]

_OTHER_VERSION: Final = re.compile(rb" HTTP/(?!1\.[01]$)[^ ]*$")
_TIMEOUT: Final = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class _StrictBuffer(ReceiveBuffer):
    """Refuses what h11 would repair."""

    def maybe_extract_lines(self) -> Any:
        """Return the lines of a head."""
        before = bytes(self._data)
        lines = super().maybe_extract_lines()
        if lines is None:
            return None
        head = before[: len(before) - len(self._data)]
        ends = head.count(b"\r\n")
        if head.count(b"\n") != ends or head.count(b"\r") != ends:
            raise h11.RemoteProtocolError("a line must end with CRLF")
        if b"\n " in head or b"\n\t" in head:
            raise h11.RemoteProtocolError("a header must not be folded")
        if b"\0" in head:
            raise h11.RemoteProtocolError("NUL in a head")
        if lines and _OTHER_VERSION.search(lines[0]):
            raise h11.RemoteProtocolError("HTTP/1.1 is spoken here")
        return lines

    def maybe_extract_next_line(self) -> Any:
        """Return the line of a chunk's size."""
        line = super().maybe_extract_next_line()
        if line is not None and b";" in line:
            raise h11.RemoteProtocolError("chunk extensions are not taken")
        return line


class _Protocol(H11Protocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = logger()
        assert type(self.conn._receive_buffer) is ReceiveBuffer  # else what we refuse would be let through
        self.conn._receive_buffer = _StrictBuffer()
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_TIME, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
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

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # it does not even read its answer
            self.transport.abort()
        super().timeout_keep_alive_handler()


class Server(uvicorn.Server):
    """Tells when it has started, and looks up once a second instead of ten times."""

    started_callback: Callable[[], None]
    _wake: asyncio.Event | None = None
    _loop: asyncio.AbstractEventLoop

    async def main_loop(self) -> None:
        """Serve until `stop`."""
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        while not await self.on_tick(0):
            try:
                async with asyncio.timeout(1.0):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def stop(self) -> None:
        """Have it end; from any thread."""
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
        """Start accepting."""
        await super().startup(sockets=sockets)
        self.started_callback()


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
        backlog=1024,
    )
    server = Server(config)
    server.started_callback = started
    return server
