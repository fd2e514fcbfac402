"""Claiming and settling runs in the embedded store.

A run is a row of ``schedule_runs``, made in the transaction that moves its job to the next occurrence. It is open while it has a deadline: that of its holder's lease (boot id, CLOCK_BOOTTIME), or of its next try. Only the oldest open run of a job can be claimed, and no further occurrence while there is one. Its holder renews a lease, which ends with its deadline or with the holder's process.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..._core.clocks import is_alive, process_name
from ...schedule.times import occurrences
from ...spi.schedule import DueRun, Outcome, StoredJob
from .._schedule.jobs import COLUMNS, Advance, run_id, stored
from .._schedule.runs import CHANNEL, LeasedRuns, RunToken
from . import SqliteComponent
from .writes import WriteTask

if TYPE_CHECKING:
    from .engine import Engine
    from .notifier import Waiter

_STEP_MS: Final = 500
"""Least step back of the wall clock that is noticed."""
_DEAD_EVERY: Final = 1000

_VERSION: Final = "j.id || ':' || hex(j.spec)"
_HERE: Final = (
    "((j.handler IS NULL OR j.handler IN (SELECT value FROM json_each(:handlers))) "
    f"AND {_VERSION} NOT IN (SELECT value FROM json_each(:aside)))"
)
_FIRST_OPEN: Final = (
    "NOT EXISTS (SELECT 1 FROM schedule_runs o WHERE o.job = r.job AND o.deadline IS NOT NULL AND o.id < r.id)"
)
_NO_OPEN: Final = "NOT EXISTS (SELECT 1 FROM schedule_runs o WHERE o.job = j.id AND o.deadline IS NOT NULL)"
# the next occurrence that could be claimed, and the next open run
_PEEK: Final = f"""
SELECT
  (SELECT j.next FROM schedule_jobs j WHERE j.app = :app AND j.next IS NOT NULL AND NOT j.paused AND {_HERE} AND {_NO_OPEN}
   ORDER BY j.next LIMIT 1),
  (SELECT min(CASE WHEN r.boot = :boot THEN r.deadline ELSE 0 END)
   FROM schedule_runs r LEFT JOIN schedule_jobs j ON j.id = r.job
   WHERE r.app = :app AND r.deadline IS NOT NULL AND (j.id IS NULL OR {_HERE}) AND {_FIRST_OPEN}
     AND NOT (r.boot = :boot AND r.member IS NOT NULL AND r.deadline > :now))
"""
_HOLDERS: Final = (
    "SELECT DISTINCT process FROM schedule_runs WHERE app = ? AND deadline IS NOT NULL AND boot = ? AND process IS NOT NULL"
)
_OPEN: Final = f"""
SELECT r.id, r.run, r.fire, r.attempt, r.failures, {_VERSION}, {COLUMNS}
FROM schedule_runs r LEFT JOIN schedule_jobs j ON j.id = r.job
WHERE r.app = :app AND r.deadline IS NOT NULL
  AND (r.boot <> :boot OR r.deadline <= :now OR r.process IN (SELECT value FROM json_each(:dead)))
  AND (j.id IS NULL OR {_HERE}) AND {_FIRST_OPEN}
