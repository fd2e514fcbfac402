"""Locks on SQLite: one row per lock, one per waiter, one counter for all tokens of the file.

*Lease.* A row of ``locks`` holds until its deadline, in milliseconds of CLOCK_BOOTTIME, which every process of the machine shares and no clock step moves; after another boot it has ended.

*Token.* One counter for the whole file, raised in the transaction of the grant, so it outlives rows and may leave gaps. It is at least the wall clock's milliseconds, so it outlives the file too: where that was removed or put back from a copy, new tokens are still higher than those given before. A grant is always synced, whatever the durability: a token that came again after a power cut would fence nothing. Renewals and releases need no sync, since after a power cut all leases have ended.

*Line.* Who waits has a numbered row in ``lock_line`` and is served in that order; the head of the line alone is rung when the lock becomes free. A lock that has been free for a while means that the head has died: whoever is n-th may take it n times `_TURN` after it became free, and so may one who does not wait, after all of them. One that was skipped alive, having been too slow, comes back with its old number. So the dead cost a moment each, once, and nobody writes only to show that he lives.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..._core.os_errors import explain_os_error
from ...errors import CloudRuntimesError
from ...spi import lock as spi
from ...spi.flow import run_sync
from ...spi.lock import Grant, LockDriver, LockRequest, UnlockStatus
from ...spi.operation import Operation, mark_interrupted
from .bell import Waiter
from .job import Job

if TYPE_CHECKING:
    from . import SqliteComponent
    from .engine import Engine

__all__ = ["SqliteLock", "sweep_locks"]

_TURN: Final = 500
"""Milliseconds that who is next has to take a free lock before the one behind may."""
_LOOK_EVERY: Final = 0.25
"""Seconds after which a waiter looks by itself: sooner than `_TURN`, so that a lost ring does not cost its place."""
_FORGET: Final = 60_000
"""Milliseconds after which an expired lock leaves no trace."""

# the lock's deadline (none: free, and nobody remembers since when), how many wait before, whether this waiter is in the line
_LOOK: Final = """
SELECT
  (SELECT deadline FROM locks WHERE store = :store AND resource = :resource AND boot = :boot),
  (SELECT count(*) FROM lock_line WHERE store = :store AND resource = :resource AND boot = :boot AND id < :ticket),
  EXISTS (SELECT 1 FROM lock_line WHERE id = :ticket)
