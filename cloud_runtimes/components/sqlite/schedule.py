"""Jobs in the embedded store. `schedule_runs` claims and settles their runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from ...spi.inventory import JobInfo
from ...spi.operation import Operation
from ...spi.schedule import JobSpec, RunRecord, RunSource, RunStatus, ScheduleDriver, StoredJob
from .._schedule.jobs import COLUMNS, FEATURES, RUN_COLUMNS, exists, planned, records, stays_due, stored, written
from .._schedule.runs import CHANNEL
from . import SqliteComponent
from .writes import WriteTask

if TYPE_CHECKING:
    from .engine import Engine
    from .portable import DatabaseTables

_GET: Final = f"SELECT {COLUMNS} FROM schedule_jobs j WHERE app = ? AND name = ?"
_ALL: Final = f"SELECT {COLUMNS} FROM schedule_jobs j WHERE app = ? ORDER BY name"
_FIND: Final = "SELECT spec, next FROM schedule_jobs WHERE app = ? AND name = ?"
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
_RUNS: Final = f"SELECT {RUN_COLUMNS} FROM schedule_runs WHERE app = ? AND name = ? ORDER BY id"


class SqliteSchedule(ScheduleDriver):
    """The jobs of one application."""

    features = FEATURES

    def __init__(self, context: SqliteComponent, name: str) -> None:
        self._context = context
        self._engine: Engine = context.engine
        self._app = context.context.app_id

    # -- jobs -------------------------------------------------------------

    def save(self, op: Operation, spec: JobSpec, overwrite: bool, /) -> None:
        self._context.sweeping()
        now = self._engine.clocks.wall_ms()
        spec, first = planned(spec, now, self._context.settings.max_value_bytes)
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
                raise exists(spec.name)
            elif stays_due(spec, *row):
                connection.execute(_REDEFINE, names)
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
        return records(name, self._engine.query(op, _RUNS, (self._app, name)))

    # -- all applications -------------------------------------------------

    def jobs(self, op: Operation, prefix: str, limit: int, /) -> list[JobInfo]:
        from .._inventory import list_all_jobs

        return list_all_jobs(self._tables(), op, prefix, limit)

    def pause(self, op: Operation, app: str, name: str, paused: bool, /) -> bool:
        from .._inventory import pause_job

        return pause_job(self._tables(), op, app, name, paused)

    def retry_run(self, op: Operation, app: str, name: str, run_id: str, /) -> RunStatus | None:
        from .._inventory import retry_run

        return retry_run(self._tables(), op, app, name, run_id)

    def _tables(self) -> DatabaseTables:
        from .portable import DatabaseTables

        return DatabaseTables(self._context)

    def join(self, op: Operation, handlers: Callable[[], frozenset[str]], /) -> RunSource:
        from .schedule_runs import SqliteRuns

        self._engine.open(op)
        return SqliteRuns(self._context, self._app, handlers)
