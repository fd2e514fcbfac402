"""The viewer as a server in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Self

from ..._clock import Clocks
from ..._log import logger
from ..._thread import Background, Changes
from ...errors import InternalError, InvalidArgumentError
from ...rpc._listen import listen
from ...rpc._uvicorn import make_server
from .app import ViewerApp
from .store import MAX_AGE, MAX_BYTES, Store

__all__ = ["PORT", "Viewer"]

PORT = 4318
"""Of OTLP over HTTP."""
_GRACE = 5.0
"""Seconds that requests under way have at the end."""


class Viewer:
    """Receives and shows telemetry: ``with Viewer(home) as viewer``. It serves once.

    Args:
        home: the folder of the database, or ``:memory:``.
        host: where to listen. Whoever reaches it sees all, and may send.
        port: 0 is a free one.
        max_bytes: of the database.
        max_age: seconds after which records are evicted.
    """

    def __init__(
        self,
        home: str,
        host: str = "127.0.0.1",
        port: int = PORT,
        *,
        max_bytes: int = MAX_BYTES,
        max_age: float = MAX_AGE,
        clocks: Clocks | None = None,
    ) -> None:
        if not host or not host.isascii() or not host.isprintable() or " " in host:
            raise InvalidArgumentError(f"host {host!r:.80}: give an address or a name such as '127.0.0.1'")
        if not 0 <= port <= 65535:
            raise InvalidArgumentError(f"port {port!r}: give 0 to 65535; 0 is a free one")
        self.store = Store(home, max_bytes=max_bytes, max_age=max_age, clocks=clocks or Clocks())
        self.address = ""
        """Where it listens, e.g. ``"http://127.0.0.1:4318"``."""
        self.signal = 0
        """The signal that ended `wait`, 0: none."""
        self._bind_to = host, port
        self._socket: socket.socket | None = None
        self._server: Any = None
        self._thread: Background | None = None
        self._changes = Changes()
        self._started = self._ended = False
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        """Open the database and serve.

        Raises:
            UnavailableError: the port is taken, or another process has the database.
            CloudRuntimesError: the database cannot be used.
        """
        try:
            # before the database, which a second viewer of the same home and port would complain of
            self._socket, self.address = listen(*self._bind_to, "give another --port, or end what listens there")
            self.store.open()
            self._server = make_server(ViewerApp(self.store, self._bind_to[0]), self._has_started)
            self._server.config.timeout_graceful_shutdown = _GRACE
            self._thread = Background(self._run, "cloud-runtimes-telemetry-viewer")
            self._thread.start()
            self._wait_for(lambda: self._started or self._ended)
            if not self._started:
                raise InternalError(f"the server did not start: {self._failure!r}") from self._failure
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def wait(self) -> None:
        """Wait until a signal was `signalled`, or the server has failed."""
        self._wait_for(lambda: bool(self.signal or self._ended))
        if not self.signal:
            raise InternalError(f"the server at {self.address} failed: {self._failure!r}") from self._failure

    def signalled(self, number: int) -> None:
        """Have `wait` end; the second signal interrupts."""
        again, self.signal = self.signal, number
        self._changes.announce()
        if again:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Take no more requests, let those under way end within 5 s, close the database."""
        if self._server is not None:
            self._server.stop()
        if self._thread is not None and not self._thread.join(2 * _GRACE) and self._thread.started:
            logger().warning("%s: a request was still being stored when the viewer was closed", self.address)
        if self._socket is not None:
            self._socket.close()
        self.store.close()

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            ticket = self._changes.ticket()
            if not condition():
                self._changes.wait(ticket, None)

    def _has_started(self) -> None:
        self._started = True
        self._changes.announce()

    def _run(self) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._server.serve(sockets=[self._socket]))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        except BaseException as error:
            self._failure = error
            logger().error("the server at %s failed: %r", self.address, error, exc_info=error)
        finally:
            loop.close()
            self._ended = True
            self._changes.announce()