"""
_EVERY: Final = 2**63 - 1
"""The ticket of one who is not in the line: behind all."""
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
_OLD: Final = "boot <> :boot OR deadline <= :old"
_ORPHANS: Final = (
    "boot <> :boot OR NOT EXISTS (SELECT 1 FROM locks l WHERE l.store = lock_line.store AND l.resource = lock_line.resource)"
)


class SqliteLock(LockDriver):
    """One store: a namespace in the table of locks."""

    features = frozenset({spi.FAIR, spi.RENEW, spi.TOKEN})

    def __init__(self, component: SqliteComponent, name: str) -> None:
        self._component = component
        self._engine: Engine = component.engine
        self._name = name

    # -- acquiring --------------------------------------------------------

    def acquire(self, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        return run_sync(self._acquire(op, request, wait, _Waits(self._engine)))

    async def acquire_async(self, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        return await self._acquire(op, request, wait, _Awaits(self._engine))

    async def _acquire(self, op: Operation, request: LockRequest, wait: bool, face: _Waits) -> Grant | None:
        """Take the lock, first waiting in the line if need be; written once for both faces."""
        self._component.sweeping()
        waiting = _Waiting()
        try:
            try:
                return await self._take_turn(op, request, wait, face, waiting)
            finally:
                waiting.unhang()
        except BaseException as error:  # also one that comes while the bell is taken down
            if isinstance(error, Exception):
                applied = not isinstance(error, CloudRuntimesError) or error.maybe_applied
            else:
                applied = True
                if not waiting.asked:
                    mark_interrupted(error, False)  # it was only waiting
            if applied or waiting.queued:
                self._undo(request, waiting)
            raise

    async def _take_turn(
        self, op: Operation, request: LockRequest, wait: bool, face: _Waits, waiting: _Waiting
    ) -> Grant | None:
        while True:
            names = self._names(request.resource_id, ticket=waiting.ticket or _EVERY)
            deadline, ahead, queued = (await face.query(op, _LOOK, names))[0]
            pause = self._pause(deadline, ahead)
            if pause <= 0:
                asked = request.now()
                waiting.asked = True
                waiting.queued = waiting.queued or wait
                token, ticket = await face.run(op, self._taking(request, waiting.ticket, wait))
                if token is not None:
                    return Grant(token, asked, self._engine.holds)
                waiting.asked = False
                if ticket is not None:  # others were faster: in line behind them
                    waiting.ticket = ticket
                    waiting.hang(self._engine)
            elif not wait:
                return None
            elif not queued:
                waiting.queued = True
                waiting.ticket = await face.run(op, self._queueing(request, waiting.ticket))
                waiting.hang(self._engine)
            else:
                left = op.remaining()
                if left == 0.0:
                    self._undo(request, waiting)
                    return None
                await face.wait(waiting, pause if left is None else min(pause, left))
                self._component.check_open()

    def _pause(self, deadline: int | None, ahead: int) -> float:
        """Seconds until a place in the line may take the lock if nobody before it does and nobody renews; ≤ 0: now."""
        if deadline is None:
            return 0.0
        return (deadline + ahead * _TURN - self._engine.clocks.boot_ms()) / 1000

    def _names(self, resource_id: str, **more: Any) -> dict[str, Any]:
        """Return parameters for the statements above."""
        clocks = self._engine.clocks
        return {
            "store": self._name,
            "resource": resource_id,
            "boot": clocks.boot_id(),
            "now": clocks.boot_ms(),
            **more,
        }

    def _deadline(self, request: LockRequest) -> int:
        # the clock's milliseconds are rounded down, the end of a lease up
        return self._engine.clocks.boot_ms() + request.expiry_ms + 1

    def _taking(self, request: LockRequest, ticket: int | None, wait: bool) -> Job:
        """Take the lock if it is this one's turn, or enter the line if that is wanted; the result is the token, and the place's number."""

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

        return Job(body, durable=True)

    def _queueing(self, request: LockRequest, ticket: int | None) -> Job:
        """Enter the line; the result is the place's number."""
        return Job(lambda connection: self._enter(connection, request, ticket), durable=False)

    def _enter(self, connection: sqlite3.Connection, request: LockRequest, ticket: int | None) -> int:
        """Take a place at the end of the line, or come back to one's own."""
        boot = self._engine.clocks.boot_id()
        row = connection.execute(_QUEUE, (ticket, self._name, request.resource_id, boot, request.claim))
        return ticket if ticket is not None else int(row.lastrowid or 0)

    # -- renewing and releasing -------------------------------------------

    def renew(self, op: Operation, request: LockRequest, /) -> bool:
        return self._engine.holds() and bool(self._engine.run(self._renewing(request), op))

    async def renew_async(self, op: Operation, request: LockRequest, /) -> bool:
        return self._engine.holds() and bool(await self._engine.run_async(self._renewing(request), op))

    def _renewing(self, request: LockRequest) -> Job:
        def body(connection: sqlite3.Connection) -> bool:
            names = self._names(request.resource_id, claim=request.claim, deadline=self._deadline(request))
            return connection.execute(_RENEW, names).rowcount > 0

        return Job(body, durable=False)

    def release(self, op: Operation, request: LockRequest, /) -> bool:
        try:
            return self._engine.holds() and bool(self._engine.run(self._releasing(request), op))
        except BaseException as error:
            self._complete(request, error)
            raise

    async def release_async(self, op: Operation, request: LockRequest, /) -> bool:
        try:
            return self._engine.holds() and bool(await self._engine.run_async(self._releasing(request), op))
        except BaseException as error:
            self._complete(request, error)
            raise

    def unlock(self, op: Operation, resource_id: str, owner: str, /) -> UnlockStatus:
        status: UnlockStatus = self._engine.run(self._unlocking(resource_id, owner), op)
        return status

    async def unlock_async(self, op: Operation, resource_id: str, owner: str, /) -> UnlockStatus:
        status: UnlockStatus = await self._engine.run_async(self._unlocking(resource_id, owner), op)
        return status

    def _releasing(self, request: LockRequest, *, queued: bool = False) -> Job:
        """End a lease, or what there may be of it and of a wait for it; the result tells whether it lasted until now."""

        def body(connection: sqlite3.Connection) -> bool:
            names = self._names(request.resource_id, claim=request.claim)
            job.bells = ()
            if queued:
                connection.execute(_LEAVE, names)
            row = connection.execute(_MINE, names).fetchone()
            if row is not None:
                job.bells = self._freed(connection, names)
            elif queued and not connection.execute(_OWNED, names).fetchone():
                job.bells = _head(connection, names)  # it was perhaps this one's turn
            return row is not None and row[0] > names["now"]

        job = Job(body, durable=False)
        return job

    def _unlocking(self, resource_id: str, owner: str) -> Job:
        def body(connection: sqlite3.Connection) -> UnlockStatus:
            names = self._names(resource_id)
            job.bells = ()
            row = connection.execute(_OWNED, names).fetchone()
            if row is None:
                return UnlockStatus.NOT_FOUND
            if row[0] != owner:
                return UnlockStatus.NOT_OWNER
            job.bells = self._freed(connection, names)
            return UnlockStatus.SUCCESS

        job = Job(body, durable=False)
        return job

    def _freed(self, connection: sqlite3.Connection, names: Mapping[str, Any]) -> tuple[str, ...]:
        """Free a lock; returns whom to ring. While others wait the row tells since when it is free."""
        bells = _head(connection, names)
        connection.execute(_FREE if bells else _DELETE, names)
        return bells

    # -- after errors and interrupts --------------------------------------

    def _undo(self, request: LockRequest, waiting: _Waiting) -> None:
        """Leave the line, and release what an acquire that gave up may have taken; on the writer thread, behind its write."""
        if waiting.asked or waiting.queued:
            self._submit(self._releasing(request, queued=waiting.queued))

    def _complete(self, request: LockRequest, error: BaseException) -> None:
        """Release in the background, after an interrupt or an error."""
        self._submit(self._releasing(request))
        if not isinstance(error, Exception):
            mark_interrupted(error, True)

    def _submit(self, job: Job) -> None:
        try:
            self._engine.submit(job)
        except CloudRuntimesError:  # closed: the lease expires, the place in the line lapses
            return


