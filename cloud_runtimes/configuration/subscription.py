"""The subscription handle: iterate it, receive from it, or give it a handler."""

from __future__ import annotations

import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from .._core import fork
from .._core.arguments import CLIENT_TIMEOUT, check_timeout
from .._core.backoff import NONE, Backoff
from .._core.handlers import CLIENT, is_async_callable
from .._core.logs import kind_of, repeated
from .._core.threads import Background
from .._service import ServiceHandle
from ..errors import InvalidArgumentError
from ..spi.configuration import ConfigurationItem
from ._feed import Feed

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

    from .._service import Service

_RETRIES: Final = Backoff(0.05, 5.0, jitter=NONE)
"""Pauses until a handler that failed is called again."""


class ConfigurationSubscription(ServiceHandle):
    """Live values of a store; made by `ConfigurationService.subscribe_configuration`.

    What it gives is a ``dict`` from keys to items: first all that there are, ``{}`` where there are none, then what changed. A deleted key comes as an item with ``deleted=True``. A key's last value always arrives; those between may be skipped.

    Without a handler, iterate it (``for`` / ``async for``) or call `receive`. It lives as long as its client: after a failure it backs off, up to 30 s, logs it, and goes on. Iteration, `receive` and `wait` raise the error only if the first attempt shows that it cannot work as asked for, or if the client is closed. ``with`` / ``async with`` closes it; one without a handler that nobody refers to any more ends by itself.
    """

    def __init__(
        self, service: Service, feed: Feed, handler: Callable[..., Any] | None, takes: tuple[int, ...]
    ) -> None:
        super().__init__(service)
        self._feed = feed
        self.health = feed.health
        self._handler = handler
        self._takes = takes
        self._thread: Background | None = None
        self._task: Future[None] | None = None
        # where an async handler runs, so that it may close what it is called by
        self._running: asyncio.Task[Any] | None = None
        self._loop_ident: int | None = None
        self._closed = False
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def _start(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Begin; from now on it has threads, and the client closes it."""
        context = self._frame.context
        fork.register(self)
        if self._handler is None:
            context.handles.add(self, loose=True)
            self._finalizer = weakref.finalize(self, self._feed.stop)
            self._finalizer.atexit = False
            self._feed.start()
            return
        context.handles.add(self)
        self._feed.start()
        if is_async_callable(self._handler):
            import asyncio

            home = loop if loop is not None else context.loop()
            self._task = asyncio.run_coroutine_threadsafe(self._work_async(self._handler), home)
        else:
            self._thread = Background(partial(self._work, self._handler), "cloud-runtimes-worker")
            self._thread.start()

    def forked(self) -> None:
        """In a forked child: the subscription is the parent's; using it here raises `ClosedError`."""
        self._feed.forked()

    def current(self) -> dict[str, ConfigurationItem]:
        """Return what there is, as far as the subscription has heard, taken or not. Never waits."""
        self._check_process()
        return self._feed.current()

    # -- taking -----------------------------------------------------------

    def __iter__(self) -> Iterator[dict[str, ConfigurationItem]]:
        while (items := self.receive(timeout=None)) is not None:
            yield items

    async def __aiter__(self) -> AsyncIterator[dict[str, ConfigurationItem]]:
        while (items := await self.receive_async(timeout=None)) is not None:
            yield items

    def receive(self, timeout: float | None = None) -> dict[str, ConfigurationItem] | None:
        """Return what changed since the last time, the first time all. ``None``: the time is up, or the subscription is closed.

        Args:
            timeout: seconds to wait; ``None``: no limit.

        Raises:
            CloudRuntimesError: it cannot work as asked for and never has, or the client is closed.
            InvalidArgumentError: it has a handler.
        """
        self._check_receive(timeout)
        return self._feed.take(timeout)

    async def receive_async(self, timeout: float | None = None) -> dict[str, ConfigurationItem] | None:
        """Return what changed since the last time, the first time all. ``None``: the time is up, or the subscription is closed.

        Args:
            timeout: seconds to wait; ``None``: no limit.

        Raises:
            CloudRuntimesError: it cannot work as asked for and never has, or the client is closed.
            InvalidArgumentError: it has a handler.
        """
        self._check_receive(timeout)
        # whatever is taken is returned without another wait, so that a cancelled task has taken nothing
        return await self._feed.take_async(timeout)

    def _check_receive(self, timeout: float | None) -> None:
        self._check_process()
        if self._handler is not None:
            raise InvalidArgumentError("this subscription has a handler, which gets the items: wait() for its end")
        if timeout is not None and timeout != 0:
            check_timeout(timeout)

    def wait(self) -> None:
        """Return once the subscription is closed.

        Raises:
            CloudRuntimesError: it cannot work as asked for and never has, or the client is closed.
        """
        self._check_process()
        self._feed.wait()

    async def wait_async(self) -> None:
        """Return once the subscription is closed.

        Raises:
            CloudRuntimesError: it cannot work as asked for and never has, or the client is closed.
        """
        self._check_process()
        await self._feed.wait_async()

    # -- handlers ---------------------------------------------------------

    def _work(self, handler: Callable[..., Any]) -> None:
        failures = 0
        while (items := self._take_or_end()) is not None:
            try:
                handler(*self._arguments(items))
            except BaseException as error:
                self._failed(items, error)
                failures += 1
                self._feed.pause(_RETRIES.after(failures))
            else:
                failures = 0

    def _take_or_end(self) -> dict[str, ConfigurationItem] | None:
        try:
            return self._feed.take(None)
        except Exception as error:
            self._ended(error)
            return None

    async def _work_async(self, handler: Callable[..., Any]) -> None:
        import asyncio

        self._running, self._loop_ident = asyncio.current_task(), threading.get_ident()
        failures = 0
        while True:
            try:
                items = await self._feed.take_async(None)
            except Exception as error:
                self._ended(error)
                return
            if items is None:
                return
            try:
                await handler(*self._arguments(items))
            except asyncio.CancelledError:
                return  # its loop ends
            except Exception as error:
                self._failed(items, error)
                failures += 1
                await self._feed.pause_async(_RETRIES.after(failures))
            else:
                failures = 0

    def _arguments(self, items: dict[str, ConfigurationItem]) -> list[Any]:
        return [self._frame.context.client if each == CLIENT else items for each in self._takes]

    def _failed(self, items: dict[str, ConfigurationItem], error: BaseException) -> None:
        repeated(
            f"handler {self._feed.name} {kind_of(error)}",
            "the handler of %s failed for %d keys, and gets them again: %r",
            self._feed.name,
            len(items),
            error,
            exc_info=error,
        )
        self._feed.give_back(items)

    def _ended(self, error: Exception) -> None:
        """Tell what ended the subscription; `wait` raises it, for which nobody need wait."""
        repeated(f"ended {self._feed.name}", "the subscription to %s has ended: %s", self._feed.name, error)

    # -- closing ----------------------------------------------------------

    def close(self, *, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """End the iteration, let a running handler end, and disconnect. Closing twice does nothing.

        Args:
            timeout: seconds; the client's by default.

        Raises:
            InvalidArgumentError: ``timeout`` is no number above 0.
            ClosedError: a forked child inherited it.
        """
        self._check_process()
        limit = check_timeout(timeout, self._frame.context.timeout)
        self._close_by_client(None if limit is None else monotonic() + limit)

    def _close_by_client(self, end: float | None, inside: bool = False) -> None:
        if self._closed or self._generation != fork.generation():
            return
        self._feed.stop()
        if self._thread is not None:
            self._thread.join(_remaining(end))
        # a handler that closes its own subscription does not wait for itself
        if self._task is not None and not inside and self._loop_ident != threading.get_ident():
            from concurrent.futures import wait

            wait([self._task], _remaining(end))
        self._feed.end(_remaining(end))
        self._closed = True
        self._frame.context.handles.discard(self)
        if self._finalizer is not None:
            self._finalizer.detach()

    async def close_async(self, *, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """End the iteration, let a running handler end, and disconnect. Closing twice does nothing.

        Args:
            timeout: seconds; the client's by default.

        Raises:
            InvalidArgumentError: ``timeout`` is no number above 0.
            ClosedError: a forked child inherited it.
        """
        import asyncio

        self._check_process()
        limit = check_timeout(timeout, self._frame.context.timeout)
        end = None if limit is None else monotonic() + limit
        inside = self._running is not None and asyncio.current_task() is self._running
        await asyncio.to_thread(self._close_by_client, end, inside)

    def _exit(self, error: BaseException | None) -> None:
        self.close()

    async def _exit_async(self, error: BaseException | None) -> None:
        await self.close_async()


def _remaining(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - monotonic())
