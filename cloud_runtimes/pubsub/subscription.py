"""The subscription handle: iterate it, receive from it, or give it a handler."""

from __future__ import annotations

import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from .._core import fork, propagation
from .._core.arguments import check_timeout
from .._core.handlers import CONTEXT, DATA, is_async_callable
from .._core.logs import kind_of, repeated
from .._core.threads import Background
from .._native import events as kernel
from .._service import ClosingHandle
from ..errors import ClosedError, InvalidArgumentError
from ..spi.events import cause_of
from ..spi.flow import run_sync
from ..spi.pubsub import Settlement, SubscribeRequest
from ._fetcher import Fetcher
from ._rate import Bucket, Rate
from ._takers import id_of
from .types import DropEvent, Event, EventBatch, SubscriptionStats

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

    from .._service import Service

__all__ = ["Subscription", "hold"]

I_co = TypeVar("I_co", covariant=True)

_RUN: Final = 64
"""Events that a worker handles at most before it looks whether calls are intercepted now."""


class Subscription(ClosingHandle, Generic[I_co]):
    """A live member of a consumer group; made by `PubSubService.subscribe`.

    Without a handler, iterate it (``for`` / ``async for``) or call `receive`; both settle nothing: answer with ``event.ack()``. It lives as long as its client: after a failure it backs off, up to 30 s, logs it, and goes on. Iteration, `receive` and `wait` raise the error only if the first attempt shows that it cannot work as asked for, or if the client is closed. One without a handler that nobody refers to any more leaves the group by itself.

    `close`, or the end of ``with`` / ``async with``, ends the iteration, lets running handlers end, sends queued answers and gives the rest back. What a handler still holds then comes again after ``ack_wait``.
    """

    def __init__(
        self,
        service: Service,
        fetcher: Fetcher,
        request: SubscribeRequest,
        *,
        handler: Callable[..., Any] | None,
        takes: tuple[int, ...],
        batch: int | None,
        handler_timeout: float | None,
        rate: Rate | None,
    ) -> None:
        super().__init__(service)
        self._fetcher = fetcher
        self.health = fetcher.health
        self._request = request
        self._handler = handler
        self._takes = takes
        self._batch = batch
        self._handler_timeout = handler_timeout
        self._bucket = None if rate is None else Bucket(rate)
        self._threads: list[Background] = []
        self._tasks: list[Future[None]] = []
        self._closed = False
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._on_end: Callable[[Exception], None] | None = None

    def __repr__(self) -> str:
        of = f"{self._fetcher.pubsub_name}/{self._request.topic}"
        return f"<Subscription of {of}, group {self._request.group!r}{', closed' if self._closed else ''}>"

    def _begin(self, workers: int, loop: asyncio.AbstractEventLoop | None) -> None:
        """Become live; after an interrupt in here call `_abandon`."""
        fork.register(self)
        if self._handler is None:
            self._frame.context.handles.add(self, loose=True)
            self._finalizer = weakref.finalize(self, self._fetcher.abandon)
            self._finalizer.atexit = False
        else:
            self._frame.context.handles.add(self)
        self._fetcher.start()
        if self._handler is not None:
            self._start(self._handler, workers, loop)

    def _abandon(self) -> None:
        """Leave the group without waiting."""
        self._frame.context.handles.discard(self)
        self._fetcher.abandon()
        self._fetcher.start()  # its thread does the leaving

    def forked(self) -> None:
        """In a forked child: the member is the parent's; using it here raises `ClosedError`."""
        self._fetcher.error = ClosedError(
            "this subscription was opened before fork and belongs to the parent: open another"
        )

    # -- taking -----------------------------------------------------------

    def __iter__(self) -> Iterator[I_co]:
        while (item := self.receive(timeout=None)) is not None:
            yield item

    async def __aiter__(self) -> AsyncIterator[I_co]:
        while (item := await self.receive_async(timeout=None)) is not None:
            yield item

    def receive(self, timeout: float | None = None) -> I_co | None:
        """Return the next event (with ``batch=n`` the next batch). ``None``: the time is up, or the subscription is closed.

        Args:
            timeout: seconds to wait; ``None``: no limit.

        Raises:
            CloudRuntimesError: it cannot work as asked for and never has, or the client is closed.
            InvalidArgumentError: it has a handler.
        """
        limit = self._receiving(timeout)
        return self._item(self._fetcher.take(limit, timeout))

    async def receive_async(self, timeout: float | None = None) -> I_co | None:
        """Return the next event (with ``batch=n`` the next batch). ``None``: the time is up, or the subscription is closed.

        Args:
            timeout: seconds to wait; ``None``: no limit.

        Raises:
            CloudRuntimesError: it cannot work as asked for and never has, or the client is closed.
            InvalidArgumentError: it has a handler.
        """
        limit = self._receiving(timeout)
        return self._item(await self._fetcher.take_async(limit, timeout))

    def _receiving(self, timeout: float | None) -> int:
        self._check_process()
        if self._handler is not None:
            raise InvalidArgumentError("this subscription has a handler, which gets its events: wait() for its end")
        if timeout is not None and timeout != 0:
            check_timeout(timeout)
        return self._batch or 1

    def _item(self, events: list[Event[Any]] | None) -> I_co | None:
        if not events:
            return None
        return cast(I_co, EventBatch(events) if self._batch else events[0])

    def wait(self) -> None:
        """Return once the subscription is closed.

        Raises:
            CloudRuntimesError: it cannot work as asked for and never has, or the client is closed.
        """
        self._check_process()
        self._fetcher.wait()

    async def wait_async(self) -> None:
        """Return once the subscription is closed.

        Raises:
            CloudRuntimesError: it cannot work as asked for and never has, or the client is closed.
        """
        self._check_process()
        await self._fetcher.wait_async()

    def stats(self) -> SubscriptionStats:
        """Return a snapshot of the counters."""
        return self._fetcher.stats()

    # -- handlers ---------------------------------------------------------

    def _start(self, handler: Callable[..., Any], workers: int, loop: asyncio.AbstractEventLoop | None) -> None:
        sync = not is_async_callable(handler)
        flows = [self._flow(handler, workers, sync=sync) for _ in range(workers)]
        if not sync:
            import asyncio

            home = loop if loop is not None else self._frame.context.loop()
            self._tasks = [asyncio.run_coroutine_threadsafe(flow(), home) for flow in flows]
            return
        for flow in flows:
            thread = Background(lambda flow=flow: run_sync(flow()), "cloud-runtimes-worker")  # type: ignore[misc]
            self._threads.append(thread)
            thread.start()

    def _flow(self, handler: Callable[..., Any], count: int, *, sync: bool) -> Callable[[], Coroutine[Any, Any, None]]:
        """Return the work of one of ``count`` workers."""
        if self._batch is not None:
            return partial(self._work_in_batches, handler, sync=sync)
        worker = self._fetcher.worker(handler, self._takes, self._frame.context.client, count)
        return partial(self._work, handler, worker, sync=sync)

    def _entered(self, events: list[Event[Any]]) -> propagation.Entered | None:
        """Let the handler run in the context of the event, or in a span of its own below it; a batch has as many as it has events, so none is current."""
        if self._frame.interceptors:
            name, request, batch = self._fetcher.pubsub_name, self._request, self._batch is not None
            entered = self._frame.first(lambda each: each.processing(name, request, events, batch=batch))
            if entered is not None:
                return entered
        event = events[0]
        if self._batch or event.traceparent is None:
            return None
        return propagation.enter_event(event)

    async def _work(self, handler: Callable[..., Any], worker: kernel.Worker, *, sync: bool) -> None:
        """Handle events until the end; in a thread nothing of it suspends."""
        propagation.forget()
        fetcher = self._fetcher
        while True:
            if self._bucket is not None:
                await self._permitted(1, sync=sync)
                event = worker.next()
            else:
                # many at once, by the kernel
                event = worker.run(_RUN) if sync and not self._frame.interceptors else worker.next()
            if event is None:
                if self._bucket is not None:
                    self._bucket.give_back(1)
                try:
                    if not (fetcher.await_events() if sync else await fetcher.await_events_async()):
                        return
                except Exception as error:
                    self._ended(error)
                    return
            elif worker.misfit and worker.error is not None:
                fetcher.poison(event, worker.error)
                worker.leave()
            elif worker.error is not None:
                self._failed([event], worker.error)
                worker.leave()
            elif await self._handle([event], handler, worker.arguments, sync=sync):
                worker.finish()
            else:
                worker.leave()

    async def _work_in_batches(self, handler: Callable[..., Any], *, sync: bool) -> None:
        """Handle batches of events until the end; in a thread nothing of it suspends."""
        propagation.forget()
        limit = size = self._batch or 1
        while True:
            if self._bucket is not None:
                limit = await self._permitted(size, sync=sync)
            try:
                events = self._fetcher.take(limit, None) if sync else await self._fetcher.take_async(limit, None)
            except Exception as error:
                self._ended(error)
                return
            if not events:
                return
            if self._bucket is not None:
                self._bucket.give_back(limit - len(events))
            arguments = partial(self._batch_arguments, events)
            begun = monotonic()
            handled = await self._handle(events, handler, arguments, sync=sync)
            self._fetcher.took.append(monotonic() - begun)
            if handled:
                self._fetcher.settle(events, Settlement.ACK, None)

    async def _permitted(self, want: int, *, sync: bool) -> int:
        """Wait until the rate has room for an event, or the subscription closes; return for how many of ``want``."""
        assert self._bucket is not None
        while True:
            count, seconds = self._bucket.take(want)
            if count or self._fetcher.closing:
                return count or 1
            await self._fetcher.pause(seconds, sync=sync)

    async def _handle(
        self, events: list[Event[Any]], handler: Callable[..., Any], arguments: Callable[[], list[Any]], *, sync: bool
    ) -> bool:
        """Call the handler in the context of its events; returns whether it handled them. A failure is settled."""
        entered: propagation.Entered | None = None
        failure: BaseException | None = None
        try:
            entered = self._entered(events)
            answer = handler(*arguments())
            if not sync:
                await self._bounded(answer)
        except BaseException as error:
            # dropping an event is an answer, not a failure
            failure = None if isinstance(error, DropEvent) else error
            if not sync and not isinstance(error, Exception):
                raise  # its loop ends: unsettled events go back
            self._failed(events, error)
            return False
        finally:
            if entered is not None:
                entered.leave(failure)
        return True

    async def _bounded(self, answer: Awaitable[Any]) -> None:
        """Await an ``async`` handler, which is cancelled when its time is up."""
        if self._handler_timeout is None:
            await answer
            return
        import asyncio

        try:
            async with asyncio.timeout(self._handler_timeout) as limit:
                await answer
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(f"the handler took longer than {self._handler_timeout:g} s") from None
            raise

    def _batch_arguments(self, events: list[Event[Any]]) -> list[Any]:
        client = self._frame.context.client
        return [
            EventBatch(events) if role == CONTEXT else [event.data for event in events] if role == DATA else client
            for role in self._takes
        ]

    def _failed(self, events: list[Event[Any]], error: BaseException) -> None:
        if isinstance(error, DropEvent):
            self._fetcher.settle(events, Settlement.DROP, None, cause_of("dropped", error))
            return
        name, message = self._fetcher.name, "the handler of %s failed for event %s, %s: %r"
        repeated(
            f"handler {name} {kind_of(error)}", message, name, id_of(events[0]), self._next(), error, exc_info=error
        )
        self._fetcher.settle(events, Settlement.RETRY, None, cause_of("deliveries", error))

    def _next(self) -> str:
        """Tell what happens to an event whose handler failed."""
        if (topic := self._request.dead_letter_topic) is not None:
            return f"which is delivered again, after its last delivery to the topic {topic!r}"
        if self._request.max_deliveries is not None:
            return f"which is delivered again, at most {self._request.max_deliveries} times in all"
        return "which is delivered again"

    def _ended(self, error: Exception) -> None:
        """Tell what ended the subscription; `wait` raises it, for which nobody need wait."""
        repeated(f"ended {self._fetcher.name}", "the subscription to %s has ended: %s", self._fetcher.name, error)
        if self._on_end is not None:
            self._on_end(error)

    def _when_ended(self, call: Callable[[Exception], None]) -> None:
        """Have an error that ends it told, also one that has ended it."""
        self._on_end = call
        if (error := self._fetcher.error) is not None:
            call(error)

    # -- closing ----------------------------------------------------------

    def _close_by_client(self, end: float | None) -> None:
        if self._closed or self._generation != fork.generation():
            return
        # each step may be repeated, by another thread or after an interrupt
        self._fetcher.stop()
        for thread in self._threads:
            thread.join(_remaining(end))
        if self._tasks and threading.current_thread().name != "cloud-runtimes-loop":
            from concurrent.futures import wait

            wait(self._tasks, _remaining(end))
        self._fetcher.end(_remaining(end))
        self._closed = True
        self._frame.context.handles.discard(self)
        if self._finalizer is not None:
            self._finalizer.detach()


def hold(subscription: Subscription[Any], seconds: float) -> None:
    """Redeliver unsettled events after ``seconds``, even if the broker's own lease is shorter."""
    subscription._fetcher.hold(seconds)


def _remaining(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - monotonic())
