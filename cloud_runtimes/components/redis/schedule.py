"""Jobs on Redis, and their runs. See `.schedule_scripts` for the keys.

A run is open while it has a deadline by the server's clock: that of its holder's lease, or of its next try. Only the oldest open run of a job can be claimed, and no further occurrence while there is one. Its holder renews the lease; when the holder dies it ends by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from ...spi import schedule as spi
from ...spi.flow import both_apis
from ...spi.operation import Operation
from ...spi.schedule import DueRun, JobSpec, Outcome, RunRecord, RunSource, ScheduleDriver, StoredJob
from .._engines import EngineDriver
from .._jobs import RUN_COLUMNS, exists, planned, record, records, run_id, stays_due, stored, written
from .._notify import Waiter
from .._runs import CHANNEL, LeasedRuns, RunToken
from .._unreadable import skip
from . import schedule_scripts as scripts
from .resp import Flow, Value

if TYPE_CHECKING:
    from . import RedisComponent

__all__ = ["JOB", "RedisSchedule", "column", "read_job"]

_MOVING_MS: Final = 5_000
"""How long a member has to move a job on. Less than what makes an occurrence a missed one."""
JOB: Final = ("name", "spec", "data", "next", "occurrences", "skipped", "created")
_RUN: Final = tuple(RUN_COLUMNS.split(", "))
_RUN_TEXTS: Final = frozenset(("name", "run", "status", "error", "member"))


class RedisSchedule(EngineDriver["RedisComponent"], ScheduleDriver):
    """The jobs of one application."""

    features = frozenset({spi.CLAIMS, spi.LIST_JOBS, spi.LIST_RUNS, spi.MISFIRE, spi.PROGRESS, spi.RUN_NOW})

    def __init__(self, component: RedisComponent, name: str) -> None:
        super().__init__(component, name)
        self._app = component.context.app_id
        tag = component.key("schedule", self._app, "")
        # Two that never exist: while the node of a cluster hands over their slot it answers TRYAGAIN to several keys, of
        # which some are not there. So no script sees half of the jobs
        self._tag = (tag, tag + b"-")
        self._channel = component.engine.notifier.name(f"{CHANNEL}:{self._app}")
        settings = component.settings
        self._kept = (int(settings.history * 1000), settings.history_runs)

    # -- jobs -------------------------------------------------------------

    def _save(self, op: Operation, given: JobSpec, overwrite: bool, /) -> Flow[None]:
        while True:
            now, id, old, due = yield from scripts.FIND.run(self._tag, given.name)
            spec, first = planned(given, int(now), self.component.settings.max_value_bytes)
            if id and not overwrite:
                raise exists(spec.name)
            keeps = bool(id) and _stays_due(spec, old, due)
            fields: list[Value] = ["spec", written(spec)]
            fields += [] if spec.data is None else ["data", spec.data]
            fields += ["handler", spec.target] if isinstance(spec.target, str) else []
            saved = yield from scripts.SAVE.run(
                self._tag, spec.name, id, old, int(keeps), self._channel, first, *fields
            )
            if saved:
                return

    save, save_async = both_apis(_save)

    def _get(self, op: Operation, name: str, /) -> Flow[StoredJob | None]:
        rows = yield from scripts.JOBS.run(self._tag, len(JOB), *JOB, name)
        return read_job(rows[0]) if rows else None

    get, get_async = both_apis(_get)

    def _list_jobs(self, op: Operation, /) -> Flow[list[StoredJob]]:
        rows = yield from scripts.JOBS.run(self._tag, len(JOB), *JOB)
        return sorted(map(read_job, rows), key=lambda job: job.spec.name)

    list_jobs, list_jobs_async = both_apis(_list_jobs)

    def _delete(self, op: Operation, name: str, /) -> Flow[None]:
        yield from scripts.DELETE.run(self._tag, name, *self._kept)

    delete, delete_async = both_apis(_delete)

    # -- runs -------------------------------------------------------------

    def _run_now(self, op: Operation, name: str, /) -> Flow[str | None]:
        run = str(uuid4())
        return run if (yield from scripts.RUN_NOW.run(self._tag, name, run, self._channel)) else None

    run_now, run_now_async = both_apis(_run_now)

    def _list_runs(self, op: Operation, name: str, /) -> Flow[list[RunRecord]]:
        rows = yield from scripts.RUNS.run(self._tag, name, *_RUN)
        return records(name, rows, lambda row: record(map(column, _RUN, row)))

    list_runs, list_runs_async = both_apis(_list_runs)

    def join(self, op: Operation, handlers: Callable[[], frozenset[str]], /) -> RunSource:
        self.component.engine.ready(op)
        return _Runs(self, handlers)


class _Runs(LeasedRuns):
    """One member of an application's runners."""

    def __init__(self, driver: RedisSchedule, handlers: Callable[[], frozenset[str]]) -> None:
        super().__init__(driver._app, handlers)
        self.component = driver.component
        self._tag, self._channel = driver._tag, driver._channel
        self._terms = {"member": self._member, "lease": self.lease_ms, "moving": _MOVING_MS}
        self._terms |= zip(("history", "most"), driver._kept, strict=True)

    def _subscribe(self) -> Waiter:
        return self.component.engine.notifier.subscribe(f"{CHANNEL}:{self._app}")

    def exchange(self, outcomes: Sequence[Outcome], want: int, /) -> Sequence[DueRun]:
        self.component.check_open()
        renew = self._to_renew()
        if not (outcomes or renew or want):
            return ()
        begun = self._clock()
        runs, renewed = self.component.engine.run(self._operation(), self._exchange(outcomes, renew, want))
        if not (outcomes or renew or runs):
            return ()
        return self._take(outcomes, renew, renewed, runs, want, begun + self.lease_ms / 1000)

    def _exchange(
        self, outcomes: Sequence[Outcome], renew: Sequence[RunToken], want: int
    ) -> Flow[tuple[list[DueRun], list[RunToken]]]:
        self._look_again()
        told = {
            "want": want, "handlers": sorted(self._handlers()), "aside": sorted(self._aside),
            "outcomes": [_told(each) for each in outcomes], "held": list(self._held), "renews": bool(renew),
        }  # fmt: skip
        now, pause, ids, rows, due, broken = yield from scripts.EXCHANGE.run(
            self._tag, json.dumps(self._terms | told), self._channel
        )
        self._is_due([int(pause) if pause else None])
        for name, reason in broken:
            skip("runs of jobs", (name or b"").decode(errors="replace"), ValueError(reason.decode(errors="replace")))
        renewed = [token for token in renew if token.id in ids]
        runs: list[DueRun] = []
        unread: list[Outcome] = []
        for job_id, columns, id, run, fire, attempt, failures in rows:
            job, token, reason = read_job(columns), RunToken(id, attempt), None
            try:
                made = DueRun(token, run.decode(), int(fire), attempt, int(failures), job.spec)
            except Exception as error:  # of a run that another program has changed
                reason = error
            if reason is None and job.error is None:
                runs.append(made)
            else:
                self._set_aside(job, _version(job_id, columns), reason)
                unread.append(Outcome(token, begun=False))
        if unread:
            yield from self._exchange(unread, (), 0)
        if due:
            runs += yield from self._move(due, int(now))
        return runs, renewed

    def _move(self, due: Sequence[tuple[bytes, Sequence[Any]]], now: int) -> Flow[list[DueRun]]:
        """Move jobs on to their next occurrences; returns the runs of those that were due, where they are to run."""
        runs: list[tuple[str, int, JobSpec]] = []
        moves, left = [], []
        for id, columns in due:
            job = read_job(columns)
            step, spec = self._advance(job, _version(id, columns), now), job.spec
            if step is None:
                left.append(int(id))
                continue
            fire = "" if step.fire is None else step.fire
            run = "" if step.fire is None else run_id(self._app, spec.name, step.fire)
            skipped = [(run_id(self._app, spec.name, each.first), *each) for each in step.skipped]
            following = "" if step.following is None else step.following
            moves.append((int(id), following, step.due, step.missed, fire, run, skipped))
            runs.append((run, step.fire or 0, spec))
        made = yield from scripts.MOVE.run(self._tag, json.dumps(self._terms | {"jobs": moves, "left": left}))
        return [
            DueRun(RunToken(id, 1), run, fire, 1, 0, spec)
            for id, (run, fire, spec) in zip(made, runs, strict=True)
            if id
        ]


