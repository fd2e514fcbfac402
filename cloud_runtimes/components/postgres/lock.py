"""Locks on PostgreSQL: one row per lock, one per waiter, one sequence for all tokens.

*Lease.* A row of ``locks`` holds until its deadline by the server's clock, whatever becomes of the connection that took it.

*Token.* It is drawn once the row is locked, so that a later grant has a higher one. The sequence begins at the milliseconds since 1970, so tokens are also higher than those of a schema that was dropped. A grant is always synced, whatever the durability: a token that came again after a crash would fence nothing.

*Queue.* A waiter has a numbered row in ``lock_line`` and is served in that order. A release notifies the first two. The n-th waiter may take the lock n times `_TURN` after it became free, and a caller that does not wait after all of them. So a crashed waiter delays the queue once, and live waiters need no heartbeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ...errors import CloudRuntimesError, DeadlineExceededError
from ...spi import lock as spi
from ...spi.flow import run_sync
from ...spi.lock import Grant, LockDriver, LockRequest, UnlockStatus
from ...spi.operation import Operation, mark_interrupted
from .calls import AsyncCalls, SyncCalls
from .connection import Connection, Flow
from .notifier import Waiter
from .statement import RELAXED, SYNCED, Statement

if TYPE_CHECKING:
    from . import PostgresComponent

__all__ = ["FORGET_MS", "PostgresLock"]

_TURN: Final = 500
"""Milliseconds that the next waiter has to take a free lock before the one behind it may."""
FORGET_MS: Final = 60_000
"""Milliseconds after which an expired lock leaves no trace."""
_LEAVING: Final = 1.0
"""Seconds."""
_EVERY: Final = 2**63 - 1
"""The ticket of a caller outside of the queue: behind all."""
_AT: Final = "store = $1 AND resource = $2"
_AHEAD: Final = f"(SELECT count(*) FROM {{schema}}.lock_line WHERE {_AT} AND id < $3)"

# milliseconds until this place may take the lock (none: free, and nobody remembers since when), whether it is in the queue
_LOOK: Final = Statement(
    f"SELECT (SELECT deadline - {{schema}}.now_ms() + {_TURN} * {_AHEAD} FROM {{schema}}.locks WHERE {_AT}), "
    "EXISTS (SELECT 1 FROM {schema}.lock_line WHERE id = $3)",
    "text text int8",
)
_TAKE: Final = Statement(
    "INSERT INTO {schema}.locks AS l (store, resource, owner, claim, token, deadline) VALUES ($1, $2, $4, $5, 0, 0) "
    "ON CONFLICT (store, resource) DO UPDATE SET owner = excluded.owner, claim = excluded.claim, deadline = 0 "
    f"WHERE l.deadline + {_TURN} * {_AHEAD} <= {{schema}}.now_ms()",
    "text text int8 text text",
)
# the clock's milliseconds are rounded down, the end of a lease up
_GRANT: Final = Statement(
    "UPDATE {schema}.locks SET token = nextval('{schema}.lock_token'), deadline = {schema}.now_ms() + $4 + 1 "
    f"WHERE {_AT} AND claim = $3 AND deadline = 0 RETURNING token",
    "text text text int8",
)
_SERVED: Final = Statement(
    f"DELETE FROM {{schema}}.lock_line WHERE {_AT} AND id <= $3 "
    f"AND EXISTS (SELECT 1 FROM {{schema}}.locks WHERE {_AT} AND claim = $4)",
    "text text int8 text",
)
_QUEUE: Final = Statement(
    "INSERT INTO {schema}.lock_line (store, resource, claim) SELECT $1, $2, $3 "
    f"WHERE NOT EXISTS (SELECT 1 FROM {{schema}}.locks WHERE {_AT} AND claim = $3) RETURNING id",
    "text text text",
)
_RETURN: Final = Statement(
    "INSERT INTO {schema}.lock_line (id, store, resource, claim) VALUES ($3, $1, $2, $4) ON CONFLICT DO NOTHING",
    "text text int8 text",
)
_LEAVE: Final = Statement(f"DELETE FROM {{schema}}.lock_line WHERE {_AT} AND claim = $3", "text text text")
_RENEW: Final = Statement(
    "UPDATE {schema}.locks SET deadline = greatest(deadline, {schema}.now_ms() + $4 + 1) "
    f"WHERE {_AT} AND claim = $3 AND deadline > {{schema}}.now_ms()",
    "text text text int8",
)
# while others wait, the row tells since when the lock is free
_FREE: Final = (
    f"WITH held AS (SELECT deadline FROM {{schema}}.locks WHERE {_AT} AND {{which}} FOR UPDATE), "
    f"freed AS (UPDATE {{schema}}.locks SET deadline = least(locks.deadline, {{schema}}.now_ms()) FROM held WHERE {_AT}) "
    "SELECT held.deadline > {schema}.now_ms() FROM held"
)
_RELEASE: Final = Statement(_FREE.replace("{which}", "claim = $3"), "text text text")
_UNLOCK: Final = Statement(_FREE.replace("{which}", "owner = $3 AND deadline > {schema}.now_ms()"), "text text text")
_OWNED: Final = Statement(f"SELECT 1 FROM {{schema}}.locks WHERE {_AT} AND deadline > {{schema}}.now_ms()", "text text")
_NEXT: Final = Statement(
    "SELECT pg_notify('{schema}.lock-' || id, '') FROM "
    f"(SELECT id FROM {{schema}}.lock_line WHERE {_AT} ORDER BY id LIMIT 2) first "
    f"WHERE NOT EXISTS (SELECT 1 FROM {{schema}}.locks WHERE {_AT} AND deadline > {{schema}}.now_ms())",
    "text text",
)


class PostgresLock(LockDriver):
    """One store: a namespace in the table of locks."""

    features = frozenset({spi.FAIR, spi.RENEW, spi.TOKEN})

    def __init__(self, component: PostgresComponent, name: str) -> None:
        self._component = component
        self._name = name

    # -- acquiring --------------------------------------------------------

    def acquire(self, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        return run_sync(self._acquire(op, request, wait, SyncCalls(self._component.database, self.executor)))

    async def acquire_async(self, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        return await self._acquire(op, request, wait, AsyncCalls(self._component.database, self.executor))

    async def _acquire(self, op: Operation, request: LockRequest, wait: bool, calls: SyncCalls) -> Grant | None:
        """Take the lock, first waiting in the queue if need be; written once for both APIs."""
        place = _Place()
        try:
            return await self._wait_and_take(op, request, wait, calls, place)
        except DeadlineExceededError:
            await self._leave(op, request, place, calls)
            if place.seen and not place.asked:
                return None
            raise
        except BaseException as error:
            # a cancelled or refused acquire may have taken the lock
            if place.asked and (not isinstance(error, CloudRuntimesError) or error.maybe_applied):
                self._undo(request, place)
            else:
                await self._leave(op, request, place, calls)
            if not place.asked and not isinstance(error, Exception):
                mark_interrupted(error, False)  # it was only waiting
            raise
        finally:
            if place.waiter is not None:
                place.waiter.close()

    async def _wait_and_take(
        self, op: Operation, request: LockRequest, wait: bool, calls: SyncCalls, place: _Place
    ) -> Grant | None:
        at = (self._name, request.resource_id)
        while True:
            look = await calls.run(op, lambda connection: connection.run(_LOOK, *at, place.ticket or _EVERY))
            pause, queued = look.rows[0]
            place.seen = True
            if pause is None or pause <= 0:
                asked = request.now()
                place.asked = True
                place.queued = place.queued or wait
                token, ticket = await calls.run(
                    op, lambda connection: self._take(connection, request, place.ticket, wait)
                )
                if token is not None:
                    return Grant(token, asked, None)
                if not wait:
                    return None
                place.asked = False
                place.ticket = ticket
            elif not wait:
                return None
            elif not queued:
                place.queued = True
                place.ticket = await calls.run(op, lambda connection: self._enter(connection, request, place.ticket))
            else:
                left = op.remaining()
                if left == 0.0:
                    await self._leave(op, request, place, calls)
                    return None
                if place.waiter is not None:
                    await calls.wait(place.waiter, pause / 1000 if left is None else min(pause / 1000, left))
                self._component.check_open()
            if place.waiter is None and place.ticket is not None:
                place.waiter = calls.database.notifier.subscribe(f"lock-{place.ticket}")

    def _take(
        self, connection: Connection, request: LockRequest, ticket: int | None, wait: bool
    ) -> Flow[tuple[int | None, int | None]]:
        """Take the lock if it is free for this caller, or enter the queue if that is wanted; returns the token, and the ticket."""
        at = (self._name, request.resource_id)
        calls: list[tuple[Statement, tuple[Any, ...]]] = [
            (_TAKE, (*at, ticket or _EVERY, request.owner, request.claim)),
            (_GRANT, (*at, request.claim, request.expiry_ms)),
        ]
        if ticket is not None:
            calls.append((_SERVED, (*at, ticket, request.claim)))
        elif wait:
            calls.append((_QUEUE, (*at, request.claim)))
        synced: list[tuple[Statement, tuple[Any, ...]]] = [] if self._component.durable else [(SYNCED, ())]
        results = (yield from connection.pipeline([*synced, *calls]))[len(synced) :]
        granted = results[1].rows
        if not granted and ticket is None and wait:
            ticket = results[2].rows[0][0]
        return (granted[0][0] if granted else None), ticket

    def _enter(self, connection: Connection, request: LockRequest, ticket: int | None) -> Flow[int]:
        """Take a place at the end of the queue, or come back to the one of before."""
        at = (self._name, request.resource_id)
        if ticket is None:
            entered = yield from connection.pipeline([(RELAXED, ()), (_QUEUE, (*at, request.claim))])
            return int(entered[1].rows[0][0])
        yield from connection.pipeline([(RELAXED, ()), (_RETURN, (*at, ticket, request.claim))])
        return ticket

    # -- renewing and releasing -------------------------------------------

    def renew(self, op: Operation, request: LockRequest, /) -> bool:
        return self._component.database.run(op, lambda connection: self._renew(connection, request))

    async def renew_async(self, op: Operation, request: LockRequest, /) -> bool:
        return await self._component.database.run_async(
            op, lambda connection: self._renew(connection, request), self.executor
        )

    def _renew(self, connection: Connection, request: LockRequest) -> Flow[bool]:
        values = (self._name, request.resource_id, request.claim, request.expiry_ms)
        # durable: after a crash of the server a lease ends no earlier than its holder was told
        return (yield from connection.run(_RENEW, *values)).count > 0

    def release(self, op: Operation, request: LockRequest, /) -> bool:
        try:
            return self._component.database.run(op, lambda connection: self._release(connection, request))
        except BaseException as error:
            self._release_behind(request, error)
            raise

    async def release_async(self, op: Operation, request: LockRequest, /) -> bool:
        try:
            return await self._component.database.run_async(
                op, lambda connection: self._release(connection, request), self.executor
            )
        except BaseException as error:
            self._release_behind(request, error)
            raise

    def _release(self, connection: Connection, request: LockRequest, *, queued: bool = False) -> Flow[bool]:
        """End a lease, or what there may be of it and of a wait for it; returns whether it lasted until now."""
        at = (self._name, request.resource_id)
        calls: list[tuple[Statement, tuple[Any, ...]]] = [(RELAXED, ()), (_RELEASE, (*at, request.claim))]
        if queued:
            calls.append((_LEAVE, (*at, request.claim)))
        results = yield from connection.pipeline([*calls, (_NEXT, at)])
        return bool(results[1].rows and results[1].rows[0][0])

    def unlock(self, op: Operation, resource_id: str, owner: str, /) -> UnlockStatus:
        return self._component.database.run(op, lambda connection: self._unlock(connection, resource_id, owner))

    async def unlock_async(self, op: Operation, resource_id: str, owner: str, /) -> UnlockStatus:
        return await self._component.database.run_async(
            op, lambda connection: self._unlock(connection, resource_id, owner), self.executor
        )

    def _unlock(self, connection: Connection, resource_id: str, owner: str) -> Flow[UnlockStatus]:
        at = (self._name, resource_id)
        _, freed, owned, _ = yield from connection.pipeline(
            [(RELAXED, ()), (_UNLOCK, (*at, owner)), (_OWNED, at), (_NEXT, at)]
        )
        if freed.rows:
            return UnlockStatus.SUCCESS
        return UnlockStatus.NOT_OWNER if owned.rows else UnlockStatus.NOT_FOUND

    # -- in the background ------------------------------------------------

    async def _leave(self, op: Operation, request: LockRequest, place: _Place, calls: SyncCalls) -> None:
        """Leave the queue before the caller goes on, if that takes no longer than `_LEAVING`."""
        if not place.queued:
            return
        try:
            await calls.run(
                Operation(op.method, op.component, _LEAVING),
                lambda connection: self._release(connection, request, queued=True),
            )
        except CloudRuntimesError:
            self._undo(request, place)

    def _undo(self, request: LockRequest, place: _Place) -> None:
        """Leave the queue, and release what an acquire that gave up may have taken."""
        if place.asked or place.queued:
            self._component.behind(lambda connection: self._release(connection, request, queued=place.queued))

    def _release_behind(self, request: LockRequest, error: BaseException) -> None:
        """Release in the background after all."""
        self._component.behind(lambda connection: self._release(connection, request))
        if not isinstance(error, Exception):
            mark_interrupted(error, True)


class _Place:
    """What an acquire under way has left in the store: a place in the queue, and perhaps a lock."""

    def __init__(self) -> None:
        self.ticket: int | None = None
        self.seen = self.asked = self.queued = False
        self.waiter: Waiter | None = None
