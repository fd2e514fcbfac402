"""``client.admin`` on Redis: scripts remove dead letters and deliver them again, purge topics, move groups, and delete both.

An entry is removed with its delivery again by one script, so of all who want that one does it. A redriven event lies in the group's second stream, where ``past`` marks it: it is no event of a place in the topic, so moving the group leaves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from math import inf
from typing import Any, Final

from ...errors import ConflictError
from ...spi.admin import Position, Target
from ...spi.broker.in_flight import Held
from ...spi.broker.mending import BACK, group_is_gone, has_members, sent_back
from ...spi.broker.policy import LATEST, DeliveryHistory
from ...spi.broker.redelivery import REDRIVEN, write_history
from ...spi.broker.showing import Shown, milliseconds
from ...spi.events import EventRecord
from ...spi.operation import Operation
from ...spi.pubsub import Delivery
from .admin import DIGITS, PAGE, RedisAdmin, as_entry
from .engine import Script
from .entries import RETRY, STREAM, id_before, take_in
from .failures import checked
from .resp import Batch, Flow, Value
from .streams import COMMON, GroupKeys, count

_MEMBER_S: Final = 60
"""Seconds after which a member that was killed is none any more; it calls the server at least twice as often."""

# KEYS: stream of dead letters, then for each target its topic, and where its events go. ARGV: how many targets, the group of
# each ('' is all); then for each entry: its id, what is left of it and the first topic of that, how many events go, and
# target and data of each, unless there are no targets. Returns how many went, or -1 for the first target whose group is
# gone, -2 for the second
_REMOVE: Final = Script(COMMON + """
local targets, total, held = tonumber(ARGV[1]), 0, {}
for i = 1, targets do
  local group = ARGV[1 + i]
  if group ~= '' and not (groups(KEYS[2 * i])[group] and groups(KEYS[2 * i + 1])[group]) then return -i end
end
for name, group in pairs(groups(KEYS[1])) do
  if group.pending > 0 then held[#held + 1] = name end
end
local from = targets + 2
while from <= #ARGV do
  local id, count = ARGV[from], tonumber(ARGV[from + 3])
  local last = from + 3 + (targets > 0 and 2 * count or 0)
  if redis.call('XDEL', KEYS[1], id) == 1 then
    total = total + count
    for _, name in ipairs(held) do redis.call('XACK', KEYS[1], name, id) end
    if ARGV[from + 1] ~= '' then append(KEYS[1], '', '', ARGV[from + 1], ARGV[from + 2]) end
    for i = from + 4, last, 2 do
      local target = tonumber(ARGV[i])
      append(KEYS[2 * target + 1], ARGV[1 + target] ~= '' and 'BACK' or '', '', ARGV[i + 1])
    end
  end
  from = last + 1
end
return total
""".replace("BACK", write_history(0, BACK)))
# KEYS: retry, later. ARGV: group, then for each message: 1 or 2 for where it is, its id or member, and what is left of it:
# past, data and how many events
_FORGET: Final = Script(COMMON + """
for i = 2, #ARGV, 5 do
  local id, past, rest = ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if ARGV[i] == '1' then
    redis.call('XACK', KEYS[1], ARGV[1], id)
    if redis.call('XDEL', KEYS[1], id) == 1 and rest ~= '' then append(KEYS[1], past, '', rest, nil, tonumber(ARGV[i + 4])) end
  else
    local due = redis.call('ZSCORE', KEYS[2], id)
    if redis.call('ZREM', KEYS[2], id) == 1 and rest ~= '' then later(KEYS[2], tonumber(due), past, '', rest) end
  end
end
return 0
""")
_RELEASE: Final = """
local function release(stream, group, last)
  repeat
    local pending = redis.call('XPENDING', stream, group, '-', last, 1000)
    for _, each in ipairs(pending) do redis.call('XACK', stream, group, each[1]) end
  until #pending == 0
end
"""
# KEYS: a stream. ARGV: the last id that goes and the first that stays; none: all go. Returns how many went
_PURGE: Final = Script(COMMON + _RELEASE + """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local last = fields(redis.call('XINFO', 'STREAM', KEYS[1]))['last-generated-id']
if ARGV[1] and earlier(ARGV[1], last) then last = ARGV[1] end
for name, group in pairs(groups(KEYS[1])) do
  release(KEYS[1], name, last)
  if earlier(group['last-delivered-id'], last) then redis.call('XGROUP', 'SETID', KEYS[1], name, last) end
end
if ARGV[1] then return redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2]) end
return redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
""")
# KEYS: stream, retry, later, parts, members. ARGV: group, the id that it has read last then. Nothing held is settled any
# more, and nothing comes again, but for redriven events. Returns 1, the members of a group with an order, or nothing
_SEEK: Final = Script(COMMON + _RELEASE + """
if not groups(KEYS[1])[ARGV[1]] then return false end
local parts = redis.call('HGET', KEYS[4], 'count')
local live = redis.call('ZRANGEBYSCORE', KEYS[5], now, '+inf')
if #live > 0 then return live end
release(KEYS[1], ARGV[1], '+')
redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], ARGV[2])
if parts then
  redis.call('DEL', KEYS[4])
  redis.call('HSET', KEYS[4], 'count', parts, 'start', groups(KEYS[1])[ARGV[1]]['last-delivered-id'])
