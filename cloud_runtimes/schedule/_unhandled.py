"""Due jobs that wait because no process has their handler: in their history, and in the log of processes that run others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

from .._core.logs import once
from .._service import frame_of
from ..config import suggest
from ..spi import schedule as spi
from ..spi.operation import Method, Operation
from ..spi.schedule import RunRecord, ScheduleDriver, StoredJob
from .times import from_ms, to_ms

if TYPE_CHECKING:
    from .service import ScheduleService

AFTER: Final = 10.0
"""Seconds for which an occurrence waits for its turn; after that nobody has its handler."""
_EVERY: Final = 60.0
_TIMEOUT: Final = 5.0
_LOOK: Final = Method("schedule", "list_jobs", repeatable=True, writes=False)
_NEEDED: Final = frozenset({spi.CLAIMS, spi.LIST_JOBS, spi.LIST_RUNS, spi.PROGRESS})


def needs_handler(driver: ScheduleDriver) -> bool:
    """Return whether due jobs wait there for a process with their handler, and this can be seen."""
    return driver.features >= _NEEDED


def with_waiting(job: StoredJob | None, records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return a history with what waits since no process has the handler: it is ``"waiting"``, and its error says so."""
    history = list(records)
    if job is None or job.error is not None or not isinstance(job.spec.target, str):
        return history
    error = _missing(job.spec.target)
    for index, record in enumerate(history):
        if record.status in ("waiting", "running"):  # the oldest: the others wait for it
            if not record.attempt and _is_overdue(to_ms(record.fire_time)):
                history[index] = replace(record, error=error)
            return history
    if job.next_ms is not None and _is_overdue(job.next_ms):
        name, fire = job.spec.name, from_ms(job.next_ms)
        nothing: dict[str, Any] = {"attempt": 0, "started_at": None, "ended_at": None}
        waiting = RunRecord(
            name=name, run_id="", fire_time=fire, status="waiting", error=error, count=1, last_fire_time=fire, **nothing
        )
        history.append(waiting)
    return history


def _missing(target: str) -> str:
    return f"no process has {target!r}"


def _is_overdue(ms: int) -> bool:
    return ms < (time() - AFTER) * 1000


class UnhandledJobs:
    """Looks from time to time for due jobs that wait for a handler, and warns of each once."""

    def __init__(self, service: ScheduleService) -> None:
        self._service = service
        self._handlers = frame_of(service).handlers
        self._next = monotonic() + AFTER

    def look(self) -> None:
        """Look, if it is time. If that fails it looks again the next time: exchanges tell of a store that is away."""
        if monotonic() < self._next:
            return
        self._next = monotonic() + _EVERY
        with suppress(Exception):
            self._look()

    def _look(self) -> None:
        name, driver = self._service._component()
        if not needs_handler(driver):
            return
        op = Operation(_LOOK, name, _TIMEOUT)
        for job in driver.list_jobs(op):
            target = job.spec.target
            if job.next_ms is None or not _is_overdue(job.next_ms) or not isinstance(target, str):
                continue
            # else a process that has the handler may be busy with an earlier run
            if target not in self._handlers and any(
                each.error == _missing(target) for each in with_waiting(job, driver.list_runs(op, job.spec.name))
            ):
                self._warn(job.spec.name, target)

    def _warn(self, name: str, target: str) -> None:
        what = (
            "the job %r is due, but no process has a handler %r; %s "
            "Register it by @client.schedule.job(%r), or store the job with another target."
        )
        once(f"unhandled {name} {target}", what, name, target, suggest(target, self._handlers), target)
