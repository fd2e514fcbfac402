"""The connections to one sidecar, in both faces."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ... import _fork
from ..._operation import Operation, mark_interrupted
from ...errors import ClosedError, CloudRuntimesError, UnauthenticatedError, UnavailableError
from ...rpc._http1 import Endpoint
from ...rpc._sync_http import NotReached, Pool
from ...rpc.driver import Body, RpcCall, RpcReply

if TYPE_CHECKING:
    from ...rpc._async_http import AsyncPool

__all__ = ["Flow", "Link", "Request"]

T = TypeVar("T")
Request: TypeAlias = RpcCall
Flow: TypeAlias = Generator[Request, RpcReply, T]
"""What an operation asks the sidecar, one request after another, and returns: written once for both faces."""

_REFUSED = b"invalid api token"


class Link:
    """See the module.

    Attributes:
        url: for messages.
    """

    def __init__(self, endpoint: Endpoint, token: str | None, app_id: str) -> None:
        self._endpoint = endpoint
        self._app_id = app_id
        self._headers: Mapping[str, str] = {} if token is None else {"dapr-api-token": token}
        self._pool = Pool()
        self._async: AsyncPool | None = None
        self._closed = False
        self.url = endpoint.url
        _fork.register(self)

    def forked(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._pool.forget()
        if self._async is not None:
            self._async.forget()
            self._async = None

    def request(
        self,
        verb: str,
        path: str,
        *,
        query: str = "",
        body: Body = b"",
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Request:
        """Return a request; ``path`` is percent-encoded, without a ``/`` before it."""
        merged = self._headers if headers is None else {**headers, **self._headers}
        return RpcCall(path, path, verb, body, content_type, merged, query)

    def call(self, op: Operation, verb: str, path: str, **more: Any) -> RpcReply:
        """Make one request."""
        return self._send(op, self.request(verb, path, **more))

    def run(self, op: Operation, flow: Flow[T]) -> T:
        """Make the requests of an operation and return what it does."""
        wrote = False
        try:
            request = next(flow)
            while True:
                reply = self._send(op, request)
                wrote = wrote or _wrote(op, request, reply)
                request = flow.send(reply)
        except StopIteration as done:
            result: T = done.value
            return result
        except BaseException as error:
            if wrote:
                _tell(error)
            raise

    async def run_async(self, op: Operation, flow: Flow[T]) -> T:
        """Asynchronous `run`."""
        wrote = False
        try:
            request = next(flow)
            while True:
                reply = await self._send_async(op, request)
                wrote = wrote or _wrote(op, request, reply)
                request = flow.send(reply)
        except StopIteration as done:
            result: T = done.value
            return result
        except BaseException as error:
            if wrote:
                _tell(error)
            raise

    def _send(self, op: Operation, request: Request) -> RpcReply:
        self._check()
        try:
            return self._checked(self._pool.call(op, self._endpoint, request, self._app_id, None))
        except NotReached as error:
            raise self._unreached(error) from error.__cause__

    async def _send_async(self, op: Operation, request: Request) -> RpcReply:
        self._check()
        if self._async is None:
            with _fork.importing:
                from ...rpc._async_http import AsyncPool

            self._async = self._async or AsyncPool()
        try:
            return self._checked(await self._async.call(op, self._endpoint, request, self._app_id, None))
        except NotReached as error:
            raise self._unreached(error) from error.__cause__

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this client is closed: make another")

    def _checked(self, reply: RpcReply) -> RpcReply:
        if reply.status == 401 and reply.data == _REFUSED:
            raise UnauthenticatedError(
                f"the sidecar at {self.url} refuses the token: give its DAPR_API_TOKEN, in the environment or as api_token="
            )
        return reply

    def _unreached(self, error: NotReached) -> UnavailableError:
        return UnavailableError(
            f"the sidecar cannot be reached: {error}; start one (cloud-runtimes serve, dapr run), "
            'or work without: runtime="capa"'
        )

    def close(self) -> None:
        """Close all idle connections."""
        self._closed = True
        self._pool.close()
        if self._async is not None:
            self._async.close()


def _wrote(op: Operation, request: Request, reply: RpcReply) -> bool:
    """Tell whether something is changed, whatever becomes of the rest of the operation."""
    return op.method.writes and request.http_method != "GET" and reply.status < 300


def _tell(error: BaseException) -> None:
    """Say on what ends an operation that a part of it was done."""
    if isinstance(error, CloudRuntimesError):
        error.maybe_applied = True
    elif not isinstance(error, Exception):
        mark_interrupted(error, True)
