"""What a client has registered, running: its RPC methods, its subscriptions and its due jobs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from ._core import fork
from ._service import ClosingHandle, RunningHandle
from .errors import ClosedError, InvalidArgumentError

if TYPE_CHECKING:
    import asyncio

    from .client import CloudRuntimesClient
    from .pubsub import Subscription
    from .rpc import RpcServer

__all__ = ["Application", "lifespan"]


class Application(RunningHandle):
    """Runs what a client has registered while it is open; made by `CloudRuntimesClient.running`.

    `close`, or the end of the block, takes nothing new and lets running handlers end.
    """

    def __init__(
        self, client: CloudRuntimesClient, host: str, port: int | None, timeout: float | None, *, mounted: bool = False
    ) -> None:
        super().__init__(client.rpc, timeout)
        self._client = client
        self._at = host, port
        self._mounted = mounted
        self._parts: list[ClosingHandle] = []
        self._server: RpcServer | None = None
        self._opened = self._closed = False

    @property
    def address(self) -> str | None:
        """Where it serves, e.g. ``"http://127.0.0.1:41231"``; ``None``: no methods are registered, and no port is given."""
        return None if self._server is None else self._server.address

    @property
    def summary(self) -> str:
        """What runs, for a line of a log."""
        client = self._client
        parts: dict[str, Mapping[Any, Any]] = {
            "methods": client.rpc._host.handlers,
            "subscriptions": client.pubsub._declared,
            "jobs": client.schedule._handlers,
        }
        place = "" if self._server is None else f"at {self._server.address} "
        return f"{place}with {', '.join(f'{len(those)} {name}' for name, those in parts.items())}"

    def _runners(self) -> list[RunningHandle]:
        """Return what runs beside the subscriptions. A server runs the due jobs too."""
        if self._opened:
            raise ClosedError("this application has run: ask for another by running()")
        self._opened = True
        client, (host, port) = self._client, self._at
        methods, jobs = client.rpc._host.handlers, client.schedule._handlers
        runners: list[RunningHandle] = []
        if not self._mounted and (methods or port is not None or os.environ.get("APP_PORT")):
            self._server = client.rpc.serving(host=host, port=port, timeout=self._timeout)
            runners.append(self._server)
        elif jobs:
            runners.append(client.schedule.running(timeout=self._timeout))
        if not (runners or self._mounted or client.pubsub._declared):
            raise InvalidArgumentError(
                "nothing is registered to run: use @client.rpc.method(…), @client.pubsub.subscription(…) "
                "or @client.schedule.job(…), and import the modules that do"
            )
        for each in runners:
            each._changes = self._changes
        self._service._context.handles.add(self)
        return runners

    def _open(self) -> None:
        try:
            for runner in self._runners():
                runner._open()
                self._parts.append(runner)
            for each in self._client.pubsub._declared.values():
                self._begun(each.subscribe(timeout=self._timeout))
        except BaseException:
            self._close_by_client(monotonic() + 5.0)
            raise

    async def _open_async(self) -> None:
        import asyncio

        try:
            for runner in self._runners():
                await runner._open_async()
                self._parts.append(runner)
            for each in self._client.pubsub._declared.values():
                self._begun(await each.subscribe_async(timeout=self._timeout))
        except BaseException:
            await asyncio.to_thread(self._close_by_client, monotonic() + 5.0)
            raise

    def _begun(self, subscription: Subscription[Any]) -> None:
        self._parts.append(subscription)
        subscription._when_ended(self._part_ended)

    def _part_ended(self, error: Any) -> None:
        self.error = self.error or error
        self._changes.announce()

    def _over(self) -> bool:
        for each in self._parts:
            if isinstance(each, RunningHandle) and each._over():
                self.error = self.error or each.error
                return True
        return bool(self.signal or self._closed or self.error)

    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._service._context.loop()

    def _close_by_client(self, end: float | None) -> None:
        if self._generation != fork.generation():
            return
        # subscriptions first: what they have in hand may call the rest
        while self._parts:
            self._parts.pop()._close_by_client(end)
        self._closed = True
        self._service._context.handles.discard(self)
        self._changes.announce()


def lifespan(client: CloudRuntimesClient) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return the ``lifespan`` of a Starlette or FastAPI application, which runs the subscriptions and due jobs of a client.

    >>> app = FastAPI(lifespan=lifespan(client))

    Methods of RPC are served where the application mounts ``client.rpc.asgi_app()``. The client stays open.
    """

    @asynccontextmanager
    async def running(app: Any) -> AsyncIterator[None]:
        async with Application(client, "127.0.0.1", None, client._context.timeout, mounted=True):
            yield

    return running
