"""State on Redis: a hash per key, and the names of a store in a sorted set, in the order of their bytes. Keys of an outbox are in sets of their own, in the order of their commits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ...errors import CloudRuntimesError, PayloadError
from ...spi.flow import both_apis
from ...spi.operation import Operation
from ...spi.state import OUTBOX, StateDriver, StateWrite, StoredValue
from .._net.engines import EngineDriver
from .._state import (
    FEATURES,
    conflict,
    new_etag,
    oversized,
    parse_etag,
    passed_fence,
    read_fence,
    read_value,
    stored,
    try_value,
)
from . import RedisComponent
from .engine import Script
from .failures import checked, map_error
from .resp import Batch, Flow, ReplyError, Value

_FIELDS: Final = ("d", "c", "e", "x")
"""Of a hash: data, content type, etag, when it expires (milliseconds since 1970 UTC)."""
# KEYS: names, fences, then a value for each write. ARGV: atomic, then 8 for each write: name, whether it saves,
# data, content type, new etag, wanted etag, whether it only creates, milliseconds to live, fence; "" is none.
# Conditions are looked at before anything is written, each with the writes before it in mind.
_WRITE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local atomic, etags, fences, failed, skip = ARGV[1] == '1', {}, {}, {}, {}
local function fields(i) return 2 + (i - 1) * 9 end
local byte, numbers = string.byte, {}
-- returns the set with the name of a hidden key, and its number there; one of an outbox is above all that are left
local function hidden(name)
  local outbox = string.match(name, '^||outbox||.*||')
  if not outbox then return KEYS[1], 0 end
  local set = KEYS[1] .. outbox
  numbers[set] = numbers[set] or (redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2] or 0) + 1
  return set, numbers[set]
end
local count = #KEYS - 2
for i = 1, count do
  local key, at = KEYS[i + 2], fields(i)
  local name, wanted, fence = ARGV[at], ARGV[at + 5], ARGV[at + 8]
  if etags[key] == nil then etags[key] = redis.call('HGET', key, 'e') end
  local reason = nil
  if fence ~= '' then
    if fences[name] == nil then fences[name] = redis.call('HGET', KEYS[2], name) end
    local seen = fences[name]
    if seen and (#seen > #fence or (#seen == #fence and seen > fence)) then reason = 'f' .. seen end
  end
  if not reason and ARGV[at + 6] == '1' and etags[key] then reason = 'c' end
  if not reason and wanted ~= '' and etags[key] ~= wanted then reason = 'c' end
  if reason then
    failed[#failed + 1] = i - 1
    failed[#failed + 1] = reason
    skip[i] = true
    if atomic then return failed end
  else
    etags[key] = ARGV[at + 1] == '1' and ARGV[at + 4] or false
    if fence ~= '' then fences[name] = fence end
  end
end
for i = 1, count do
  local key, at = KEYS[i + 2], fields(i)
  if not skip[i] then
    local name = ARGV[at]
    local set, number = KEYS[1], 0
    if byte(name) == 124 then set, number = hidden(name) end
    if ARGV[at + 1] == '1' then
      local ttl = ARGV[at + 7]
      -- first, since it is refused where memory is full
      redis.call('HSET', key, 'd', ARGV[at + 2], 'c', ARGV[at + 3], 'e', ARGV[at + 4],
        'x', ttl == '' and '' or string.format('%.0f', now + tonumber(ttl)))
      if ttl == '' then redis.call('PERSIST', key)
      else redis.call('PEXPIREAT', key, string.format('%.0f', now + tonumber(ttl))) end
      redis.call('ZADD', set, number, name)
    else
      redis.call('DEL', key)
      redis.call('ZREM', set, name)
    end
    if ARGV[at + 8] ~= '' then redis.call('HSET', KEYS[2], name, ARGV[at + 8]) end
  end
end
return failed
""")
# KEYS: names, then what a value's key begins with. ARGV: from, to, how many; names that have expired go
_LIST: Final = Script("""
local found, from, want = {}, ARGV[1], tonumber(ARGV[3])
while want < 0 or #found < want do
  local names = redis.call('ZRANGE', KEYS[1], from, ARGV[2], 'BYLEX', 'LIMIT', 0, 1000)
  for _, name in ipairs(names) do
    if redis.call('EXISTS', KEYS[2] .. name) == 1 then
      found[#found + 1] = name
      if #found == want then break end
    else
      redis.call('ZREM', KEYS[1], name)
    end
  end
  if #names < 1000 then break end
  from = '(' .. names[#names]
end
return found
""")