class _Waiting:
    """What an acquire under way has left in the store and in the wake folder."""

    def __init__(self) -> None:
        self.ticket: int | None = None
        self.asked = self.queued = False
        self.waiter: Waiter | None = None

    def hang(self, engine: Engine) -> None:
        """Hang up the bell of this place in the line, if it does not hang yet."""
        if self.waiter is None:
            try:
                self.waiter = engine.bells.waiter(f"lock-{self.ticket}")
            except OSError as error:
                raise explain_os_error(error, Path(engine.path)) from error

    def unhang(self) -> None:
        """Take it down again."""
        if self.waiter is not None:
            self.waiter.close()


class _Waits:
    """The sync face: what is awaited has been done."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def query(self, op: Operation, sql: str, names: Mapping[str, Any]) -> list[Any]:
        return self.engine.query(op, sql, names)

    async def run(self, op: Operation, job: Job) -> Any:
        return self.engine.run(job, op)

    async def wait(self, waiting: _Waiting, seconds: float) -> None:
        assert waiting.waiter is not None
        waiting.waiter.wait(min(seconds, waiting.waiter.net, _LOOK_EVERY))


class _Awaits(_Waits):
    """The async face."""

    async def query(self, op: Operation, sql: str, names: Mapping[str, Any]) -> list[Any]:
        return await self.engine.query_async(op, sql, names)

    async def run(self, op: Operation, job: Job) -> Any:
        return await self.engine.run_async(job, op)

    async def wait(self, waiting: _Waiting, seconds: float) -> None:
        assert waiting.waiter is not None
        await waiting.waiter.wait_async(min(seconds, waiting.waiter.net, _LOOK_EVERY))


def _head(connection: sqlite3.Connection, names: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the bell of who is next, if anybody waits."""
    ticket = connection.execute(_HEAD, names).fetchone()[0]
    return () if ticket is None else (f"lock-{ticket}",)


def sweep_locks(engine: Engine) -> None:
    """Drop locks that ended a while ago and the places of waiters who did not come for them."""
    clocks = engine.clocks
    names = {"boot": clocks.boot_id(), "old": clocks.boot_ms() - _FORGET}
    look = f"SELECT EXISTS (SELECT 1 FROM locks WHERE {_OLD}) OR EXISTS (SELECT 1 FROM lock_line WHERE {_ORPHANS})"
    if not engine.query(None, look, names)[0][0]:
        return

    def body(connection: sqlite3.Connection) -> None:
        connection.execute(f"DELETE FROM locks WHERE {_OLD}", names)
        connection.execute(f"DELETE FROM lock_line WHERE {_ORPHANS}", names)

    engine.submit(Job(body, durable=False))
