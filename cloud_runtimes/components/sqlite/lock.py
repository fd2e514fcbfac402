"""Locks on SQLite: one row per lock, one per waiter, one counter for all tokens of the file.

*Lease.* A row of ``locks`` holds until its deadline, in milliseconds of CLOCK_BOOTTIME, which every process of the machine shares and no clock step moves. After another boot it has ended.

*Token.* One counter for the whole file, raised in the transaction of the grant, so it outlives rows and may leave gaps. It is at least the wall clock's milliseconds, so new tokens are higher than earlier ones even where the file was removed or restored from a copy. A grant is always synced, whatever the durability, since a token that came again after a power cut would fence nothing. Renewals and releases need no sync: after a power cut all leases have ended.

*Queue.* A waiter has a numbered row in ``lock_line`` and is served in that order. A release notifies the head alone. The n-th waiter may take the lock n times `_TURN` after it became free, and a caller that does not wait after all of them. So a crashed waiter delays the queue once, by `_TURN`, and live waiters need no heartbeat. One that was skipped because it was slow comes back with its old number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ...errors import CloudRuntimesError
from ...spi import lock as spi
from ...spi.flow import run_sync
from ...spi.lock import Grant, LockDriver, LockRequest, UnlockStatus
from ...spi.operation import Operation, mark_interrupted
from .notifier import Waiter
from .writes import WriteTask

if TYPE_CHECKING:
    from . import SqliteComponent
    from .engine import Engine

__all__ = ["SqliteLock"]

_TURN: Final = 500
"""Milliseconds that the next waiter has to take a free lock before the one behind it may."""
_LOOK_EVERY: Final = 0.25
"""Seconds after which a waiter looks by itself: sooner than `_TURN`, so that a lost notification does not cost its place."""

# the lock's deadline (none: free, and nobody remembers since when), how many wait before, whether this waiter is in the queue
_LOOK: Final = """
SELECT
  (SELECT deadline FROM locks WHERE store = :store AND resource = :resource AND boot = :boot),
  (SELECT count(*) FROM lock_line WHERE store = :store AND resource = :resource AND boot = :boot AND id < :ticket),
  EXISTS (SELECT 1 FROM lock_line WHERE id = :ticket)
