"""The HTTP client in both APIs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core import fork
from ..errors import ClosedError
from ..spi.operation import Operation
from ..spi.rpc import RpcCall, RpcReply
from .http1 import Endpoint
from .sync_client import Pool

if TYPE_CHECKING:
    from .async_client import AsyncPool


class HttpClient:
    """The connections of one owner; ``context`` as in `BasePool`.

    Where nothing of a call was sent, `send` and `send_async` raise `NotReached`. ``limit`` is the seconds that connecting may take.
    """

    def __init__(self, context: Any = None) -> None:
        self._context = context
        self._sync = Pool(context)
        self._async: AsyncPool | None = None
        self._closed = False
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._sync.forget()
        if self._async is not None:
            self._async.forget()
            self._async = None

    async def send(
        self, op: Operation, endpoint: Endpoint, call: RpcCall, caller: str, limit: float | None = None
    ) -> RpcReply:
        """Make a call and wait for it in this thread: it never suspends, for `run_sync`."""
        self._check()
        return await self._sync.call(op, endpoint, call, caller, limit)

    async def send_async(
        self, op: Operation, endpoint: Endpoint, call: RpcCall, caller: str, limit: float | None = None
    ) -> RpcReply:
        """Make a call in the running loop."""
        self._check()
        if self._async is None:
            with fork.importing:
                from .async_client import AsyncPool

            self._async = self._async or AsyncPool(self._context)
        return await self._async.call(op, endpoint, call, caller, limit)

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this client is closed: make another")

    def close(self) -> None:
        """Close all idle connections."""
        self._closed = True
        self._sync.close()
        if self._async is not None:
            self._async.close()
