"""Where blocking code of a connection runs. Flows are written once over a lane:

* `Direct`: the sync face; on the caller's thread, or while that waits, so a flow never suspends. The main thread has it done by another (``workers.py``).
* `Threads`: the async face over a sync driver; in the client's threads.
* `Loop`: an async driver; in the client's own loop, as greenlets that SQLAlchemy switches where the driver awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from ...errors import ClosedError, DeadlineExceededError
from ...spi.flow import run_sync
from ...spi.operation import Operation, mark_interrupted
from .calls import Call
from .workers import is_main_thread

if TYPE_CHECKING:
    from .holds import Holds
    from .store import Store

__all__ = ["DIRECT", "LOOP", "THREADS", "Lane", "run", "run_async"]

R = TypeVar("R")


class Enterable(Protocol):
    """A thing of ``turns.py``."""

    def enter(self, op: Operation, holds: Holds) -> None: ...

    async def enter_async(self, op: Operation, holds: Holds) -> None: ...


class Lane:
    """One of the three.

    Attributes:
        in_loop: whether its engine is the async one.
    """

    in_loop = False

    async def enter(self, door: Enterable, op: Operation, holds: Holds) -> None:
        """Wait for a place or turn."""
        await door.enter_async(op, holds)

    async def call(self, store: Store, call: Call, work: Callable[[], R]) -> R:
        """Run blocking code for a call."""
        raise NotImplementedError


class Direct(Lane):
    async def enter(self, door: Enterable, op: Operation, holds: Holds) -> None:
        door.enter(op, holds)

    async def call(self, store: Store, call: Call, work: Callable[[], R]) -> R:
        if is_main_thread():
            return store.workers.run(partial(_claimed, store, call, work))
        return _claimed(store, call, work)


class Threads(Lane):
    async def call(self, store: Store, call: Call, work: Callable[[], R]) -> R:
        return await store.executor.in_thread(partial(_claimed, store, call, work), call.op)


def _claimed(store: Store, call: Call, work: Callable[[], R]) -> R:
    if not call.claim(working=True):
        raise ClosedError("given up by its caller")
    return store.working(work)


class Loop(Lane):
    in_loop = True

    async def call(self, store: Store, call: Call, work: Callable[[], R]) -> R:
        import asyncio

        from sqlalchemy.util import greenlet_spawn

        call.claim(working=True)
        task: asyncio.Task[R] = asyncio.ensure_future(greenlet_spawn(work))
        store.under_way[task] = call
        task.add_done_callback(store.ended)
        left = call.op.remaining()
        try:
            await asyncio.wait((task,), timeout=None if left is None else left + store.grace)
        except asyncio.CancelledError:
            store.stop(call)
            if store.grace:
                await asyncio.wait((task,), timeout=store.grace)
            await self._end(task, call)
            raise
        if not task.done():
            await self._end(task, call)
            raise call.op.timed_out("the database", maybe_applied=call.committing)
        return task.result()

    @staticmethod
    async def _end(task: Any, call: Call) -> None:
        """End work that was not interrupted by the database: the driver has to let go of its connection. One that is being made comes first: the call sees then that it was stopped."""
        import asyncio

        call.stop()
        end = monotonic() + _CONNECTING
        while call.connecting and not task.done() and monotonic() < end:
            await asyncio.wait((task,), timeout=0.02)
        task.cancel()
        await asyncio.wait((task,), timeout=5.0)


_CONNECTING: Final = 10.0
"""Seconds that a connection which is being made for a call that was given up gets."""
DIRECT: Final = Direct()
THREADS: Final = Threads()
LOOP: Final = Loop()


def run(store: Store, call: Call, flow: Callable[[Lane], Coroutine[Any, Any, R]], *, in_loop: bool = False) -> R:
    """Run a flow in the sync face; ``in_loop``: on a connection of that lane."""
    try:
        if in_loop or store.only_loop:
            return store.executor.in_loop(flow(LOOP), call.op)
        return run_sync(flow(DIRECT))
    except BaseException as error:
        _given_up(store, call, error)
        raise


async def run_async(
    store: Store, call: Call, flow: Callable[[Lane], Coroutine[Any, Any, R]], *, in_loop: bool | None = None
) -> R:
    """Run a flow in the async face."""
    try:
        if store.loops if in_loop is None else in_loop:
            return await store.executor.from_loop(flow(LOOP), call.op)
        return await flow(THREADS)
    except BaseException as error:
        _given_up(store, call, error)
        raise


def _given_up(store: Store, call: Call, error: BaseException) -> None:
    if isinstance(error, DeadlineExceededError):
        error.maybe_applied = store.stop(call)
    elif not isinstance(error, Exception):
        mark_interrupted(error, store.stop(call))
    else:
        return
    if call.abandon is not None:
        call.abandon(call)
