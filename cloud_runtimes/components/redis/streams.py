"""The keys of a topic and of a group, and the scripts that work on them.

A topic is a stream. An entry has the field ``data``: an event as structured CloudEvents JSON, or a frame of the log; with ``datacontenttype`` it is an event without an envelope. A dead letter has its first ``topic`` too. A group of ours has a second stream, of what comes again, and a sorted set of what comes again later. An entry of the second stream has ``past``, and how many ``events`` it has unless that is one, or is a ``bell`` that has one member look what is due.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from .engine import Script
from .resp import Flow

TRIMMED: Final = 20_000
"""How many entries one call trims at most: twice those of the largest batch, so that a topic shrinks while it is published to. A server that is not told trims 10,000."""
_MOVED: Final = 1000
"""How many delayed messages one call moves."""
_COUNTED: Final = 100
"""How many entries one call counts; it reads them whole."""


class TopicKeys(NamedTuple):
    """Of a topic: its stream; what is published later, by when that is; when each of our groups was seen; counters of the pub/sub name; what the keys of its groups begin and end with; the groups that are paused."""

    stream: bytes
    delayed: bytes
    seen: bytes
    counters: bytes
    retry: bytes
    later: bytes
    parts: bytes
    end: bytes
    paused: bytes

    @classmethod
    def of(cls, key: Callable[..., bytes], topic: str) -> TopicKeys:
        """Return those of a topic; ``key`` makes keys of the pub/sub name."""
        return cls(
            key("topic", topic),
            key("delayed", topic),
            key("seen", topic),
            key("counters"),
            key("retry", ""),
            key("later", ""),
            key("parts", ""),
            b":" + topic.encode(),
            key("paused", topic),
        )

    @property
    def of_groups(self) -> tuple[bytes, ...]:
        """Beginning and end of the keys of its groups, and the groups that are paused."""
        return self.retry, self.later, self.parts, self.end, self.paused


class GroupKeys(NamedTuple):
    """Of a group: the stream of what comes again; what comes again later, by when that is. With an order: who owns its parts, and how far it is in each; its members, by when their lease ends."""

    retry: bytes
    later: bytes
    parts: bytes
    members: bytes

    @classmethod
    def of(cls, topic: TopicKeys, group: str) -> GroupKeys:
        """Return those of a group of a topic; a colon in its name would make two groups one."""
        name = group.replace("%", "%25").replace(":", "%3A").encode() + topic.end
        parts = topic.parts + name
        return cls(topic.retry + name, topic.later + name, parts, parts + b":members")


# A message that waits is a member of a sorted set: 22 digits, which keep the order of those that are due together,
# then past, content type and data, with a line feed between each.
COMMON: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stamp = string.format('%.0f', time[1] * 1000000 + time[2])
local number = 0
local function append(stream, past, kind, data, topic, events)
  local fields = {'data', data}
  if topic then fields[#fields + 1] = 'topic'; fields[#fields + 1] = topic end
  if past ~= '' then fields[#fields + 1] = 'past'; fields[#fields + 1] = past end
  if kind ~= '' then fields[#fields + 1] = 'datacontenttype'; fields[#fields + 1] = kind end
  if events and events > 1 then fields[#fields + 1] = 'events'; fields[#fields + 1] = events end
  redis.call('XADD', stream, '*', unpack(fields))
end
local function later(set, due, past, kind, data)
  number = number + 1
  redis.call('ZADD', set, string.format('%.0f', due), stamp .. string.format('%06d', number) .. past .. '\\n' .. kind .. '\\n' .. data)
end
local function move(set, stream)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', set, '-inf', now, 'LIMIT', 0, MOVED)) do
    local one = string.find(member, '\\n', 23, true)
    local two = string.find(member, '\\n', one + 1, true)
    append(stream, string.sub(member, 23, one - 1), string.sub(member, one + 1, two - 1), string.sub(member, two + 1))
    redis.call('ZREM', set, member)
  end
end
local function due(set, least)
  local first = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
  if first[2] and (least < 0 or first[2] - now < least) then least = math.max(0, first[2] - now) end
  return least
end
local function held(stream, group, id, me)
  return #redis.call('XPENDING', stream, group, id, id, 1, me) > 0
end
local function earlier(one, two)
  local a, b = tonumber(string.match(one, '^%d+')), tonumber(string.match(two, '^%d+'))
  if a ~= b then return a < b end
  return tonumber(string.match(one, '%d+$')) < tonumber(string.match(two, '%d+$'))
end
local function fields(reply)
  local found = {}
  for i = 1, #reply, 2 do found[reply[i]] = reply[i + 1] end
  return found
end
local function groups(stream)
  local found = {}
  if redis.call('EXISTS', stream) == 0 then return found end
  for _, each in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = fields(each)
    found[group.name] = group
  end
  return found
end
-- keys: what those of a group begin with (three) and end with, and those paused
local function own(keys, name)
  local its = string.gsub(string.gsub(name, '%%', '%%25'), ':', '%%3A') .. keys[4]
  return {retry = keys[1] .. its, later = keys[2] .. its, parts = keys[3] .. its, members = keys[3] .. its .. ':members'}
end
local function destroy(stream, seen, keys, name)
  local its = own(keys, name)
  -- first, since they may be on their way to another node
  redis.call('DEL', its.retry, its.later, its.parts, its.members)
  redis.call('XGROUP', 'DESTROY', stream, name)
  redis.call('HDEL', seen, name)
  redis.call('SREM', keys[5], name)
end
""".replace("MOVED", str(_MOVED))

