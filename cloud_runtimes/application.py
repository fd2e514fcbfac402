"""The running handlers of a client: its RPC methods, its subscriptions and its due jobs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ._core import fork
from ._core.handles import close_by
from ._core.logs import in_development
from ._core.threads import in_background
from ._service import ClosingHandle, RunningHandle, context_of, requirements
from .errors import ClosedError, InvalidArgumentError

if TYPE_CHECKING:
    import asyncio

    from . import CloudRuntimesClient
    from .rpc import RpcServer

__all__ = ["Application", "lifespan"]

_RETRIES: Final = (0.0, 1.0, 10.0, 60.0)


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
        """Description of what runs, for a line of a log."""
        counts = {
            "method": len(self._handlers("rpc")),
            "subscription": len(self._handlers("pubsub")),
            "job": len(self._handlers("schedule")),
        }
        location = "" if self._server is None else f"at {self._server.address} "
        parts = [f"{count} {name}" if count == 1 else f"{count} {name}s" for name, count in counts.items()]
        return f"{location}with {', '.join(parts)}"

    def _handlers(self, service: str) -> Mapping[Any, Any]:
        """Return what is registered with a service."""
        return self._frame.context.frame(service).handlers

    def _runners(self) -> list[RunningHandle]:
        """Return what runs beside the subscriptions. A server runs the due jobs too."""
        if self._opened:
            raise ClosedError("this application has run: ask for another by running()")
        self._opened = True
        client, (host, port) = self._client, self._at
        runners: list[RunningHandle] = []
        if not self._mounted and (self._handlers("rpc") or port is not None or os.environ.get("APP_PORT")):
            self._server = client.rpc.serving(host=host, port=port, timeout=self._timeout)
            runners.append(self._server)
        elif self._handlers("schedule"):
            runners.append(client.schedule.running(timeout=self._timeout))
        if not (runners or self._mounted or self._handlers("pubsub")):
            raise InvalidArgumentError(
                "nothing is registered to run: use @client.rpc.method(…), @client.pubsub.subscription(…) "
                "or @client.schedule.job(…), and import the modules that do"
            )
        requirements.check_all(self._frame.context)
        for each in runners:
            self._follow(each)
        self._frame.context.handles.add(self)
        return runners

    def _resume(self) -> None:
        """Have events forwarded that other processes leave in outboxes and spools."""
        self._frame.context.frame("pubsub").watch_relays()
        if in_development():
            from ._service.development import compare_processes

            in_background("development", partial(compare_processes, self._frame.context), _RETRIES)

    def _open(self) -> None:
        try:
            for runner in self._runners():
                runner.__enter__()
                self._parts.append(runner)
            for each in self._handlers("pubsub").values():
                self._parts.append(each.subscribe(self._part_ended, timeout=self._timeout))
            self._resume()
        except BaseException:
            self._close_by_client(monotonic() + 5.0)
            raise

    async def _open_async(self) -> None:
        import asyncio

        try:
            for runner in self._runners():
                await runner.__aenter__()
                self._parts.append(runner)
            for each in self._handlers("pubsub").values():
                self._parts.append(await each.subscribe_async(self._part_ended, timeout=self._timeout))
            self._resume()
        except BaseException:
            await asyncio.to_thread(self._close_by_client, monotonic() + 5.0)
            raise

    def _part_ended(self, error: Any) -> None:
        self.error = self.error or error
        self._changes.announce()

    def _over(self) -> bool:
        return any(map(self._has_ended, self._parts)) or bool(self.signal or self._closed or self.error)

    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._frame.context.loop()

    def _close_by_client(self, end: float | None) -> None:
        if self._generation != fork.generation():
            return
        # subscriptions first: what they have in hand may call the rest
        while self._parts:
            close_by(self._parts.pop(), end)
        self._closed = True
        self._frame.context.handles.discard(self)
        self._changes.announce()


def lifespan(client: CloudRuntimesClient) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return the ``lifespan`` of a Starlette or FastAPI application, which runs the subscriptions and due jobs of a client.

    >>> app = FastAPI(lifespan=lifespan(client))

    Methods of RPC are served where the application mounts ``client.rpc.asgi_app()``. The client stays open.
    """

    @asynccontextmanager
    async def running(app: Any) -> AsyncIterator[None]:
        async with Application(client, "127.0.0.1", None, context_of(client).timeout, mounted=True):
            yield

    return running
