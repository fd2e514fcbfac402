"""Locks on etcd: a key for each holder and waiter, below its resource, in the order in which the keys were made.

*Lease.* Each key has a lease of the server; it goes with it, whatever becomes of its owner. Leases are whole seconds, and their ids come from the claim, so that it alone says what to renew and to release.

*Queue.* Who holds the lock is the oldest key. A waiter has a lease of a few seconds, which it renews, and watches the key before its own. When that has gone, its key gets the lease that was asked for.

*Token.* It is the microseconds since 1970 by the holder's clock, or one more than the last token where that is higher. So tokens also grow over a snapshot that was restored, which takes revisions back. The last token is in a key beside the locks, which changes in the transaction of the grant. A store has `_COUNTERS` of them: grants of as many resources need not wait for each other, and what was locked once leaves nothing.

*Strangers.* A key without a lease is none of a lock, and would hold it for ever. Whoever meets one removes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from time import monotonic, time_ns
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote
from zlib import crc32

from ...errors import DeadlineExceededError, UnavailableError
from ...schedule.times import from_ms
from ...spi.inventory import LockInfo
from ...spi.lock import LockRequest, UnlockStatus
from ...spi.operation import Operation
from .._lock import Ask, QueuedLock, QueueEntry, trying
from .._net.notify import Waiter
from .._unreadable import skip
from . import EtcdComponent
from .engine import Flow, Request, ensure, lease_of, renew, revoke
from .messages import KeyValue, changed_by, created_by, delete, put, range_of, read_range, read_txn, then, txn, under

_WAITING: Final = 5
"""Seconds that a waiter's place lasts without a renewal: as long as a crashed one delays the queue."""
_RENEW: Final = 1.5
"""Seconds after which a waiter renews its place."""
_COUNTERS: Final = 64
_TOKENS: Final = re.compile(rb"[0-9]{1,18}")
_AWAY: Final = 3.0
"""Seconds for which a waiter goes on though no server answers; its place lasts longer."""


class _Turn(NamedTuple):
    """Result of a try.

    Attributes:
        token: of the lock; ``None``: another has it.
        asked: what the holder's clock said before its lease was asked for.
        revision: the one that made the caller's key, 0 without one.
        ahead: the key before it.
    """

    token: int | None
    asked: float
    revision: int
    ahead: bytes


