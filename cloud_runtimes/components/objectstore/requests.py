"""Requests for a bucket of S3 that obstore signs and we send: their answers are bounded, and no redirect is followed."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

import obstore

from ..._core.tls import client_context
from ..._http.client import HttpClient
from ..._http.http1 import Endpoint
from ..._http.sync_client import NotReached
from ...errors import (
    CloudRuntimesError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
)
from ...rpc.peers import endpoint
from ...spi.flow import run_sync
from ...spi.operation import Operation
from ...spi.rpc import RpcCall, RpcReply
from .failures import Refusal

if TYPE_CHECKING:
    from .bucket import Bucket

_MINUTE: Final = timedelta(seconds=60)
_KEY: Final = "x"
"""Of an object: obstore signs requests for no bucket."""


class SignedRequests:
    """The requests of one bucket.

    obstore signs the query that an endpoint ends with. So a request has its query in the endpoint of a store of its own, and the key of an object that is none in a parameter which S3 does not read.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._url: str | None = None

    @cached_property
    def _http(self) -> HttpClient:
        context = client_context()
        if (file := self._bucket.settings.ca_file) is not None:
            try:
                context.load_verify_locations(file)
            except (OSError, ssl.SSLError):
                raise InvalidArgumentError(f"ca_file {file} has no certificates") from None
        return HttpClient(context)

    def close(self) -> None:
        """Close all idle connections."""
        if "_http" in vars(self):
            self._http.close()

    def send(self, op: Operation, method: Any, query: Mapping[str, str]) -> bytes:
        """Make a request, and return the answer's body; `Refusal`: it has another status than 200."""
        if self._url is None:
            self._url = _bucket_url(obstore.sign(self._store(op), method, _KEY, _MINUTE))
        url = obstore.sign(self._store(op, query), method, _KEY, _MINUTE)
        return run_sync(self._sent(op, method, url, self._http.send))

    async def send_async(self, op: Operation, method: Any, query: Mapping[str, str]) -> bytes:
        """Asynchronous `send`."""
        if self._url is None:
            store = await self._bucket.in_thread(self._store, op)
            self._url = _bucket_url(await obstore.sign_async(store, method, _KEY, _MINUTE))
        store = await self._bucket.in_thread(self._store, op, query)
        return await self._sent(
            op, method, await obstore.sign_async(store, method, _KEY, _MINUTE), self._http.send_async
        )

    def _store(self, op: Operation, query: Mapping[str, str] | None = None) -> Any:
        """Return a store that signs for the bucket, or for a query of it."""
        options: dict[str, Any] = {}
        if query is not None:
            text = urlencode({**query, "x-id": ""}, quote_via=quote, safe="")
            options = {"endpoint": f"{self._url}?{text}", "virtual_hosted_style_request": True}
        return self._bucket.signing(op, options)

    async def _sent(self, op: Operation, method: str, url: str, send: Callable[..., Awaitable[RpcReply]]) -> bytes:
        if self._bucket.settings.anonymous:
            url = url.partition("&X-Amz-")[0]
        address, _, query = url.partition("?")
        where = self._bucket.where
        try:
            reply = await send(op, *_call(address, method, query), "cloud-runtimes")
        except (NotReached, CloudRuntimesError) as error:
            failure: Exception = _map_error(where, error, op)
        else:
            if reply.status == 200:
                return reply.data
            code = b"<Code>NoSuchBucket</Code>" if reply.status == 404 and method == "HEAD" else b""
            failure = Refusal(reply.status, reply.data + code)
        raise failure  # outside of the block: errors of a connection name the URL, and would be shown as its context


def _bucket_url(signed: str) -> str:
    return signed.partition("?")[0].removesuffix(f"/{_KEY}")


def _call(address: str, method: str, query: str) -> tuple[Endpoint, RpcCall]:
    parts = urlsplit(address)
    server = endpoint(f"{parts.scheme}://{parts.netloc}", "objectstore: endpoint")
    return server, RpcCall("", parts.path.lstrip("/"), method, b"", None, {}, query)


def _map_error(where: str, error: Exception, op: Operation) -> CloudRuntimesError:
    if isinstance(error, DeadlineExceededError):
        return op.timed_out(f"an answer of {where}")
    if isinstance(error, ResourceExhaustedError):
        return ResourceExhaustedError(f"{where}: the store answers with more than a page of a listing takes")
    if isinstance(error, InternalError):
        return InternalError(f"{where}: the store does not speak HTTP/1.1")
    if isinstance(error, (NotReached, UnavailableError)):
        return UnavailableError(f"{where}: the store cannot be reached, or the connection broke")
    return error if isinstance(error, CloudRuntimesError) else InternalError(f"{where}: {type(error).__name__}")
