"""The scripts of jobs on Redis: what is to happen in one step, by the server's clock.

All keys of an application have the hash tag ``TAG``:

=================== ==========================================================================================
``TAG:names``       hash, name → id of its job
``TAG:job:ID``      hash: name, handler, spec, data, next, occurrences, skipped, created, mover
``TAG:open:ID``     sorted set of the runs of a job that have not ended, in their order
``TAG:due:HANDLER`` sorted set of jobs: when the first open run of each can be claimed, else when its next occurrence
``TAG:run:ID``      hash: what `.._jobs.RUN_COLUMNS` says, and job, failures, member, deadline
``TAG:runs:NAME``   sorted set of the runs of a name, in their order
``TAG:ids``         the last id
=================== ==========================================================================================

A job whose occurrences a member counts is its own (``mover``) for a moment: the calendar is Python's.
"""

from __future__ import annotations

from typing import Final

from .engine import Script

__all__ = ["DELETE", "EXCHANGE", "FIND", "JOBS", "MOVE", "PUT", "RUNS", "RUN_NOW", "SAVE"]

# place(): where a job stands in the line of its handler. One that has had its last run goes; of one that is gone,
# anybody may cancel what its holders left.
_COMMON: Final = """
local TAG, call = KEYS[1], redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function at(ms) return string.format('%.0f', ms) end
local function job_key(id) return TAG .. 'job:' .. id end
local function run_key(id) return TAG .. 'run:' .. id end
local function open_key(id) return TAG .. 'open:' .. id end
local function due_key(handler) return TAG .. 'due:' .. (handler or '') end
local function leave(id) call('ZREM', due_key(call('HGET', job_key(id), 'handler')), id) end
local function place(id)
  local job = call('HMGET', job_key(id), 'handler', 'next', 'name')
  local first = call('ZRANGE', open_key(id), 0, 0)[1]
  local due = first and call('HGET', run_key(first), 'deadline') or job[2]
  if due and due ~= '' then
    call('ZADD', due_key(job[1]), due, id)
    if job[3] then call('HDEL', job_key(id), 'mover') end
  else
    call('ZREM', due_key(job[1]), id)
    if job[3] then
      call('DEL', job_key(id))
      call('HDEL', TAG .. 'names', job[3])
    end
  end
end
"""
# history: how long the record of a run that has ended stays, and how many of a name
_RECORDS: Final = """
local function trim(name, job, history, most)
  local key = TAG .. 'runs:' .. name
  local excess = math.min(1000, call('ZCARD', key) - most)
  for i, id in ipairs(call('ZRANGE', key, 0, math.max(10, excess) - 1)) do
    local status, ended = unpack(call('HMGET', run_key(id), 'status', 'ended'))
    if not status or (ended and i <= excess) then
      call('DEL', run_key(id))
      call('ZREM', key, id)
    end
  end
  if call('EXISTS', open_key(job)) == 0 then call('PEXPIRE', key, history) end
end
local function add(name, job, fields)
  local id = call('INCR', TAG .. 'ids')
  call('HSET', run_key(id), 'name', name, 'job', job, unpack(fields))
  call('ZADD', TAG .. 'runs:' .. name, id, id)
  call('PERSIST', TAG .. 'runs:' .. name)
  return id
end
local function finish(id, status, history, most)
  local run = call('HMGET', run_key(id), 'name', 'job')
  call('HSET', run_key(id), 'status', status, 'ended', at(now))
  call('HDEL', run_key(id), 'member', 'deadline')
  call('PEXPIRE', run_key(id), history)
  call('ZREM', open_key(run[2]), id)
  place(run[2])
  trim(run[1], run[2], history, most)
end
"""

