"""State, configuration and jobs on Redis as records that move to another home and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ...errors import UnsupportedError
from ...spi.operation import Operation
from ...spi.portable import JobRecord, JobRun, Portable, Records
from .._jobs import written
from .._portable_stores import KeyedPortable, StoredConfiguration, StoredState
from .._runs import CHANNEL
from .._unreadable import read_entries
from . import schedule_scripts as scripts
from .configuration import RedisConfiguration
from .failures import checked
from .resp import Batch, Flow, Value
from .schedule import JOB, column, read_job
from .state import RedisState

if TYPE_CHECKING:
    from . import RedisComponent

__all__ = ["names", "portable"]

_TOKENS: Final = 1_000_000
"""Of locks in a second: their tokens are microseconds."""
_RUN: Final = (
    "run", "fire", "last", "count", "status", "attempt", "failures", "member", "deadline", "started", "ended", "error",
)  # fmt: skip
"""As `JobRun` has them, but for who holds it."""
_KEYS: Final = {
    "configuration": (b"*}:names", re.compile(rb"(.*)}:names", re.DOTALL)),
    "pubsub": (b"*}:topic:*", re.compile(rb"(.*?)}:topic:.*", re.DOTALL)),
    "schedule": (b"*}:names", re.compile(rb"(.*)}:names", re.DOTALL)),
    "state": (b"*}:[nf]*", re.compile(rb"(?!.*}:v:)(.*)}:(?:names|fences)", re.DOTALL)),
}
"""Service → a glob for the keys that tell a name, and which name that is; those of all values of state are not looked at."""


def names(component: RedisComponent, op: Operation, service: str) -> list[str]:
    """Return the names of a service that have data."""
    _check(component, service)
    if service not in _KEYS:
        return []
    head = f"{{{component.settings.prefix}:{service}:".encode()
    glob, wanted = _KEYS[service]
    pattern = re.sub(rb"([\\*?\[\]^])", rb"\\\1", head) + glob

    def scan() -> Flow[list[str]]:
        found: set[bytes] = set()
        cursor: Value = 0
        while True:
            ((cursor, keys),) = checked((yield Batch(("SCAN", cursor, "MATCH", pattern, "COUNT", 1000))))
            found.update(match[1] for key in keys if (match := wanted.fullmatch(key[len(head) :])))
            if cursor == b"0":
                return sorted(name.decode() for name in found)

    return component.engine.run(op, scan())


def portable(component: RedisComponent, service: str, name: str) -> Portable:
    """Return the data of a name."""
    _check(component, service)
    engine = component.engine
    if service == "state":
        state = RedisState(component, name)
        return StoredState(state, lambda op, keys: engine.run(op, state.fences(keys)), _TOKENS)
    if service == "configuration":
        configuration = RedisConfiguration(component, name)
        return StoredConfiguration(configuration, lambda op: engine.run(op, configuration.places()))
    if service == "schedule":
        return _Jobs(component, name)
    raise UnsupportedError(
        f"{service} of the component 'redis' is not copied: choose state, configuration and schedule with --service; "
        "docs/how-to/move-to-redis.md says how the rest moves",
        service=service,
        component=name,
    )


class _Jobs(KeyedPortable):
    """The jobs of an application, with their runs."""

    def __init__(self, component: RedisComponent, app: str) -> None:
        super().__init__()
        self._component = component
        self._tag = (component.key("schedule", app, ""),)
        self._channel = component.engine.notifier.name(f"{CHANNEL}:{app}")

    def keys(self, op: Operation) -> list[str]:
        rows = self._component.engine.run(op, scripts.JOBS.run(self._tag, 1, "name"))
        return [name.decode(errors="replace") for (name,) in rows if name]

    def size(self, record: JobRecord) -> int:
        return len(record.job.spec.data or b"")

    def find(self, op: Operation, keys: Sequence[str], /) -> dict[str, JobRecord]:
        return {record.key: record for record in self._component.engine.run(op, self._read(keys))}

    def _read(self, names: Sequence[str]) -> Flow[list[JobRecord]]:
        found = []
        for name in names:
            jobs = yield from scripts.JOBS.run(self._tag, len(JOB), *JOB, name)
            runs = yield from scripts.RUNS.run(self._tag, name, *_RUN)
            read = read_entries(f"history of job {name!r}", runs, lambda row: "record", _run)
            found += [JobRecord(name, job, tuple(read)) for job in map(read_job, jobs) if job.error is None]
        return found

    def put(self, op: Operation, records: Records, /) -> None:
        self._component.engine.run(op, self._put(records))

    def _put(self, records: Records) -> Flow[None]:
        history = int(self._component.settings.history * 1000)
        for name, job, runs in records:
            spec, *state, _ = job
            handler = spec.target if isinstance(spec.target, str) else None
            fields = [*zip(JOB[1:], (written(spec), spec.data, *state), strict=True), ("handler", handler)]
            arguments = _counted(fields)
            for run in runs:
                values = (*run[:7], None, run.due_ms, *run[8:])
                arguments += _counted(list(zip(_RUN, values, strict=True)))
            yield from scripts.PUT.run(self._tag, name, history, self._channel, *arguments)


def _run(row: Sequence[bytes | None]) -> JobRun:
    """Return a run; one that is held begins again."""
    run, fire, last, count, status, attempt, failures, member, deadline, *ended = map(column, _RUN, row)
    due = None if deadline is None else 0 if member is not None else deadline
    return JobRun(run, fire, last, count, status if due is None else "waiting", attempt, failures, due, *ended)


def _counted(fields: Sequence[tuple[str, Value | None]]) -> list[Value]:
    """Return fields that have a value, behind how many arguments they are."""
    found: list[Value] = [part for name, value in fields if value is not None for part in (name, value)]
    return [len(found), *found]


def _check(component: RedisComponent, service: str) -> None:
    settings = component.settings
    if settings.layout == "dapr" and service in ("pubsub", "state"):
        raise UnsupportedError(
            f"{service} in Dapr's layout is not copied: its keys are in no order",
            service=service,
            component=component.name,
        )
    if component.is_cluster:
        raise UnsupportedError(
            "a Redis cluster is not copied from or to: copy between others", component=component.name
        )
