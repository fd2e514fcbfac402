"""Locks, services and jobs in SQL tables, for ``client.admin``. The tables of our SQL components are alike, so the statements are written once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..rpc.registry import Entry
from ..schedule.times import from_ms
from ..spi.inventory import JobInfo, LockInfo
from ..spi.operation import Operation
from ..spi.schedule import RunStatus
from ._copy.sql import Calls, Rows, Sql, Steps, Tables
from ._rpc import read_entered
from ._schedule.jobs import COLUMNS, info, stored
from ._unreadable import read_entries

_WAITING: Final = "FROM {schema}.lock_line q WHERE q.store = l.store AND q.resource = l.resource AND {current}"
# what has expired counts while others wait for it
_LOCKS: Final = Sql(
    f"SELECT resource, owner, token, since, deadline, {{boot}}, {{lasts}}, (SELECT count(*) {_WAITING}) FROM {{schema}}.locks l "
    f"WHERE store = $1 AND substr(resource, 1, length($2)) = $2 AND ({{lasts}} OR EXISTS (SELECT 1 {_WAITING})) "
    "ORDER BY resource LIMIT $3",
    "text text int8",
)
_SERVICES: Final = Sql(
    "SELECT instance, app_id, address, about FROM {schema}.services "
    "WHERE {lasts} AND substr(app_id, 1, length($1)) = $1 ORDER BY app_id, instance",
    "text",
)
_ENDED: Final = "FROM {schema}.schedule_runs r WHERE r.app = j.app AND r.name = j.name AND r.status"
_JOBS: Final = Sql(
    f"SELECT j.app, l.ended, l.error, (SELECT count(*) {_ENDED} = 'failed' AND r.id > "
    f"coalesce((SELECT max(r.id) {_ENDED} = 'succeeded'), 0)), "
    "EXISTS (SELECT 1 FROM {schema}.schedule_runs WHERE job = j.id AND status = 'running' AND {lasts}), "
    f"{COLUMNS} FROM {{schema}}.schedule_jobs j LEFT JOIN {{schema}}.schedule_runs l "
    f"ON l.id = (SELECT max(r.id) {_ENDED} IN ('succeeded', 'failed')) "
    "WHERE substr(j.name, 1, length($1)) = $1 ORDER BY j.app, j.name LIMIT $2",
    "text int8",
)
_NAMED: Final = "app = $1 AND name = $2"
_PAUSE: Final = Sql(
    f"UPDATE {{schema}}.schedule_jobs SET paused = $3 WHERE {_NAMED} RETURNING id",
    "text text bool",
)
_JOB: Final = Sql(f"SELECT id FROM {{schema}}.schedule_jobs WHERE {_NAMED} FOR UPDATE", "text text")
_LAST: Final = Sql(
    f"SELECT id, status FROM {{schema}}.schedule_runs WHERE {_NAMED} AND run = $3 ORDER BY id DESC LIMIT 1",
    "text text text",
)
_AGAIN: Final = Sql(
    "INSERT INTO {schema}.schedule_runs (app, name, job, run, fire, last, count, status, attempt, failures, deadline{and_boot}) "
    "SELECT app, name, $2, run, fire, last, count, 'waiting', attempt, 0, 0{this_boot} FROM {schema}.schedule_runs WHERE id = $1",
    "int8 int8",
)


def list_locks(tables: Tables, op: Operation, store: str, prefix: str, limit: int) -> list[LockInfo]:
    """Return the locks of a store."""

    def read(row: Sequence[Any]) -> LockInfo:
        resource, owner, token, since, deadline, boot, held, waiting = row
        due = tables.due_ms(deadline, boot)
        if not (held and due):
            return LockInfo(resource, None, None, None, None, waiting)
        return LockInfo(resource, owner, token, None if since is None else from_ms(since), from_ms(due), waiting)

    rows = tables.query(op, _LOCKS, store, prefix, limit)
    return list(read_entries(f"lock {store!r}", rows, lambda row: str(row[0]), read))


def list_servers(tables: Tables, op: Operation, prefix: str) -> list[Entry]:
    """Return the servers of all applications."""
    return read_entered(tables.query(op, _SERVICES, prefix))


def list_all_jobs(tables: Tables, op: Operation, prefix: str, limit: int) -> list[JobInfo]:
    """Return the jobs of all applications."""

    def read(row: Sequence[Any]) -> JobInfo:
        app, ended, error, failed, running, *job = row
        return info(app, stored(job), ended, error, failed, running=bool(running))

    return list(read_entries("jobs", tables.query(op, _JOBS, prefix, limit), lambda row: str(row[5]), read))


def pause_job(tables: Tables, op: Operation, app: str, name: str, paused: bool) -> bool:
    """Pause or resume a job; returns whether there is one."""
    rows: Rows = []

    def steps() -> Steps:
        rows[:] = (yield [(_PAUSE, (app, name, paused))])[0]

    tables.write(op, steps)
    return bool(rows)


def retry_run(tables: Tables, op: Operation, app: str, name: str, run_id: str) -> RunStatus | None:
    """Let a run that failed run again; returns how it ended, ``None``: there is no such job or run."""
    status: list[RunStatus] = []

    def steps() -> Steps:
        calls: Calls = [(_JOB, (app, name)), (_LAST, (app, name, run_id))]
        jobs, runs = yield calls
        status[:] = [run[1] for run in runs if jobs]
        if status == ["failed"]:
            yield [(_AGAIN, (runs[0][0], jobs[0][0]))]

    tables.write(op, steps)
    return status[0] if status else None
