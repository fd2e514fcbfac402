"""Where calls run. A call is a flow, written once as a coroutine; the executor that it is given waits for it and runs its blocking code.

* `ThreadRunner`, for drivers that block: the sync API runs in the caller's thread, the async API runs its blocking code in a pool of threads. So does the main thread: a ``KeyboardInterrupt`` ends its waiting and stops the call, and never hits SQLAlchemy or a driver between two steps.
* `LoopRunner`, for async drivers: both APIs run in the client's own loop, where SQLAlchemy's greenlets switch to the loop while the driver awaits.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from ..._core.logs import repeated
from ...errors import ClosedError, CloudRuntimesError, DeadlineExceededError
from ...spi.flow import run_sync
from ...spi.operation import mark_interrupted
from .calls import Call

if TYPE_CHECKING:
    from ...spi.blocking import Bridge

__all__ = ["Executor", "Flow", "LoopRunner", "Runner", "ThreadRunner"]

R = TypeVar("R")

_CANCELLING: Final = 5.0
"""Seconds that an async driver gets to end what was cancelled."""
_CONNECTING: Final = 10.0
"""Seconds that it gets where it is connecting: a connection that is cancelled while it is made may be dropped unclosed."""


def _nothing() -> None:
    pass


class _Job:
    """Work that begins at most once, and what is released behind it, also where it never begins."""

    def __init__(self, work: Callable[[], Any], release: Callable[[], None]) -> None:
        self._work = work
        self._release = release
        self._claim = threading.Lock()

    def __call__(self) -> Any:
        if not self._claim.acquire(blocking=False):
            raise ClosedError("given up by its caller")
        try:
            return self._work()
        finally:
            self._release()

    def withdraw(self) -> None:
        """See that it does not begin any more."""
        if self._claim.acquire(blocking=False):
            self._release()


class Executor(ABC):
    """How a flow waits, and where its blocking code runs."""

    @abstractmethod
    async def wait(self, future: Future[Any], seconds: float | None) -> None:
        """Wait for a future, at most so long; may cancel it then."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Pause."""

    @abstractmethod
    async def call(self, call: Call, work: Callable[[], R], release: Callable[[], None] = _nothing) -> R:
        """Run blocking code; ``release`` follows in any case, perhaps after the caller has given up."""


Flow: TypeAlias = Callable[[Executor], Coroutine[Any, Any, R]]


class Runner(ABC):
    """Runs the flows of one pool of connections.

    Attributes:
        calls: whose caller waits.
    """

    def __init__(self) -> None:
        self.calls: set[Call] = set()
        self._futures: set[Future[Any]] = set()

    def run(self, call: Call, flow: Flow[R]) -> R:
        """Run a flow of the sync API."""
        self.calls.add(call)
        try:
            return self._run(call, flow)
        except BaseException as error:
            _given_up(call, error)
            raise
        finally:
            self.calls.discard(call)

    async def run_async(self, call: Call, flow: Flow[R]) -> R:
        """Run a flow of the async API."""
        self.calls.add(call)
        try:
            return await self._run_async(call, flow)
        except BaseException as error:
            _given_up(call, error)
            raise
        finally:
            self.calls.discard(call)

    def post(self, flow: Flow[None]) -> None:
        """Start a flow that nobody waits for; its error is logged."""
        try:
            future = self._start(flow)
        except CloudRuntimesError:
            return  # the client is closed, and its connections with it
        future.add_done_callback(_log_error)

    def _started(self, future: Future[R]) -> Future[R]:
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    @abstractmethod
    def _start(self, flow: Flow[R]) -> Future[R]: ...

    @abstractmethod
    def _run(self, call: Call, flow: Flow[R]) -> R: ...

    @abstractmethod
    async def _run_async(self, call: Call, flow: Flow[R]) -> R: ...

    def is_idle(self) -> bool:
        """Tell whether no blocking code runs."""
        return not self._futures

    def wait_idle(self, end: float) -> None:
        """Wait until no blocking code runs, at most to a time of the clock `time.monotonic`."""
        while not self.is_idle() and monotonic() < end:
            sleep(0.001)

    @abstractmethod
    def close(self, engine: Any, end: float) -> None:
        """Dispose of the engine, and end the threads."""


def _given_up(call: Call, error: BaseException) -> None:
    if isinstance(error, DeadlineExceededError):
        error.maybe_applied = call.stop()
    elif not isinstance(error, Exception):
        mark_interrupted(error, call.stop())


def _log_error(future: Future[Any]) -> None:
    # by its class alone, since its text may be a driver's
    error = None if future.cancelled() else future.exception()
    if error is not None:
        what = "what a call of a database left behind could not be ended"
        repeated(f"sqlalchemy {type(error).__name__}", "%s: %s", what, type(error).__name__)


