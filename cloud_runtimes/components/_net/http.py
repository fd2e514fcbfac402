"""Base of clients of a server over HTTP.

The steps of a call are a generator that yields requests and is sent replies, so both APIs share them. A reply may
hold a secret: no variable holds one while an error propagates.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any, TypeVar

from ..._http.client import HttpClient
from ..._http.http1 import Endpoint
from ..._http.sync_client import NotReached
from ...codec import json
from ...errors import CloudRuntimesError, InvalidArgumentError, UnavailableError
from ...spi.flow import FlowEngine, run_sync
from ...spi.operation import Operation
from ...spi.rpc import RpcCall, RpcReply

T = TypeVar("T")
Flow = Generator[RpcCall, RpcReply, T]


class FlowClient(FlowEngine[RpcCall, RpcReply]):
    """The connections to one server.

    Attributes:
        where: the server, for messages.
    """

    where: str
    _endpoint: Endpoint
    _http: HttpClient

    def __init__(self, app_id: str) -> None:
        self._app_id = app_id

    def close(self) -> None:
        """Close all idle connections."""
        self._http.close()

    def exchange(self, op: Operation, call: RpcCall) -> RpcReply:
        return run_sync(self._sent(self._http.send(op, self._endpoint, call, self._app_id)))

    async def exchange_async(self, op: Operation, call: RpcCall) -> RpcReply:
        return await self._sent(self._http.send_async(op, self._endpoint, call, self._app_id))

    async def _sent(self, sending: Awaitable[RpcReply]) -> RpcReply:
        try:
            return await sending
        except NotReached as error:
            raise UnavailableError(f"{self.where} cannot be reached: {error}") from error.__cause__


def tls(ca_file: str | None, setting: str) -> Any:
    """Return what checks the server's certificate; ``None``: what all connections are checked by."""
    if ca_file is None:
        return None
    from ..._core.tls import client_context

    try:
        return client_context(ca_file)
    except OSError as error:
        raise InvalidArgumentError(f"{setting}: {ca_file} has no certificates: {error.strerror or error}") from None


def document(data: bytes) -> Any:
    """Return an answer's document; ``None``: it is of another form. No error leaves here, whose frames would show it."""
    try:
        return json.decode(data)
    except CloudRuntimesError:
        return None
