"""Where calls run. A call is a flow, written once as a coroutine; its executor waits for it and runs its blocking code.

* The sync API runs a flow in the caller's thread. The main thread waits for another instead: a ``KeyboardInterrupt`` ends its waiting and stops the call, and never hits SQLAlchemy or a driver between two steps.
* The async API runs a flow in the caller's task, and its blocking code in threads.
* An async driver has the client's own loop instead of threads, for both APIs: SQLAlchemy's greenlets switch to the loop while the driver awaits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

from ...errors import ClosedError, DeadlineExceededError
from ...spi.flow import run_sync
from ...spi.operation import Method, Operation, mark_interrupted
from .calls import Call
from .locks import Wait, wait_in_task, wait_in_thread
from .threads import Threads

if TYPE_CHECKING:
    from ...spi.executor import Executor

__all__ = ["Flow", "Runner", "FlowContext"]

R = TypeVar("R")

_BEHIND: Final = Method("database", "rollback", repeatable=False, writes=False)


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


class FlowContext:
    """How a flow waits, and where its blocking code runs.

    Args:
        wait: waits for a future.
        submit: begins blocking code; none: it runs here.
    """

    def __init__(self, wait: Wait, submit: Callable[[_Job], Future[Any]] | None) -> None:
        self.wait = wait
        self._submit = submit

    async def call(self, call: Call, work: Callable[[], R], release: Callable[[], None]) -> R:
        """Run blocking code; ``release`` follows in any case, perhaps after the caller has given up."""
        job = _Job(work, release)
        if self._submit is None:
            result: R = job()
            return result
        future: Future[R] = self._submit(job)
        try:
            await self.wait(future, call.op.remaining())
            if not future.done():
                raise call.op.timed_out("the database")
            return future.result()
        except CancelledError:  # with the client's loop
            raise ClosedError(call.reason, maybe_applied=call.committing) from None
        finally:
            job.withdraw()
            del future  # or its error and this frame would keep each other


Flow: TypeAlias = Callable[[FlowContext, Call], Coroutine[Any, Any, R]]


class Owner(Protocol):
    """What a call belongs to, such as a transaction."""

    def give_up(self) -> None:
        """The call failed, or its caller gave it up."""


class Runner:
    """Runs the flows of one pool of connections.

    Args:
        executor: of the client, where the driver is async.

    Attributes:
        calls: whose caller waits.
    """

    def __init__(self, executor: Executor | None) -> None:
        self.calls: set[Call] = set()
        self._threads = Threads("cloud-runtimes-sql")
        self._executor = executor
        in_loop = None if executor is None else self._submit_in_loop
        self._in_thread = FlowContext(wait_in_thread, in_loop)
        self._in_task = FlowContext(wait_in_task, in_loop or self._threads.submit)

    def run(self, op: Operation, flow: Flow[R], owner: Owner | None = None) -> R:
        """Run a flow of the sync API."""
        if self._executor is not None:
            self._executor.check_outside()
        call = Call(op)
        self.calls.add(call)
        try:
            if threading.get_ident() != threading.main_thread().ident:
                return run_sync(flow(self._in_thread, call))
            return self._threads.run(lambda: run_sync(flow(self._in_thread, call)))
        except BaseException as error:
            _give_up(call, error, owner)
            raise
        finally:
            self.calls.discard(call)

    async def run_async(self, op: Operation, flow: Flow[R], owner: Owner | None = None) -> R:
        """Run a flow of the async API."""
        call = Call(op)
        self.calls.add(call)
        try:
            return await flow(self._in_task, call)
        except BaseException as error:
            _give_up(call, error, owner)
            raise
        finally:
            self.calls.discard(call)

    def post(self, flow: Flow[None]) -> None:
        """Start a flow that nobody waits for."""
        call = Call(Operation(_BEHIND, "", None))
        self._threads.post(lambda: run_sync(flow(self._in_thread, call)))

    def _submit_in_loop(self, job: _Job) -> Future[Any]:
        from sqlalchemy.util import greenlet_spawn

        assert self._executor is not None
        return self._executor.submit(greenlet_spawn(job))

    def close(self, engine: Any, timeout: float) -> None:
        """Dispose of the engine, and end the threads."""
        if self._executor is None:
            engine.dispose()
        else:
            with suppress(Exception):  # a server that does not answer: the sockets close with the loop
                self._executor.submit(engine.dispose()).result(timeout)
        self._threads.close()


def _give_up(call: Call, error: BaseException, owner: Owner | None) -> None:
    if isinstance(error, DeadlineExceededError):
        error.maybe_applied = call.stop()
    elif not isinstance(error, Exception):
        mark_interrupted(error, call.stop())
    if owner is not None:
        owner.give_up()