class _Awaiting(Executor):
    async def wait(self, future: Future[Any], seconds: float | None) -> None:
        waiter = asyncio.wrap_future(future)
        try:
            await asyncio.wait((waiter,), timeout=seconds)
        finally:
            if not waiter.cancel() and not waiter.cancelled():
                waiter.exception()  # or the loop would complain that nobody looked

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ThreadRunner(Runner):
    """For drivers that block.

    Args:
        size: of the pool of connections. A flow of the async API holds a thread only while it has a connection.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(size + 4, "cloud-runtimes-sql")
        self._lock = threading.Lock()
        self._working: set[object] = set()
        self._in_thread = _InThread(self)
        self._in_pool = _InPool(self)

    def _run(self, call: Call, flow: Flow[R]) -> R:
        if threading.get_ident() != threading.main_thread().ident:
            return run_sync(flow(self._in_thread))
        future = self._start(flow)
        try:
            return future.result()
        finally:
            del future  # or its error and this frame would keep each other

    async def _run_async(self, call: Call, flow: Flow[R]) -> R:
        return await flow(self._in_pool)

    def _start(self, flow: Flow[R]) -> Future[R]:
        return self.submit(lambda: run_sync(flow(self._in_thread)))

    def submit(self, work: Callable[[], R]) -> Future[R]:
        """Run something in the pool; here, where the interpreter or the client has ended that."""
        try:
            return self._started(self._pool.submit(work))
        except RuntimeError as error:
            if "cannot schedule" not in str(error):  # it is no end, but a lack of threads
                raise
            future: Future[R] = Future()
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)
            return future

    def work(self, work: Callable[[], R]) -> R:
        """Run what uses a library with locks of its own; a fork waits for it."""
        token = object()
        with self._lock:
            self._working.add(token)
        try:
            return work()
        finally:
            self._working.discard(token)

    def is_idle(self) -> bool:
        return not self._working and super().is_idle()

    def rest(self, seconds: float) -> bool:
        """Let nothing begin, and wait for what runs; tells whether `go_on` has to be called."""
        held = self._lock.acquire(timeout=seconds)
        end = monotonic() + seconds
        while self._working and monotonic() < end:
            sleep(0.0002)
        return held

    def go_on(self) -> None:
        """Let work begin again."""
        self._lock.release()

    def close(self, engine: Any, end: float) -> None:
        self.work(engine.dispose)
        self._pool.shutdown(wait=False)


class _InThread(Executor):
    def __init__(self, runner: ThreadRunner) -> None:
        self._runner = runner

    async def wait(self, future: Future[Any], seconds: float | None) -> None:
        with suppress(TimeoutError, CancelledError):
            future.exception(seconds)

    async def sleep(self, seconds: float) -> None:
        sleep(seconds)

    async def call(self, call: Call, work: Callable[[], R], release: Callable[[], None] = _nothing) -> R:
        try:
            return self._runner.work(work)
        finally:
            release()


class _InPool(_Awaiting):
    def __init__(self, runner: ThreadRunner) -> None:
        self._runner = runner

    async def call(self, call: Call, work: Callable[[], R], release: Callable[[], None] = _nothing) -> R:
        job = _Job(work, release)
        future: Future[R] = self._runner.submit(partial(self._runner.work, job))
        try:
            await self.wait(future, call.op.remaining())
            if not future.done() or future.cancelled():
                raise call.op.timed_out("the database")
            return future.result()
        finally:
            job.withdraw()
            del future


class LoopRunner(Runner, _Awaiting):
    """For async drivers."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge
        self._tasks: set[asyncio.Task[Any]] = set()

    def _run(self, call: Call, flow: Flow[R]) -> R:
        return self._bridge.in_loop(flow(self), call.op)

    async def _run_async(self, call: Call, flow: Flow[R]) -> R:
        return await self._bridge.from_loop(flow(self), call.op)

    def _start(self, flow: Flow[R]) -> Future[R]:
        return self._started(self._bridge.submit(flow(self)))

    async def call(self, call: Call, work: Callable[[], R], release: Callable[[], None] = _nothing) -> R:
        from sqlalchemy.util import greenlet_spawn

        job = _Job(work, release)
        task: asyncio.Task[R] = asyncio.ensure_future(greenlet_spawn(job))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        loop = asyncio.get_running_loop()
        call.on_stop = lambda: call.connecting or loop.call_soon_threadsafe(task.cancel)
        try:
            call.check()
            await asyncio.wait((task,), timeout=call.op.remaining())
            if task.done():
                return task.result()
            raise call.op.timed_out("the database")
        finally:
            if not task.done():
                call.stop()
                await asyncio.wait((task,), timeout=_CONNECTING if call.connecting else _CANCELLING)
                task.cancel()
            job.withdraw()
            call.on_stop = None  # which refers to the call

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # or the loop would complain that nobody looked

    def is_idle(self) -> bool:
        return not self._tasks and super().is_idle()

    def close(self, engine: Any, end: float) -> None:
        try:
            self._bridge.submit(engine.dispose()).result(max(0.1, end - monotonic()))
        except Exception:
            return  # a server that does not answer: the sockets close with the loop
