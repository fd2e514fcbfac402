"""The two bridges between faces, and the driver of flows that are written once.

A hop to a thread or loop costs 40 to 120 µs, a read from the embedded store 3: so a bridge stands in the class line of the driver that needs it and is nobody's default.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .._core import fork
from .._core.threads import Mutex
from ..errors import ClosedError, InternalError
from .operation import Operation, mark_interrupted

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["BlockingDriver", "Bridge", "LoopDriver"]

T = TypeVar("T")


class Bridge:
    """What one client's bridges share: a loop in a thread and a pool of threads, each started when first needed."""

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
        self._lock = Mutex()
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

    def in_loop(self, flow: Coroutine[Any, Any, T], op: Operation) -> T:
        """Run a coroutine in the client's loop and wait for it."""
        if threading.current_thread() is self._loop_thread:
            flow.close()
            raise InternalError("a sync method would wait in the client's own loop for itself: use its _async twin")
        future = self.submit(flow)
        from concurrent.futures import CancelledError

        try:
            return future.result(op.remaining())
        except TimeoutError as error:
            if future.done():  # its own
                raise
            future.cancel()
            raise op.timed_out("the client's loop", maybe_applied=op.method.writes) from error
        except CancelledError:
            raise self._refusal(maybe_applied=op.method.writes) from None
        except BaseException as error:
            future.cancel()
            if not isinstance(error, Exception):
                mark_interrupted(error, op.method.writes)
            raise

    async def from_loop(self, flow: Coroutine[Any, Any, T], op: Operation) -> T:
        """Run a coroutine in the client's loop and await it in another."""
        return await self._awaited(self.submit(flow), op, "the client's loop", withdrawable=False)

    async def in_thread(self, call: Callable[[], T], op: Operation) -> T:
        """Run a blocking call in the pool and await it."""
        with self._lock:
            if self._closed:
                raise self._refusal()
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self._pool = ThreadPoolExecutor(self._threads, "cloud-runtimes-bridge")
            future = self._pool.submit(call)
        return await self._awaited(future, op, "a thread of the client's pool", withdrawable=True)

    async def _awaited(self, future: Future[T], op: Operation, what: str, *, withdrawable: bool) -> T:
        """Await what runs elsewhere; giving up tells whether it had begun.

        A future of the pool that was cancelled has not begun. One of a loop says nothing of the kind: it can always be cancelled.
        """
        import asyncio

        def give_up() -> bool:
            return not (future.cancel() and withdrawable) and op.method.writes

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
            raise op.timed_out(what, maybe_applied=maybe_applied)
        if waiter.cancelled():  # by the bridge's end
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


class BlockingDriver:
    """Base of a driver whose natural face is sync: its ``_async`` methods run the others in the client's threads.

    A cancelled task leaves its thread running to the end of that call, so whether a write was applied is not known.
    """

    bridge: Bridge

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _face(cls):
            if _is_missing(cls, f"{name}_async"):
                setattr(cls, f"{name}_async", _threaded(name))


class LoopDriver:
    """Base of a driver whose natural face is async: its sync methods run the others in the client's own loop.

    Its ``_async`` methods run in that loop too, whichever loop the caller has: connections belong to one loop.
    """

    bridge: Bridge

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _face(cls):
            if _is_missing(cls, name):
                setattr(cls, name, _looped(f"{name}_async"))
            inner = getattr(cls, f"{name}_async", None)
            # also one that comes from another base, which knows nothing of loops
            if not _is_missing(cls, f"{name}_async") and not hasattr(inner, "__homed__"):
                setattr(cls, f"{name}_async", _homed(cast(Any, inner)))


def _face(cls: type) -> list[str]:
    """Name the methods that have two faces, from the SPI classes among the bases."""
    names: set[str] = set()
    for base in cls.__mro__:
        names.update(getattr(base, "__spi__", ()))
    return sorted(names)


def _is_missing(cls: type, name: str) -> bool:
    """Tell whether a method is at most declared; one that a driver has of its own stands."""
    method = getattr(cls, name, None)
    return method is None or getattr(method, "__isabstractmethod__", False)


def _threaded(name: str) -> Callable[..., Any]:
    async def method(self: BlockingDriver, op: Operation, /, *args: Any) -> Any:
        return await self.bridge.in_thread(functools.partial(getattr(self, name), op, *args), op)

    method.__name__ = method.__qualname__ = f"{name}_async"
    return method


def _looped(name: str) -> Callable[..., Any]:
    def method(self: LoopDriver, op: Operation, /, *args: Any) -> Any:
        return self.bridge.in_loop(getattr(self, name)(op, *args), op)

    method.__name__ = method.__qualname__ = name.removesuffix("_async")
    return method


def _homed(inner: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    @functools.wraps(inner)
    async def method(self: LoopDriver, op: Operation, /, *args: Any) -> Any:
        import asyncio

        if asyncio.get_running_loop() is self.bridge.loop():
            return await inner(self, op, *args)
        return await self.bridge.from_loop(inner(self, op, *args), op)

    method.__homed__ = True  # type: ignore[attr-defined]
    return method
