"""Locks on Redis: a hash per lock, a sorted set of its waiters, one counter for all tokens of a store.

*Lease.* A lock holds until its deadline by the server's clock, whatever becomes of the connection that took it. Row and queue stay for a minute longer, so that waiters know since when it is free. Then Redis drops them.

*Token.* It is the server's microseconds since 1970, or one more than the last token where the clock is behind that. So tokens grow over a counter that was lost, with the last second of an append-only file or in a failover.

*Queue.* A waiter's number in the sorted set is made in the same way; see `QueuedLock`. A release notifies the first two, in case the first died. One script takes the lock or gives a place, in one round trip. Asked twice by the same claim it answers twice, so a try whose answer was lost is repeated.

*What comes late.* A server that hung may run a command whose caller gave up long ago. So giving up leaves a mark for `_LATE_MS`, and a claim with a mark gets nothing.

Each script notifies before it writes: a user who may not publish changes nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from operator import itemgetter
from time import monotonic
from typing import Any, Final

from ...errors import DeadlineExceededError, UnavailableError
from ...schedule.times import from_ms
from ...spi.inventory import LockInfo
from ...spi.lock import LockRequest, UnlockStatus
from ...spi.operation import Operation
from .._lock import FORGET_MS, TURN, Ask, QueuedLock, QueueEntry, trying
from .._net.notify import Waiter
from .._unreadable import read_entries
from . import RedisComponent
from .engine import Script
from .failures import checked
from .resp import Batch, Flow
from .scanning import pages, scan

_LATE_MS: Final = 60_000
_AWAY: Final = 15.0
"""Seconds for which a waiter outlives a server that cannot be reached."""
_STATUS: Final = (UnlockStatus.NOT_FOUND, UnlockStatus.NOT_OWNER, UnlockStatus.SUCCESS)

# KEYS of all: lock, queue. A lock: owner, claim, token, deadline and since when (milliseconds since 1970 UTC)
_COMMON: Final = f"""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
local function number(last) return text(math.max((tonumber(last) or 0) + 1, time[1] * 1000000 + time[2])) end
local row = redis.call('HMGET', KEYS[1], 'o', 'c', 't', 'd', 's')
local claim, deadline = row[2], tonumber(row[4])
local lasts = deadline and deadline > now
local function keep(till, ...)
  redis.call('HSET', KEYS[1], 'd', text(till), ...)
  redis.call('PEXPIREAT', KEYS[1], text(till + {FORGET_MS}))
  redis.call('PEXPIREAT', KEYS[2], text(till + {FORGET_MS}))
end
local function notify(channel, except)
  local count = 0
  for _, each in ipairs(redis.call('ZRANGE', KEYS[2], 0, 2)) do
    if each ~= except and count < 2 then
      redis.call('PUBLISH', channel .. each, '')
      count = count + 1
    end
  end
  return count
end
local function free(waiters)
  if waiters > 0 then keep(math.min(deadline, now)) else redis.call('DEL', KEYS[1]) end
end
"""
# KEYS behind those: token, mark. ARGV: claim, owner, milliseconds, whether it waits, ticket or "".
# The clock's milliseconds are rounded down, the end of a lease up
_ACQUIRE: Final = Script(f"""{_COMMON}
local mine, owner, expiry, wait, ticket = unpack(ARGV)
if redis.call('EXISTS', KEYS[4]) == 1 then return {{false, {TURN}, '0'}} end
if claim ~= mine or not lasts then
  local ahead
  if ticket == '' then
    ahead = redis.call('ZCARD', KEYS[2])
  else
    ahead = redis.call('ZCOUNT', KEYS[2], '-inf', '(' .. ticket)
  end
  local pause = deadline and deadline + {TURN} * ahead - now or 0
  if pause > 0 then
    if wait == '1' then
      if ticket == '' then ticket = number(redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]) end
      if redis.call('ZADD', KEYS[2], 'NX', ticket, mine) == 1 then
        redis.call('PEXPIREAT', KEYS[2], text(deadline + {FORGET_MS}))
      end
      ticket = text(redis.call('ZSCORE', KEYS[2], mine))
    end
    return {{false, pause, ticket}}
  end
  row[3] = number(redis.call('GET', KEYS[3]))
  redis.call('SET', KEYS[3], row[3])
  row[5] = text(now)
  if ahead > 0 or ticket ~= '' then
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ticket == '' and '+inf' or ticket)
  end
end
keep(now + expiry + 1, 'o', owner, 'c', mine, 't', row[3], 's', row[5] or text(now))
return {{row[3], 0, ticket}}
""")
# ARGV: claim, milliseconds
_RENEW: Final = Script(f"""{_COMMON}
if claim ~= ARGV[1] or not lasts then return 0 end
keep(math.max(deadline, now + ARGV[2] + 1))
return 1
""")
# KEY behind those: mark. ARGV: claim, what its channel begins with, whether to leave the queue and a mark.
# One that leaves the queue was perhaps next
_RELEASE: Final = Script(f"""{_COMMON}
local mine = claim == ARGV[1]
local waiters = (mine or not lasts) and notify(ARGV[2], ARGV[1]) or 0
if ARGV[3] == '1' then
  redis.call('SET', KEYS[3], '', 'PX', {_LATE_MS})
  redis.call('ZREM', KEYS[2], ARGV[1])