class RedisState(EngineDriver[RedisComponent], StateDriver):
    """State store: keys with one hash tag, so that its transactions also work in a cluster."""

    features = FEATURES | {OUTBOX}
    has_order = True

    def __init__(self, component: RedisComponent, name: str) -> None:
        super().__init__(component, name)
        self._max_value = component.settings.max_value_bytes
        self._names = component.key("state", name, "names")
        self._fences = component.key("state", name, "fences")
        self._prefix = component.key("state", name, "v", "")

    def _key(self, key: str) -> bytes:
        return self._prefix + key.encode()

    # -- reading ----------------------------------------------------------

    def _get(self, op: Operation, key: str, consistency: str | None, /) -> Flow[StoredValue | None]:
        (columns,) = checked((yield Batch(("HMGET", self._key(key), *_FIELDS))))
        return read_value(self.name, key, columns, _value)

    get, get_async = both_apis(_get)

    def _get_bulk(
        self, op: Operation, keys: Sequence[str], consistency: str | None, /
    ) -> Flow[dict[str, StoredValue | CloudRuntimesError]]:
        if not keys:
            return {}
        rows = checked((yield Batch(*[("HMGET", self._key(key), *_FIELDS) for key in keys])), but="WRONGTYPE")
        values: dict[str, StoredValue | CloudRuntimesError] = {}
        for key, row in zip(keys, rows, strict=True):
            if isinstance(row, ReplyError):  # another program's key
                values[key] = map_error(self.component.engine.where, row)
            elif (value := try_value(self.name, key, row, _value)) is not None:
                values[key] = value
        return values

    get_bulk, get_bulk_async = both_apis(_get_bulk)

    def _list(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> Flow[list[str]]:
        first = b"[" + prefix.encode()
        if after is not None and after >= prefix:
            first = b"(" + after.encode()
        # no byte of UTF-8 is 0xff
        last = b"(" + prefix.encode() + b"\xff"
        names = yield from _LIST.run((self._names, self._prefix), first, last, -1 if limit is None else limit)
        return [name.decode(errors="replace") for name in names]

    list_keys, list_keys_async = both_apis(_list)

    def _oldest(
        self, op: Operation, prefix: str, limit: int, /
    ) -> Flow[list[tuple[str, StoredValue | CloudRuntimesError]]]:
        where = self._names + prefix.encode()
        while True:
            (names,) = checked((yield Batch(("ZRANGE", where, 0, limit - 1))))
            keys = [name.decode(errors="replace") for name in names]
            values = yield from self._get_bulk(op, keys, None)
            gone = [name for name, key in zip(names, keys, strict=True) if key not in values]
            if not gone:
                return list(values.items())
            checked((yield Batch(("ZREM", where, *gone))))  # deleted meanwhile, or evicted

    oldest, oldest_async = both_apis(_oldest)

    def fences(self, keys: Sequence[str] | None) -> Flow[dict[str, int]]:
        """Return the fences of keys, ``None``: of all."""
        if keys is None:
            (pairs,) = checked((yield Batch(("HGETALL", self._fences))))
            rows = [(key.decode(errors="replace"), fence) for key, fence in zip(pairs[::2], pairs[1::2], strict=True)]
            return {key: read_fence(self.name, key, fence) for key, fence in rows}
        if not keys:
            return {}
        (rows,) = checked((yield Batch(("HMGET", self._fences, *keys))))
        return {key: read_fence(self.name, key, fence) for key, fence in zip(keys, rows, strict=True) if fence}

    # -- writing ----------------------------------------------------------

    def _write(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Flow[dict[int, CloudRuntimesError]]:
        failed = oversized(self.name, writes, self._max_value, atomic)
        indexes = [index for index in range(len(writes)) if index not in failed]
        if not indexes:
            return failed
        keys: list[Value] = [self._names, self._fences]
        arguments: list[Value] = [int(atomic)]
        for index in indexes:
            write = writes[index]
            keys.append(self._key(write.key))
            arguments += (write.key, 0, "", "", "") if write.data is None else (
                write.key, 1, write.data, write.content_type or "", new_etag()
            )  # fmt: skip
            arguments += (
                "" if write.etag is None else parse_etag(write.etag),
                int(write.create),
                "" if write.ttl_ms is None else write.ttl_ms,
                "" if write.fence is None else write.fence,
            )
        reply = yield from _WRITE.run(keys, *arguments)
        for number, reason in zip(reply[::2], reply[1::2], strict=True):
            write = writes[indexes[number]]
            error = self._refused(write, reason)
            failed[indexes[number]] = error
            if atomic:
                raise error
        return failed

    write, write_async = both_apis(_write)

    def _refused(self, write: StateWrite, reason: bytes) -> CloudRuntimesError:
        """Return why the script refused a write."""
        error = conflict(self.name, write)
        if reason[:1] == b"f":
            try:
                return passed_fence(write, read_fence(self.name, write.key, reason[1:]))
            except PayloadError as unread:
                return unread
        assert error is not None
        return error


def _value(columns: list[Any]) -> StoredValue | None:
    data, content_type, etag, expires = columns
    if etag is None:
        return None
    return stored((data, content_type.decode() or None, int(etag), int(expires) if expires else None))
