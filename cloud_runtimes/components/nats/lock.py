"""Locks on NATS: a key for each lock that is held, in a bucket for each store.

*Lease.* The key expires by the server's clock, whatever becomes of the holder. The server itself removes it at whole seconds; who asks for the lock sees its exact end.

A key without an end, or that is no lease at all, is a stranger's. It holds nothing, and the next holder replaces it.

*Token.* It is the number of the message of the grant. The bucket's numbers begin at the milliseconds since 1970, so tokens are also higher than those of a bucket that was removed. A renewal is another message and keeps the token.
"""

from __future__ import annotations

import json
from operator import itemgetter
from typing import NamedTuple

from ...errors import CloudRuntimesError
from ...schedule.times import from_ms
from ...spi import lock as spi
from ...spi.flow import both_apis
from ...spi.inventory import LockInfo
from ...spi.lock import Grant, LockDriver, LockRequest, UnlockStatus
from ...spi.operation import Operation, mark_interrupted
from .._net.engines import EngineDriver
from .._unreadable import read_entries, skip
from . import NatsComponent
from .buckets import Bucket
from .entries import Entry, Put, decode
from .failures import ServerError
from .requests import Flow


class _Lease(NamedTuple):
    """Lease stored under a lock's key.

    Attributes:
        sequence: current one of the key.
        owner, claim: of the holder; empty: nobody.
        token: of the grant.
        since_ms: when it was given; 0: never.
        until_ms: when it ends.
    """

    sequence: int
    owner: str
    claim: str
    token: int
    since_ms: int = 0
    until_ms: int = 0


class NatsLock(EngineDriver[NatsComponent], LockDriver):
    """Lock store in a bucket."""

    features = frozenset({spi.BREAK_LOCK, spi.LOCKS, spi.RENEW, spi.TOKEN})

    def __init__(self, component: NatsComponent, name: str) -> None:
        super().__init__(component, name)
        self._bucket = Bucket(component.engine, "lock", name)

    def _subject(self, resource_id: str) -> str:
        return self._bucket.subject("l", resource_id)

    # -- acquiring --------------------------------------------------------

    def _acquire(self, op: Operation, request: LockRequest, wait: bool, /) -> Flow[Grant | None]:
        try:
            return (yield from self._take(request))
        except BaseException as error:
            self._undo(request, error)
            raise

    acquire, acquire_async = both_apis(_acquire)

    def _take(self, request: LockRequest) -> Flow[Grant | None]:
        asked = request.now()
        token = yield from self._write(request, 0)
        if token is None:
            lease = yield from self._read(request.resource_id)
            if lease.claim == request.claim:  # one server refused it, that leads no more, and another took it
                return Grant(lease.token, asked)
            if lease.claim:
                return None
            asked = request.now()
            token = yield from self._write(request, lease.sequence)
        return None if token is None else Grant(token, asked)

    def _write(
        self, request: LockRequest, expected: int, token: int | None = None, since_ms: int | None = None
    ) -> Flow[int | None]:
        """Write the lease, for a renewal with what the grant has; returns the number of the message, ``None`` where another was faster."""
        held = {"owner": request.owner, "claim": request.claim, "token": token, "since": since_ms}
        put = Put(self._subject(request.resource_id), json.dumps(held).encode(), expected, request.expiry_ms)
        (done,) = yield from self._bucket.put([put])
        return None if isinstance(done, ServerError) else done

    def _read(self, resource_id: str) -> Flow[_Lease]:
        entry, now = yield from self._bucket.read_now(self._subject(resource_id))
        return self._lease(resource_id, entry, now)

    def _lease(self, resource_id: str, entry: Entry, now: int) -> _Lease:
        if entry.deleted or (entry.expires_ms is not None and entry.expires_ms <= now):
            return _Lease(entry.sequence, "", "", 0)
        try:
            if entry.expires_ms is None:
                raise ValueError("it never ends")
            held = json.loads(entry.data)
            token, since = held["token"] or entry.sequence, held.get("since") or entry.written_ms
            return _Lease(
                entry.sequence, held["owner"] + "", held["claim"] + "", token + 0, since + 0, entry.expires_ms
            )
        except Exception as error:  # no lease of ours, so it holds nothing
            skip(f"lock {self.name!r}", resource_id, error)
            return _Lease(entry.sequence, "", "", 0)

    # -- renewing and releasing -------------------------------------------

    def _renew(self, op: Operation, request: LockRequest, /) -> Flow[bool]:
        lease = yield from self._read(request.resource_id)
        if lease.claim != request.claim:
            return False
        return (yield from self._write(request, lease.sequence, lease.token, lease.since_ms)) is not None

    renew, renew_async = both_apis(_renew)

    def _release(self, op: Operation, request: LockRequest, /) -> Flow[bool]:
        try:
            return (yield from self._give(request))
        except BaseException as error:
            self._undo(request, error)
            raise

    release, release_async = both_apis(_release)

    def _give(self, request: LockRequest) -> Flow[bool]:
        while True:
            lease = yield from self._read(request.resource_id)
            if lease.claim != request.claim:
                return False
            if (yield from self._free(request.resource_id, lease)):
                return True

    def _free(self, resource_id: str, lease: _Lease) -> Flow[bool]:
        (done,) = yield from self._bucket.put([Put(self._subject(resource_id), None, lease.sequence)])
        return not isinstance(done, ServerError)

    def _unlock(self, op: Operation, resource_id: str, holder: str | int, /) -> Flow[UnlockStatus]:
        while True:
            lease = yield from self._read(resource_id)
            if not lease.claim:
                return UnlockStatus.NOT_FOUND
            if holder not in (lease.owner, lease.token):
                return UnlockStatus.NOT_OWNER
            if (yield from self._free(resource_id, lease)):
                return UnlockStatus.SUCCESS

    unlock, unlock_async = both_apis(_unlock)
    break_lock, break_lock_async = both_apis(_unlock)

    # -- looking ----------------------------------------------------------

    def _locks(self, op: Operation, prefix: str, limit: int, /) -> Flow[list[LockInfo]]:
        now, entries = yield from self._bucket.since(f"{self._bucket.root}l.*", 0)

        def read(item: tuple[str, Entry]) -> LockInfo | None:
            resource_id = decode(item[0].rpartition(".")[2])
            lease = self._lease(resource_id, item[1], now)
            if not lease.claim or not resource_id.startswith(prefix):
                return None
            times = from_ms(lease.since_ms), from_ms(lease.until_ms)
            return LockInfo(resource_id, lease.owner, lease.token, *times, None)

        locks = filter(None, read_entries(f"lock {self.name!r}", entries, itemgetter(0), read))
        return sorted(locks, key=lambda each: each.resource_id)[:limit]

    locks, locks_async = both_apis(_locks)

    # -- in the background ------------------------------------------------

    def _undo(self, request: LockRequest, error: BaseException) -> None:
        """Release in the background what may have been taken, or was to be released."""
        if isinstance(error, CloudRuntimesError) and not error.maybe_applied:
            return
        self.component.in_background(lambda: self._give(request))
        if not isinstance(error, Exception):
            mark_interrupted(error, True)