"""
_EVERY: Final = 2**63 - 1
"""The ticket of a caller outside of the queue: behind all."""
_COUNT: Final = (
    "INSERT INTO counters (name, value) VALUES ('lock.token', ?) "
    "ON CONFLICT (name) DO UPDATE SET value = max(value + 1, excluded.value) RETURNING value"
)
_GRANT: Final = (
    "INSERT OR REPLACE INTO locks (store, resource, owner, claim, token, boot, deadline) "
    "VALUES (:store, :resource, :owner, :claim, :token, :boot, :deadline)"
)
_SERVED: Final = "DELETE FROM lock_line WHERE store = :store AND resource = :resource AND id <= :ticket"
_LEAVE: Final = (
    "DELETE FROM lock_line WHERE store = :store AND resource = :resource AND boot = :boot AND claim = :claim"
)
_QUEUE: Final = "INSERT OR IGNORE INTO lock_line (id, store, resource, boot, claim) VALUES (?, ?, ?, ?, ?)"
_HEAD: Final = "SELECT min(id) FROM lock_line WHERE store = :store AND resource = :resource AND boot = :boot"
_RENEW: Final = (
    "UPDATE locks SET deadline = max(deadline, :deadline) WHERE store = :store AND resource = :resource "
    "AND claim = :claim AND boot = :boot AND deadline > :now"
)
_MINE: Final = (
    "SELECT deadline FROM locks WHERE store = :store AND resource = :resource AND claim = :claim AND boot = :boot"
)
_OWNED: Final = (
    "SELECT owner, deadline FROM locks WHERE store = :store AND resource = :resource AND boot = :boot AND deadline > :now"
)
_FREE: Final = "UPDATE locks SET deadline = min(deadline, :now) WHERE store = :store AND resource = :resource"
_DELETE: Final = "DELETE FROM locks WHERE store = :store AND resource = :resource"


class SqliteLock(LockDriver):
    """One store: a namespace in the table of locks."""

    features = frozenset({spi.FAIR, spi.RENEW, spi.TOKEN})

    def __init__(self, context: SqliteComponent, name: str) -> None:
        self._context = context
        self._engine: Engine = context.engine
        self._name = name

    # -- acquiring --------------------------------------------------------

    def acquire(self, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        return run_sync(self._acquire(op, request, wait, _SyncCalls(self._engine)))

    async def acquire_async(self, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        return await self._acquire(op, request, wait, _AsyncCalls(self._engine))

    async def _acquire(self, op: Operation, request: LockRequest, wait: bool, calls: _SyncCalls) -> Grant | None:
        """Take the lock, first waiting in the queue if need be; written once for both APIs."""
        self._context.sweeping()
        place = _Place()
        try:
            return await self._wait_and_take(op, request, wait, calls, place)
        except BaseException as error:
            # a cancelled or refused acquire may have taken the lock
            may_hold = not isinstance(error, CloudRuntimesError) or error.maybe_applied
            if may_hold or place.queued:
                self._undo(request, place)
            if not place.asked and not isinstance(error, Exception):
                mark_interrupted(error, False)  # it was only waiting
            raise
        finally:
            place.unsubscribe()

    async def _wait_and_take(
        self, op: Operation, request: LockRequest, wait: bool, calls: _SyncCalls, place: _Place
    ) -> Grant | None:
        while True:
            names = self._names(request.resource_id, ticket=place.ticket or _EVERY)
            deadline, ahead, queued = (await calls.query(op, _LOOK, names))[0]
            pause = self._pause(deadline, ahead)
            if pause <= 0:
                asked = request.now()
                place.asked = True
                place.queued = place.queued or wait
                token, ticket = await calls.run(op, self._taking(request, place.ticket, wait))
                if token is not None:
                    return Grant(token, asked, self._engine.holds)
                place.asked = False
                if ticket is not None:  # others were faster: queue behind them
                    place.ticket = ticket
                    place.subscribe(self._engine)
            elif not wait:
                return None
            elif not queued:
                place.queued = True
                place.ticket = await calls.run(op, self._queueing(request, place.ticket))
                place.subscribe(self._engine)
            else:
                left = op.remaining()
                if left == 0.0:
                    self._undo(request, place)
                    return None
                await calls.wait(place, min(pause, _LOOK_EVERY if left is None else min(left, _LOOK_EVERY)))
                self._context.check_open()

    def _pause(self, deadline: int | None, ahead: int) -> float:
        """Seconds until a place in the queue may take the lock if nobody before it does and nobody renews; ≤ 0: now."""
        if deadline is None:
            return 0.0
        return (deadline + ahead * _TURN - self._engine.clocks.boot_ms()) / 1000

    def _names(self, resource_id: str, **more: Any) -> dict[str, Any]:
        """Return parameters for the statements above."""
        clocks = self._engine.clocks
        return {"store": self._name, "resource": resource_id, "boot": clocks.boot_id(), "now": clocks.boot_ms(), **more}

    def _deadline(self, request: LockRequest) -> int:
        # the clock's milliseconds are rounded down, the end of a lease up
        return self._engine.clocks.boot_ms() + request.expiry_ms + 1

    def _taking(self, request: LockRequest, ticket: int | None, wait: bool) -> WriteTask:
        """Take the lock if it is free for this caller, or enter the queue if that is wanted; the result is the token, and the ticket."""

        def body(connection: sqlite3.Connection) -> tuple[int | None, int | None]:
            names = self._names(request.resource_id, ticket=ticket or _EVERY)
            deadline, ahead, _ = connection.execute(_LOOK, names).fetchone()
            if self._pause(deadline, ahead) > 0:
                return None, self._enter(connection, request, ticket) if wait else None
            token = int(connection.execute(_COUNT, (self._engine.clocks.wall_ms(),)).fetchone()[0])
            grant = {"owner": request.owner, "claim": request.claim, "token": token}
            connection.execute(_GRANT, {**names, **grant, "deadline": self._deadline(request)})
            connection.execute(_SERVED, names)
            return token, ticket

        return WriteTask(body, durable=True)

    def _queueing(self, request: LockRequest, ticket: int | None) -> WriteTask:
        """Enter the queue; the result is the ticket."""
        return WriteTask(lambda connection: self._enter(connection, request, ticket), durable=False)

    def _enter(self, connection: sqlite3.Connection, request: LockRequest, ticket: int | None) -> int:
        """Take a place at the end of the queue, or come back to the one of before."""
        boot = self._engine.clocks.boot_id()
        row = connection.execute(_QUEUE, (ticket, self._name, request.resource_id, boot, request.claim))
        return ticket if ticket is not None else int(row.lastrowid or 0)

    # -- renewing and releasing -------------------------------------------

    def renew(self, op: Operation, request: LockRequest, /) -> bool:
        def body(connection: sqlite3.Connection) -> bool:
            names = self._names(request.resource_id, claim=request.claim, deadline=self._deadline(request))
            return connection.execute(_RENEW, names).rowcount > 0

        return self._engine.holds() and bool(self._engine.run(WriteTask(body, durable=False), op))

    def release(self, op: Operation, request: LockRequest, /) -> bool:
        try:
            return self._engine.holds() and bool(self._engine.run(self._releasing(request), op))
        except BaseException as error:
            self._release_behind(request, error)
            raise

    async def release_async(self, op: Operation, request: LockRequest, /) -> bool:
        try:
            return self._engine.holds() and bool(await self._engine.run_async(self._releasing(request), op))
        except BaseException as error:
            self._release_behind(request, error)
            raise

    def _releasing(self, request: LockRequest, *, queued: bool = False) -> WriteTask:
        """End a lease, or what there may be of it and of a wait for it; the result tells whether it lasted until now."""

        def body(connection: sqlite3.Connection) -> bool:
            names = self._names(request.resource_id, claim=request.claim)
            task.channels = ()
            if queued:
                connection.execute(_LEAVE, names)
            row = connection.execute(_MINE, names).fetchone()
            if row is not None:
                task.channels = self._freed(connection, names)
            elif queued and not connection.execute(_OWNED, names).fetchone():
                task.channels = _head(connection, names)  # perhaps this one was next
            return row is not None and row[0] > names["now"]

        task = WriteTask(body, durable=False)
        return task

    def unlock(self, op: Operation, resource_id: str, owner: str, /) -> UnlockStatus:
        def body(connection: sqlite3.Connection) -> UnlockStatus:
            names = self._names(resource_id)
            task.channels = ()
            row = connection.execute(_OWNED, names).fetchone()
            if row is None:
                return UnlockStatus.NOT_FOUND
            if row[0] != owner:
                return UnlockStatus.NOT_OWNER
            task.channels = self._freed(connection, names)
            return UnlockStatus.SUCCESS

        task = WriteTask(body, durable=False)
        status: UnlockStatus = self._engine.run(task, op)
        return status

    def _freed(self, connection: sqlite3.Connection, names: Mapping[str, Any]) -> tuple[str, ...]:
        """Free a lock; returns the channels to notify. While others wait, the row tells since when it is free."""
        channels = _head(connection, names)
        connection.execute(_FREE if channels else _DELETE, names)
        return channels

    # -- in the background ------------------------------------------------

    def _undo(self, request: LockRequest, place: _Place) -> None:
        """Leave the queue, and release what an acquire that gave up may have taken; on the writer thread, behind its write."""
        if place.asked or place.queued:
            self._submit(self._releasing(request, queued=place.queued))

    def _release_behind(self, request: LockRequest, error: BaseException) -> None:
        """Release in the background after all."""
        self._submit(self._releasing(request))
        if not isinstance(error, Exception):
            mark_interrupted(error, True)

    def _submit(self, task: WriteTask) -> None:
        try:
            self._engine.submit(task)
        except CloudRuntimesError:  # closed: the lease expires, the place in the queue lapses
            return


class _Place:
    """What an acquire under way has left in the store: a place in the queue, and perhaps a lock."""

    def __init__(self) -> None:
        self.ticket: int | None = None
        self.asked = self.queued = False
        self.waiter: Waiter | None = None

    def subscribe(self, engine: Engine) -> None:
        """Subscribe to the channel of this place, once."""
        if self.waiter is None:
            self.waiter = engine.notifier.subscribe(f"lock-{self.ticket}")

    def unsubscribe(self) -> None:
        if self.waiter is not None:
            self.waiter.close()


class _SyncCalls:
    """Calls of the sync API: what is awaited has been done."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def query(self, op: Operation, sql: str, names: Mapping[str, Any]) -> list[Any]:
        return self.engine.query(op, sql, names)

    async def run(self, op: Operation, task: WriteTask) -> Any:
        return self.engine.run(task, op)

    async def wait(self, place: _Place, seconds: float) -> None:
        assert place.waiter is not None
        place.waiter.wait(seconds)


class _AsyncCalls(_SyncCalls):
    """Calls of the async API."""

    async def query(self, op: Operation, sql: str, names: Mapping[str, Any]) -> list[Any]:
        return await self.engine.query_async(op, sql, names)

    async def run(self, op: Operation, task: WriteTask) -> Any:
        return await self.engine.run_async(task, op)

    async def wait(self, place: _Place, seconds: float) -> None:
        assert place.waiter is not None
        await place.waiter.wait_async(seconds)


def _head(connection: sqlite3.Connection, names: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the channel of the next waiter, if there is one."""
    ticket = connection.execute(_HEAD, names).fetchone()[0]
    return () if ticket is None else (f"lock-{ticket}",)
