"""Claiming and settling runs in the embedded store.

A run is a row of ``schedule_runs``, made in the transaction that moves its job to the next occurrence. It is open while it has a deadline: that of its holder's lease (boot id, CLOCK_BOOTTIME), or of its next try. Only the oldest open run of a job can be claimed, and no further occurrence while there is one. Its holder renews a lease, which ends with its deadline or with the holder's process.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..._core.clocks import is_alive, process_name
from ...schedule.times import occurrences
from ...spi.operation import Method, Operation
from ...spi.schedule import DueRun, JobSpec, Outcome, RunSource, StoredJob
from .._jobs import COLUMNS, advance, run_id, stored
from .schedule import CHANNEL
from .writes import WriteTask

if TYPE_CHECKING:
    from . import SqliteComponent
    from .engine import Engine
    from .notifier import Waiter

__all__ = ["LEASE_MS", "SqliteRuns"]

LEASE_MS: Final = 15_000
"""How long a lease lasts without a renewal. Holders renew three times as often."""
_STEP_MS: Final = 500
"""Least step back of the wall clock that is noticed."""
_DEAD_EVERY: Final = 1000
_LOOK_EVERY: Final = 0.25
"""Seconds after which a runner looks by itself."""
_TIMEOUT: Final = 10.0
_IDLE: Final = 0.05

_EXCHANGE: Final = Method("schedule", "run", repeatable=False)

_HERE: Final = "(j.handler IS NULL OR j.handler IN (SELECT value FROM json_each(:handlers)))"
_FIRST_OPEN: Final = (
    "NOT EXISTS (SELECT 1 FROM schedule_runs o WHERE o.job = r.job AND o.deadline IS NOT NULL AND o.id < r.id)"
)
_NO_OPEN: Final = "NOT EXISTS (SELECT 1 FROM schedule_runs o WHERE o.job = j.id AND o.deadline IS NOT NULL)"
# the next occurrence that could be claimed, and the next open run
_PEEK: Final = f"""
SELECT
  (SELECT j.next FROM schedule_jobs j WHERE j.app = :app AND j.next IS NOT NULL AND {_HERE} AND {_NO_OPEN}
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
SELECT r.id, r.run, r.fire, r.attempt, r.failures, j.id, {COLUMNS}
FROM schedule_runs r LEFT JOIN schedule_jobs j ON j.id = r.job
WHERE r.app = :app AND r.deadline IS NOT NULL
  AND (r.boot <> :boot OR r.deadline <= :now OR r.process IN (SELECT value FROM json_each(:dead)))
  AND (j.id IS NULL OR {_HERE}) AND {_FIRST_OPEN}
ORDER BY r.id LIMIT :want
"""
_DUE: Final = f"""
SELECT j.id, {COLUMNS} FROM schedule_jobs j
WHERE j.app = :app AND j.next <= :wall AND {_HERE} AND {_NO_OPEN} ORDER BY j.next LIMIT :want
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


class _Token(NamedTuple):
    id: int
    attempt: int


class SqliteRuns(RunSource):
    """One member of an application's runners."""

    def __init__(self, context: SqliteComponent, app: str, handlers: Callable[[], frozenset[str]]) -> None:
        self._context = context
        self._engine: Engine = context.engine
        self._app = app
        self._handlers = handlers
        self._member = os.urandom(16).hex()
        self._process = process_name(os.getpid()) or f"{os.getpid()}::"
        self._held: dict[_Token, int] = {}
        self._renew_at = 0
        self._waiter: Waiter | None = None
        self._offset: int | None = None
        self._dead_at = 0
        self._next: float = 0.0
        context.sweeping()

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
        if self._waiter is None:
            engine.open()
            self._waiter = engine.notifier.subscribe(CHANNEL)
        offset = wall - boot
        set_back = self._offset is None or offset < self._offset - _STEP_MS
        names = self._names(want)
        dead = self._find_dead(boot) if want else []
        renew = [] if boot < self._renew_at else list(self._held)
        due = bool(dead) or (want > 0 and self._is_due(names, wall, boot))
        if not want:
            self._next = 1.0
        if not (outcomes or renew or due or set_back):
            self._offset = max(offset, self._offset or offset)
            return ()
        names["dead"] = json.dumps(dead)

        def body(connection: sqlite3.Connection) -> tuple[list[DueRun], list[_Token], int]:
            if set_back:
                self._set_back(connection)
            for outcome in outcomes:
                self._settle(connection, outcome)
            lease = clocks.boot_ms() + LEASE_MS
            renewed = [each for each in renew if self._renewed(connection, each, lease)]
            runs = self._claim(connection, names, lease) if want else []
            return runs, renewed, lease

        given_back = any(not outcome.begun for outcome in outcomes)
        task = WriteTask(body, durable=False, channels=(CHANNEL,) if given_back else ())
        runs: list[DueRun]
        runs, renewed, deadline = engine.run(task, Operation(_EXCHANGE, "schedule", _TIMEOUT))
        self._offset = offset
        for outcome in outcomes:
            self._held.pop(outcome.token, None)  # type: ignore[call-overload]
        for token in renew:
            self._held.pop(token, None)  # what could not be renewed is lost
        for token in renewed:
            self._held[token] = deadline
        for run in runs:
            self._held[run.token] = deadline  # type: ignore[index]
        if renew or not self._renew_at:
            self._renew_at = deadline - LEASE_MS + LEASE_MS // 3
        self._next = 0.0 if len(runs) == want and want else _IDLE
        return runs

    def _names(self, want: int) -> dict[str, Any]:
        clocks = self._engine.clocks
        return {
            "app": self._app,
            "handlers": json.dumps(sorted(self._handlers())),
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

    def _is_due(self, names: dict[str, Any], wall: int, boot: int) -> bool:
        occurrence, deadline = self._engine.query(None, _PEEK, names)[0]
        pauses = [1000]
        if occurrence is not None:
            pauses.append(occurrence - wall)
        if deadline is not None:
            pauses.append(deadline - boot)
        self._next = max(0, min(pauses)) / 1000
        return min(pauses) <= 0

    # -- inside the transaction -------------------------------------------

    def _set_back(self, connection: sqlite3.Connection) -> None:
        """After a step back of the wall clock, move jobs to their next occurrence by the new time."""
        wall = self._engine.clocks.wall_ms()
        for row in connection.execute(_LATER, (self._app, wall)).fetchall():
            job = stored(row[1:])
            spec = job.spec
            if spec.schedule is None or (job.occurrences == 0 and spec.due_ms is not None):
                continue
            sooner = occurrences(spec.schedule, spec.timezone).after(wall)
            if sooner is not None and job.next_ms is not None and sooner < job.next_ms:
                connection.execute(_MOVE, (sooner, 0, 0, row[0]))

    def _settle(self, connection: sqlite3.Connection, outcome: Outcome) -> None:
        token = outcome.token
        assert isinstance(token, _Token)
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

    def _renewed(self, connection: sqlite3.Connection, token: _Token, lease: int) -> bool:
        parameters = (lease, token.id, token.attempt, self._member, self._engine.clocks.boot_id())
        return connection.execute(_RENEW, parameters).rowcount > 0

    def _claim(self, connection: sqlite3.Connection, names: dict[str, Any], lease: int) -> list[DueRun]:
        clocks = self._engine.clocks
        names = {**names, "now": clocks.boot_ms(), "wall": clocks.wall_ms()}
        holder = (self._member, self._process, names["boot"], lease, names["wall"])
        runs: list[DueRun] = []
        for id, run, fire, attempt, failures, job, *columns in connection.execute(_OPEN, names).fetchall():
            if job is None:  # deleted while its holder had it
                connection.execute(_CANCEL, (names["wall"], id))
                continue
            connection.execute(_TAKE, (attempt + 1, *holder, id))
            spec = stored(columns).spec
            runs.append(DueRun(_Token(id, attempt + 1), run, fire, attempt + 1, failures, spec))
        names["want"] -= len(runs)
        for job, *columns in connection.execute(_DUE, names).fetchall():
            fire_ms, spec = self._advance(connection, job, stored(columns), names)
            if fire_ms is not None:
                run = run_id(self._app, spec.name, fire_ms)
                row = connection.execute(_NEW, (self._app, spec.name, job, run, fire_ms, fire_ms, *holder))
                runs.append(DueRun(_Token(int(row.lastrowid or 0), 1), run, fire_ms, 1, 0, spec))
        return runs

    def _advance(
        self, connection: sqlite3.Connection, id: int, job: StoredJob, names: dict[str, Any]
    ) -> tuple[int | None, JobSpec]:
        """Move a job on to its next occurrence; returns the one to run, if any."""
        step, spec = advance(job, names["wall"]), job.spec
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
        return step.fire, spec

    # -- the rest of the SPI ----------------------------------------------

    def holds(self, token: object, /) -> bool:
        return self._engine.holds() and self._engine.clocks.boot_ms() < self._held.get(token, 0)  # type: ignore[call-overload]

    def wait(self, seconds: float, /) -> None:
        waiter = self._waiter
        if waiter is None:  # the store could not be opened
            time.sleep(min(seconds, _LOOK_EVERY))
            return
        pause = min(seconds, self._next, _LOOK_EVERY)
        if self._held:
            pause = min(pause, max(0.0, (self._renew_at - self._engine.clocks.boot_ms()) / 1000))
        waiter.wait(pause)

    def wake(self) -> None:
        if (waiter := self._waiter) is not None:
            waiter.wake()

    def close(self, outcomes: Sequence[Outcome], /) -> None:
        try:
            if outcomes:
                self.exchange(outcomes, 0)
        finally:
            self._unsubscribe()

    def _unsubscribe(self) -> None:
        if self._waiter is not None:
            self._waiter.close()
            self._waiter = None
