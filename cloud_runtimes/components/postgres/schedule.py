"""Jobs on PostgreSQL, and their runs.

A run is a row of ``schedule_runs``, made in the transaction that moves its job to the next occurrence. It is open while it has a deadline by the server's clock: that of its holder's lease, or of its next try. Only the oldest open run of a job can be claimed, and no further occurrence while there is one. Its holder renews the lease; when the holder dies it ends by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from ...spi.inventory import JobInfo
from ...spi.operation import Operation
from ...spi.schedule import DueRun, JobSpec, Outcome, RunRecord, RunSource, RunStatus, ScheduleDriver, StoredJob
from .._net.notify import Waiter
from .._schedule.jobs import (
    COLUMNS,
    FEATURES,
    RUN_COLUMNS,
    Advance,
    exists,
    planned,
    records,
    run_id,
    stays_due,
    stored,
    written,
)
from .._schedule.runs import CHANNEL, LeasedRuns, RunToken
from . import PostgresComponent
from .connection import Connection, Flow
from .database import PostgresDriver, on_connection
from .notifier import notification
from .statement import BEGIN, COMMIT, ROLLBACK, Statement

if TYPE_CHECKING:
    from .portable import DatabaseTables

_NOW: Final = Statement("SELECT {schema}.now_ms()")
_NAMED: Final = "app = $1 AND name = $2"
_GET: Final = Statement(f"SELECT {COLUMNS} FROM {{schema}}.schedule_jobs j WHERE {_NAMED}", "text text")
_ALL: Final = Statement(f"SELECT {COLUMNS} FROM {{schema}}.schedule_jobs j WHERE app = $1 ORDER BY name", "text")
_FIND: Final = Statement(f"SELECT spec, next FROM {{schema}}.schedule_jobs WHERE {_NAMED} FOR UPDATE", "text text")
_FIELDS: Final = "text text text text bytea int8"
_INSERT: Final = Statement(
    "INSERT INTO {schema}.schedule_jobs (app, name, handler, spec, data, next, occurrences, skipped, created) "
    "VALUES ($1, $2, $3, $4, $5, $6, 0, 0, {schema}.now_ms()) ON CONFLICT DO NOTHING",
    _FIELDS,
)
_REPLACE: Final = Statement(
    "UPDATE {schema}.schedule_jobs SET handler = $3, spec = $4, data = $5, next = $6, occurrences = 0, skipped = 0 "
    f"WHERE {_NAMED}",
    _FIELDS,
)
_REDEFINE: Final = Statement(
    f"UPDATE {{schema}}.schedule_jobs SET handler = $3, spec = $4, data = $5 WHERE {_NAMED} AND $6::int8 IS NOT NULL",
    _FIELDS,
)
_DELETE: Final = Statement(f"DELETE FROM {{schema}}.schedule_jobs WHERE {_NAMED}", "text text")
_CANCEL_WAITING: Final = Statement(
    "UPDATE {schema}.schedule_runs SET status = 'cancelled', deadline = NULL, ended = {schema}.now_ms() "
    f"WHERE {_NAMED} AND deadline IS NOT NULL AND member IS NULL "
    f"AND NOT EXISTS (SELECT 1 FROM {{schema}}.schedule_jobs WHERE {_NAMED})",
    "text text",
)
_RUN_NOW: Final = Statement(
    "INSERT INTO {schema}.schedule_runs (app, name, job, run, fire, last, count, status, attempt, failures, deadline) "
    "SELECT app, name, id, $3, {schema}.now_ms(), {schema}.now_ms(), 1, 'waiting', 0, 0, 0 "
    f"FROM {{schema}}.schedule_jobs WHERE {_NAMED}",
    "text text text",
)
_RUNS: Final = Statement(f"SELECT {RUN_COLUMNS} FROM {{schema}}.schedule_runs WHERE {_NAMED} ORDER BY id", "text text")

_VERSION: Final = "j.id || ':' || j.spec"
_HERE: Final = f"((j.handler IS NULL OR j.handler = ANY ($2)) AND {_VERSION} <> ALL ($3))"
_FIRST_OPEN: Final = (
    "NOT EXISTS (SELECT 1 FROM {schema}.schedule_runs o WHERE o.job = r.job AND o.deadline IS NOT NULL AND o.id < r.id)"
)
_NO_OPEN: Final = "NOT EXISTS (SELECT 1 FROM {schema}.schedule_runs o WHERE o.job = j.id AND o.deadline IS NOT NULL)"
# milliseconds until the next occurrence could be claimed, and until the next open run
_PEEK: Final = Statement(
    f"SELECT (SELECT j.next FROM {{schema}}.schedule_jobs j WHERE j.app = $1 AND j.next IS NOT NULL AND NOT j.paused AND {_HERE} AND {_NO_OPEN} "
    "ORDER BY j.next LIMIT 1) - {schema}.now_ms(), "
    "(SELECT min(r.deadline) FROM {schema}.schedule_runs r LEFT JOIN {schema}.schedule_jobs j ON j.id = r.job "
    f"WHERE r.app = $1 AND r.deadline IS NOT NULL AND (j.id IS NULL OR {_HERE}) AND {_FIRST_OPEN}) - {{schema}}.now_ms()",
    "text text[] text[]",
)
# first locked, then looked at again by a statement that sees what those before have committed
_LOCK_OPEN: Final = Statement(
    "SELECT r.id FROM {schema}.schedule_runs r LEFT JOIN {schema}.schedule_jobs j ON j.id = r.job "
    f"WHERE r.app = $1 AND r.deadline <= {{schema}}.now_ms() AND (j.id IS NULL OR {_HERE}) AND {_FIRST_OPEN} "
    "ORDER BY r.id LIMIT $4 FOR UPDATE OF r SKIP LOCKED",
    "text text[] text[] int8",
)
_OPEN: Final = Statement(
    f"SELECT r.id, r.run, r.fire, r.attempt, r.failures, {_VERSION}, {COLUMNS} "
    "FROM {schema}.schedule_runs r LEFT JOIN {schema}.schedule_jobs j ON j.id = r.job "
    f"WHERE r.id = ANY ($1) AND r.deadline <= {{schema}}.now_ms() AND {_FIRST_OPEN} ORDER BY r.id",
    "int8[]",
)
_LOCK_DUE: Final = Statement(
    f"SELECT j.id FROM {{schema}}.schedule_jobs j WHERE j.app = $1 AND j.next <= {{schema}}.now_ms() AND NOT j.paused AND {_HERE} AND {_NO_OPEN} "
    "ORDER BY j.next LIMIT $4 FOR UPDATE SKIP LOCKED",
    "text text[] text[] int8",
)
_DUE: Final = Statement(
    f"SELECT j.id, {_VERSION}, {COLUMNS} FROM {{schema}}.schedule_jobs j "
    f"WHERE j.id = ANY ($1) AND j.next <= $2 AND NOT j.paused AND {_NO_OPEN} ORDER BY j.next",
    "int8[] int8",
)
_TAKE: Final = Statement(
    "UPDATE {schema}.schedule_runs SET status = 'running', attempt = $2, member = $3, deadline = {schema}.now_ms() + $4, "
    "started = {schema}.now_ms(), ended = NULL WHERE id = $1",
    "int8 int8 text int8",
)
_NEW: Final = Statement(
    "INSERT INTO {schema}.schedule_runs (app, name, job, run, fire, last, count, status, attempt, failures, member, deadline, started) "
    "VALUES ($1, $2, $3, $4, $5, $5, 1, 'running', 1, 0, $6, {schema}.now_ms() + $7, {schema}.now_ms()) RETURNING id",
    "text text int8 text int8 text int8",
)
_SKIPPED: Final = Statement(
    "INSERT INTO {schema}.schedule_runs (app, name, job, run, fire, last, count, status, attempt, failures, ended) "
    "SELECT $1, $2, $3, u.run, u.fire, u.last, u.count, 'skipped', 0, 0, {schema}.now_ms() "
    "FROM unnest($4::text[], $5::int8[], $6::int8[], $7::int8[]) AS u(run, fire, last, count)",
    "text text int8 text[] int8[] int8[] int8[]",
)
_MOVE: Final = Statement(
    "UPDATE {schema}.schedule_jobs SET next = $2, occurrences = occurrences + $3, skipped = skipped + $4 WHERE id = $1",
    "int8 int8 int8 int8",
)
_OVER: Final = Statement("DELETE FROM {schema}.schedule_jobs WHERE id = $1", "int8")
_CANCEL: Final = Statement(
    "UPDATE {schema}.schedule_runs SET status = 'cancelled', deadline = NULL, ended = {schema}.now_ms() WHERE id = $1",
    "int8",
)
_MINE: Final = "WHERE id = $1 AND attempt = $2 AND member = $3 AND deadline IS NOT NULL"
_TOKEN: Final = "int8 int8 text"
_GIVE_BACK: Final = Statement(
    f"UPDATE {{schema}}.schedule_runs SET status = 'waiting', attempt = attempt - 1, member = NULL, deadline = 0 {_MINE}",
    _TOKEN,
)
_AGAIN: Final = Statement(
    "UPDATE {schema}.schedule_runs r SET status = 'waiting', failures = failures + 1, error = $4, ended = NULL, member = NULL, "
    f"deadline = {{schema}}.now_ms() + $5 {_MINE} AND EXISTS (SELECT 1 FROM {{schema}}.schedule_jobs j WHERE j.id = r.job)",
    _TOKEN + " text int8",
)
_END: Final = Statement(
    "UPDATE {schema}.schedule_runs SET status = $4, error = $5, ended = {schema}.now_ms(), deadline = NULL, member = NULL "
    f"{_MINE}",
    _TOKEN + " text text",
)
# a job that has had its last occurrence goes with its last run
_RETIRE: Final = Statement(
    "DELETE FROM {schema}.schedule_jobs j WHERE j.next IS NULL "
    f"AND j.id = (SELECT job FROM {{schema}}.schedule_runs WHERE id = $1) AND {_NO_OPEN}",
    "int8",
)
_RENEW: Final = Statement(
    "UPDATE {schema}.schedule_runs r SET deadline = {schema}.now_ms() + $4 FROM unnest($1::int8[], $2::int8[]) AS u(id, attempt) "
    "WHERE r.id = u.id AND r.attempt = u.attempt AND r.member = $3 AND r.deadline IS NOT NULL RETURNING r.id",
    "int8[] int8[] text int8",
)


class PostgresSchedule(PostgresDriver, ScheduleDriver):
    """The jobs of one application."""

    features = FEATURES

    def __init__(self, component: PostgresComponent, name: str) -> None:
        super().__init__(component, name)
        self._app = component.context.app_id

    # -- jobs -------------------------------------------------------------

    def _save(self, connection: Connection, spec: JobSpec, overwrite: bool, /) -> Flow[None]:
        now = (yield from connection.execute(_NOW)).rows[0][0]
        spec, first = planned(spec, now, self.component.settings.max_value_bytes)
        handler = spec.target if isinstance(spec.target, str) else None
        values = (self._app, spec.name, handler, written(spec), spec.data, first)
        _, inserted, stored = yield from connection.pipeline(
            [(BEGIN, ()), (_INSERT, values), (_FIND, (self._app, spec.name))]
        )
        if not inserted.count:
            if not overwrite:
                yield from connection.execute(ROLLBACK)
                raise exists(spec.name)
            yield from connection.execute(_REDEFINE if stays_due(spec, *stored.rows[0]) else _REPLACE, *values)
        yield from connection.pipeline([self._notification(), (COMMIT, ())])

    save, save_async = on_connection(_save)

    def _notification(self) -> tuple[Statement, Sequence[Any]]:
        return notification(self.component.settings.schema, [CHANNEL])

    def _get(self, connection: Connection, name: str, /) -> Flow[StoredJob | None]:
        rows = (yield from connection.execute(_GET, self._app, name)).rows
        return stored(rows[0]) if rows else None

    get, get_async = on_connection(_get)

    def list_jobs(self, op: Operation, /) -> list[StoredJob]:
        rows = self.component.engine.run(op, lambda connection: connection.execute(_ALL, self._app)).rows
        return [stored(row) for row in rows]

    def delete(self, op: Operation, name: str, /) -> None:
        calls = [(_DELETE, (self._app, name)), (_CANCEL_WAITING, (self._app, name))]
        self.component.engine.run(op, lambda connection: connection.pipeline(calls))

    # -- runs -------------------------------------------------------------

    def run_now(self, op: Operation, name: str, /) -> str | None:
        run = str(uuid4())
        calls = [(_RUN_NOW, (self._app, name, run)), self._notification()]
        results = self.component.engine.run(op, lambda connection: connection.pipeline(calls))
        return run if results[0].count else None

    def list_runs(self, op: Operation, name: str, /) -> list[RunRecord]:
        rows = self.component.engine.run(op, lambda connection: connection.execute(_RUNS, self._app, name)).rows
        return records(name, rows)

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

        return DatabaseTables(self.component)

    def join(self, op: Operation, handlers: Callable[[], frozenset[str]], /) -> RunSource:
        self.component.engine.ready(op)
        return _Runs(self.component, self._app, handlers)


class _Runs(LeasedRuns):
    """Member of an application's runners."""

    def __init__(self, component: PostgresComponent, app: str, handlers: Callable[[], frozenset[str]]) -> None:
        super().__init__(app, handlers)
        self.component = component

    def _subscribe(self) -> Waiter:
        return self.component.engine.notifier.subscribe(CHANNEL)

    def exchange(self, outcomes: Sequence[Outcome], want: int, /) -> Sequence[DueRun]:
        self.component.check_open()
        database = self.component.engine
        renew = self._to_renew()
        due = self._is_due(database.run(self._operation(), self._peek) if want else ())
        if not (outcomes or renew or due):
            return ()
        begun = self._clock()
        runs, renewed = database.run(
            self._operation(), lambda connection: self._exchange(connection, outcomes, renew, want)
        )
        return self._take(outcomes, renew, renewed, runs, want, begun + self.lease_ms / 1000)

    def _peek(self, connection: Connection) -> Flow[Sequence[int | None]]:
        self._look_again()
        return (yield from connection.execute(_PEEK, self._app, *self._chosen())).rows[0]

    def _chosen(self) -> tuple[list[str], list[str]]:
        """Return the handlers that there are, and versions of jobs that are left to others."""
        return sorted(self._handlers()), sorted(self._aside)

    def _exchange(
        self, connection: Connection, outcomes: Sequence[Outcome], renew: Sequence[RunToken], want: int
    ) -> Flow[tuple[list[DueRun], list[RunToken]]]:
        # durable: after a crash of the server a lease ends no earlier than its holder was told
        yield from connection.execute(BEGIN)
        for outcome in outcomes:
            yield from self._settle(connection, outcome)
        renewed: list[RunToken] = []
        if renew:
            ids, attempts = zip(*renew, strict=True)
            rows = (yield from connection.execute(_RENEW, ids, attempts, self._member, self.lease_ms)).rows
            kept = {row[0] for row in rows}
            renewed = [token for token in renew if token.id in kept]
        runs = (yield from self._claim(connection, want)) if want else []
        given_back = any(not outcome.begun for outcome in outcomes)
        yield from connection.pipeline([*([self._notification()] if given_back else []), (COMMIT, ())])
        return runs, renewed

    def _notification(self) -> tuple[Statement, Sequence[Any]]:
        return notification(self.component.settings.schema, [CHANNEL])

    def _settle(self, connection: Connection, outcome: Outcome) -> Flow[None]:
        token = outcome.token
        assert isinstance(token, RunToken)
        mine = (token.id, token.attempt, self._member)
        if not outcome.begun:
            yield from connection.execute(_GIVE_BACK, *mine)
            return
        if outcome.retry_after is not None:
            delay = int(outcome.retry_after * 1000)
            if (yield from connection.execute(_AGAIN, *mine, outcome.error, delay)).count:
                return
        status = "succeeded" if outcome.error is None else "failed"
        if (yield from connection.execute(_END, *mine, status, outcome.error)).count:
            yield from connection.execute(_RETIRE, token.id)

    def _claim(self, connection: Connection, want: int) -> Flow[list[DueRun]]:
        runs: list[DueRun] = []
        locked = (yield from connection.execute(_LOCK_OPEN, self._app, *self._chosen(), want)).rows
        if locked:
            rows = (yield from connection.execute(_OPEN, [row[0] for row in locked])).rows
            for id, run, fire, attempt, failures, version, *columns in rows:
                if version is None:  # deleted while its holder had it
                    yield from connection.execute(_CANCEL, id)
                    continue
                job = stored(columns)
                if job.error is not None:
                    self._set_aside(job, version)
                    continue
                yield from connection.execute(_TAKE, id, attempt + 1, self._member, self.lease_ms)
                runs.append(DueRun(RunToken(id, attempt + 1), run, fire, attempt + 1, failures, job.spec))
        if len(runs) < want:
            locked = (yield from connection.execute(_LOCK_DUE, self._app, *self._chosen(), want - len(runs))).rows
            if locked:
                now = (yield from connection.execute(_NOW)).rows[0][0]
                rows = (yield from connection.execute(_DUE, [row[0] for row in locked], now)).rows
                for id, version, *columns in rows:
                    job = stored(columns)
                    step = self._advance(job, version, now)
                    if step is not None:
                        runs += yield from self._move(connection, id, job, step)
        return runs

    def _move(self, connection: Connection, id: int, job: StoredJob, step: Advance) -> Flow[list[DueRun]]:
        """Move a job on to its next occurrence; returns the run of the one that was due, if it is to run."""
        name = job.spec.name
        if step.skipped:
            fires, lasts, counts = zip(*step.skipped, strict=True)
            ids = [run_id(self._app, name, fire) for fire in fires]
            yield from connection.execute(_SKIPPED, self._app, name, id, ids, fires, lasts, counts)
        yield from connection.execute(_MOVE, id, step.following, step.due, step.missed)
        if step.fire is None:
            if step.following is None:
                yield from connection.execute(_OVER, id)
            return []
        run = run_id(self._app, name, step.fire)
        created = yield from connection.execute(_NEW, self._app, name, id, run, step.fire, self._member, self.lease_ms)
        return [DueRun(RunToken(created.rows[0][0], 1), run, step.fire, 1, 0, job.spec)]
