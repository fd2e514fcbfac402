"""Base of components that read secrets over HTTP.

The steps of a call are a generator that yields requests and is sent replies, so both APIs share them. A reply may
hold a secret: no variable holds one while an error propagates.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable, Generator, Mapping
from time import monotonic
from typing import Any, Final, TypeVar

from .._http.client import HttpClient
from .._http.http1 import Endpoint
from .._http.sync_client import NotReached
from ..codec import json
from ..errors import BulkError, CloudRuntimesError, InvalidArgumentError, UnavailableError
from ..spi.flow import FlowDriver, FlowEngine, both_apis, run_sync
from ..spi.operation import Operation
from ..spi.rpc import RpcCall, RpcReply
from ..spi.secret import BULK, Secret, SecretDriver

T = TypeVar("T")
Flow = Generator[RpcCall, RpcReply, T]

_CACHED: Final = 1000


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
    from .._core.tls import client_context

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


class FlowSecret(FlowDriver, SecretDriver):
    """Secrets that are read by flows. With ``seconds`` one may be served again for so long, of the 1,000 that were read last."""

    features = frozenset({BULK})

    def __init__(self, client: FlowClient, name: str, seconds: float) -> None:
        self.flows = client
        self.name = name
        self._seconds = seconds
        self._cache: OrderedDict[str, tuple[Secret, float]] = OrderedDict()

    @abstractmethod
    def _read_secret(self, op: Operation, key: str) -> Flow[Secret]: ...

    @abstractmethod
    def _get_bulk(self, op: Operation, /) -> Flow[dict[str, Secret]]: ...

    def _get(self, op: Operation, key: str, /) -> Flow[Secret]:
        cached = self._cache.get(key)
        if cached is not None and monotonic() < cached[1] and not op.metadata:
            return cached[0]
        secret = yield from self._read_secret(op, key)
        if self._seconds and not op.metadata:
            self._cache.pop(key, None)
            self._cache[key] = (secret, monotonic() + self._seconds)
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return secret

    get, get_async = both_apis(_get)
    get_bulk, get_bulk_async = both_apis(_get_bulk)


def together(name: str, secrets: dict[str, Secret], failed: Mapping[str, CloudRuntimesError]) -> dict[str, Secret]:
    """Return the secrets of a store; `BulkError`: some cannot be read."""
    if failed:
        raise BulkError(
            f"{len(failed)} of {len(secrets) + len(failed)} secrets of {name!r} cannot be read",
            failed=failed,
            result=secrets,
        )
    return secrets