# ARGV: fields of a job, then names; without names all jobs
JOBS: Final = Script(
    _COMMON + """
local count, found = tonumber(ARGV[1]), {}
local ids = #ARGV > count + 1 and call('HMGET', TAG .. 'names', unpack(ARGV, count + 2)) or call('HVALS', TAG .. 'names')
for _, id in ipairs(ids) do
  if id then found[#found + 1] = call('HMGET', job_key(id), unpack(ARGV, 2, count + 1)) end
end
return found
""",
    flags="no-writes",
)
# ARGV: name, fields of a run
RUNS: Final = Script(
    _COMMON + """
local found = {}
for _, id in ipairs(call('ZRANGE', TAG .. 'runs:' .. ARGV[1], 0, -1)) do
  local run = call('HMGET', run_key(id), unpack(ARGV, 2))
  if run[1] then found[#found + 1] = run end
end
return found
""",
    flags="no-writes",
)
# ARGV: name
FIND: Final = Script(
    _COMMON + """
local id = call('HGET', TAG .. 'names', ARGV[1])
return {at(now), id or '', id and call('HGET', job_key(id), 'spec') or '', id and call('HGET', job_key(id), 'next') or ''}
""",
    flags="no-writes",
)
# ARGV: name, id and spec as they were found, whether its occurrences stay, channel, next, then fields; returns whether they were
SAVE: Final = Script(
    _COMMON + """
local id = call('HGET', TAG .. 'names', ARGV[1])
if (id or '') ~= ARGV[2] then return 0 end
if id then
  if (call('HGET', job_key(id), 'spec') or '') ~= ARGV[3] then return 0 end
  leave(id)
  call('HDEL', job_key(id), 'data', 'handler')
else
  id = call('INCR', TAG .. 'ids')
  call('HSET', TAG .. 'names', ARGV[1], id)
end
call('HSET', job_key(id), 'name', ARGV[1], unpack(ARGV, 7))
if not string.find(call('HGET', job_key(id), 'created') or '', '^%d+$') then call('HSET', job_key(id), 'created', at(now)) end
if ARGV[4] == '0' then call('HSET', job_key(id), 'next', ARGV[6], 'occurrences', 0, 'skipped', 0) end
place(id)
call('PUBLISH', ARGV[5], '')
return 1
""",
    flags="",
)
# ARGV: name, history, most
DELETE: Final = Script(
    _COMMON + _RECORDS + """
local id = call('HGET', TAG .. 'names', ARGV[1])
if not id then return 0 end
leave(id)
call('DEL', job_key(id))
call('HDEL', TAG .. 'names', ARGV[1])
for _, run in ipairs(call('ZRANGE', open_key(id), 0, -1)) do
  if not call('HGET', run_key(run), 'member') then finish(run, 'cancelled', ARGV[2], ARGV[3]) end
end
place(id)
return 1
""",
    flags="allow-oom",
)
# ARGV: name, history, channel, how many fields the job has, these fields, then the same of each of its runs
PUT: Final = Script(
    _COMMON + _RECORDS + """
local name, runs = ARGV[1], TAG .. 'runs:' .. ARGV[1]
local old = call('HGET', TAG .. 'names', name)
if old then
  leave(old)
  call('DEL', job_key(old), open_key(old))
end
for _, run in ipairs(call('ZRANGE', runs, 0, -1)) do call('DEL', run_key(run)) end
call('DEL', runs)
local id, last = call('INCR', TAG .. 'ids'), 4 + ARGV[4]
call('HSET', TAG .. 'names', name, id)
call('HSET', job_key(id), 'name', name, unpack(ARGV, 5, last))
while ARGV[last + 1] do
  local first = last + 2
  last = last + 1 + ARGV[last + 1]
  local run = add(name, id, {unpack(ARGV, first, last)})
  if call('HGET', run_key(run), 'deadline') then call('ZADD', open_key(id), run, run)
  else call('PEXPIRE', run_key(run), ARGV[2]) end
end
place(id)
call('PUBLISH', ARGV[3], '')
return 1
""",
    flags="",
)
# ARGV: name, run, channel
RUN_NOW: Final = Script(
    _COMMON + _RECORDS + """
local job = call('HGET', TAG .. 'names', ARGV[1])
if not job then return 0 end
local id = add(ARGV[1], job, {
  'run', ARGV[2], 'fire', at(now), 'last', at(now), 'count', 1, 'status', 'waiting', 'attempt', 0, 'failures', 0,
  'deadline', 0})
call('ZADD', open_key(job), id, id)
place(job)
call('PUBLISH', ARGV[3], '')
return 1
""",
    flags="",
)
# ARGV: JSON of {member, lease, moving, want, handlers, aside, outcomes, held, renews, history, most}, channel.
# Returns the time, milliseconds until something could be claimed, what is still held, runs, jobs to move on, and jobs
# whose runs cannot be claimed, with the reason.
EXCHANGE: Final = Script(
    _COMMON + _RECORDS + """
local a = cjson.decode(ARGV[1])
local function mine(id, attempt)
  local run = call('HMGET', run_key(id), 'member', 'attempt', 'job')
  return run[1] == a.member and run[2] == at(attempt) and run[3]
end
for _, outcome in ipairs(a.outcomes) do
  local id, attempt, what, text, delay = unpack(outcome)
  local job = mine(at(id), attempt)
  id = at(id)
  if job and what == 'returned' then
    call('HSET', run_key(id), 'status', 'waiting', 'deadline', 0)
    call('HINCRBY', run_key(id), 'attempt', -1)
    call('HDEL', run_key(id), 'member')
    place(job)
    call('PUBLISH', ARGV[2], '')
  elseif job and what == 'again' and call('EXISTS', job_key(job)) == 1 then
    call('HSET', run_key(id), 'status', 'waiting', 'error', text, 'deadline', at(now + delay))
    call('HINCRBY', run_key(id), 'failures', 1)
    call('HDEL', run_key(id), 'member', 'ended')
    place(job)
  elseif job and what == 'succeeded' then
    call('HDEL', run_key(id), 'error')
    finish(id, what, a.history, a.most)
  elseif job then
    call('HSET', run_key(id), 'error', text)
    finish(id, 'failed', a.history, a.most)
  end
end
local kept = {}
for _, token in ipairs(a.held) do
  local id = at(token[1])
  local job = mine(id, token[2])
  if job then
    -- also where the server's clock was set forward: its holder lives
    if a.renews or tonumber(call('HGET', run_key(id), 'deadline')) <= now then
      call('HSET', run_key(id), 'deadline', at(now + a.lease))
      place(job)
    end
    kept[#kept + 1] = token[1]
  end
end
local runs, jobs, broken = {}, {}, {}
if a.want == 0 then return {at(now), '', kept, runs, jobs, broken} end
table.insert(a.handlers, '')
local due, aside = {}, {}
for _, version in ipairs(a.aside) do aside[version] = true end
local function left(job)
  return #a.aside > 0 and aside[job .. ':' .. redis.sha1hex(call('HGET', job_key(job), 'spec') or '')]
end
for _, handler in ipairs(a.handlers) do
  local most = a.want + #a.aside
  local found = call('ZRANGE', due_key(handler), '-inf', at(now), 'BYSCORE', 'LIMIT', 0, most, 'WITHSCORES')
  for i = 1, #found, 2 do
    if not left(found[i]) then due[#due + 1] = {tonumber(found[i + 1]), tonumber(found[i]), found[i], handler} end
  end
end
table.sort(due, function(x, y) if x[1] == y[1] then return x[2] < y[2] end return x[1] < y[1] end)
local function claim(job, handler)
  local id, is = call('ZRANGE', open_key(job), 0, 0)[1], call('EXISTS', job_key(job)) == 1
  if id and is then
    local attempt = call('HINCRBY', run_key(id), 'attempt', 1)
    call('HSET', run_key(id), 'status', 'running', 'member', a.member, 'deadline', at(now + a.lease), 'started', at(now))
    call('HDEL', run_key(id), 'ended')
    place(job)
    local run = call('HMGET', run_key(id), 'run', 'fire', 'failures')
    runs[#runs + 1] = {
      job, call('HMGET', job_key(job), 'name', 'spec', 'data', 'next', 'occurrences', 'skipped', 'created'),
      tonumber(id), run[1], run[2], attempt, run[3]}
  elseif id then  -- deleted while its holder had it
    finish(id, 'cancelled', a.history, a.most)
  elseif is then
    call('HSET', job_key(job), 'mover', a.member)
    call('ZADD', due_key(handler), at(now + a.moving), job)
    jobs[#jobs + 1] = {
      job, call('HMGET', job_key(job), 'name', 'spec', 'data', 'next', 'occurrences', 'skipped', 'created')}
  else
    call('ZREM', due_key(handler), job)
  end
end
-- a run whose fields another program has changed waits for a minute, and stops no other
for i = 1, math.min(#due, a.want) do
  local job, handler = due[i][3], due[i][4]
  local done, why = pcall(claim, job, handler)
  if not done then
    broken[#broken + 1] = {call('HGET', job_key(job), 'name'), type(why) == 'table' and why.err or tostring(why)}
    call('ZADD', due_key(handler), at(now + 60000), job)
  end
end
local next = ''
for _, handler in ipairs(a.handlers) do
  local first = call('ZRANGE', due_key(handler), 0, #a.aside, 'WITHSCORES')
  for i = 1, #first, 2 do
    if not left(first[i]) then
      if next == '' or tonumber(first[i + 1]) < next then next = tonumber(first[i + 1]) end
      break
    end
  end
end
return {at(now), next == '' and '' or at(math.max(0, next - now)), kept, runs, jobs, broken}
""",
    flags="allow-oom",
)
# ARGV: JSON of {member, lease, history, most, jobs: [id, following, due, missed, fire, run, skipped], left: jobs that others
# are to move}. Returns an id for each job, 0: no run.
MOVE: Final = Script(
    _COMMON + _RECORDS + """
local a, made = cjson.decode(ARGV[1]), {}
for _, job in ipairs(a.left) do
  if call('HGET', job_key(job), 'mover') == a.member then
    call('HDEL', job_key(job), 'mover')
    place(job)
  end
end
for i, move in ipairs(a.jobs) do
  local job, following, due, missed, fire, run, skipped = unpack(move)
  local name, mover = unpack(call('HMGET', job_key(job), 'name', 'mover'))
  made[i] = 0
  if mover == a.member then
    for _, each in ipairs(skipped) do
      local id = add(name, job, {
        'run', each[1], 'fire', at(each[2]), 'last', at(each[3]), 'count', at(each[4]), 'status', 'skipped',
        'attempt', 0, 'failures', 0, 'ended', at(now)})
      call('PEXPIRE', run_key(id), a.history)
    end
    if fire ~= '' then
      made[i] = add(name, job, {
        'run', run, 'fire', at(fire), 'last', at(fire), 'count', 1, 'status', 'running', 'attempt', 1, 'failures', 0,
        'member', a.member, 'deadline', at(now + a.lease), 'started', at(now)})
      call('ZADD', open_key(job), made[i], made[i])
    end
    call('HSET', job_key(job), 'next', following == '' and '' or at(following))
    call('HINCRBY', job_key(job), 'occurrences', at(due))
    call('HINCRBY', job_key(job), 'skipped', at(missed))
    place(job)
    trim(name, job, a.history, a.most)
  end
end
return made
""",
    flags="allow-oom",
)
