"""Rows of ``schedule_jobs`` and ``schedule_runs``, and the objects of the SPI that they stand for."""

from __future__ import annotations

import json
from typing import Any, Final

from ...schedule.times import from_ms, occurrences
from ...spi.schedule import JobSpec, Retry, RpcTarget, RunRecord, StoredJob, TopicTarget

__all__ = ["CHANNEL", "COLUMNS", "LIST", "following", "read_spec", "record", "stored", "written"]

CHANNEL: Final = "schedule"
COLUMNS: Final = "j.name, j.spec, j.data, j.next, j.occurrences, j.skipped, j.created"
LIST: Final = (
    "SELECT name, run, fire, status, attempt, started, ended, error, count, last FROM schedule_runs "
    "WHERE app = ? AND name = ? ORDER BY id"
)


def written(spec: JobSpec) -> str:
    """Return the column ``spec`` of a job."""
    target: Any = spec.target
    if isinstance(target, RpcTarget):
        target = {"service": target.service, "method": target.method}
    elif isinstance(target, TopicTarget):
        target = {"pubsub": target.pubsub_name, "topic": target.topic}
    policy = spec.failure_policy
    return json.dumps(
        {
            "schedule": spec.schedule,
            "due": spec.due_ms,
            "repeats": spec.repeats,
            "expires": spec.expires_ms,
            "content_type": spec.content_type,
            "target": target,
            "failure": [policy.attempts, policy.interval] if isinstance(policy, Retry) else policy,
            "misfire": spec.misfire,
            "timezone": spec.timezone,
        }
    )


def read_spec(name: str, text: str, data: bytes | None) -> JobSpec:
    """Return a job from its column ``spec``."""
    fields = json.loads(text)
    target = fields["target"]
    if isinstance(target, dict):
        if "service" in target:
            target = RpcTarget(target["service"], target["method"])
        else:
            target = TopicTarget(target["pubsub"], target["topic"])
    failure = fields["failure"]
    return JobSpec(
        name,
        fields["schedule"],
        fields["due"],
        None,
        fields["repeats"],
        fields["expires"],
        None,
        data,
        fields["content_type"],
        target,
        Retry(*failure) if isinstance(failure, list) else failure,
        fields["misfire"],
        fields["timezone"],
    )


def stored(row: Any) -> StoredJob:
    """Return a row of `COLUMNS` as a job."""
    name, spec, data, following_ms, count, skipped, created = row
    return StoredJob(read_spec(name, spec, data), following_ms, count, skipped, created)


def following(spec: JobSpec, count: int, after_ms: int) -> int | None:
    """Return the next occurrence after ``after_ms`` of a job that had ``count``; ``None``: that was the last."""
    if spec.schedule is None or (spec.repeats is not None and count >= spec.repeats):
        return None
    found = occurrences(spec.schedule, spec.timezone).after(after_ms)
    return None if found is None or (spec.expires_ms is not None and found > spec.expires_ms) else found


def record(row: Any) -> RunRecord:
    """Return a row of `LIST` as what the caller gets."""
    name, run, fire, status, attempt, started, ended, error, count, last = row
    return RunRecord(
        name=name,
        run_id=run,
        fire_time=from_ms(fire),
        status=status,
        attempt=attempt,
        started_at=None if started is None else from_ms(started),
        ended_at=None if ended is None else from_ms(ended),
        error=error,
        count=count,
        last_fire_time=from_ms(last),
    )
