"""Jobs in the embedded store, and the rows that stand for them. `schedule_runs` claims and settles their runs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from ...errors import AlreadyExistsError, InvalidArgumentError, ResourceExhaustedError
from ...schedule.times import from_ms, occurrences
from ...spi import schedule as spi
from ...spi.operation import Operation
from ...spi.schedule import JobSpec, Retry, RpcTarget, RunRecord, RunSource, ScheduleDriver, StoredJob, TopicTarget
from .writes import WriteTask

if TYPE_CHECKING:
    from . import SqliteComponent
    from .engine import Engine

__all__ = ["CHANNEL", "COLUMNS", "SqliteSchedule", "following", "stored"]

CHANNEL: Final = "schedule"
COLUMNS: Final = "j.name, j.spec, j.data, j.next, j.occurrences, j.skipped, j.created"
_GET: Final = f"SELECT {COLUMNS} FROM schedule_jobs j WHERE app = ? AND name = ?"
_ALL: Final = f"SELECT {COLUMNS} FROM schedule_jobs j WHERE app = ? ORDER BY name"
_FIND: Final = "SELECT id, spec, next FROM schedule_jobs WHERE app = ? AND name = ?"
_INSERT: Final = (
    "INSERT INTO schedule_jobs (app, name, handler, spec, data, next, occurrences, skipped, created) "
    "VALUES (:app, :name, :handler, :spec, :data, :next, 0, 0, :now)"
)
_REPLACE: Final = (
    "UPDATE schedule_jobs SET handler = :handler, spec = :spec, data = :data, next = :next, occurrences = 0, skipped = 0 "
    "WHERE app = :app AND name = :name"
)
_REDEFINE: Final = (
    "UPDATE schedule_jobs SET handler = :handler, spec = :spec, data = :data WHERE app = :app AND name = :name"
)
_DELETE: Final = "DELETE FROM schedule_jobs WHERE app = ? AND name = ?"
_CANCEL: Final = (
    "UPDATE schedule_runs SET status = 'cancelled', deadline = NULL, ended = ? "
    "WHERE app = ? AND name = ? AND deadline IS NOT NULL AND member IS NULL"
)
_RUN_NOW: Final = (
    "INSERT INTO schedule_runs (app, name, job, run, fire, last, count, status, attempt, failures, boot, deadline) "
    "SELECT app, name, id, :run, :now, :now, 1, 'waiting', 0, 0, :boot, 0 FROM schedule_jobs WHERE app = :app AND name = :name"
)
_RUNS: Final = (
    "SELECT name, run, fire, status, attempt, started, ended, error, count, last FROM schedule_runs "
    "WHERE app = ? AND name = ? ORDER BY id"
)


class SqliteSchedule(ScheduleDriver):
    """The jobs of one application."""

    features = frozenset({spi.CLAIMS, spi.LIST_JOBS, spi.LIST_RUNS, spi.MISFIRE, spi.PROGRESS, spi.RUN_NOW})

    def __init__(self, context: SqliteComponent, name: str) -> None:
        self._context = context
        self._engine: Engine = context.engine
        self._app = context.context.app_id

    # -- jobs -------------------------------------------------------------

    def save(self, op: Operation, spec: JobSpec, overwrite: bool, /) -> None:
        self._context.sweeping()
        limit = self._context.settings.max_value_bytes
        if spec.data is not None and len(spec.data) > limit:
            raise ResourceExhaustedError(
                f"the data of job {spec.name!r} has {len(spec.data):,} bytes; the limit is {limit:,}: raise max_value_bytes"
            )
        now = self._engine.clocks.wall_ms()
        due = now + spec.delay_ms if spec.delay_ms is not None else spec.due_ms
        expires = spec.expires_ms if spec.ttl_ms is None else (due or now) + spec.ttl_ms
        spec = spec._replace(due_ms=due, delay_ms=None, expires_ms=expires, ttl_ms=None)
        first = due if due is not None else following(spec, 0, now)
        if first is None or (expires is not None and first > expires):
            raise InvalidArgumentError(
                f"job {spec.name!r} would never run: its schedule has no occurrence"
                + (" before its ttl is over" if expires is not None else "")
            )
        names = {
            "app": self._app,
            "name": spec.name,
            "handler": spec.target if isinstance(spec.target, str) else None,
            "spec": _written(spec),
            "data": spec.data,
            "next": first,
            "now": now,
        }

        def body(connection: sqlite3.Connection) -> None:
            row = connection.execute(_FIND, (self._app, spec.name)).fetchone()
            if row is None:
                connection.execute(_INSERT, names)
            elif not overwrite:
                raise AlreadyExistsError(
                    f"there is a job {spec.name!r} already: overwrite=True replaces it, delete_job deletes it"
                )
            elif row[2] is not None and _same_times(_read_spec(spec.name, row[1], None), spec):
                connection.execute(_REDEFINE, names)  # what is due already stays due
            else:
                connection.execute(_REPLACE, names)

        size = len(spec.data or b"")
        self._engine.run(WriteTask(body, durable=self._context.durable, size=size, channels=(CHANNEL,)), op)

    def get(self, op: Operation, name: str, /) -> StoredJob | None:
        rows = self._engine.query(op, _GET, (self._app, name))
        return stored(rows[0]) if rows else None

    def list_jobs(self, op: Operation, /) -> list[StoredJob]:
        return [stored(row) for row in self._engine.query(op, _ALL, (self._app,))]

    def delete(self, op: Operation, name: str, /) -> None:
        def body(connection: sqlite3.Connection) -> None:
            if connection.execute(_DELETE, (self._app, name)).rowcount:
                connection.execute(_CANCEL, (self._engine.clocks.wall_ms(), self._app, name))

        self._engine.run(WriteTask(body, durable=self._context.durable), op)

    # -- runs -------------------------------------------------------------

    def run_now(self, op: Operation, name: str, /) -> str | None:
        run = str(uuid4())
        clocks = self._engine.clocks

        def body(connection: sqlite3.Connection) -> bool:
            names = {"app": self._app, "name": name, "run": run, "now": clocks.wall_ms(), "boot": clocks.boot_id()}
            return connection.execute(_RUN_NOW, names).rowcount > 0

        task = WriteTask(body, durable=self._context.durable, channels=(CHANNEL,))
        return run if self._engine.run(task, op) else None

    def list_runs(self, op: Operation, name: str, /) -> list[RunRecord]:
        return [_record(row) for row in self._engine.query(op, _RUNS, (self._app, name))]

    def join(self, op: Operation, handlers: Callable[[], frozenset[str]], /) -> RunSource:
        from .schedule_runs import SqliteRuns

        self._engine.open(op)
        return SqliteRuns(self._context, self._app, handlers)


def _same_times(old: JobSpec, new: JobSpec) -> bool:
    """Tell whether two definitions have the same occurrences. Then an overwrite, as at each start of an application, keeps those that are due."""
    open_ended = all(each.due_ms is None and each.expires_ms is None and each.repeats is None for each in (old, new))
    return open_ended and (old.schedule, old.timezone) == (new.schedule, new.timezone)


_FIELDS: Final = {
    "schedule": "schedule",
    "due": "due_ms",
    "repeats": "repeats",
    "expires": "expires_ms",
    "content_type": "content_type",
    "misfire": "misfire",
    "timezone": "timezone",
}
"""Name in the column ``spec`` → field of `JobSpec`; beside them are the target and the failure policy."""


def _written(spec: JobSpec) -> str:
    """Return the column ``spec`` of a job."""
    target, policy = spec.target, spec.failure_policy
    fields: dict[str, Any] = {name: getattr(spec, field) for name, field in _FIELDS.items()}
    fields["target"] = target
    if isinstance(target, RpcTarget):
        fields["target"] = {"service": target.service, "method": target.method}
    elif isinstance(target, TopicTarget):
        fields["target"] = {"pubsub": target.pubsub_name, "topic": target.topic}
    fields["failure"] = [policy.attempts, policy.interval] if isinstance(policy, Retry) else policy
    return json.dumps(fields)


def _read_spec(name: str, text: str, data: bytes | None) -> JobSpec:
    """Return a job from its column ``spec``."""
    fields = json.loads(text)
    target, failure = fields["target"], fields["failure"]
    if isinstance(target, dict):
        target = RpcTarget(**target) if "service" in target else TopicTarget(target["pubsub"], target["topic"])
    return JobSpec(
        name=name,
        delay_ms=None,
        ttl_ms=None,
        data=data,
        target=target,
        failure_policy=Retry(*failure) if isinstance(failure, list) else failure,
        **{field: fields[key] for key, field in _FIELDS.items()},
    )


def stored(row: Any) -> StoredJob:
    """Return a row of `COLUMNS` as a job."""
    name, spec, data, *state = row
    return StoredJob(_read_spec(name, spec, data), *state)


def following(spec: JobSpec, count: int, after_ms: int) -> int | None:
    """Return the next occurrence after ``after_ms`` of a job that had ``count``; ``None``: that was the last."""
    if spec.schedule is None or (spec.repeats is not None and count >= spec.repeats):
        return None
    found = occurrences(spec.schedule, spec.timezone).after(after_ms)
    return None if found is None or (spec.expires_ms is not None and found > spec.expires_ms) else found


def _record(row: Any) -> RunRecord:
    """Return a row of `_RUNS` as what the caller gets."""
    name, run, fire, status, attempt, started, ended, error, count, last = row
    return RunRecord(
        name=name,
        run_id=run,
        fire_time=from_ms(fire),
        status=status,
        attempt=attempt,
        started_at=None if started is None else from_ms(started),
        ended_at=None if ended is None else from_ms(ended),
        error=error,
        count=count,
        last_fire_time=from_ms(last),
    )