class EtcdLock(QueuedLock):
    """A lock store: the keys below its name."""

    _component: EtcdComponent

    def _prefix(self, resource_id: str) -> bytes:
        return self._component.key("lock", self._name, quote(resource_id, safe=""), "")

    def _key(self, request: LockRequest) -> bytes:
        return self._prefix(request.resource_id) + quote(request.claim, safe="").encode()

    def _token_key(self, request: LockRequest) -> bytes:
        return self._component.key("lock-token", self._name, str(crc32(request.resource_id.encode()) % _COUNTERS))

    def _release_in_background(self, request: LockRequest, *, queued: bool) -> None:
        self._component.in_background(lambda: self._releasing(request, queued=queued))

    def _subscribe(self, request: LockRequest, entry: QueueEntry) -> Waiter:
        return self._component.engine.notifier.subscribe(entry.channel)

    # -- acquiring --------------------------------------------------------

    def _try(
        self, op: Operation, request: LockRequest, wait: bool, entry: QueueEntry
    ) -> Generator[Ask, Any, tuple[int | None, float]]:
        asked = entry.asked
        entry.asked, entry.queued = True, wait
        try:
            turn = yield trying(op) if wait else op, self._turn(request, wait, entry.ticket or 0)
        except (UnavailableError, DeadlineExceededError) as error:
            if not entry.seen or not wait or monotonic() > entry.heard + _AWAY:
                raise
            entry.asked = asked or error.maybe_applied
            return None, 0.5
        entry.seen, entry.heard = True, monotonic()
        if turn.token is not None:
            entry.since = turn.asked
            return turn.token, 0.0
        entry.asked, entry.ticket = False, turn.revision
        if entry.channel != (channel := turn.ahead.decode()):
            if entry.waiter is not None:
                entry.waiter.close()
            entry.channel, entry.waiter = channel, None
        return None, _RENEW

    def _turn(self, request: LockRequest, wait: bool, revision: int) -> Flow[_Turn]:
        """Take the lock if it is the caller's turn, else keep a place in the queue if it waits."""
        prefix, key = self._prefix(request.resource_id), self._key(request)
        if not revision:
            held, last = yield from self._look(request, {})
            if held is None:
                turn = yield from self._take(request, changed_by(prefix, 0, under(prefix)), last)
                if turn.token is not None:
                    return turn
            if not wait:
                return _Turn(None, 0.0, 0, b"")
            revision = yield from self._enter(request)
        elif not (yield from renew(_id(request, "waiting"))):  # it was away for too long
            revision = yield from self._enter(request)
        ahead, last = yield from self._look(request, {"created_before": revision, "newest_first": True})
        if ahead is not None:
            return _Turn(None, 0.0, revision, ahead.key)
        return (yield from self._take(request, created_by(key, revision), last))

    def _look(self, request: LockRequest, which: Mapping[str, Any]) -> Flow[tuple[KeyValue | None, KeyValue | None]]:
        """Return one of the keys of a lock, without those of strangers, and the last token."""
        prefix, token = self._prefix(request.resource_id), self._token_key(request)
        asked = [then(range_of, prefix, under(prefix), limit=1, keys_only=True, **which), then(range_of, token)]
        while True:
            done = read_txn((yield Request(txn, (), asked)))
            keys, tokens = (read_range(answer).items for answer in done.answers)
            if not keys or not (yield from self._removed(keys[0])):
                return keys[0] if keys else None, tokens[0] if tokens else None

    def _removed(self, item: KeyValue) -> Flow[bool]:
        """Remove a key that is none of a lock; ``False``: it is one."""
        if item.lease:
            return False
        skip(f"lock {self._name!r}", repr(item.key), ValueError("a key of a lock has a lease; this one is removed"))
        yield Request(txn, [changed_by(item.key, item.modified)], [then(delete, item.key)], writes=True)
        return True

    def _take(self, request: LockRequest, condition: bytes, last: KeyValue | None) -> Flow[_Turn]:
        """Give the caller's key the lease that was asked for, on a condition; 0 as place: it does not hold."""
        id, key = _id(request, "held"), self._token_key(request)
        asked = request.now()
        yield from ensure(id, -(-request.expiry_ms // 1000))
        while True:
            before = int(last.value) if last is not None and _TOKENS.fullmatch(last.value) else 0
            token = max(before + 1, time_ns() // 1000)
            seen = changed_by(key, 0 if last is None else last.modified)
            held = json.dumps({"owner": request.owner, "token": token, "since": time_ns() // 1_000_000}).encode()
            puts = [then(put, self._key(request), held, id), then(put, key, b"%d" % token)]
            done = read_txn((yield Request(txn, [condition, seen], puts, [then(range_of, key)], writes=True)))
            if done.succeeded:
                return _Turn(token, asked, 0, b"")
            items = read_range(done.answers[0]).items
            now = items[0] if items else None
            if now == last:  # so it is the condition that does not hold
                yield from revoke(id)
                return _Turn(None, 0.0, 0, b"")
            last = now  # another resource of that counter was granted meanwhile

    def _enter(self, request: LockRequest) -> Flow[int]:
        """Take a place in the queue."""
        key, id = self._key(request), _id(request, "waiting")
        yield from ensure(id, _WAITING)
        free, enters = [changed_by(key, 0)], [then(put, key, b"{}", id)]
        done = read_txn((yield Request(txn, free, enters, [then(range_of, key)], writes=True)))
        if done.succeeded:
            return done.revision
        return read_range(done.answers[0]).items[0].created

    # -- renewing and releasing -------------------------------------------

    def _renewing(self, request: LockRequest) -> Flow[bool]:
        return renew(_id(request, "held"))

    def _releasing(self, request: LockRequest, *, queued: bool = False) -> Flow[bool]:
        lasted = yield from revoke(_id(request, "held"))
        if queued:
            yield from revoke(_id(request, "waiting"))
        return lasted

    def _unlocking(self, resource_id: str, holder: str | int) -> Flow[UnlockStatus]:
        prefix = self._prefix(resource_id)
        while True:
            keys = read_range((yield Request(range_of, prefix, under(prefix)))).items
            if not keys:
                return UnlockStatus.NOT_FOUND
            first = min(keys, key=lambda item: item.created)
            if (yield from self._removed(first)):
                continue
            owner, token, _ = _held(first.value)
            if holder not in (owner, token):
                return UnlockStatus.NOT_FOUND if owner is None else UnlockStatus.NOT_OWNER
            if (yield from revoke(first.lease)):
                return UnlockStatus.SUCCESS

    # -- looking ----------------------------------------------------------

    def locks(self, op: Operation, prefix: str, limit: int, /) -> list[LockInfo]:
        return self._component.engine.run(op, self._locks(prefix, limit))

    def _locks(self, prefix: str, limit: int) -> Flow[list[LockInfo]]:
        head = self._component.key("lock", self._name, "")
        keys: dict[str, list[KeyValue]] = {}
        for item in read_range((yield Request(range_of, head, under(head)))).items:
            resource = unquote(item.key[len(head) :].partition(b"/")[0].decode(errors="replace"))
            if item.lease and resource.startswith(prefix):
                keys.setdefault(resource, []).append(item)
        found = []
        for resource, items in sorted(keys.items())[:limit]:
            owner, token, since = _held(min(items, key=lambda item: item.created).value)
            begun = None if since is None else from_ms(since)
            found.append(LockInfo(resource, owner, token, begun, None, len(items) - (owner is not None)))
        return found


def _held(value: bytes) -> tuple[str | None, int | None, int | None]:
    """Return who holds a lock by the value of its key, the token, and since when; no owner: the key is that of a waiter."""
    try:
        held = json.loads(value)
        token, since = (value if isinstance(value := held.get(name), int) else None for name in ("token", "since"))
        owner = held.get("owner")
        return owner if owner is None or isinstance(owner, str) else "", token, since
    except Exception:  # it has a lease, so somebody has the lock until that ends
        return "", None, None


def _id(request: LockRequest, kind: str) -> int:
    """Return the id of a lease of a claim."""
    return lease_of("lock", kind, request.claim)
