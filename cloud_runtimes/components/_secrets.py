"""What components share that read secrets over HTTP.

The steps of a call are a generator that yields requests and is sent replies, so both APIs share them. A reply may hold a secret: none stands in a variable while an error leaves.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Mapping
from time import monotonic
from typing import Any, Final, TypeVar

from .._http.client import HttpClient
from .._http.http1 import Endpoint
from .._http.sync_client import NotReached
from ..codec import json
from ..errors import BulkError, CloudRuntimesError, InvalidArgumentError, UnavailableError
from ..spi.flow import run_sync
from ..spi.operation import Operation
from ..spi.rpc import RpcCall, RpcReply
from ..spi.secret import BULK, Secret, SecretDriver

__all__ = ["Flow", "FlowClient", "FlowSecret", "document", "tls", "together"]

T = TypeVar("T")
Flow = Generator[RpcCall, RpcReply, T]

_CACHED: Final = 1000


class FlowClient:
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

    def run(self, op: Operation, flow: Flow[T]) -> T:
        """Take the steps of a call."""
        return run_sync(self._run(op, flow, self._http.send))

    async def run_async(self, op: Operation, flow: Flow[T]) -> T:
        """Asynchronous `run`."""
        return await self._run(op, flow, self._http.send_async)

    async def _run(self, op: Operation, flow: Flow[T], send: Callable[..., Awaitable[RpcReply]]) -> T:
        try:
            call = next(flow)
            while True:
                call = flow.send(await send(op, self._endpoint, call, self._app_id))
        except StopIteration as done:
            result: T = done.value
            return result
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


class FlowSecret(SecretDriver):
    """Secrets that are read by flows. With ``seconds`` one may be served again for so long, of the 1,000 that were read last."""

    features = frozenset({BULK})

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._cache: OrderedDict[str, tuple[Secret, float]] = OrderedDict()

    @property
    @abstractmethod
    def _client(self) -> FlowClient: ...

    @abstractmethod
    def _get(self, op: Operation, key: str) -> Flow[Secret]: ...

    @abstractmethod
    def _get_bulk(self, op: Operation) -> Flow[dict[str, Secret]]: ...

    def get(self, op: Operation, key: str, /) -> Secret:
        found = self._cached(op, key)
        return self._client.run(op, self._caching(op, key)) if found is None else found

    async def get_async(self, op: Operation, key: str, /) -> Secret:
        found = self._cached(op, key)
        return await self._client.run_async(op, self._caching(op, key)) if found is None else found

    def get_bulk(self, op: Operation, /) -> dict[str, Secret]:
        return self._client.run(op, self._get_bulk(op))

    async def get_bulk_async(self, op: Operation, /) -> dict[str, Secret]:
        return await self._client.run_async(op, self._get_bulk(op))

    def _cached(self, op: Operation, key: str) -> Secret | None:
        cached = self._cache.get(key)
        return cached[0] if cached is not None and monotonic() < cached[1] and not op.metadata else None

    def _caching(self, op: Operation, key: str) -> Flow[Secret]:
        found = yield from self._get(op, key)
        if self._seconds and not op.metadata:
            self._cache.pop(key, None)
            self._cache[key] = (found, monotonic() + self._seconds)
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return found


def together(name: str, found: dict[str, Secret], failed: Mapping[str, CloudRuntimesError]) -> dict[str, Secret]:
    """Return the secrets of a store; `BulkError`: some cannot be read."""
    if failed:
        raise BulkError(
            f"{len(failed)} of {len(found) + len(failed)} secrets of {name!r} cannot be read",
            failed=failed,
            result=found,
        )
    return found