def _told(outcome: Outcome) -> tuple[int, int, str, str, int]:
    """Return an outcome as the script takes it."""
    token = outcome.token
    assert isinstance(token, RunToken)
    if not outcome.begun:
        what = "returned"
    elif outcome.retry_after is not None:
        what = "again"
    else:
        what = "succeeded" if outcome.error is None else "failed"
    # the server's JSON has no halves of surrogate pairs
    error = (outcome.error or "").encode(errors="replace").decode()
    return (*token, what, error, int((outcome.retry_after or 0) * 1000))


def _stays_due(spec: JobSpec, old: bytes, due: bytes) -> bool:
    return due.isdigit() and stays_due(spec, old.decode(errors="replace"), int(due))


def _version(id: bytes, row: Sequence[Any]) -> str:
    """Return which job and definition a row of `JOB` is, as the script tells it."""
    return f"{int(id)}:{sha1(row[1] or b'', usedforsecurity=False).hexdigest()}"


def read_job(row: Sequence[Any]) -> StoredJob:
    """Return a row of `JOB` as a job; never raises."""
    return stored(row, _decoded)


def _decoded(row: Sequence[Any]) -> list[Any]:
    name, spec, data, *state = row
    return [name.decode(), spec.decode(), data, *(int(each) if each else None for each in state)]


def column(name: str, value: bytes | None) -> Any:
    """Return a field of a run."""
    if value is None:
        return None
    return value.decode() if name in _RUN_TEXTS else int(value)