ORDER BY r.id LIMIT :want
"""
_DUE: Final = f"""
SELECT j.id, {_VERSION}, {COLUMNS} FROM schedule_jobs j
WHERE j.app = :app AND j.next <= :wall AND NOT j.paused AND {_HERE} AND {_NO_OPEN} ORDER BY j.next LIMIT :want
"""
_TAKE: Final = (
    "UPDATE schedule_runs SET status = 'running', attempt = ?, member = ?, process = ?, boot = ?, deadline = ?, started = ?, ended = NULL "
    "WHERE id = ?"
)
_NEW: Final = (
    "INSERT INTO schedule_runs (app, name, job, run, fire, last, count, status, attempt, failures, member, process, boot, deadline, started) "
    "VALUES (?, ?, ?, ?, ?, ?, 1, 'running', 1, 0, ?, ?, ?, ?, ?)"
)
_SKIPPED: Final = (
    "INSERT INTO schedule_runs (app, name, job, run, fire, last, count, status, attempt, failures, boot, ended) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, 'skipped', 0, 0, ?, ?)"
)
_MOVE: Final = "UPDATE schedule_jobs SET next = ?, occurrences = occurrences + ?, skipped = skipped + ? WHERE id = ?"
_CANCEL: Final = "UPDATE schedule_runs SET status = 'cancelled', deadline = NULL, ended = ? WHERE id = ?"
_MINE: Final = "WHERE id = ? AND attempt = ? AND member = ? AND deadline IS NOT NULL"
_GIVE_BACK: Final = (
    f"UPDATE schedule_runs SET status = 'waiting', attempt = attempt - 1, member = NULL, process = NULL, deadline = 0 {_MINE}"
)
_AGAIN: Final = (
    "UPDATE schedule_runs SET status = 'waiting', failures = failures + 1, error = ?, ended = NULL, member = NULL, process = NULL, deadline = ? "
    f"{_MINE} AND EXISTS (SELECT 1 FROM schedule_jobs j WHERE j.id = job)"
)
_END: Final = (
    f"UPDATE schedule_runs SET status = ?, error = ?, ended = ?, deadline = NULL, member = NULL, process = NULL {_MINE}"
)
# a job that has had its last occurrence goes with its last run
_RETIRE: Final = (
    "DELETE FROM schedule_jobs AS j WHERE j.next IS NULL AND j.id = (SELECT job FROM schedule_runs WHERE id = ?) "
    f"AND {_NO_OPEN}"
)
_RENEW: Final = f"UPDATE schedule_runs SET deadline = ? {_MINE} AND boot = ?"
_LATER: Final = f"SELECT j.id, {COLUMNS} FROM schedule_jobs j WHERE j.app = ? AND j.next > ?"


class SqliteRuns(LeasedRuns):
    """Member of an application's runners."""

    look_every = 0.25

    def __init__(self, context: SqliteComponent, app: str, handlers: Callable[[], frozenset[str]]) -> None:
        super().__init__(app, handlers)
        self._context = context
        self._engine: Engine = context.engine
        self._process = process_name(os.getpid()) or f"{os.getpid()}::"
        self._offset: int | None = None
        self._dead_at = 0
        context.sweeping()

    def _clock(self) -> float:
        return self._engine.clocks.boot_ms() / 1000

    def _subscribe(self) -> Waiter:
        self._engine.open()
        return self._engine.notifier.subscribe(CHANNEL)

    # -- exchange ---------------------------------------------------------

    def exchange(self, outcomes: Sequence[Outcome], want: int, /) -> Sequence[DueRun]:
        self._context.check_open()
        return self._engine.unless_gone(lambda: self._exchange(outcomes, want), lambda: self._begin(want))

    def _begin(self, want: int) -> Sequence[DueRun]:
        """Claim from the database that is there now. What was held is void."""
        self._held.clear()
        self._unsubscribe()
        self._engine = self._context.engine
        self._context.sweeping()
        return self._exchange((), want)

    def _exchange(self, outcomes: Sequence[Outcome], want: int) -> Sequence[DueRun]:
        engine, clocks = self._engine, self._engine.clocks
        wall, boot = clocks.wall_ms(), clocks.boot_ms()
        renew = self._to_renew()
        offset = wall - boot
        set_back = self._offset is None or offset < self._offset - _STEP_MS
        names = self._names(want)
        dead = self._find_dead(boot) if want else []
        due = self._is_due(self._peek(names, wall, boot) if want else ()) or bool(dead)
        if not (outcomes or renew or due or set_back):
            self._offset = max(offset, self._offset or offset)
            return ()
        names["dead"] = json.dumps(dead)

        def body(connection: sqlite3.Connection) -> tuple[list[DueRun], list[RunToken], int]:
            if set_back:
                self._set_back(connection)
            for outcome in outcomes:
                self._settle(connection, outcome)
            lease = clocks.boot_ms() + self.lease_ms
            renewed = [each for each in renew if self._renewed(connection, each, lease)]
            runs = self._claim(connection, names, lease) if want else []
            return runs, renewed, lease

        given_back = any(not outcome.begun for outcome in outcomes)
        task = WriteTask(body, durable=False, channels=(CHANNEL,) if given_back else ())
        runs, renewed, deadline = engine.run(task, self._operation())
        self._offset = offset
        return self._take(outcomes, renew, renewed, runs, want, deadline / 1000)

    def _names(self, want: int) -> dict[str, Any]:
        clocks = self._engine.clocks
        self._look_again()
        return {
            "app": self._app,
            "handlers": json.dumps(sorted(self._handlers())),
            "aside": json.dumps(sorted(self._aside)),
            "boot": clocks.boot_id(),
            "now": clocks.boot_ms(),
            "wall": clocks.wall_ms(),
            "want": want,
        }

    def _find_dead(self, boot: int) -> list[str]:
        """Return the processes that hold runs and are gone; looks once a second."""
        if boot < self._dead_at:
            return []
        self._dead_at = boot + _DEAD_EVERY
        rows = self._engine.query(None, _HOLDERS, (self._app, self._engine.clocks.boot_id()))
        return [process for (process,) in rows if process != self._process and not is_alive(process)]

    def _peek(self, names: dict[str, Any], wall: int, boot: int) -> tuple[int | None, int | None]:
        """Return the milliseconds until the next occurrence and until the next open run."""
        occurrence, deadline = self._engine.query(None, _PEEK, names)[0]
        return None if occurrence is None else occurrence - wall, None if deadline is None else deadline - boot

    # -- inside the transaction -------------------------------------------

    def _set_back(self, connection: sqlite3.Connection) -> None:
        """After a step back of the wall clock, move jobs to their next occurrence by the new time."""
        wall = self._engine.clocks.wall_ms()
        for row in connection.execute(_LATER, (self._app, wall)).fetchall():
            job = stored(row[1:])
            spec = job.spec
            if spec.schedule is None or (job.occurrences == 0 and spec.due_ms is not None):
                continue
            try:
                sooner = occurrences(spec.schedule, spec.timezone).after(wall)
            except Exception:  # which is named once the job is due
                continue
            if sooner is not None and job.next_ms is not None and sooner < job.next_ms:
                connection.execute(_MOVE, (sooner, 0, 0, row[0]))

    def _settle(self, connection: sqlite3.Connection, outcome: Outcome) -> None:
        token = outcome.token
        assert isinstance(token, RunToken)
        clocks = self._engine.clocks
        mine = (token.id, token.attempt, self._member)
        if not outcome.begun:
            connection.execute(_GIVE_BACK, mine)
            return
        if outcome.retry_after is not None:
            deadline = clocks.boot_ms() + int(outcome.retry_after * 1000)
            if connection.execute(_AGAIN, (outcome.error, deadline, *mine)).rowcount:
                return
        status = "succeeded" if outcome.error is None else "failed"
        if connection.execute(_END, (status, outcome.error, clocks.wall_ms(), *mine)).rowcount:
            connection.execute(_RETIRE, (token.id,))

    def _renewed(self, connection: sqlite3.Connection, token: RunToken, lease: int) -> bool:
        parameters = (lease, token.id, token.attempt, self._member, self._engine.clocks.boot_id())
        return connection.execute(_RENEW, parameters).rowcount > 0

    def _claim(self, connection: sqlite3.Connection, names: dict[str, Any], lease: int) -> list[DueRun]:
        clocks = self._engine.clocks
        names = {**names, "now": clocks.boot_ms(), "wall": clocks.wall_ms()}
        holder = (self._member, self._process, names["boot"], lease, names["wall"])
        runs: list[DueRun] = []
        for id, run, fire, attempt, failures, version, *columns in connection.execute(_OPEN, names).fetchall():
            if version is None:  # deleted while its holder had it
                connection.execute(_CANCEL, (names["wall"], id))
                continue
            stored_job = stored(columns)
            if stored_job.error is not None or not isinstance(attempt, int):
                self._set_aside(stored_job, version)
                continue
            connection.execute(_TAKE, (attempt + 1, *holder, id))
            runs.append(DueRun(RunToken(id, attempt + 1), run, fire, attempt + 1, failures, stored_job.spec))
        names["want"] -= len(runs)
        for job, version, *columns in connection.execute(_DUE, names).fetchall():
            stored_job = stored(columns)
            step = self._advance(stored_job, version, names["wall"])
            if step is None:
                continue
            fire_ms, spec = self._move(connection, job, stored_job, step, names), stored_job.spec
            if fire_ms is not None:
                run = run_id(self._app, spec.name, fire_ms)
                row = connection.execute(_NEW, (self._app, spec.name, job, run, fire_ms, fire_ms, *holder))
                runs.append(DueRun(RunToken(int(row.lastrowid or 0), 1), run, fire_ms, 1, 0, spec))
        return runs

    def _move(
        self, connection: sqlite3.Connection, id: int, job: StoredJob, step: Advance, names: dict[str, Any]
    ) -> int | None:
        """Move a job on to its next occurrence; returns the one to run, if any."""
        spec = job.spec
        connection.executemany(
            _SKIPPED,
            [
                (
                    self._app,
                    spec.name,
                    id,
                    run_id(self._app, spec.name, fire),
                    fire,
                    last,
                    count,
                    names["boot"],
                    names["wall"],
                )
                for fire, last, count in step.skipped
            ],
        )
        connection.execute(_MOVE, (step.following, step.due, step.missed, id))
        if step.following is None and step.fire is None:
            connection.execute("DELETE FROM schedule_jobs WHERE id = ?", (id,))
        return step.fire

    # -- the rest of the SPI ----------------------------------------------

    def holds(self, token: object, /) -> bool:
        return self._engine.holds() and super().holds(token)
