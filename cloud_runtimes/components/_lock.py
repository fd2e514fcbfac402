"""Locks with a queue of waiters: waiting for a turn, for both APIs, and what a caller that gives up leaves behind. What a database does for it, a subclass writes.

A waiter has a place in a queue and is served in that order. A release notifies the first. The n-th waiter may take the lock n times `TURN` after it became free, and a caller that does not wait after all of them. So a crashed waiter delays the queue once, and live waiters need no heartbeat. One that was skipped because it was slow comes back with its old number.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from ..errors import CloudRuntimesError, DeadlineExceededError
from ..spi import lock as spi
from ..spi.flow import Flow, FlowEngine
from ..spi.lock import Grant, LockDriver, LockRequest, UnlockStatus
from ..spi.operation import Operation, mark_interrupted

TURN: Final = 500
"""Milliseconds that the next waiter has to take a free lock before the one behind it may."""
FORGET_MS: Final = 60_000
"""Milliseconds after which an expired lock leaves no trace."""
_LEAVING: Final = 1.0
"""Seconds."""
_LEAST_TRY: Final = 1.0
_LONGEST_TRY: Final = 10.0


class _Waiter(Protocol):
    """Wakes a caller in its turn."""

    def wait(self, timeout: float) -> object:
        """Return when woken, or after ``timeout`` seconds."""

    async def wait_async(self, timeout: float) -> object:
        """Asynchronous `wait`."""

    def close(self) -> None:
        """Unsubscribe."""


class QueueEntry:
    """State of an acquire under way in the store: an entry in the queue, and perhaps a lock.

    Attributes:
        ticket: of the entry; ``None``: none yet.
        seen: whether the store has answered.
        heard: `time.monotonic` of its last answer.
        asked: whether the store may have given the lock.
        queued: whether it may have made an entry.
        since: what the holder's clock said before the last try.
        channel: of its notifications, where that changes.
        waiter: of them.
    """

    def __init__(self) -> None:
        self.ticket: int | None = None
        self.seen = self.asked = self.queued = False
        self.since = self.heard = 0.0
        self.channel = ""
        self.waiter: _Waiter | None = None


class _Wait(NamedTuple):
    """Ask of an acquire to be woken, or to go on after some seconds."""

    waiter: _Waiter
    seconds: float


Ask: TypeAlias = tuple[Operation, Any] | _Wait
"""Calls of the store, each with an operation of its own, and waits."""


class QueuedLock(LockDriver, FlowEngine[Ask, Any]):
    """See the module. An acquire is a flow of calls and waits; the work of a call is what the component's engine runs."""

    features = frozenset({spi.BREAK_LOCK, spi.FAIR, spi.LOCKS, spi.RENEW, spi.TOKEN})
    _holds: Callable[[], bool] | None = None

    def __init__(self, component: Any, name: str) -> None:
        self._component = component
        self._name = name

    # -- what a database does ---------------------------------------------

    def _run(self, op: Operation, work: Any) -> Any:
        """Run the work of a call."""
        return self._component.engine.run(op, work)

    async def _run_async(self, op: Operation, work: Any) -> Any:
        """Asynchronous `_run`."""
        return await self._component.engine.run_async(op, work)

    @abstractmethod
    def _try(
        self, op: Operation, request: LockRequest, wait: bool, entry: QueueEntry
    ) -> Flow[Ask, Any, tuple[int | None, float]]:
        """Take the lock if it is this caller's turn, else enter the queue if it waits. Returns the token (``None``: not taken), and the seconds until its turn comes if nobody else takes the lock."""

    @abstractmethod
    def _subscribe(self, request: LockRequest, entry: QueueEntry) -> _Waiter:
        """Return what wakes the caller in its turn."""

    @abstractmethod
    def _renewing(self, request: LockRequest) -> Any:
        """Return a flow that renews a lease; its result is whether it lasted."""

    @abstractmethod
    def _releasing(self, request: LockRequest, *, queued: bool = False) -> Any:
        """Return a flow that ends a lease, or with ``queued`` what there may be of it and of a wait for it; its result is whether the lease lasted."""

    @abstractmethod
    def _unlocking(self, resource_id: str, holder: str | int) -> Any:
        """Return a flow that ends the lease of an owner; its result is an `UnlockStatus`."""

    @abstractmethod
    def _release_in_background(self, request: LockRequest, *, queued: bool) -> None:
        """Release in the background."""

    # -- acquiring --------------------------------------------------------

    def exchange(self, op: Operation, ask: Ask) -> Any:
        return ask.waiter.wait(ask.seconds) if isinstance(ask, _Wait) else self._run(*ask)

    async def exchange_async(self, op: Operation, ask: Ask) -> Any:
        return await (ask.waiter.wait_async(ask.seconds) if isinstance(ask, _Wait) else self._run_async(*ask))

    def acquire(self, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        return self.run(op, self._acquire(op, request, wait))

    async def acquire_async(self, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        return await self.run_async(op, self._acquire(op, request, wait))

    def _acquire(self, op: Operation, request: LockRequest, wait: bool) -> Flow[Ask, Any, Grant | None]:
        """Take the lock, first waiting in the queue if need be."""
        entry = QueueEntry()
        try:
            while True:
                token, pause = yield from self._try(op, request, wait, entry)
                if token is not None:
                    return Grant(token, entry.since, self._holds)
                if not wait:
                    return None
                if entry.waiter is None:
                    entry.waiter = self._subscribe(request, entry)
                remaining = op.remaining()
                if remaining == 0.0:
                    raise op.timed_out("the lock", maybe_applied=entry.asked)
                if pause > 0:
                    yield _Wait(entry.waiter, pause if remaining is None else min(pause, remaining))
                self._component.check_open()
        except BaseException as error:
            # a cancelled or refused acquire may have taken the lock; one that an interrupt ended makes no more calls
            applied = entry.asked and (not isinstance(error, CloudRuntimesError) or error.maybe_applied)
            if applied or (entry.queued and isinstance(error, GeneratorExit)):
                self._release_in_background(request, queued=entry.queued)
            else:
                yield from self._leave(op, request, entry)
            if isinstance(error, DeadlineExceededError) and entry.seen and not entry.asked:
                return None
            if not entry.asked and not isinstance(error, Exception):
                mark_interrupted(error, False)  # it was only waiting
            raise
        finally:
            if entry.waiter is not None:
                entry.waiter.close()

    def _leave(self, op: Operation, request: LockRequest, entry: QueueEntry) -> Flow[Ask, Any, None]:
        """Leave the queue before the caller goes on, if that takes no longer than `_LEAVING`."""
        if not entry.queued:
            return
        try:
            yield Operation(op.method, op.component, _LEAVING), self._releasing(request, queued=True)
        except CloudRuntimesError:
            self._release_in_background(request, queued=True)

    # -- renewing and releasing -------------------------------------------

    def renew(self, op: Operation, request: LockRequest, /) -> bool:
        return bool(self._run(op, self._renewing(request)))

    async def renew_async(self, op: Operation, request: LockRequest, /) -> bool:
        return bool(await self._run_async(op, self._renewing(request)))

    def release(self, op: Operation, request: LockRequest, /) -> bool:
        try:
            return bool(self._run(op, self._releasing(request)))
        except BaseException as error:
            self._release_behind(request, error)
            raise

    async def release_async(self, op: Operation, request: LockRequest, /) -> bool:
        try:
            return bool(await self._run_async(op, self._releasing(request)))
        except BaseException as error:
            self._release_behind(request, error)
            raise

    def _release_behind(self, request: LockRequest, error: BaseException) -> None:
        """Release in the background after all."""
        self._release_in_background(request, queued=False)
        if not isinstance(error, Exception):
            mark_interrupted(error, True)

    def unlock(self, op: Operation, resource_id: str, owner: str, /) -> UnlockStatus:
        status: UnlockStatus = self._run(op, self._unlocking(resource_id, owner))
        return status

    async def unlock_async(self, op: Operation, resource_id: str, owner: str, /) -> UnlockStatus:
        status: UnlockStatus = await self._run_async(op, self._unlocking(resource_id, owner))
        return status

    def break_lock(self, op: Operation, resource_id: str, token: int, /) -> UnlockStatus:
        status: UnlockStatus = self._run(op, self._unlocking(resource_id, token))
        return status

    async def break_lock_async(self, op: Operation, resource_id: str, token: int, /) -> UnlockStatus:
        status: UnlockStatus = await self._run_async(op, self._unlocking(resource_id, token))
        return status


def trying(op: Operation) -> Operation:
    """Return a call for one try of a wait. One cut off by the end of the wait would take the lock for nobody."""
    remaining = op.remaining()
    return Operation(
        op.method, op.component, _LONGEST_TRY if remaining is None else min(max(remaining, _LEAST_TRY), _LONGEST_TRY)
    )
