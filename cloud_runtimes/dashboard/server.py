"""The viewer as a server in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Self

from .._core.clocks import Clocks
from .._http.asgi_server import make_server
from .._http.request_guard import RequestGuard
from .._http.threaded import ThreadedServer
from ..errors import CloudRuntimesError, InvalidArgumentError
from .asgi import DashboardApp
from .lags import EVERY
from .operations import Operations
from .store import MAX_AGE, MAX_BYTES, Store

PORT = 4318
"""Of OTLP over HTTP."""
_GRACE = 5.0
"""Seconds that requests under way have at the end."""


class Viewer(ThreadedServer):
    """Receives and shows telemetry: ``with Viewer(home) as viewer``. It serves once.

    Args:
        home: the folder of the database, or ``:memory:``.
        host: where to listen. Whoever reaches it sees all, and may send.
        port: 0 is a free one.
        allowed_hosts: further names under which browsers and exporters reach it; see `RequestGuard`.
        max_bytes: of the database.
        max_age: seconds after which records are evicted.
        operations: what services hold; ``None``: telemetry alone.
    """

    what = "server"
    thread = "cloud-runtimes-telemetry-viewer"

    def __init__(
        self,
        home: str,
        host: str = "127.0.0.1",
        port: int = PORT,
        *,
        allowed_hosts: Sequence[str] = (),
        max_bytes: int = MAX_BYTES,
        max_age: float = MAX_AGE,
        operations: Operations | None = None,
        clocks: Clocks | None = None,
    ) -> None:
        super().__init__()
        if not host or not host.isascii() or not host.isprintable() or " " in host:
            raise InvalidArgumentError(f"host {host!r:.80}: give an address or a name such as '127.0.0.1'")
        if not 0 <= port <= 65535:
            raise InvalidArgumentError(f"port {port!r}: give 0 to 65535; 0 is a free one")
        self._guard = RequestGuard((host, *allowed_hosts), option="--allow-host", pages=True)
        self.store = Store(home, max_bytes=max_bytes, max_age=max_age, clocks=clocks or Clocks())
        self._operations = operations
        self.address = ""
        """Where it listens, e.g. ``"http://127.0.0.1:4318"``."""
        self._bind_to = host, port

    def __enter__(self) -> Self:
        """Open the database and serve.

        Raises:
            UnavailableError: the port is taken, or another process has the database.
            CloudRuntimesError: the database cannot be used.
        """
        return super().__enter__()

    def close(self) -> None:
        """Take no more requests, let those under way end within 5 s, close the database."""
        self._leave(2 * _GRACE, "a request was still being stored")
        self.store.close()

    def _open(self) -> None:
        # before the database, which a second viewer of the same home and port would complain of
        self.address = self._listen(*self._bind_to, "give another --port, or end what listens there")
        self.store.open()

    async def _serve(self) -> None:
        self._server = make_server(DashboardApp(self.store, self._guard, self._operations), self._has_started)
        self._server.config.timeout_graceful_shutdown = _GRACE
        watching = None if self._operations is None else asyncio.create_task(_watch(self._operations))
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            if watching is not None:
                watching.cancel()


async def _watch(operations: Operations) -> None:
    """Look now and then how far groups are behind, so that a page that is opened later shows it."""
    while True:
        began = monotonic()
        with suppress(CloudRuntimesError):
            await asyncio.to_thread(operations.backlogs)
        # of very many groups it takes a while, and is to cost little
        await asyncio.sleep(max(EVERY, 100 * (monotonic() - began)))
