"""A sidecar as a server in a thread of its own: one event loop under HTTP, gRPC and the client's async API.

Its building blocks are three things each: what one does, in words of neither protocol, its routes over HTTP and its methods over gRPC. A small block is one module. A large one is a folder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

from .._core import extras
from .._http.asgi_server import make_server, most_connections
from .._http.limits import HEAD_TIME
from .._http.threaded import ThreadedServer
from ..client import CloudRuntimesClient
from ..errors import UnavailableError
from .app import AppBlock
from .bindings import BindingsBlock
from .configuration import ConfigurationBlock
from .context import Block, Context
from .http.app import HttpApi
from .invoke import InvokeBlock
from .jobs import JobsBlock
from .lock import LockBlock
from .pubsub import PubSubBlock
from .secret import SecretBlock
from .settings import SidecarSettings
from .state import StateBlock
from .system import SystemBlock


class Blocks:
    """All of one sidecar, which start in their order."""

    def __init__(self, blocks: tuple[Block, ...]) -> None:
        self._blocks = blocks
        self._started: list[Block] = []

    async def start(self) -> None:
        """Start all."""
        for block in self._blocks:
            self._started.append(block)
            await block.start()

    async def stop(self, also: Awaitable[None] | None = None) -> None:
        """Stop those that were started, and what ``also`` is: at once, since each may take the whole grace; the first one, by which they reach the application, last."""
        started, self._started = self._started, []
        ending: list[Awaitable[None]] = [block.stop() for block in started[1:]]
        if also is not None:
            ending.append(also)
        results = await asyncio.gather(*ending, return_exceptions=True)
        for block in started[:1]:
            await block.stop()
        for result in results:
            if isinstance(result, BaseException):
                raise result


def install(context: Context, http: HttpApi, grpc: Any, shutdown: Callable[[], None]) -> Blocks:
    """Make the blocks and give them their routes and methods; ``grpc`` is ``None`` where it is not served."""
    blocks: tuple[Block, ...] = (
        AppBlock(context),
        StateBlock(context),
        SecretBlock(context),
        ConfigurationBlock(context),
        LockBlock(context),
        PubSubBlock(context),
        InvokeBlock(context),
        JobsBlock(context),
        BindingsBlock(context),
        SystemBlock(context, shutdown),
    )
    for block in blocks:
        block.routes(http)
        if grpc is not None:
            block.methods(grpc)
    return Blocks(blocks)


_PEERS: Final = (
    # as daprd has them (dapr/dapr pkg/api/grpc/server.go), so that a client's own pings are no offence
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # without it a client that has vanished keeps its streams for a minute
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 8_000),
    ("grpc.max_connection_idle_ms", 180_000),
    ("grpc.max_concurrent_streams", 1_000),
)
"""What peers over gRPC may do."""


class Sidecar(ThreadedServer):
    """Answers Dapr's API: ``with Sidecar(client, settings) as sidecar``. It serves once; the client is the caller's to close.

    Attributes:
        http_address, grpc_address: e.g. ``"http://127.0.0.1:3500"``, ``"127.0.0.1:50001"`` (``""``: not served).
        signal: the signal that ended `wait`; 0: none.
    """

    what = "sidecar"
    thread = "cloud-runtimes-sidecar"

    def __init__(self, client: CloudRuntimesClient, settings: SidecarSettings) -> None:
        super().__init__()
        self.context = Context(client, settings)
        self.http_address = self.grpc_address = ""
        self._grpc: Any = None

    def __enter__(self) -> Self:
        """Listen and serve.

        Raises:
            UnavailableError: a port is taken.
            UnsupportedError: gRPC is asked for and grpcio or protobuf is not installed.
            InvalidArgumentError: a declared subscription cannot be used.
        """
        return super().__enter__()

    def close(self) -> None:
        """`stop`, and wait for the end."""
        self._leave(3 * self.context.settings.grace, "requests were still under way")

    def _open(self) -> None:
        settings = self.context.settings
        if settings.grpc_port is not None:
            need_grpc()
        remedy = "give another --dapr-http-port, or end what listens there"
        self.http_address = self._listen(settings.host, settings.http_port, remedy)

    async def _serve(self) -> None:
        settings = self.context.settings
        http = HttpApi(self.context)
        grpc_api: Any = None
        if settings.grpc_port is not None:
            from .grpc import GrpcApi

            grpc_api = GrpcApi(self.context)
        blocks = install(self.context, http, grpc_api, self.stop)
        self._server = make_server(http, self._has_started)
        self._server.config.timeout_graceful_shutdown = settings.grace
        try:
            if grpc_api is not None:
                await self._serve_grpc(grpc_api)
            await blocks.start()
            await self._server.serve(sockets=[self._socket])
        finally:
            await blocks.stop(None if self._grpc is None else self._grpc.stop(settings.grace))

    async def _serve_grpc(self, api: Any) -> None:
        from grpc import aio

        settings = self.context.settings
        self._grpc = aio.server(
            handlers=(api,),
            options=(
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", settings.max_body),
                ("grpc.max_send_message_length", -1),
                ("grpc.server_handshake_timeout_ms", int(HEAD_TIME * 1000)),
                ("grpc.max_allowed_incoming_connections", most_connections() // 2),
                *_PEERS,
            ),
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            port = self._grpc.add_insecure_port(f"{host}:{settings.grpc_port}")
        except RuntimeError as error:
            raise UnavailableError(
                f"{host}:{settings.grpc_port} cannot be listened on: give another --dapr-grpc-port, or end what listens there",
                retryable=False,
            ) from error
        self.grpc_address = f"{host}:{port}"
        reached = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
        self.context.grpc_address = f"{reached}:{port}"
        await self._grpc.start()


def need_grpc() -> None:
    """Raise `UnsupportedError` where gRPC cannot be served."""
    if not extras.installed("grpc", "google.protobuf"):
        raise extras.missing("gRPC", "dapr")
