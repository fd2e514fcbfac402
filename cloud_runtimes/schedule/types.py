"""The types of the schedule service."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

__all__ = ["FailurePolicy", "Job", "JobRun", "Misfire", "Retry", "RpcTarget", "RunRecord", "RunStatus", "TopicTarget"]

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


@dataclass(frozen=True, slots=True)
class JobRun:
    """What a handler is told about its run.

    Attributes:
        name: of the job.
        run_id: the same for every try of one (job, fire time), whichever process makes it. Where the runtime does not tell (``schedule.progress``) it is new for each try, ``fire_time`` is when it came, and ``attempt`` is 1.
        fire_time: when it was due, UTC.
        attempt: 1 for the first try; each further one counts, after a failure as after the death of a process.
    """

    name: str
    run_id: str
    fire_time: datetime
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run in the history.

    Attributes:
        name: of the job.
        run_id: of the run; of occurrences that were skipped, that of the first.
        fire_time: when it was due.
        status: ``"waiting"`` for its first or next try, ``"running"``, ``"succeeded"``, ``"failed"``, ``"skipped"`` (missed, and the policy did not want it run), ``"cancelled"`` (its job was deleted before it had run).
        attempt: tries so far.
        started_at, ended_at: of the last try; it starts when a process takes it.
        error: how the last try failed: type and message, at most 300 characters.
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
