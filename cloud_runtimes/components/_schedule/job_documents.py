"""Document of a job in a store of keys, and its changes, without I/O.

A document is one value: a line of JSON, then the job's data. It has the job and its runs. A write expects the
version that the writer has read, so only one of several writers succeeds. A run is open while it has a deadline by
the server's clock: that of its holder's lease, or of its next try. Only the oldest open run of a job can be claimed.
A further occurrence cannot be claimed while a run is open.

A run that has ended stays in the document until it was written to the history and the document changes again. So
none is lost between the two. A document with nothing to come is deleted then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from random import getrandbits
from typing import Any, Final, TypeAlias

from ...errors import PayloadError
from ...spi.portable import JobRun
from ...spi.schedule import DueRun, JobSpec, Outcome, StoredJob
from .._unreadable import skip
from .jobs import (
    RUN_COLUMNS,
    Advance,
    exists,
    planned,
    record,
    run_id,
    stays_due,
    stored,
    unreadable_spec,
    written,
)
from .runs import RunToken

Run: TypeAlias = dict[str, Any]
HELD: Final = 1 << 62
"""The deadline of a run that lasts as long as its holder."""
RECORD_COLUMNS: Final = RUN_COLUMNS.split(", ")
_STATE: Final = ("next", "occurrences", "skipped")


class Document:
    """The document of one name. It can only be replaced or deleted if it cannot be read, which the log tells once.

    Attributes:
        name: of the job.
        version: of the document; 0: there is none.
        exists: whether it is there.
        error: why it cannot be read.
        job: its columns, and which one of that name it is; ``None``: there is none now.
        data: of the job.
        is_data_new: whether the store has other data.
    """

    def __init__(
        self, name: str, version: int, text: bytes | None, history_limit: int, data: bytes | None = None
    ) -> None:
        """``text``: as `message` gave it, or `head` if the store has the job's ``data`` apart, ``None``: there is none; ``history_limit``: records that its history has."""
        self.name = name
        self.version = version
        self.exists = text is not None
        self._max_runs = history_limit
        self.error: str | None = None
        self.job: dict[str, Any] | None = None
        self._spec: JobSpec | None = None
        self.data = data or b""
        self.is_data_new = False
        self._runs: list[Run] = []
        self._last = self._noted = 0
        try:
            if text is not None:
                self._read(text)
        except Exception as error:
            skip("jobs", name, error)
            self.error = f"{type(error).__name__}: {error}"

    def _read(self, text: bytes) -> None:
        head, _, rest = text.partition(b"\n")
        rest = rest or self.data
        fields = json.loads(head)
        job, runs, last, noted = fields["job"], fields["runs"], fields["last"] + 0, fields["noted"] + 0
        for run in runs:
            check_run(run)
        if job is not None:
            stored_job = stored(
                (
                    self.name,
                    job["spec"],
                    rest if job["data"] else None,
                    *[job[each] for each in _STATE],
                    job["created"],
                    job.setdefault("paused", False),
                )
            )
            if stored_job.error is not None:
                self.error = stored_job.error
                return
            self._spec, target = stored_job.spec, stored_job.spec.target
            job |= {"handler": target if isinstance(target, str) else None, "id": job["id"] + 0}
        self.job, self.data, self._runs, self._last, self._noted = job, rest, runs, last, noted

    def follow(self, run: Run) -> None:
        """Go on where the history of an earlier job of the name ends, with its newest record."""
        self._last, self._noted = run["id"], run["slot"] + 1

    def message(self) -> bytes:
        """Return it as it is kept."""
        return self.head() + b"\n" + self.data

    def head(self) -> bytes:
        """Return it without the job's data."""
        fields = {"job": self.job, "runs": self._runs, "last": self._last, "noted": self._noted}
        return json.dumps(fields).encode()

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to come."""
        return self.job is None and self.error is None and not any(_is_open(run) for run in self._runs)

    # -- the job ----------------------------------------------------------

    def stored(self) -> StoredJob | None:
        """Return the job."""
        if self.error is not None:
            return StoredJob(unreadable_spec(self.name), error=self.error)
        job = self.job
        if job is None or self._spec is None:
            return None
        return StoredJob(self._spec, job["next"], job["occurrences"], job["skipped"], job["created"], job["paused"])

    def save(self, given: JobSpec, overwrite: bool, now: int, limit: int) -> None:
        """Store a job.

        Raises:
            AlreadyExistsError: there is one, and it is not to be overwritten.
            InvalidArgumentError: it has no occurrence.
        """
        spec, first = planned(given, now, limit)
        old = self.job
        if not overwrite and (old is not None or self.error is not None):
            raise exists(self.name)
        self.error = None
        state = {
            "id": self._number(now),
            "next": first,
            "occurrences": 0,
            "skipped": 0,
            "created": now,
            "paused": False,
        }
        if old is not None:
            kept = ("id", "created", "paused", "next", "occurrences", "skipped")
            state |= {name: old[name] for name in kept[: 6 if stays_due(spec, old["spec"], old["next"]) else 3]}
        handler = spec.target if isinstance(spec.target, str) else None
        self.job = {**state, "handler": handler, "spec": written(spec), "data": spec.data is not None}
        self._spec, self.data, self.is_data_new = spec, spec.data or b"", True

    def restore(self, now: int, job: StoredJob, runs: Iterable[JobRun]) -> bool:
        """Replace the job and its runs by those of another home."""
        spec, due, occurrences, skipped, created, paused, _ = job
        handler = spec.target if isinstance(spec.target, str) else None
        state = {"next": due, "occurrences": occurrences, "skipped": skipped, "created": created, "paused": paused}
        text, has_data = written(spec), spec.data is not None
        self.error = None
        self.job = {"id": self._number(now), **state, "handler": handler, "spec": text, "data": has_data}
        self._spec, self.data, self.is_data_new, self._runs = spec, spec.data or b"", True, []
        for each in runs:
            run = self._add(
                each.run_id, each.fire_ms, now, last=each.last_ms, count=each.occurrences, attempt=each.attempt,
                failures=each.failures, deadline=each.due_ms, started=each.started_ms, error=each.error,
            )  # fmt: skip
            if each.due_ms is None:
                self._end(run, each.status, now)
            run |= {"status": each.status, "ended": each.ended_ms}
        return True

    def delete(self, now: int) -> bool:
        """Remove the job, and cancel those of its runs that nobody has."""
        if self.job is None and self.error is None:
            return False
        for run in self._open():
            if run["member"] is None:
                self._end(run, "cancelled", now)
        self._remove_job()
        return True

    def _remove_job(self) -> None:
        self.job, self._spec, self.data, self.is_data_new, self.error = None, None, b"", True, None

    # -- runs -------------------------------------------------------------

    def _number(self, now: int) -> int:
        """Return a number above those before, which no other name has."""
        self._last = max(self._last + 1, now << 64 | getrandbits(64))
        return self._last

    def _open(self) -> list[Run]:
        """Return the open runs of the job, the oldest first."""
        return [run for run in self._runs if self.job is not None and run["job"] == self.job["id"] and _is_open(run)]

    def _add(self, run: str, fire: int, now: int, **fields: Any) -> Run:
        assert self.job is not None
        new_run = {
            "id": self._number(now), "job": self.job["id"], "run": run, "fire": fire, "last": fire, "count": 1,
            "attempt": 0, "failures": 0, "member": None, "deadline": 0, "started": None, "ended": None, "error": None,
            "status": "waiting", **fields,
        }  # fmt: skip
        self._runs.append(new_run)
        return new_run

    def run_now(self, run: str, now: int) -> bool:
        """Add a run beside the schedule; ``False``: there is no job.

        Raises:
            PayloadError: it cannot be read.
        """
        if self.error is not None:
            raise PayloadError(
                f"the job {self.name!r} cannot be read ({self.error}): store it again with overwrite=True"
            )
        if self.job is None:
            return False
        self._add(run, now, now)
        return True

    def pause(self, now: int, paused: bool) -> bool:
        """Let the job have no occurrences, or have them again; ``False``: there is no job."""
        if self.job is None:
            return False
        self.job["paused"] = paused
        return True

    def retry(self, now: int, run: Run) -> bool:
        """Add a run that failed once more; ``False``: there is no job, or it is to come already."""
        if self.job is None or any(each["run"] == run["run"] for each in self._open()):
            return False
        self._add(run["run"], run["fire"], now, attempt=run["attempt"])
        return True

    def _end(self, run: Run, status: str, now: int) -> None:
        run |= {"status": status, "ended": now, "member": None, "deadline": None, "slot": self._noted % self._max_runs}
        self._noted += 1

    def _retire(self) -> None:
        """Remove a job that has had its last run."""
        if self.job is not None and self.job["next"] is None and not self._open():
            self._remove_job()

    def due(self, handlers: Collection[str]) -> int | None:
        """Return when a process that has these handlers has something to do, milliseconds since 1970 UTC."""
        if self.error is not None:
            return None
        job = self.job
        anybody, own = self._times()
        if job is None or not (job["handler"] is None or job["handler"] in handlers):
            own = None
        if job is None and anybody is None:
            return 0 if self.exists else None
        return own if anybody is None else anybody if own is None else min(anybody, own)

    def line(self) -> tuple[str, int | None]:
        """Return the handler of those who have something to do first, ``""``: anybody, and when."""
        anybody, own = self._times()
        if self.job is None or own is None or (anybody is not None and anybody <= own):
            return "", anybody
        return self.job["handler"] or "", own

    def _times(self) -> tuple[int | None, int | None]:
        """Return when there is something to do for anybody, and when for those who have the job's handler."""
        job = self.job
        anybody = own = None
        for run in self._runs:
            deadline = run["deadline"]
            if deadline is None:
                continue
            if job is None or run["job"] != job["id"]:
                anybody = deadline if anybody is None else min(anybody, deadline)
            elif own is None:
                own = deadline
        return anybody, job["next"] if own is None and job is not None and not job["paused"] else own

    def claim(
        self, app: str, member: str, now: int, until: int, advance: Callable[[StoredJob], Advance | None]
    ) -> DueRun | None:
        """Claim the run that is due, or ``advance`` the job to its next occurrence if that can be done here; and cancel what a job that is gone has left."""
        for run in self._runs:
            if _is_open(run) and (self.job is None or run["job"] != self.job["id"]) and run["deadline"] <= now:
                self._end(run, "cancelled", now)
        job = self.stored()
        if job is None or self.job is None:
            return None
        opened = self._open()
        if opened:
            due_run = opened[0]
        else:
            assert job.next_ms is not None
            if job.paused or job.next_ms > now:
                return None
            step = advance(job)
            if step is None:
                return None
            for first, last, number in step.skipped:
                run = self._add(run_id(app, self.name, first), first, now, last=last, count=number)
                self._end(run, "skipped", now)
            self.job["next"] = step.following
            self.job["occurrences"] += step.due
            self.job["skipped"] += step.missed
            if step.fire is None:
                self._retire()
                return None
            due_run = self._add(run_id(app, self.name, step.fire), step.fire, now)
        if due_run["deadline"] > now:
            return None
        attempt = due_run["attempt"] + 1
        due_run |= {"status": "running", "attempt": attempt, "member": member, "deadline": until, "started": now}
        due_run["ended"] = None
        token = RunToken(due_run["id"], attempt)
        return DueRun(token, due_run["run"], due_run["fire"], attempt, due_run["failures"], job.spec)

    def hold(self, living: Collection[str]) -> None:
        """Where leases are those of members: what a living member has nobody else may claim, and what another has had anybody may at once."""
        for run in self._runs:
            if run["member"] is not None:
                run["deadline"] = HELD if run["member"] in living else 0

    def _held(self, token: RunToken, member: str) -> Run | None:
        for run in self._runs:
            if (run["id"], run["attempt"], run["member"]) == (*token, member):
                return run
        return None

    def renew(self, token: RunToken, member: str, now: int, until: int, always: bool) -> tuple[bool, bool]:
        """Renew a lease, where it has ended or ``always``; returns whether the run is still its member's, and whether anything changed."""
        run = self._held(token, member)
        if run is None:
            return False, False
        if not always and run["deadline"] > now:
            return True, False
        run["deadline"] = until
        return True, True

    def settle(self, outcome: Outcome, member: str, now: int) -> bool:
        """Take in how a try ended; ``False``: the run is another's by now."""
        assert isinstance(outcome.token, RunToken)
        run = self._held(outcome.token, member)
        if run is None:
            return False
        if not outcome.begun:
            run |= {"status": "waiting", "attempt": run["attempt"] - 1, "member": None, "deadline": 0}
        elif outcome.retry_after is not None and self.job is not None and run["job"] == self.job["id"]:
            due = now + int(outcome.retry_after * 1000)
            run |= {"status": "waiting", "failures": run["failures"] + 1, "member": None, "deadline": due}
            run["error"] = outcome.error
        else:
            run["error"] = outcome.error
            self._end(run, "succeeded" if outcome.error is None else "failed", now)
            self._retire()
        return True

    # -- history ----------------------------------------------------------

    def ended(self) -> list[Run]:
        """Return the runs that have ended; each has a slot of the history."""
        return [run for run in self._runs if run["deadline"] is None]

    def forget(self, runs: Sequence[Run]) -> None:
        """Leave out runs that are in the history."""
        self._runs = [run for run in self._runs if run not in runs]

    @property
    def runs(self) -> Sequence[Run]:
        """All that it has."""
        return self._runs


def _is_open(run: Run) -> bool:
    return run["deadline"] is not None


_TYPES: Final[Mapping[type, Sequence[str]]] = {
    int: ("id", "job", "fire", "last", "count", "attempt", "failures", "deadline", "started", "ended", "slot"),
    str: ("run", "status", "member", "error"),
}
_OPTIONAL: Final = frozenset({"deadline", "started", "ended", "slot", "member", "error"})


def check_run(run: Run) -> Run:
    """Return a run, if it is one.

    Raises:
        Exception: it is none.
    """
    for kind, names in _TYPES.items():
        for name in names:
            value = run.get(name) if name == "slot" else run[name]
            if not (isinstance(value, kind) or (value is None and name in _OPTIONAL)):
                raise TypeError(f"{name} is of type {type(value).__name__}")
    record(["", *(run[column] for column in RECORD_COLUMNS[1:])])
    return run
