"""The application in our registry: an RPC server of its name, beside the sidecar, that passes calls on to it.

The application cannot prove to callers that it is the service (`_http/proof.py`), the sidecar can. So other sidecars of the same home, and plain clients, find it by its id.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from functools import partial
from typing import Any, Final, cast
from urllib.parse import unquote

from ..._core.logs import logger
from ..._http.asgi_server import make_server
from ..._http.threaded import listen
from ...client import context_of
from ...codec import json
from ...codec.payload import JSON
from ...errors import CloudRuntimesError, NotFoundError, UnavailableError
from ...rpc.asgi import RpcApp
from ...rpc.failures import BARE, error_reply
from ...rpc.host import Handler, Host, begin
from ...spi import rpc as spi
from ...spi.operation import Method, Operation
from ...spi.rpc import Announcement, CallSource, Incoming, RpcReply
from ..app.channel import AppAnswer, AppCall, NotReached, passed_on
from ..context import Context
from .api import CALLEE, CALLER, DATA_TYPE, GRPC_STATUS, NAMESPACE, PEER_NAMESPACE, method_path, type_text

PEER: Final = "cloud-runtimes/sidecar"
"""The method by which one sidecar asks another for its way in over gRPC."""

_SERVE: Final = Method("rpc", "serve", repeatable=False)
_TIME: Final = 10.0
_BETWEEN: Final = frozenset(["host", "dapr-api-token", DATA_TYPE, PEER_NAMESPACE])
"""Headers of a call between sidecars, which the application does not get."""


class Announced:
    """The server, while it runs."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._server: Any = None
        self._serving: asyncio.Task[None] | None = None
        self._announcement: Announcement | None = None
        self._calls: CallSource | None = None

    async def start(self) -> None:
        """Serve, and be found. Without an application, or where there is no registry, nothing is done."""
        if self._context.app is None:
            return
        app_id = self._context.settings.app_id
        try:
            await self._announce(app_id)
        except CloudRuntimesError as error:
            logger().warning("%s: others will not find the application: %s", app_id, error)

    async def _announce(self, app_id: str) -> None:
        driver = self._context.driver("rpc", app_id)
        if spi.HOST not in driver.features:
            return
        op = Operation(_SERVE, app_id, _TIME)
        gate = _Gate(self._context)
        self._calls = await driver.receive_async(op, partial(begin, cast(Host, gate), cast(Handler, gate)))
        if self._calls is not None:
            self._context.peer_token = secrets.token_hex(16)
            self._serving = asyncio.create_task(self._calls.serve())
            return
        guard = await driver.guard_async(op)
        if not guard.secrets and not guard.open:  # a store in memory: nobody could call
            return
        self._context.peer_token = secrets.token_hex(16)
        instance = os.urandom(16).hex()
        taken, address = listen("127.0.0.1", 0, "let the system give free ports")
        started = asyncio.Event()
        app = RpcApp(cast(Host, gate), lambda: driver, instance, guard)
        self._server = make_server(app, started.set)
        self._serving = asyncio.create_task(self._server.serve(sockets=[taken]))
        await started.wait()
        self._announcement = await driver.announce_async(op, instance, address)

    async def stop(self) -> None:
        """Be found no longer, and let calls under way end within the grace."""
        grace = self._context.settings.grace
        if self._announcement is not None:
            try:
                await asyncio.to_thread(self._announcement.close, grace)
            except CloudRuntimesError as error:  # it ends by itself, being a lease
                logger().warning("leaving the registry failed: %s", error)
        if self._calls is not None:
            self._calls.stop(grace)
        if self._server is not None:
            self._server.config.timeout_graceful_shutdown = grace
            self._server.stop()
        if self._serving is not None:
            await asyncio.wait((self._serving,), timeout=2 * grace + 1.0)


class _Gate:
    """Host for `RpcApp` with one handler for all methods."""

    is_async = True
    label = "the application"

    def __init__(self, context: Context) -> None:
        self._context = context
        self.context = context_of(context.client)
        self.app_id = context.settings.app_id
        self.handlers = _All(self)

    def unknown(self, name: str) -> RpcReply:
        """Refuse an empty name."""
        return error_reply(NotFoundError(f"{self.app_id!r} has no method {name!r}"))

    def failed(self, error: BaseException) -> RpcReply:
        """Answer for a failure of the sidecar."""
        logger().error("passing a call on failed: %r", error, exc_info=error)
        return BARE

    async def run_async(self, incoming: Incoming) -> RpcReply:
        """Pass a call on to the application."""
        if incoming.method == PEER:
            address = {"grpc": self._context.grpc_address, "token": self._context.peer_token}
            return RpcReply(200, {}, JSON, json.encode(address))
        headers = passed_on(list(incoming.headers.items()), _BETWEEN)
        if incoming.caller is not None:
            headers.append((CALLER, incoming.caller))
        headers += [(NAMESPACE, incoming.headers.get(PEER_NAMESPACE, "default")), (CALLEE, self.app_id)]
        call = AppCall(
            incoming.http_method,
            method_path(incoming.method),
            incoming.query,
            headers,
            incoming.content_type,
            incoming.data,
            unquote(incoming.headers.get(DATA_TYPE, "")),
        )
        app = self._context.app
        assert app is not None
        try:
            answer = await app.invoke(call)
        except NotReached as error:
            return error_reply(UnavailableError(error.message, maybe_applied=error.sent))
        return _reply(answer)


class _All:
    """Every name has the same handler."""

    def __init__(self, gate: _Gate) -> None:
        self._gate = gate

    def __len__(self) -> int:
        return 1

    def get(self, name: str) -> _Gate:
        """Return it."""
        return self._gate


def _reply(answer: AppAnswer) -> RpcReply:
    headers: dict[str, str] = {}
    for name, value in answer.headers:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if answer.data_type:
        headers[DATA_TYPE] = type_text(answer.data_type)
    if answer.is_grpc:
        code, text, _ = answer.failure or ("OK", "", b"")
        headers[GRPC_STATUS] = f"{code} {text}".strip() if text.isascii() and text.isprintable() else code
    return RpcReply(answer.status, headers, answer.content_type, answer.body)
