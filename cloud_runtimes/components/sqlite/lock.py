"""Locks on SQLite: one row per lock, one per waiter, one counter for all tokens of the file.

*Lease.* A row of ``locks`` holds until its deadline, in milliseconds of CLOCK_BOOTTIME, which every process of the machine shares and no clock step moves. After another boot it has ended.

*Token.* One counter for the whole file, raised in the transaction of the grant, so it outlives rows and may leave gaps. It is at least the wall clock's milliseconds, so new tokens are higher than earlier ones even where the file was removed or restored from a copy. A grant is always synced, whatever the durability, since a token that came again after a power cut would fence nothing. Renewals and releases need no sync: after a power cut all leases have ended.

*Queue.* A waiter has a numbered row in ``lock_line``; see `QueuedLock`. A release notifies the head alone, since the others look often.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ...errors import CloudRuntimesError
from ...spi.inventory import LockInfo
from ...spi.lock import LockRequest, UnlockStatus
from ...spi.operation import Operation
from .._lock import TURN, Ask, QueuedLock, QueueEntry
from . import SqliteComponent
from .notifier import Waiter
from .writes import WriteTask

if TYPE_CHECKING:
    from .engine import Engine

_LOOK_EVERY: Final = 0.25
"""Seconds after which a waiter looks by itself: sooner than `TURN`, so that a lost notification does not cost its place."""

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
    "INSERT OR REPLACE INTO locks (store, resource, owner, claim, token, boot, deadline, since) "
    "VALUES (:store, :resource, :owner, :claim, :token, :boot, :deadline, :since)"
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
    "SELECT owner, token FROM locks WHERE store = :store AND resource = :resource AND boot = :boot AND deadline > :now"
)
_FREE: Final = "UPDATE locks SET deadline = min(deadline, :now) WHERE store = :store AND resource = :resource"
_DELETE: Final = "DELETE FROM locks WHERE store = :store AND resource = :resource"


class SqliteLock(QueuedLock):
    """Lock driver of a store: a namespace in the lock table. Its flows are write tasks or queries with parameters."""

    def __init__(self, context: SqliteComponent, name: str) -> None:
        super().__init__(context, name)
        self._engine: Engine = context.engine
        self._holds = self._engine.holds

    def _run(self, op: Operation, work: Any) -> Any:
        return self._engine.run(work, op) if isinstance(work, WriteTask) else self._engine.query(op, *work)

    async def _run_async(self, op: Operation, work: Any) -> Any:
        if isinstance(work, WriteTask):
            return await self._engine.run_async(work, op)
        return await self._engine.query_async(op, *work)

    def _release_in_background(self, request: LockRequest, *, queued: bool) -> None:
        try:  # on the writer thread, behind the write of who gave up
            self._engine.submit(self._releasing(request, queued=queued))
        except CloudRuntimesError:  # closed: the lease expires, the place in the queue lapses
            return

    def _leave(self, op: Operation, request: LockRequest, entry: QueueEntry) -> Generator[Ask, Any, None]:
        if entry.queued:
            self._release_in_background(request, queued=True)
        yield from ()

    def _subscribe(self, request: LockRequest, entry: QueueEntry) -> Waiter:
        return self._engine.notifier.subscribe(f"lock-{entry.ticket}")

    # -- acquiring --------------------------------------------------------

    def _try(
        self, op: Operation, request: LockRequest, wait: bool, entry: QueueEntry
    ) -> Generator[Ask, Any, tuple[int | None, float]]:
        self._component.sweeping()
        names = self._names(request.resource_id, ticket=entry.ticket or _EVERY)
        deadline, ahead, queued = (yield op, (_LOOK, names))[0]
        entry.seen = True
        pause = self._pause(deadline, ahead)
        if pause <= 0:
            entry.since = request.now()
            entry.asked = True
            entry.queued = entry.queued or wait
            token, ticket = yield op, self._taking(request, entry.ticket, wait)
            if token is None:  # others were faster: queue behind them
                entry.asked = False
                entry.ticket = ticket
            return token, 0.0
        if wait and not queued:
            entry.queued = True
            entry.ticket = yield op, self._queueing(request, entry.ticket)
        return None, min(pause, _LOOK_EVERY)

    def _pause(self, deadline: int | None, ahead: int) -> float:
        """Seconds until a place in the queue may take the lock if nobody before it does and nobody renews; ≤ 0: now."""
        if deadline is None:
            return 0.0
        return (deadline + ahead * TURN - self._engine.clocks.boot_ms()) / 1000

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
            since = self._engine.clocks.wall_ms()
            token = int(connection.execute(_COUNT, (since,)).fetchone()[0])
            grant = {"owner": request.owner, "claim": request.claim, "token": token, "since": since}
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
        return self._engine.holds() and super().renew(op, request)

    async def renew_async(self, op: Operation, request: LockRequest, /) -> bool:
        return self._engine.holds() and await super().renew_async(op, request)

    def _renewing(self, request: LockRequest) -> WriteTask:
        def body(connection: sqlite3.Connection) -> bool:
            names = self._names(request.resource_id, claim=request.claim, deadline=self._deadline(request))
            return connection.execute(_RENEW, names).rowcount > 0

        return WriteTask(body, durable=False)

    def release(self, op: Operation, request: LockRequest, /) -> bool:
        return self._engine.holds() and super().release(op, request)

    async def release_async(self, op: Operation, request: LockRequest, /) -> bool:
        return self._engine.holds() and await super().release_async(op, request)

    def _releasing(self, request: LockRequest, *, queued: bool = False) -> WriteTask:
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

    def _unlocking(self, resource_id: str, holder: str | int) -> WriteTask:
        def body(connection: sqlite3.Connection) -> UnlockStatus:
            names = self._names(resource_id)
            task.channels = ()
            row = connection.execute(_OWNED, names).fetchone()
            if row is None:
                return UnlockStatus.NOT_FOUND
            if holder not in row:
                return UnlockStatus.NOT_OWNER
            task.channels = self._freed(connection, names)
            return UnlockStatus.SUCCESS

        task = WriteTask(body, durable=False)
        return task

    def locks(self, op: Operation, prefix: str, limit: int, /) -> Sequence[LockInfo]:
        from .._inventory import list_locks
        from .portable import DatabaseTables

        return list_locks(DatabaseTables(self._component), op, self._name, prefix, limit)

    def _freed(self, connection: sqlite3.Connection, names: Mapping[str, Any]) -> tuple[str, ...]:
        """Free a lock; returns the channels to notify. While others wait, the row tells since when it is free."""
        channels = _head(connection, names)
        connection.execute(_FREE if channels else _DELETE, names)
        return channels


def _head(connection: sqlite3.Connection, names: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the channel of the next waiter, if there is one."""
    ticket = connection.execute(_HEAD, names).fetchone()[0]
    return () if ticket is None else (f"lock-{ticket}",)
