"""The jobs that `ScheduleService` has stored: to look at, to delete, to run now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._core.notebook import Listing, line, table
from .._service import Service, error_context
from ..codec.payload import decode_payload
from ..errors import NotFoundError, PayloadError
from ..spi import schedule as spi
from ..spi.operation import Method, Operation
from ..spi.schedule import FailurePolicy, Misfire, RpcTarget, RunRecord, ScheduleDriver, StoredJob, TopicTarget
from ._prepare import check_job_name
from ._unhandled import needs_handler, with_waiting
from .times import from_ms

_GET: Final = Method("schedule", "get_job", repeatable=True, writes=False)
_LIST: Final = Method("schedule", "list_jobs", repeatable=True, writes=False)
_DELETE: Final = Method("schedule", "delete_job", repeatable=True)
_RUN_NOW: Final = Method("schedule", "run_now", repeatable=False)
_LIST_RUNS: Final = Method("schedule", "list_runs", repeatable=True, writes=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Job:
    """A job as it is stored.

    Attributes:
        name: of the job.
        schedule: cron text, ``@every …`` or ``@hourly`` …; ``None``: one run at ``due_time``.
        due_time: the first run, where one was given.
        repeats: how many occurrences there are at most.
        expires_at: no occurrence after it; from ``ttl``.
        data: decoded.
        target: what runs; text is the name of a handler.
        failure_policy, misfire, timezone: as given.
        next_run: the next occurrence, UTC; ``None``: the last one is under way, or it is not known.
        occurrences: how many there were, those that were skipped included; this and what follows is ``None`` where the runtime does not tell (``schedule.progress``).
        skipped: how many of them were skipped.
        created_at: when it was first scheduled.
        paused: whether ``client.admin.pause_job`` has stopped its occurrences.
        error: why `list_jobs` cannot read the job; of the rest only ``name`` counts then. Such a job does not run: ``schedule_job(…, overwrite=True)`` replaces it, `delete_job` removes it.
    """

    name: str
    schedule: str | None
    due_time: datetime | None
    repeats: int | None
    expires_at: datetime | None
    data: Any
    target: str | RpcTarget | TopicTarget
    failure_policy: FailurePolicy
    misfire: Misfire
    timezone: str
    next_run: datetime | None
    occurrences: int | None
    skipped: int | None
    created_at: datetime | None
    paused: bool = False
    error: str | None = None

    _shown: ClassVar[tuple[str, ...]] = ("name", "schedule", "next_run", "target", "data", "paused", "error")

    def __repr__(self) -> str:
        when = self.schedule or self.due_time
        told = " paused" if self.paused else f" error={line(self.error)}" if self.error else ""
        return f"<Job {self.name!r} of {line(when)}, next run {line(self.next_run) or 'none'}, data {line(self.data)}{told}>"

    def _repr_html_(self) -> str:
        return table([self])


class StoredJobs(Service):
    """The methods of `ScheduleService` for jobs that are stored."""

    name = "schedule"

    @error_context(_GET, named=False)
    def get_job(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> Job:
        """Return a job.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            NotFoundError: there is none of the name, or it has had its last run.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        check_job_name(name)
        op, driver = self._asking(_GET, timeout, metadata)
        return _job(name, self._frame.call(op, driver.get, name))

    @error_context(_GET, named=False)
    async def get_job_async(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> Job:
        """Return a job.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            NotFoundError: there is none of the name, or it has had its last run.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        check_job_name(name)
        op, driver = self._asking(_GET, timeout, metadata)
        return _job(name, await self._frame.call_async(op, driver.get_async, name))

    @error_context(_LIST, named=False)
    def list_jobs(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> list[Job]:
        """Return all jobs of this application, in the order of their names. One that cannot be read has an ``error``.

        Args:
            timeout, metadata: as in `schedule_job`.

        Raises:
            UnsupportedError: the runtime cannot list them.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        op, driver = self._asking(_LIST, timeout, metadata, spi.LIST_JOBS)
        return Listing(map(_listed, self._frame.call(op, driver.list_jobs)))

    @error_context(_LIST, named=False)
    async def list_jobs_async(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> list[Job]:
        """Return all jobs of this application, in the order of their names. One that cannot be read has an ``error``.

        Args:
            timeout, metadata: as in `schedule_job`.

        Raises:
            UnsupportedError: the runtime cannot list them.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        op, driver = self._asking(_LIST, timeout, metadata, spi.LIST_JOBS)
        return Listing(map(_listed, await self._frame.call_async(op, driver.list_jobs_async)))

    @error_context(_DELETE, named=False)
    def delete_job(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Delete a job; an absent one is fine. A run under way ends as it would. One that waits is cancelled. The history stays.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        check_job_name(name)
        op, driver = self._asking(_DELETE, timeout, metadata)
        self._frame.call(op, driver.delete, name)

    @error_context(_DELETE, named=False)
    async def delete_job_async(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Delete a job; an absent one is fine. A run under way ends as it would. One that waits is cancelled. The history stays.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        check_job_name(name)
        op, driver = self._asking(_DELETE, timeout, metadata)
        await self._frame.call_async(op, driver.delete_async, name)

    @error_context(_RUN_NOW, named=False)
    def run_now(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Have a job run beside its schedule, as soon as a runner is free; return the run's id, for `list_runs`. It does not wait for the run.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            NotFoundError: there is no such job.
            UnsupportedError: the runtime cannot.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        check_job_name(name)
        op, driver = self._asking(_RUN_NOW, timeout, metadata, spi.RUN_NOW)
        return _run_id(name, self._frame.call(op, driver.run_now, name))

    @error_context(_RUN_NOW, named=False)
    async def run_now_async(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Have a job run beside its schedule, as soon as a runner is free; return the run's id, for `list_runs`. It does not wait for the run.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            NotFoundError: there is no such job.
            UnsupportedError: the runtime cannot.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        check_job_name(name)
        op, driver = self._asking(_RUN_NOW, timeout, metadata, spi.RUN_NOW)
        return _run_id(name, await self._frame.call_async(op, driver.run_now_async, name))

    @error_context(_LIST_RUNS, named=False)
    def list_runs(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> list[RunRecord]:
        """Return the runs of a job, oldest first, as far back as the runtime keeps them; also of one that is gone. One that waits because no process has its handler has that as its ``error``.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            UnsupportedError: the runtime has no history.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        check_job_name(name)
        op, driver = self._asking(_LIST_RUNS, timeout, metadata, spi.LIST_RUNS)
        records = self._frame.call(op, driver.list_runs, name)
        if needs_handler(driver):
            records = with_waiting(self._frame.call(op, driver.get, name), records)
        return Listing(records)

    @error_context(_LIST_RUNS, named=False)
    async def list_runs_async(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> list[RunRecord]:
        """Return the runs of a job, oldest first, as far back as the runtime keeps them; also of one that is gone. One that waits because no process has its handler has that as its ``error``.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            UnsupportedError: the runtime has no history.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        check_job_name(name)
        op, driver = self._asking(_LIST_RUNS, timeout, metadata, spi.LIST_RUNS)
        records = await self._frame.call_async(op, driver.list_runs_async, name)
        if needs_handler(driver):
            records = with_waiting(await self._frame.call_async(op, driver.get_async, name), records)
        return Listing(records)

    def _asking(
        self, method: Method, timeout: float | None, metadata: Mapping[str, str] | None, feature: str | None = None
    ) -> tuple[Operation, ScheduleDriver]:
        check_metadata(metadata)
        name, driver = self._component()
        if feature is not None:
            self._frame.need(driver, feature, method.name, name)
        limit = self._frame.timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        return Operation(method, name, limit, metadata), driver

    def _component(self) -> tuple[str, ScheduleDriver]:
        name = self._frame.only()
        return name, self._frame.driver(name)


def _job(name: str, stored: StoredJob | None) -> Job:
    if stored is None:
        raise NotFoundError(f"there is no job {name!r}: schedule_job stores one; after its last run it is gone")
    if stored.error is not None:
        raise PayloadError(
            f"the job {name!r} cannot be read ({stored.error}): overwrite=True replaces it, delete_job removes it"
        )
    spec = stored.spec
    return _make_job(stored, None if spec.data is None else decode_payload(spec.data, spec.content_type), None)


def _listed(stored: StoredJob) -> Job:
    """Return a job of a list, where one that cannot be read must not hide the others."""
    try:
        return _job(stored.spec.name, stored)
    except PayloadError as error:
        return _make_job(stored, None, stored.error or str(error))


def _make_job(stored: StoredJob, data: Any, error: str | None) -> Job:
    spec = stored.spec
    return Job(
        name=spec.name,
        schedule=spec.schedule,
        due_time=None if spec.due_ms is None else from_ms(spec.due_ms),
        repeats=spec.repeats,
        expires_at=None if spec.expires_ms is None else from_ms(spec.expires_ms),
        data=data,
        target=spec.target,
        failure_policy=spec.failure_policy,
        misfire=spec.misfire,
        timezone=spec.timezone,
        next_run=None if stored.next_ms is None else from_ms(stored.next_ms),
        occurrences=stored.occurrences,
        skipped=stored.skipped,
        created_at=None if stored.created_ms is None else from_ms(stored.created_ms),
        paused=stored.paused,
        error=error,
    )


def _run_id(name: str, run_id: str | None) -> str:
    if run_id is None:
        raise NotFoundError(f"there is no job {name!r} to run")
    return run_id
