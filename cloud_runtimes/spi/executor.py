"""The threads and the event loop that belong to a client.

A hop to a thread or loop costs 40 to 120 µs, a read from the embedded store 3. So a driver that can answer without one overrides its ``_async`` methods.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from .._core import fork
from .._core.threads import Mutex
from ..errors import ClosedError, InternalError
from .operation import Operation, mark_interrupted

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Blocking", "Executor", "in_thread"]

P = ParamSpec("P")
T = TypeVar("T")
B = TypeVar("B", bound="Blocking")


class Executor:
    """A loop in a thread and a pool of threads, each started when first needed."""

    def __init__(self, threads: int = 32) -> None:
        self._threads = threads
        self._lock = Mutex()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        fork.register(self)

    def forked(self) -> None:
        """In a forked child there are no threads: start again when needed."""
        self._loop = self._loop_thread = self._pool = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the client's own running loop."""
        with self._lock:
            if self._closed:
                raise self._refusal()
            if self._loop is None:
                import asyncio

                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._run, args=(loop,), name="cloud-runtimes-loop", daemon=True)
                thread.start()
                self._loop, self._loop_thread = loop, thread
            return self._loop

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    @staticmethod
    def _refusal(*, maybe_applied: bool = False) -> ClosedError:
        return ClosedError("the client was closed while this call was under way", maybe_applied=maybe_applied)

    def submit(self, flow: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in the client's loop."""
        import asyncio

        try:
            return asyncio.run_coroutine_threadsafe(flow, self.loop())
        except (ClosedError, RuntimeError) as error:  # RuntimeError: it was closed just now
            flow.close()
            raise self._refusal() from error

    def check_outside(self) -> None:
        """Refuse to wait in the client's loop for that loop."""
        if threading.current_thread() is self._loop_thread:
            raise InternalError("a sync method would wait in the client's own loop for itself: use its _async twin")

    async def in_thread(self, call: Callable[[], T], op: Operation) -> T:
        """Run a blocking call in the pool and await it."""
        with self._lock:
            if self._closed:
                raise self._refusal()
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self._pool = ThreadPoolExecutor(self._threads, "cloud-runtimes-executor")
            future = self._pool.submit(call)
        import asyncio

        def give_up() -> bool:
            """Return whether it may be applied: a future that was cancelled has not begun."""
            return not future.cancel() and op.method.writes

        waiter = asyncio.wrap_future(future)
        try:
            done, _ = await asyncio.wait((waiter,), timeout=op.remaining())
        except asyncio.CancelledError as error:
            mark_interrupted(error, give_up())
            waiter.cancel()
            raise
        if not done:
            maybe_applied = give_up()
            waiter.cancel()
            raise op.timed_out("a thread of the client's pool", maybe_applied=maybe_applied)
        if waiter.cancelled():  # by the executor's end
            raise self._refusal(maybe_applied=give_up())
        return waiter.result()

    def close(self, timeout: float | None) -> None:
        """Stop the loop and the pool, waiting for the loop's end at most ``timeout`` seconds."""
        with self._lock:
            loop, thread, pool = self._loop, self._loop_thread, self._pool
            self._loop = self._loop_thread = self._pool = None
            self._closed = True
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            if thread is not threading.current_thread():
                thread.join(timeout)
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


class Blocking:
    """Base of what has both APIs. By default an ``_async`` method runs its sibling in one of the client's threads; whatever can do better overrides it.

    A cancelled task leaves its thread running to the end of that call, so whether a write was applied is not known.
    """

    executor: Executor
    """The client's threads. A driver is given it before its first call; what a driver makes takes it from the driver."""

    async def _in_thread(
        self, call: Callable[Concatenate[Operation, P], T], op: Operation, /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self.executor.in_thread(functools.partial(call, op, *args, **kwargs), op)


def in_thread(
    method: Callable[Concatenate[B, Operation, P], T],
) -> Callable[Concatenate[B, Operation, P], Coroutine[Any, Any, T]]:
    """Return the ``_async`` twin of a method, which runs it in one of the client's threads."""
    name = method.__name__

    @functools.wraps(method)
    async def twin(self: B, op: Operation, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._in_thread(getattr(self, name), op, *args, **kwargs)

    twin.__name__ = f"{name}_async"
    twin.__isabstractmethod__ = False  # type: ignore[attr-defined]
    return twin
