"""The types of the schedule service."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..spi.schedule import FailurePolicy, Misfire, RpcTarget, TopicTarget

__all__ = ["Job", "JobRun"]


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
