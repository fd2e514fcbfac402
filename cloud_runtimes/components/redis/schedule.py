"""Jobs on Redis, and their runs: a document for each job. See `_schedule.document_runs`.

All keys of an application have the hash tag ``TAG``:

=================== ====================================================================================
``TAG:jobs``        hash, name → document behind its version, and the length and name of its handler
``TAG:data``        hash, name → data of its job
``TAG:due:HANDLER`` sorted set of names: when there is something to do for processes that have a handler
``TAG:runs:NAME``   list of the runs of a name that have ended, in their order
=================== ====================================================================================

A look hands out the documents that are due, and puts them off for a moment, so that members do not all try to claim the same ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from random import getrandbits
from typing import Any, Final

from ...spi import schedule as spi
from ...spi.operation import Operation
from ...spi.portable import JobRecord
from ...spi.schedule import DueRun, Outcome, RunSource
from .._net.notify import Waiter
from .._schedule.document_runs import DocumentRuns, DocumentSchedule, version_of
from .._schedule.job_documents import Document, Run
from .._schedule.job_history import portable_run, read_runs
from .._schedule.runs import CHANNEL, RunToken
from .._unreadable import read_entries
from . import RedisComponent
from .engine import Script
from .failures import checked
from .resp import Batch, Flow, Value
from .scanning import names_of, pages

_WINDOW: Final = 500
_APP: Final = re.compile(rb"(.*)}:jobs", re.DOTALL)
_HEAD: Final = re.compile(rb"([1-9]\d*):(\d+):")
_LATEST: Final = 20
"""Runs of a job that a list of all jobs looks at."""
_PUT_OFF_MS: Final = 5_000
"""How long a member has to claim a job that a look gave it. Less than what makes an occurrence a missed one."""

_COMMON: Final = """
local TAG, call = KEYS[1], redis.call
local function version_of(item) return string.match(item or '', '^([1-9]%d*):%d+:') or '0' end
"""
# ARGV: channel of members to wake or '', history in milliseconds, and in runs, then for each document: name, version, the next
# one, line, when it is due, item behind its version or '', whether its data stays, its data, how many of its runs have ended, and these. Returns whether each was
# written, 0: another was faster
_WRITE_TEXT: Final = _COMMON + """
local written, i = {}, 4
while ARGV[i] do
  local name, version, following, line, due, item, stays, data, ended = unpack(ARGV, i, i + 8)
  local old, first = call('HGET', TAG .. 'jobs', name), i + 9
  i = first + ended
  if version_of(old) ~= version then
    written[#written + 1] = 0
  else
    written[#written + 1] = 1
    local size, from = string.match(old or '', '^%d+:(%d+):()')
    local before = size and string.sub(old, from, from + size - 1)
    if before and (before ~= line or due == '' or item == '') then call('ZREM', TAG .. 'due:' .. before, name) end
    if item == '' then
      call('HDEL', TAG .. 'jobs', name)
      call('HDEL', TAG .. 'data', name)
    else
      call('HSET', TAG .. 'jobs', name, following .. item)
      if stays == '0' and data ~= '' then
        call('HSET', TAG .. 'data', name, data)
      elseif stays == '0' and old then
        call('HDEL', TAG .. 'data', name)
      end
      if due ~= '' then call('ZADD', TAG .. 'due:' .. line, due, name) end
    end
    if first < i then
      local runs = TAG .. 'runs:' .. name
      for run = first, i - 1 do call('RPUSH', runs, ARGV[run]) end
      call('LTRIM', runs, -ARGV[3], -1)
      call('PEXPIRE', runs, ARGV[2])
    end
  end
end
if ARGV[1] ~= '' then call('PUBLISH', ARGV[1], '') end
return written
"""
_ADD: Final = Script(_WRITE_TEXT, flags="")
_WRITE: Final = Script(_WRITE_TEXT, flags="allow-oom")
# ARGV: names. Returns item and data of each by turns
_READ: Final = Script(
    _COMMON + """
local told = {}
for i, name in ipairs(ARGV) do told[2 * i - 1], told[2 * i] = call('HGET', TAG .. 'jobs', name), call('HGET', TAG .. 'data', name) end
return told
""",
    flags="no-writes",
)
# ARGV: how many documents, for how long they are put off, how many handlers, these, then versions that are set aside.
# Returns the time, milliseconds until another is due, then line, due, name, item and data of each
_LOOK: Final = Script(
    _COMMON + """
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function at(number) return string.format('%.0f', number) end
local want, aside, found = tonumber(ARGV[1]), {}, {}
local most = want + #ARGV - 3 - ARGV[3]
for i = 4 + ARGV[3], #ARGV do aside[ARGV[i]] = true end
for i = 4, 3 + ARGV[3] do
  local names = call('ZRANGE', TAG .. 'due:' .. ARGV[i], 0, most, 'WITHSCORES')
  for place = 1, #names, 2 do found[#found + 1] = {tonumber(names[place + 1]), names[place], ARGV[i]} end
end
table.sort(found, function(x, y) if x[1] == y[1] then return x[2] < y[2] end return x[1] < y[1] end)
local told = {at(now), ''}
for _, each in ipairs(found) do
  local due, name, line = unpack(each)
  local item = call('HGET', TAG .. 'jobs', name)
  if not item then
    call('ZREM', TAG .. 'due:' .. line, name)
  elseif not aside[name .. ':' .. version_of(item)] then
    if due > now or want == 0 then
      told[2] = at(math.max(0, due - now))
      break
    end
    want = want - 1
    call('ZADD', TAG .. 'due:' .. line, at(now + ARGV[2]), name)
    for _, part in ipairs({line, at(due), name, item, call('HGET', TAG .. 'data', name)}) do told[#told + 1] = part end
  end
end
return told
""",
    flags="allow-oom",
)


class RedisSchedule(DocumentSchedule[RedisComponent]):
    """The jobs of one application."""

    def __init__(self, component: RedisComponent, name: str, app: str | None = None) -> None:
        super().__init__(component, name, app)
        tag = component.key("schedule", self.app, "")
        # Two that never exist: while the node of a cluster hands over their slot it answers TRYAGAIN to several keys, of
        # which some are not there. So no script sees half of the jobs
        self.tag = (tag, tag + b"-")
        self._jobs = tag + b"jobs"
        self._channel = component.engine.notifier.name(f"{CHANNEL}:{self.app}")
        self._history_ms = int(component.settings.history * 1000)
        self._history_runs = component.settings.history_runs
        if component.is_cluster:  # each application has a server of its own
            self.features -= {spi.JOBS}

    # -- documents --------------------------------------------------------

    def document(self, name: str, item: bytes | None, data: bytes | None = None) -> Document:
        """Return what the fields of a name have."""
        if item is None:
            return Document(name, 0, None, self._history_runs)
        head = _HEAD.match(item)
        if head is None:
            return Document(name, 0, item, self._history_runs)
        return Document(name, int(head[1]), item[head.end() + int(head[2]) :], self._history_runs, data)

    def read(self, names: Sequence[str]) -> Flow[list[Document]]:
        documents: list[Document] = []
        for first in range(0, len(names), _WINDOW):
            some = names[first : first + _WINDOW]
            reply = yield from _READ.run(self.tag, *some)
            documents += map(self.document, some, reply[::2], reply[1::2])
        return documents

    def write(self, documents: Sequence[Document], adds: bool = False) -> Flow[list[Document]]:
        if not documents:
            return []
        arguments: list[Value] = []
        following = [getrandbits(60) + 1 for _ in documents]
        for document, version in zip(documents, following, strict=True):
            if ended := document.ended():
                document.forget(ended)
            handler, due = document.line()
            line = handler.encode()
            item = b"" if document.is_over else b":%d:%b%b" % (len(line), line, document.head())
            arguments += (document.name, document.version, version, line, "" if due is None else due, item)
            arguments += (0, document.data) if document.is_data_new else (1, b"")
            arguments += (len(ended), *map(json.dumps, ended))
        script, channel = (_ADD, self._channel) if adds else (_WRITE, b"")
        written = yield from script.run(self.tag, channel, self._history_ms, self._history_runs, *arguments)
        refused = []
        for document, version, done in zip(documents, following, written, strict=True):
            if done:
                document.version, document.exists = version, not document.is_over
            else:
                refused.append(document)
        return refused

    def notify(self) -> Flow[None]:
        checked((yield Batch(("PUBLISH", self._channel, ""), key=self._jobs)))

    def _runs_key(self, name: str) -> bytes:
        """Return the key of the history of a name."""
        return self.tag[0] + b"runs:" + name.encode()

    def _current(self, name: str) -> Flow[tuple[Document, int]]:
        batch = Batch(("HGET", self._jobs, name), ("LINDEX", self._runs_key(name), -1), ("TIME",))
        item, newest, time = checked((yield batch))
        document = self.document(name, item)
        if not document.exists or document.error is not None:
            for run in () if newest is None else read_runs(name, [newest]):
                document.follow(run)
        return document, _ms(time)

    def _names(self) -> Flow[list[str]]:
        (names,) = checked((yield Batch(("HKEYS", self._jobs))))
        return sorted(read_entries("jobs", names, repr, bytes.decode))

    def _apps(self) -> Flow[list[str]]:
        return names_of(self.component, "schedule", b"*}:jobs", _APP)

    def _of_app(self, app: str) -> RedisSchedule:
        return RedisSchedule(self.component, self.name, app)

    def _history(self, name: str) -> Flow[list[Run]]:
        runs, time = checked((yield Batch(("LRANGE", self._runs_key(name), 0, -1), ("TIME",))))
        kept = _ms(time) - self._history_ms
        return [run for run in read_runs(name, runs) if run["ended"] is None or run["ended"] > kept]

    def _histories(self, names: Sequence[str]) -> Flow[list[list[Run]]]:
        histories: list[list[Run]] = []
        for some in pages(names):
            slots = checked((yield Batch(*(("LRANGE", self._runs_key(name), -_LATEST, -1) for name in some))))
            histories += map(read_runs, some, slots)
        return histories

    # -- records that move to another home --------------------------------

    def records(self, names: Sequence[str]) -> Flow[list[JobRecord]]:
        """Return a flow that reads jobs with all of their runs."""
        result: list[JobRecord] = []
        for document in (yield from self.read(names)):
            job = document.stored()
            if job is not None and job.error is None:
                runs = [*(yield from self._history(document.name)), *document.runs]
                result.append(JobRecord(document.name, job, tuple(map(portable_run, runs))))
        return result

    def restore(self, records: Iterable[JobRecord]) -> Flow[None]:
        """Return a flow that replaces jobs and all of their runs."""
        for name, job, runs in records:
            checked((yield Batch(("DEL", self._runs_key(name)))))
            yield from self._change(name, partial(Document.restore, job=job, runs=runs), True)

    def join(self, op: Operation, handlers: Callable[[], frozenset[str]], /) -> RunSource:
        self.component.engine.ready(op)
        return _Runs(self, handlers)


class _Runs(DocumentRuns):
    """A member of an application's runners. It knows the documents of the runs that it holds, and looks for others that are due."""

    _driver: RedisSchedule

    def __init__(self, driver: RedisSchedule, handlers: Callable[[], frozenset[str]]) -> None:
        super().__init__(driver, handlers)
        self._pause: int | None = None
        # name of a document that a look gave → its line, and when it was due
        self._lines: dict[str, tuple[bytes, bytes]] = {}

    def _subscribe(self) -> Waiter:
        return self._driver.component.engine.notifier.subscribe(f"{CHANNEL}:{self._app}")

    def _look(self, want: int) -> Flow[tuple[int, list[Document]]]:
        held = set(self._names.values())
        self._documents = {name: document for name, document in self._documents.items() if name in held}
        self._dues = {}
        handlers = ("", *sorted(self._handlers()))
        now, pause, *rows = yield from _LOOK.run(
            self._driver.tag, want, _PUT_OFF_MS, len(handlers), *handlers, *self._aside
        )
        self._pause = int(pause) if pause else None
        fresh = yield from self._read([name for name in held if name not in self._documents])
        self._lines = {}
        for line, due, field, item, data in zip(*[iter(rows)] * 5, strict=True):
            name = field.decode(errors="replace")
            document = self._driver.document(name, item, data)
            self._lines[name] = line, due
            self._documents.pop(name, None)  # versions have no order: what is there counts
            if document.error is not None:
                self._set_aside_unread(document)
            fresh.append(document)
        return int(now), fresh

    def _set_aside_unread(self, document: Document) -> None:
        job = document.stored()
        assert job is not None
        self._set_aside(job, version_of(document))

    def _pauses(self, now: int) -> Iterable[int | None]:
        return (self._pause,)

    def _exchange(
        self, outcomes: Sequence[Outcome], renew: Sequence[RunToken], want: int
    ) -> Generator[Any, Any, tuple[list[DueRun], list[RunToken]]]:
        exchanged = yield from super()._exchange(outcomes, renew, want)
        # others may be able to run what this process has set aside
        commands = [
            ("ZADD", self._driver.tag[0] + b"due:" + line, "XX", due, name)
            for name, (line, due) in self._lines.items()
            if name in self._documents and version_of(self._documents[name]) in self._aside
        ]
        if commands:
            checked((yield Batch(*commands)))
        return exchanged


def _ms(time: Sequence[bytes]) -> int:
    seconds, microseconds = map(int, time)
    return seconds * 1000 + microseconds // 1000