# KEYS: stream, retry, delayed, seen, parts, members. ARGV: group, where it begins, milliseconds after which a member that
# holds nothing is forgotten, how many parts a group with an order has, the member, and its lease in milliseconds. Returns the
# time, 1 where the group was made, and whether it has an order.
JOIN: Final = Script(COMMON + """
local fresh = 0
local function make(stream, start)
  local made = redis.pcall('XGROUP', 'CREATE', stream, ARGV[1], start, 'MKSTREAM')
  if made.ok then fresh = 1 elseif not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
  for _, each in ipairs(redis.call('XINFO', 'CONSUMERS', stream, ARGV[1])) do
    local member = fields(each)
    if member.pending == 0 and member.idle > tonumber(ARGV[3]) then
      redis.call('XGROUP', 'DELCONSUMER', stream, ARGV[1], member.name)
    end
  end
end
move(KEYS[3], KEYS[1])
local failed = make(KEYS[1], ARGV[2])
if not failed and fresh == 1 then
  redis.call('DEL', KEYS[5], KEYS[6])
  for _, each in ipairs(ARGV[4] ~= '' and redis.call('XINFO', 'GROUPS', KEYS[1]) or {}) do
    local group = fields(each)
    if group.name == ARGV[1] then redis.call('HSET', KEYS[5], 'count', ARGV[4], 'start', group['last-delivered-id']) end
  end
end
failed = failed or make(KEYS[2], '0')
if failed then return failed end
redis.call('HSET', KEYS[4], ARGV[1], string.format('%.0f', now))
local ordered = redis.call('EXISTS', KEYS[5])
if (ordered == 1) == (ARGV[4] ~= '') then
  if ordered == 1 then redis.call('ZADD', KEYS[6], now + ARGV[6], ARGV[5])
  else redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], ARGV[1], ARGV[5]) end
end
return {now, fresh, ordered}
""")
# KEYS: stream, retry, delayed, later. Moves what is due; returns the time, and the milliseconds until more will be, or -1
LOOK: Final = Script(
    COMMON + "move(KEYS[3], KEYS[1]) move(KEYS[4], KEYS[2]) return {now, due(KEYS[3], due(KEYS[4], -1))}"
)
# KEYS: stream, delayed. ARGV: delay, what the keys of the retry streams begin and end with, then content type and data of
# each message
DELAY: Final = Script(COMMON + """
local at, before = now + tonumber(ARGV[1]), due(KEYS[2], -1)
for i = 4, #ARGV, 2 do later(KEYS[2], at, '', ARGV[i], ARGV[i + 1]) end
if before >= 0 and before <= tonumber(ARGV[1]) then return 0 end
for name in pairs(groups(KEYS[1])) do
  local retry = own({ARGV[2], '', '', ARGV[3]}, name).retry
  -- the retry stream may be on its way to another node: then its members look when they get there
  if redis.pcall('EXISTS', retry) == 1 then redis.pcall('XADD', retry, '*', 'bell', '1') end
end
return 0
""")
# KEYS: stream, retry, parts, members, seen, stream of dead letters, counters. ARGV: group, member, its lease in milliseconds,
# label, what (renew, survey, leave), parts to take, parts to give, how many parts have other progress, and each of these
# with its progress; then for each part of which something was not acknowledged, or was redriven: its number, what becomes
# of it (dead, drop; done: of an entry of retry), how many events, data (of done: the entry), and the first topic. Of parts
# that are another's nothing is written. Returns these, what was taken with its progress, the live members, and the owners of
# all parts
ORDER: Final = Script(COMMON + """
local count, start = unpack(redis.call('HMGET', KEYS[3], 'count', 'start'))
if not count then return redis.error_reply('NOGROUP the group has gone') end
local mine, lost, taken, owners, live = {}, {}, {}, {}, {}
for part = 0, count - 1 do
  local owner = redis.call('HGET', KEYS[3], 'owner:' .. part) or ''
  owners[part + 1], mine[tostring(part)] = owner, owner == ARGV[2]
end
local leaving = ARGV[5] == 'leave'
if leaving then redis.call('ZREM', KEYS[4], ARGV[2])
else redis.call('ZADD', KEYS[4], now + tonumber(ARGV[3]), ARGV[2]) end
local from = 9
for _ = 1, tonumber(ARGV[8]) do
  local part = ARGV[from]
  if mine[part] then redis.call('HSET', KEYS[3], 'part:' .. part, ARGV[from + 1])
  else lost[#lost + 1] = tonumber(part) end
  from = from + 2
end
while from <= #ARGV do
  local what, events = ARGV[from + 1], tonumber(ARGV[from + 2])
  if mine[ARGV[from]] then
    if what == 'dead' then append(KEYS[6], '', '', ARGV[from + 3], ARGV[from + 4]) end
    if what == 'done' then redis.call('XDEL', KEYS[2], ARGV[from + 3])
    else redis.call('HINCRBY', KEYS[7], (what == 'dead' and 'dead_lettered:' or 'dropped:') .. ARGV[4], events) end
  end
  from = from + 5
end
local function give(part, owner)
  redis.call('HSET', KEYS[3], 'owner:' .. part, owner)
  owners[part + 1] = owner
end
for part in string.gmatch(ARGV[7], '%d+') do if mine[part] then give(part, '') end end
for part in string.gmatch(ARGV[6], '%d+') do
  local owner = owners[part + 1]
  if owner == '' or owner == ARGV[2] or tonumber(redis.call('ZSCORE', KEYS[4], owner) or 0) <= now then
    give(part, ARGV[2])
    local last = ''
    if owner ~= '' and owner ~= ARGV[2] then last = fields(redis.call('XINFO', 'STREAM', KEYS[1]))['last-generated-id'] end
    taken[#taken + 1] = {tonumber(part), redis.call('HGET', KEYS[3], 'part:' .. part) or start, last}
  end
end
if leaving then
  for part = 0, count - 1 do if mine[tostring(part)] then give(part, '') end end
end
if ARGV[5] ~= 'renew' then
  local first
  for part = 0, count - 1 do
    local progress = redis.call('HGET', KEYS[3], 'part:' .. part)
    local done = progress and string.match(progress, '^%S+') or start
    if not first or earlier(done, first) then first = done end
  end
  local set = redis.pcall('XGROUP', 'SETID', KEYS[1], ARGV[1], first)
  if set.err then return set end
  redis.call('HSET', KEYS[5], ARGV[1], string.format('%.0f', now))
  for _, entry in ipairs(redis.call('XLEN', KEYS[2]) > 8 and redis.call('XRANGE', KEYS[2], '-', now - 10000, 'COUNT', 100) or {}) do
    if entry[2][1] == 'bell' then redis.call('XDEL', KEYS[2], entry[1]) end
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - 600000)
  live = redis.call('ZRANGEBYSCORE', KEYS[4], now, '+inf')
end
return {lost, taken, live, owners}
""")
# KEYS: parts. Returns how many there are, where they begin, and the progress of each
PROGRESS: Final = Script("""
local count, start = unpack(redis.call('HMGET', KEYS[1], 'count', 'start'))
if not count then return false end
local parts = {}
for part = 0, count - 1 do parts[part + 1] = redis.call('HGET', KEYS[1], 'part:' .. part) or start end
return parts
""")
_SETTLING: Final = """
local function settle(from)
  local lost = 0
  while from <= #ARGV do
    local what, stream, done, count = ARGV[from], KEYS[tonumber(ARGV[from + 1])], ARGV[from + 2] == '1', tonumber(ARGV[from + 3])
    local first = from + 8
    local last, mine = first + tonumber(ARGV[from + 7]) - 1, {}
    for i = first, last do
      if held(stream, ARGV[1], ARGV[i], ARGV[2]) then mine[#mine + 1] = ARGV[i] end
    end
    if #mine > 0 then
      local delay, past, data = tonumber(ARGV[from + 4]), ARGV[from + 5], ARGV[from + 6]
      if what == 'again' and delay > 0 then later(KEYS[4], now + delay, past, '', data)
      elseif what == 'again' then append(KEYS[2], past, '', data, nil, count)
      elseif what == 'dead' then append(KEYS[5], '', '', data, past) end
      if what == 'dead' then redis.call('HINCRBY', KEYS[6], 'dead_lettered:' .. ARGV[3], count)
      elseif what == 'drop' then redis.call('HINCRBY', KEYS[6], 'dropped:' .. ARGV[3], count) end
      if done then
        for _, id in ipairs(mine) do
          redis.call('XACK', stream, ARGV[1], id)
          if ARGV[from + 1] == '2' then redis.call('XDEL', stream, id) end
        end
      end
    else
      lost = lost + count
    end
    from = last + 1
  end
  return lost
end
"""
# KEYS: stream, retry, delayed, later, stream of dead letters, counters. ARGV: group, member, label, then for each part:
# what becomes of it (again, dead, drop; done: nothing else), 1 or 2 for its stream, whether it was the last of its messages, how many events, delay, past (of a dead letter: its first topic), data,
# how many messages, and their ids. A part of messages that have all gone to others is void; returns how many events were
SETTLE: Final = Script(COMMON + _SETTLING + "return {settle(4), due(KEYS[3], due(KEYS[4], -1))}")
# The same, with seen as the seventh key; then the member leaves. One with anything pending stays: its entries would be lost
LEAVE: Final = Script(COMMON + _SETTLING + """
settle(4)
for i = 1, 2 do
  local left = redis.pcall('XPENDING', KEYS[i], ARGV[1], '-', '+', 1, ARGV[2])
  if not left.err and #left == 0 then redis.pcall('XGROUP', 'DELCONSUMER', KEYS[i], ARGV[1], ARGV[2]) end
end
redis.call('HSET', KEYS[7], ARGV[1], string.format('%.0f', now))
return 0
""")
# KEYS: a stream. ARGV: group, member, ids. Renews the lease of those that are still held by the member; returns the others
RENEW: Final = Script(COMMON + """
local lost = {}
for i = 3, #ARGV do
  if held(KEYS[1], ARGV[1], ARGV[i], ARGV[2]) then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
""")
# KEYS: stream, seen. ARGV: retention, group expiry, what the keys of the groups begin with (three) and end with, and
# those paused.
# Trims what is older than retention, as many entries as TRIMMED at most, but nothing that a group which is in use has not
# settled. Returns how many went. A group of another program is seen for the first time by this, and is left alone when it
# expires
TRIM: Final = Script(COMMON + """
local limit = string.format('%.0f-0', math.max(0, now - tonumber(ARGV[1])))
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for _, group in pairs(groups(KEYS[1])) do
  local idle = nil
  for _, member in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group.name)) do
    local its = fields(member).idle
    if idle == nil or its < idle then idle = its end
  end
  local ours = redis.call('HGET', KEYS[2], group.name)
  local key = ours and group.name or '\\n' .. group.name
  local seen = tonumber(ours or redis.call('HGET', KEYS[2], key) or now)
  if idle and now - idle > seen then seen = now - idle end
  redis.call('HSET', KEYS[2], key, string.format('%.0f', seen))
  if now - seen > tonumber(ARGV[2]) then
    if ours then destroy(KEYS[1], KEYS[2], {unpack(ARGV, 3)}, group.name) end
  else
    local first = group['last-delivered-id']
    local pending = redis.call('XPENDING', KEYS[1], group.name)
    if pending[1] > 0 and earlier(pending[2], first) then first = pending[2] end
    if earlier(first, limit) then limit = first end
  end
end
return redis.call('XTRIM', KEYS[1], 'MINID', '~', limit, 'LIMIT', TRIMMED)
""".replace("TRIMMED", str(TRIMMED)))
# KEYS: stream, retry, later. ARGV: group. Returns how many entries it has not settled, but for those of the second stream,
# and after which entry others are to be counted, where the server has not: a group that began at a time, or entries that
# were deleted. Nothing where there is no such group
LAG: Final = Script(COMMON + """
local group = groups(KEYS[1])[ARGV[1]]
if not group then return false end
local open = group.pending + redis.call('ZCARD', KEYS[3])
if group.lag then return {open + group.lag, ''} end
return {open, group['last-delivered-id']}
""")
# KEYS: a stream. ARGV: an entry, a field, where to end. Returns how many entries come next; with a field, how many events those
# have that do not begin with it. And the last entry; without one these were all
_COUNT: Final = Script("""
local found, count = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], ARGV[3], 'COUNT', COUNTED), 0
for _, entry in ipairs(found) do
  local fields = entry[2]
  if fields[1] ~= ARGV[2] then count = count + (ARGV[2] ~= '' and fields[#fields - 1] == 'events' and fields[#fields] or 1) end
end
return {count, #found == COUNTED and found[#found][1] or ''}
""".replace("COUNTED", str(_COUNTED)))


def count(stream: bytes, entry: str, field: str = "", end: str = "+") -> Flow[int]:
    """Return how many entries a stream has behind one that have not this field first."""
    total = 0
    while entry:
        found, entry = yield from _COUNT.run((stream,), entry, field, end)
        total += found
    return total
