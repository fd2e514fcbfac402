"""Locks on PostgreSQL: one row per lock, one per waiter, one sequence for all tokens.

*Lease.* A row of ``locks`` holds until its deadline by the server's clock, whatever becomes of the connection that took it.

*Token.* It is drawn once the row is locked, so that a later grant has a higher one. The sequence begins at the milliseconds since 1970, so tokens are also higher than those of a schema that was dropped. A grant is always synced, whatever the durability: a token that came again after a crash would fence nothing.

*Queue.* A waiter has a numbered row in ``lock_line``; see `QueuedLock`. A release notifies the first two, in case the first died.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Final

from ...spi.inventory import LockInfo
from ...spi.lock import LockRequest, UnlockStatus
from ...spi.operation import Operation
from .._lock import TURN, Ask, QueuedLock, QueueEntry
from . import PostgresComponent
from .connection import Connection, Flow
from .statement import RELAXED, SYNCED, Statement

if TYPE_CHECKING:
    from .._net.notify import Waiter

_EVERY: Final = 2**63 - 1
"""The ticket of a caller outside of the queue: behind all."""
_AT: Final = "store = $1 AND resource = $2"
_AHEAD: Final = f"(SELECT count(*) FROM {{schema}}.lock_line WHERE {_AT} AND id < $3)"

# milliseconds until this place may take the lock (none: free, and nobody remembers since when), whether it is in the queue
_LOOK: Final = Statement(
    f"SELECT (SELECT deadline - {{schema}}.now_ms() + {TURN} * {_AHEAD} FROM {{schema}}.locks WHERE {_AT}), "
    "EXISTS (SELECT 1 FROM {schema}.lock_line WHERE id = $3)",
    "text text int8",
)
_TAKE: Final = Statement(
    "INSERT INTO {schema}.locks AS l (store, resource, owner, claim, token, deadline) VALUES ($1, $2, $4, $5, 0, 0) "
    "ON CONFLICT (store, resource) DO UPDATE SET owner = excluded.owner, claim = excluded.claim, deadline = 0 "
    f"WHERE l.deadline + {TURN} * {_AHEAD} <= {{schema}}.now_ms()",
    "text text int8 text text",
)
# the clock's milliseconds are rounded down, the end of a lease up
_GRANT: Final = Statement(
    "UPDATE {schema}.locks SET token = nextval('{schema}.lock_token'), since = {schema}.now_ms(), deadline = {schema}.now_ms() + $4 + 1 "
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
_LASTS: Final = "deadline > {schema}.now_ms()"
_UNLOCK: Final = Statement(_FREE.replace("{which}", f"owner = $3 AND {_LASTS}"), "text text text")
_BREAK: Final = Statement(_FREE.replace("{which}", f"token = $3 AND {_LASTS}"), "text text int8")
_OWNED: Final = Statement(f"SELECT 1 FROM {{schema}}.locks WHERE {_AT} AND deadline > {{schema}}.now_ms()", "text text")
_NEXT: Final = Statement(
    "SELECT pg_notify('{schema}.lock-' || id, '') FROM "
    f"(SELECT id FROM {{schema}}.lock_line WHERE {_AT} ORDER BY id LIMIT 2) first "
    f"WHERE NOT EXISTS (SELECT 1 FROM {{schema}}.locks WHERE {_AT} AND deadline > {{schema}}.now_ms())",
    "text text",
)


class PostgresLock(QueuedLock):
    """Lock store: a namespace in the table of locks."""

    _component: PostgresComponent

    async def _run_async(self, op: Operation, work: Any) -> Any:
        return await self._component.engine.share_async(op, work, self.executor)

    def _release_in_background(self, request: LockRequest, *, queued: bool) -> None:
        # once more when the server has noticed the caller's end
        work = self._releasing(request, queued=queued)
        self._component.in_background(lambda: work, (0.0, 0.5), again=True)

    def _subscribe(self, request: LockRequest, entry: QueueEntry) -> Waiter:
        return self._component.engine.notifier.subscribe(f"lock-{entry.ticket}")

    # -- acquiring --------------------------------------------------------

    def _try(
        self, op: Operation, request: LockRequest, wait: bool, entry: QueueEntry
    ) -> Generator[Ask, Any, tuple[int | None, float]]:
        look = (self._name, request.resource_id, entry.ticket or _EVERY)
        pause, queued = (yield op, lambda connection: connection.execute(_LOOK, *look)).rows[0]
        entry.seen = True
        if pause is None or pause <= 0:
            entry.since = request.now()
            entry.asked = True
            entry.queued = entry.queued or wait
            token, ticket = yield op, lambda connection: self._take(connection, request, entry.ticket, wait)
            if token is None:
                entry.asked = False
                entry.ticket = ticket
            return token, 0.0
        if wait and not queued:
            entry.queued = True
            entry.ticket = yield op, lambda connection: self._enter(connection, request, entry.ticket)
        return None, pause / 1000

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

    def _renewing(self, request: LockRequest) -> Any:
        return lambda connection: self._renew(connection, request)

    def _renew(self, connection: Connection, request: LockRequest) -> Flow[bool]:
        values = (self._name, request.resource_id, request.claim, request.expiry_ms)
        # durable: after a crash of the server a lease ends no earlier than its holder was told
        return (yield from connection.execute(_RENEW, *values)).count > 0

    def _releasing(self, request: LockRequest, *, queued: bool = False) -> Any:
        return lambda connection: self._release(connection, request, queued=queued)

    def _release(self, connection: Connection, request: LockRequest, *, queued: bool = False) -> Flow[bool]:
        """End a lease, or what there may be of it and of a wait for it; returns whether it lasted until now."""
        at = (self._name, request.resource_id)
        calls: list[tuple[Statement, tuple[Any, ...]]] = [(RELAXED, ()), (_RELEASE, (*at, request.claim))]
        if queued:
            calls.append((_LEAVE, (*at, request.claim)))
        results = yield from connection.pipeline([*calls, (_NEXT, at)])
        return bool(results[1].rows and results[1].rows[0][0])

    def locks(self, op: Operation, prefix: str, limit: int, /) -> Sequence[LockInfo]:
        from .._inventory import list_locks
        from .portable import DatabaseTables

        return list_locks(DatabaseTables(self._component), op, self._name, prefix, limit)

    def _unlocking(self, resource_id: str, holder: str | int) -> Any:
        return lambda connection: self._unlock(connection, resource_id, holder)

    def _unlock(self, connection: Connection, resource_id: str, holder: str | int) -> Flow[UnlockStatus]:
        at, unlock = (self._name, resource_id), _BREAK if isinstance(holder, int) else _UNLOCK
        _, freed, owned, _ = yield from connection.pipeline(
            [(RELAXED, ()), (unlock, (*at, holder)), (_OWNED, at), (_NEXT, at)]
        )
        if freed.rows:
            return UnlockStatus.SUCCESS
        return UnlockStatus.NOT_OWNER if owned.rows else UnlockStatus.NOT_FOUND
