"""The SPI of the schedule service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from .driver import Driver
from .executor import in_thread
from .operation import Operation

if TYPE_CHECKING:
    from .inventory import JobInfo

__all__ = [
    "CLAIMS",
    "JOBS",
    "LIST_JOBS",
    "LIST_RUNS",
    "MISFIRE",
    "PAUSE",
    "PROGRESS",
    "RETRY_RUN",
    "RUN_NOW",
    "DueRun",
    "FailurePolicy",
    "JobSpec",
    "Misfire",
    "Outcome",
    "Retry",
    "RpcTarget",
    "RunRecord",
    "RunSource",
    "RunStatus",
    "ScheduleDriver",
    "StoredJob",
    "TopicTarget",
]


Misfire: TypeAlias = Literal["once", "skip", "all"]


RunStatus: TypeAlias = Literal["waiting", "running", "succeeded", "failed", "skipped", "cancelled"]


@dataclass(frozen=True, slots=True)
class Retry:
    """Failure policy: a run that failed is tried again.

    Attributes:
        attempts: how often it is tried again, ≥ 0; Dapr's ``max_retries``.
        interval: seconds between the end of one try and the next, ≥ 0.
    """

    attempts: int = 3
    interval: float = 1.0


FailurePolicy: TypeAlias = Literal["drop"] | Retry


@dataclass(frozen=True, slots=True)
class RpcTarget:
    """A method that is called with the job's data.

    The headers ``job-name``, ``job-run-id``, ``job-fire-time`` and ``job-attempt`` tell which run it is.
    """

    service: str
    method: str


@dataclass(frozen=True, slots=True)
class TopicTarget:
    """A topic to which the job's data is published; the event's id is the run's, so a repeat is the same event."""

    pubsub_name: str
    topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run in the history.

    Attributes:
        name: of the job.
        run_id: of the run; of occurrences that were skipped, that of the first. Empty for an occurrence that waits for a process with its handler.
        fire_time: when it was due.
        status: ``"waiting"`` for its first or next try, ``"running"``, ``"succeeded"``, ``"failed"``, ``"skipped"`` (missed, and the policy did not want it run), ``"cancelled"`` (its job was deleted before it had run).
        attempt: tries so far.
        started_at, ended_at: of the last try; it starts when a process takes it.
        error: how the last try failed: type and message, at most 300 characters; or that no process has the handler.
        count: 1; for a long stretch that was skipped, its occurrences, from ``fire_time`` to ``last_fire_time``.
        last_fire_time: ``fire_time``, or the end of the stretch.
    """

    name: str
    run_id: str
    fire_time: datetime
    status: RunStatus
    attempt: int
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    count: int
    last_fire_time: datetime


MISFIRE: Final = "misfire"
"""``misfire="skip"`` and ``"all"``."""
RUN_NOW: Final = "run_now"
"""A run beside the schedule."""
LIST_RUNS: Final = "list_runs"
"""There is a history."""
LIST_JOBS: Final = "list_jobs"
"""`list_jobs`."""
PROGRESS: Final = "progress"
"""It is known where a job stands (`Job.next_run`, ``occurrences``, ``skipped``, ``created_at``), and which occurrence a run is: its id is the same for every try, its fire time exact, its attempts counted."""
JOBS: Final = "jobs"
PAUSE: Final = "pause"
RETRY_RUN: Final = "retry_run"
"""`ScheduleDriver.jobs`, `ScheduleDriver.pause` and `ScheduleDriver.retry_run`."""
CLAIMS: Final = "claims"
"""Runs are claimed: one that is due waits for a process that has its handler, several processes share them, and what is due during a run of its job follows it."""


class JobSpec(NamedTuple):
    """A job, checked and encoded.

    Attributes:
        name: see `ScheduleService`.
        schedule: as in `Job.schedule`, a ``timedelta`` written as ``@every``; ``None``: only ``due_ms``.
        due_ms: first occurrence, milliseconds since 1970; ``None``: the schedule's first.
        delay_ms: instead of it: so long after the driver's own now.
        repeats: occurrences at most.
        expires_ms, ttl_ms: no occurrence after it; the latter counts from the first, or from the driver's own now.
        data, content_type: encoded; both ``None``: no data.
        target: text is the name of a handler.
        failure_policy, misfire, timezone: checked.
    """

    name: str
    schedule: str | None
    due_ms: int | None
    delay_ms: int | None
    repeats: int | None
    expires_ms: int | None
    ttl_ms: int | None
    data: bytes | None
    content_type: str | None
    target: str | RpcTarget | TopicTarget
    failure_policy: FailurePolicy
    misfire: Misfire
    timezone: str


class StoredJob(NamedTuple):
    """A job with where it stands; ``spec`` has no ``delay_ms`` and ``ttl_ms`` any more. Without `PROGRESS` only ``spec`` is known. Where ``error`` says why the store's entry cannot be read, ``spec`` has nothing but the name."""

    spec: JobSpec
    next_ms: int | None = None
    occurrences: int | None = None
    skipped: int | None = None
    created_ms: int | None = None
    paused: bool = False
    error: str | None = None


