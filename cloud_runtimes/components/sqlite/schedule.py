"""Jobs in the embedded store. `schedule_runs` claims and settles their runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from ...errors import AlreadyExistsError, InvalidArgumentError, ResourceExhaustedError
from ...spi import schedule as spi
from ...spi.operation import Operation
from ...spi.schedule import JobSpec, RunRecord, RunSource, ScheduleDriver, StoredJob
from .schedule_rows import CHANNEL, COLUMNS, LIST, following, read_spec, record, stored, written
from .schedule_runs import SqliteRuns
from .write_task import WriteTask

if TYPE_CHECKING:
    from .context import SqliteContext
    from .engine import Engine

__all__ = ["SqliteSchedule"]

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
    "VALUES (:app, :name, :job, :run, :now, :now, 1, 'waiting', 0, 0, :boot, 0)"
)


class SqliteSchedule(ScheduleDriver):
    """The jobs of one application."""

    features = frozenset({spi.CLAIMS, spi.LIST_JOBS, spi.LIST_RUNS, spi.MISFIRE, spi.PROGRESS, spi.RUN_NOW})

    def __init__(self, context: SqliteContext) -> None:
        self._context = context
        self._engine: Engine = context.engine
        self._app = context.context.app_id

    # -- jobs -------------------------------------------------------------

    def save(self, op: Operation, spec: JobSpec, overwrite: bool, /) -> None:
        self._engine.run(self._saving(spec, overwrite), op)

    async def save_async(self, op: Operation, spec: JobSpec, overwrite: bool, /) -> None:
        await self._engine.run_async(self._saving(spec, overwrite), op)

    def _saving(self, spec: JobSpec, overwrite: bool) -> WriteTask:
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
            "spec": written(spec),
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
            elif row[2] is not None and _same_times(read_spec(spec.name, row[1], None), spec):
                connection.execute(_REDEFINE, names)  # what is due already stays due
            else:
                connection.execute(_REPLACE, names)

        return WriteTask(body, durable=self._context.durable, size=len(spec.data or b""), channels=(CHANNEL,))

    def get(self, op: Operation, name: str, /) -> StoredJob | None:
        rows = self._engine.query(op, _GET, (self._app, name))
        return stored(rows[0]) if rows else None

    async def get_async(self, op: Operation, name: str, /) -> StoredJob | None:
        rows = await self._engine.query_async(op, _GET, (self._app, name))
        return stored(rows[0]) if rows else None

    def list_jobs(self, op: Operation, /) -> list[StoredJob]:
        return [stored(row) for row in self._engine.query(op, _ALL, (self._app,))]

    def delete(self, op: Operation, name: str, /) -> None:
        self._engine.run(self._deleting(name), op)

    async def delete_async(self, op: Operation, name: str, /) -> None:
        await self._engine.run_async(self._deleting(name), op)

    def _deleting(self, name: str) -> WriteTask:
        def body(connection: sqlite3.Connection) -> None:
            if connection.execute(_DELETE, (self._app, name)).rowcount:
                connection.execute(_CANCEL, (self._engine.clocks.wall_ms(), self._app, name))

        return WriteTask(body, durable=self._context.durable)

    # -- runs -------------------------------------------------------------

    def run_now(self, op: Operation, name: str, /) -> str | None:
        run: str | None = self._engine.run(self._running_now(name), op)
        return run

    async def run_now_async(self, op: Operation, name: str, /) -> str | None:
        run: str | None = await self._engine.run_async(self._running_now(name), op)
        return run

    def _running_now(self, name: str) -> WriteTask:
        run = str(uuid4())
        clocks = self._engine.clocks

        def body(connection: sqlite3.Connection) -> str | None:
            row = connection.execute(_FIND, (self._app, name)).fetchone()
            if row is None:
                return None
            names = {
                "app": self._app,
                "name": name,
                "job": row[0],
                "run": run,
                "now": clocks.wall_ms(),
                "boot": clocks.boot_id(),
            }
            connection.execute(_RUN_NOW, names)
            return run

        return WriteTask(body, durable=self._context.durable, channels=(CHANNEL,))

    def list_runs(self, op: Operation, name: str, /) -> list[RunRecord]:
        return [record(row) for row in self._engine.query(op, LIST, (self._app, name))]

    def join(self, op: Operation, handlers: Callable[[], frozenset[str]], /) -> RunSource:
        self._engine.open(op)
        return SqliteRuns(self._context, self._app, handlers)


def _same_times(old: JobSpec, new: JobSpec) -> bool:
    """Tell whether two definitions have the same occurrences. Then an overwrite, as at each start of an application, keeps those that are due."""
    open_ended = all(each.due_ms is None and each.expires_ms is None and each.repeats is None for each in (old, new))
    return open_ended and (old.schedule, old.timezone) == (new.schedule, new.timezone)