end
if mine then free(waiters) end
return mine and lasts and 1 or 0
""")
# ARGV: owner or token, what channels begin with, which of them it is
_UNLOCK: Final = Script(f"""{_COMMON}
if not lasts then return 0 end
if row[tonumber(ARGV[3])] ~= ARGV[1] then return 1 end
free(notify(ARGV[2]))
return 2
""")


class RedisLock(QueuedLock):
    """Lock store: keys with one hash tag."""

    _component: RedisComponent

    def __init__(self, component: RedisComponent, name: str) -> None:
        super().__init__(component, name)
        self._tokens = component.key("lock", name, "token")
        # claims of which a try was cut off before they were had
        self._late: set[str] = set()

    def _keys(self, resource_id: str) -> tuple[bytes, bytes]:
        key = self._component.key
        return key("lock", self._name, "l", resource_id), key("lock", self._name, "q", resource_id)

    def _mark(self, request: LockRequest) -> bytes:
        return self._component.key("lock", self._name, "m", request.claim)

    def _release_in_background(self, request: LockRequest, *, queued: bool) -> None:
        self._late.discard(request.claim)
        self._component.in_background(lambda: self._release(request, True))

    def _subscribe(self, request: LockRequest, entry: QueueEntry) -> Waiter:
        return self._component.engine.notifier.subscribe(f"lock-{request.claim}")

    def _channels(self) -> bytes:
        return self._component.engine.notifier.name("lock-")

    # -- acquiring --------------------------------------------------------

    def _try(
        self, op: Operation, request: LockRequest, wait: bool, entry: QueueEntry
    ) -> Generator[Ask, Any, tuple[int | None, float]]:
        asked = entry.asked
        entry.asked, entry.queued, entry.since = True, wait, request.now()
        ticket = "" if entry.ticket is None else entry.ticket
        flow = _ACQUIRE.run(
            (*self._keys(request.resource_id), self._tokens, self._mark(request)),
            *(request.claim, request.owner, request.expiry_ms, int(wait), ticket),
        )
        try:
            token, pause, ticket = yield trying(op) if wait else op, flow
        except (UnavailableError, DeadlineExceededError) as error:
            if not entry.queued or not entry.seen or monotonic() > entry.heard + _AWAY:
                raise
            entry.asked = asked or error.maybe_applied
            self._late.add(request.claim)
            return None, _AWAY
        entry.seen, entry.heard = True, monotonic()
        if token is not None:
            return int(token), 0.0
        entry.asked = False
        entry.ticket = int(ticket) if wait else None
        return None, pause / 1000

    # -- renewing and releasing -------------------------------------------

    def _renewing(self, request: LockRequest) -> Flow[bool]:
        return _RENEW.run(self._keys(request.resource_id), request.claim, request.expiry_ms)

    def _releasing(self, request: LockRequest, *, queued: bool = False) -> Flow[bool]:
        late = request.claim in self._late
        self._late.discard(request.claim)
        return self._release(request, queued or late)

    def _release(self, request: LockRequest, marked: bool) -> Flow[bool]:
        keys = (*self._keys(request.resource_id), self._mark(request))
        return _RELEASE.run(keys, request.claim, self._channels(), int(marked))

    def _unlocking(self, resource_id: str, holder: str | int) -> Flow[UnlockStatus]:
        field = 3 if isinstance(holder, int) else 1
        return _STATUS[(yield from _UNLOCK.run(self._keys(resource_id), holder, self._channels(), field))]

    # -- looking ----------------------------------------------------------

    def locks(self, op: Operation, prefix: str, limit: int, /) -> list[LockInfo]:
        return self._component.engine.run(op, self._locks(prefix, limit))

    def _locks(self, prefix: str, limit: int) -> Flow[list[LockInfo]]:
        head = self._keys("")[0]
        ends = yield from scan(head + prefix.encode())
        found: list[LockInfo] = []
        for some in pages(sorted(prefix + end.decode(errors="replace") for end in ends)):
            keys = map(self._keys, some)
            asked = [each for lock, queue in keys for each in (("HMGET", lock, *"otds"), ("ZCARD", queue))]
            time, *rows = yield Batch(("TIME",), *asked, key=head)
            now = int(checked([time])[0][0]) * 1000
            told = zip(some, rows[::2], rows[1::2], strict=True)
            found += filter(None, read_entries(f"lock {self._name!r}", told, itemgetter(0), partial(_read, now)))
            if len(found) >= limit:
                break
        return found[:limit]


def _read(now: int, told: tuple[str, Any, Any]) -> LockInfo | None:
    """Return a lock of its name, its fields and how many wait; ``None``: nobody has it or wants it."""
    name, *replies = told
    (owner, token, deadline, since), waiting = checked(replies)
    if deadline is not None and int(deadline) > now:
        begun = None if since is None else from_ms(int(since))
        return LockInfo(name, owner.decode(), int(token), begun, from_ms(int(deadline)), waiting)
    return LockInfo(name, None, None, None, None, waiting) if waiting else None