class DueRun(NamedTuple):
    """A run that a member has claimed and is to carry out.

    Attributes:
        token: the source's own.
        run_id: the same for each try of (application, job, fire time).
        fire_ms: when it was due.
        attempt: of this try, from 1.
        failures: tries that ended with an error.
    """

    token: object
    run_id: str
    fire_ms: int
    attempt: int
    failures: int
    spec: JobSpec


class Outcome(NamedTuple):
    """How a try ended.

    Attributes:
        token: of its `DueRun`.
        error: ``None``: well; else what the history says.
        retry_after: seconds until it is to be tried again; ``None``: never.
        begun: ``False``: it was not begun, so this gives it back uncounted.
    """

    token: object
    error: str | None = None
    retry_after: float | None = None
    begun: bool = True


class RunSource(ABC):
    """Where a process gets the runs that are due. Only one thread drives it; any may `wake` it and ask `holds`.

    A claimed run belongs to the member as long as its process lives and `exchange` is called at least every second; each run id is with one member at most. When the member dies its runs go to others, as the same runs. A claim is refused to whoever does not have the handler.
    """

    @abstractmethod
    def exchange(self, outcomes: Sequence[Outcome], want: int, /) -> Sequence[DueRun]:
        """Land outcomes, renew what is held, and claim up to ``want`` runs that are due. An outcome of a run that was lost meanwhile changes nothing; one that is given again after an error counts once."""

    @abstractmethod
    def holds(self, token: object, /) -> bool:
        """Tell, without I/O, whether a run is still this member's, so that it may be begun."""

    @abstractmethod
    def wait(self, seconds: float, /) -> None:
        """Return once something may be due, after `wake`, or when the time is up; a driver whose store cannot notify returns earlier by itself."""

    @abstractmethod
    def wake(self) -> None:
        """End the present or the next `wait`."""

    @abstractmethod
    def close(self, outcomes: Sequence[Outcome], /) -> None:
        """Land the last outcomes and leave. What is still held ends with its lease."""


class ScheduleDriver(Driver, ABC):
    """Jobs of one application.

    Names are compared byte for byte. Nothing is written by a call that is refused.
    """

    by_callback: bool = False
    """Due jobs come to the server of this application, so a runner needs one."""

    @abstractmethod
    def save(self, op: Operation, spec: JobSpec, overwrite: bool, /) -> None:
        """Store a job.

        With ``overwrite`` one of the name is replaced; runs under way or waiting for another try go on, under the new definition.

        Raises:
            AlreadyExistsError: there is one, and it is not to be overwritten.
            InvalidArgumentError: it has no occurrence.
        """

    save_async = in_thread(save)

    @abstractmethod
    def get(self, op: Operation, name: str, /) -> StoredJob | None:
        """Return a job; ``None``: there is none, or it has had its last run."""

    get_async = in_thread(get)

    @abstractmethod
    def list_jobs(self, op: Operation, /) -> list[StoredJob]:
        """Return all jobs, in the order of their names. Only if `LIST_JOBS` is declared."""

    list_jobs_async = in_thread(list_jobs)

    @abstractmethod
    def delete(self, op: Operation, name: str, /) -> None:
        """Delete a job, if it is there. A run under way ends as it does; one that waits is cancelled."""

    delete_async = in_thread(delete)

    @abstractmethod
    def run_now(self, op: Operation, name: str, /) -> str | None:
        """Have a job run beside its schedule as soon as a runner is free; returns the run's id, ``None``: no such job. Only if `RUN_NOW` is declared."""

    run_now_async = in_thread(run_now)

    @abstractmethod
    def list_runs(self, op: Operation, name: str, /) -> list[RunRecord]:
        """Return the history of a name, oldest first, jobs that are gone included. Only if `LIST_RUNS` is declared."""

    list_runs_async = in_thread(list_runs)

    @abstractmethod
    def join(self, op: Operation, handlers: Callable[[], frozenset[str]], /) -> RunSource:
        """Return a member that runs jobs; ``handlers`` names the handlers of its process, as they are at each call."""

    join_async = in_thread(join)

    def jobs(self, op: Operation, prefix: str, limit: int, /) -> Sequence[JobInfo]:
        """Return the jobs of all applications whose names begin so, in the order of applications and names (`JOBS`)."""
        raise NotImplementedError

    jobs_async = in_thread(jobs)

    def pause(self, op: Operation, app: str, name: str, paused: bool, /) -> bool:
        """Let a job have no occurrences until further notice, or have them again; ``False``: there is no such job (`PAUSE`).

        Runs that there are go on. What is due meanwhile is missed: the misfire policy says what becomes of it. A job that is stored again stays paused.
        """
        raise NotImplementedError

    pause_async = in_thread(pause)

    def retry_run(self, op: Operation, app: str, name: str, run_id: str, /) -> RunStatus | None:
        """Have a run that failed run again, under its id and with fresh tries, as another record of the history (`RETRY_RUN`).

        Returns:
            How its last record ended; whatever is not ``"failed"`` is not run again. ``None``: there is no such job or run.
        """
        raise NotImplementedError

    retry_run_async = in_thread(retry_run)