end
local from = '-'
repeat
  local entries = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', 1000)
  for _, entry in ipairs(entries) do
    from = '(' .. entry[1]
    local past = fields(entry[2]).past
    if past and string.sub(past, 1, 1) ~= 'REDRIVEN' then
      redis.call('XACK', KEYS[2], ARGV[1], entry[1])
      redis.call('XDEL', KEYS[2], entry[1])
    end
  end
until #entries < 1000
for _, member in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  if string.sub(member, 23, 23) ~= 'REDRIVEN' then redis.call('ZREM', KEYS[3], member) end
end
redis.call('XADD', KEYS[2], 'NOMKSTREAM', '*', 'bell', '1')
return 1
""".replace("REDRIVEN", REDRIVEN))
# KEYS: stream, seen, delayed. ARGV: what the keys of the groups begin with (three) and end with, those paused, milliseconds after which a
# member is none, whether to do it, and the groups; none: the topic with all. Returns how many entries there are, a group and
# its members where it has some, or nothing where there is no such group or topic
_DELETE: Final = Script(COMMON + """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local there, keys, names = groups(KEYS[1]), {unpack(ARGV, 1, 5)}, {unpack(ARGV, 8)}
if #names == 0 then for name in pairs(there) do names[#names + 1] = name end end
for _, name in ipairs(names) do
  if not there[name] then return false end
  local its = own(keys, name)
  local found = {name, unpack(redis.call('ZRANGEBYSCORE', its.members, now, '+inf'))}
  for _, each in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], name)) do
    local member = fields(each)
    if member.idle < tonumber(ARGV[6]) then found[#found + 1] = member.name end
  end
  if #found > 1 then return found end
end
local count = redis.call('XLEN', KEYS[1])
if ARGV[7] == '0' then return count end
for _, name in ipairs(names) do destroy(KEYS[1], KEYS[2], keys, name) end
if not ARGV[8] then redis.call('DEL', KEYS[1], KEYS[2], KEYS[3]) end
return count
""")


class RedisMender(RedisAdmin):
    """The topics of a pub/sub name, and what mends them."""

    def remove(self, op: Operation, topic: str, letters: Sequence[Delivery], to: Target | None, /) -> int:
        return self._engine.run(op, self._remove(topic, letters, to))

    def _remove(self, topic: str, letters: Sequence[Delivery], to: Target | None) -> Flow[int]:
        stream = self._driver.keys(topic).stream
        picked: dict[bytes, dict[int, EventRecord]] = {}
        for record, (id, index), *_ in letters:
            picked.setdefault(id, {})[index] = record
        replies = checked((yield Batch(*(("XRANGE", stream, id, id) for id in picked), key=stream)))
        targets: dict[tuple[str, str], int] = {}
        messages: list[Value] = []
        for (id, records), entries in zip(picked.items(), replies, strict=True):
            for held in _held(topic, STREAM, entries):
                left = [index for index in range(held.length) if index not in records]
                rest = (held.frame.select(left), held.frame.topic) if left else (b"", b"")
                messages += (id, *rest, len(records))
                for target, frame in [sent_back(record, to) for record in records.values()] if to else ():
                    data = frame if target[1] else self._driver.letters(frame)[0]
                    messages += (targets.setdefault(target, len(targets) + 1), data)
        places = [each for target in targets for each in self._places(*target)]
        groups = [group for _, group in targets]
        removed: int = yield from _REMOVE.run((stream, *places), len(targets), *groups, *messages)
        if removed < 0:
            raise group_is_gone(self._driver.name, *list(targets)[-removed - 1])
        ids = {(record.id, record.extensions.get("dlgroup")) for record, *_ in letters}
        for name in (yield from self._names(topic)) if removed else ():
            yield from self._forget(topic, name, lambda event, _: (event.id, event.extensions.get("dlgroup")) in ids)
        return removed

    def _places(self, topic: str, group: str) -> tuple[bytes, bytes]:
        """Return the stream of a topic, and that of what goes to one group of it or to all."""
        keys = self._driver.keys(topic)
        return keys.stream, GroupKeys.of(keys, group).retry if group else keys.stream

    def purge(self, op: Operation, topic: str, before: datetime | None, dry_run: bool, /) -> int:
        return self._engine.run(op, self._purge(topic, None if before is None else milliseconds(before), dry_run))

    def _purge(self, topic: str, limit: int | None, dry_run: bool) -> Flow[int]:
        stream = self._driver.keys(topic).stream
        if dry_run:
            return (yield from count(stream, "0-0", end="+" if limit is None else f"({limit}-0"))
        ends: list[Value] = [] if limit is None else [id_before(limit), f"{limit}-0"]
        purged: int = yield from _PURGE.run((stream,), *ends)
        until = inf if limit is None else limit * 1000
        for name in (yield from self._names(topic)):
            yield from self._forget(topic, name, lambda event, history: event.time_us < until and not history.redriven)
        return purged

    def _forget(self, topic: str, group: str, goes: Callable[[EventRecord, DeliveryHistory], bool]) -> Flow[None]:
        """Remove some of the events that come again for a group."""
        own = GroupKeys.of(self._driver.keys(topic), group)
        begin, rank, again, later = b"-", 0, [b""], [b""]
        while again or later:
            soon = ("XRANGE", own.retry, begin, "+", "COUNT", PAGE)
            again, later = checked((yield Batch(soon, ("ZRANGE", own.later, rank, rank + PAGE - 1))))
            begin, rank = b"(" + again[-1][0] if again else begin, rank + len(later)
            places = {id: (1, id) for id, _ in again} | {member[:DIGITS]: (2, member) for member in later}
            changes: list[Value] = []
            for held in _held(topic, RETRY, [*again, *map(as_entry, later)]):
                left = [index for index in range(held.length) if not goes(held.frame[index], held.history)]
                if len(left) < held.length:
                    where, id = places[held.tokens[0]]
                    past = write_history(held.deliveries, held.history)
                    changes += (where, id, past, held.select(left) if left else b"", len(left))
                    rank -= where == 2
            if changes:
                yield from _FORGET.run((own.retry, own.later), group, *changes)

    def seek(self, op: Operation, topic: str, group: str, to: Position, /) -> bool:
        begins = milliseconds(to) if isinstance(to, datetime) else {"earliest": None, "latest": LATEST}[to]
        keys = self._driver.keys(topic)
        names = (keys.stream, *GroupKeys.of(keys, group))
        reply = self._engine.run(op, _SEEK.run(names, group, id_before(begins)))
        if isinstance(reply, list):
            raise self._in_use(topic, group, reply)
        return reply is not None

    def delete_group(self, op: Operation, topic: str, group: str, dry_run: bool, /) -> int | None:
        lag = self._driver.lag(op, topic, group)
        return None if self._delete(op, topic, dry_run, group) is None else lag

    def delete_topic(self, op: Operation, topic: str, dry_run: bool, /) -> int | None:
        return self._delete(op, topic, dry_run)

    def _delete(self, op: Operation, topic: str, dry_run: bool, *groups: str) -> int | None:
        keys = self._driver.keys(topic)
        arguments: list[Value] = [*keys.of_groups, _MEMBER_S * 1000, int(not dry_run), *groups]
        reply = self._engine.run(op, _DELETE.run((keys.stream, keys.seen, keys.delayed), *arguments))
        if isinstance(reply, list):
            raise self._in_use(topic, reply[0].decode(), reply[1:])
        return None if reply is None else int(reply)

    def _in_use(self, topic: str, group: str, members: Sequence[bytes]) -> ConflictError:
        return has_members(self._driver.name, topic, group, [member.decode() for member in members], _MEMBER_S)


def _held(topic: str, origin: int, entries: Sequence[Any]) -> Iterable[Held]:
    """Return the messages of entries, with their deliveries so far."""
    shown = Shown(topic)
    take_in(shown, origin, entries, 0)
    return shown.held
