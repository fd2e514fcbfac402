"""Locks with a queue of waiters: waiting for a turn, for both APIs, and what a caller that gives up leaves behind. What a database does for it, a subclass writes.

A waiter has a place in a queue and is served in that order. A release notifies the first. The n-th waiter may take the lock n times `TURN` after it became free, and a caller that does not wait after all of them. So a crashed waiter delays the queue once, and live waiters need no heartbeat. One that was skipped because it was slow comes back with its old number.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..errors import CloudRuntimesError, DeadlineExceededError
from ..spi import lock as spi
from ..spi.flow import run_sync
from ..spi.lock import Grant, LockDriver, LockRequest, UnlockStatus
from ..spi.operation import Operation, mark_interrupted

if TYPE_CHECKING:
    from ._home import HomeComponent

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


class Calls:
    """Calls of the sync API: what is awaited has been done."""

    def __init__(self, run: Callable[[Operation, Any], Any]) -> None:
        self._run = run

    async def run(self, op: Operation, work: Any) -> Any:
        """Run a flow."""
        return self._run(op, work)

    async def wait(self, waiter: _Waiter, seconds: float) -> None:
        """Wait to be woken."""
        waiter.wait(seconds)


class _AsyncCalls(Calls):
    """Calls of the async API."""

    async def run(self, op: Operation, work: Any) -> Any:
        return await self._run(op, work)

    async def wait(self, waiter: _Waiter, seconds: float) -> None:
        await waiter.wait_async(seconds)


class QueuedLock(LockDriver):
    """See the module. Its flows are what the component's engine runs."""

    features = frozenset({spi.FAIR, spi.RENEW, spi.TOKEN})
    _holds: Callable[[], bool] | None = None

    def __init__(self, component: HomeComponent, name: str) -> None:
        self._home = component
        self._name = name

    # -- what a database does ---------------------------------------------

    @abstractmethod
    def _run(self, op: Operation, work: Any) -> Any:
        """Run a flow."""

    @abstractmethod
    async def _run_async(self, op: Operation, work: Any) -> Any:
        """Asynchronous `_run`."""

    @abstractmethod
    async def _try(
        self, op: Operation, request: LockRequest, wait: bool, calls: Calls, entry: QueueEntry
    ) -> tuple[int | None, float]:
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
    def _unlocking(self, resource_id: str, owner: str) -> Any:
        """Return a flow that ends the lease of an owner; its result is an `UnlockStatus`."""

    @abstractmethod
    def _release_in_background(self, request: LockRequest, *, queued: bool) -> None:
        """Release in the background."""

    # -- acquiring --------------------------------------------------------

    def acquire(self, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        return run_sync(self._acquire(op, request, wait, Calls(self._run)))

    async def acquire_async(self, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        return await self._acquire(op, request, wait, _AsyncCalls(self._run_async))

    async def _acquire(self, op: Operation, request: LockRequest, wait: bool, calls: Calls) -> Grant | None:
        """Take the lock, first waiting in the queue if need be."""
        entry = QueueEntry()
        try:
            return await self._wait_and_take(op, request, wait, calls, entry)
        except BaseException as error:
            # a cancelled or refused acquire may have taken the lock
            if entry.asked and (not isinstance(error, CloudRuntimesError) or error.maybe_applied):
                self._release_in_background(request, queued=entry.queued)
            else:
                await self._leave(op, request, entry, calls)
            if isinstance(error, DeadlineExceededError) and entry.seen and not entry.asked:
                return None
            if not entry.asked and not isinstance(error, Exception):
                mark_interrupted(error, False)  # it was only waiting
            raise
        finally:
            if entry.waiter is not None:
                entry.waiter.close()

    async def _wait_and_take(
        self, op: Operation, request: LockRequest, wait: bool, calls: Calls, entry: QueueEntry
    ) -> Grant | None:
        while True:
            token, pause = await self._try(op, request, wait, calls, entry)
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
                await calls.wait(entry.waiter, pause if remaining is None else min(pause, remaining))
            self._home.check_open()

    async def _leave(self, op: Operation, request: LockRequest, entry: QueueEntry, calls: Calls) -> None:
        """Leave the queue before the caller goes on, if that takes no longer than `_LEAVING`."""
        if not entry.queued:
            return
        try:
            await calls.run(Operation(op.method, op.component, _LEAVING), self._releasing(request, queued=True))
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


def trying(op: Operation) -> Operation:
    """Return a call for one try of a wait. One cut off by the end of the wait would take the lock for nobody."""
    remaining = op.remaining()
    return Operation(
        op.method, op.component, _LONGEST_TRY if remaining is None else min(max(remaining, _LEAST_TRY), _LONGEST_TRY)
    )
