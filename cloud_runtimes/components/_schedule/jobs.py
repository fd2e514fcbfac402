"""Jobs that a database holds: their columns, their occurrences, and what becomes of those that are due, without I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, get_args
from uuid import UUID, uuid5

from ...errors import AlreadyExistsError, InvalidArgumentError, ResourceExhaustedError
from ...schedule.times import QUARTER_MS, Interval, from_ms, occurrences
from ...spi import schedule as spi
from ...spi.inventory import JobInfo
from ...spi.schedule import JobSpec, Misfire, Retry, RpcTarget, RunRecord, StoredJob, TopicTarget
from .._unreadable import read_entries, skip

COLUMNS: Final = "j.name, j.spec, j.data, j.next, j.occurrences, j.skipped, j.created, j.paused"
FEATURES: Final = frozenset(
    {
        spi.CLAIMS,
        spi.JOBS,
        spi.LIST_JOBS,
        spi.LIST_RUNS,
        spi.MISFIRE,
        spi.PAUSE,
        spi.PROGRESS,
        spi.RETRY_RUN,
        spi.RUN_NOW,
    }
)
RUN_COLUMNS: Final = "name, run, fire, status, attempt, started, ended, error, count, last"
GRACE_MS: Final = 10_000
"""An occurrence that is later than this is missed, where ``misfire="skip"``."""
_LISTED: Final = 100
"""How many skipped occurrences in a row have a record each. Those before them share one."""
_SCAN: Final = 5000
"""Most occurrences of one job that one transaction goes through."""
_MAX_ERROR: Final = 300
_NAMESPACE: Final = UUID("5f7c2a9e-6d0b-5c1e-9a37-0d4f1b8e6c52")


def planned(spec: JobSpec, now: int, limit: int) -> tuple[JobSpec, int]:
    """Return a job with its times by the store's clock, and its first occurrence.

    Raises:
        InvalidArgumentError: it has none.
        ResourceExhaustedError: its data has more than ``limit`` bytes.
    """
    if spec.data is not None and len(spec.data) > limit:
        raise ResourceExhaustedError(
            f"the data of job {spec.name!r} has {len(spec.data):,} bytes; the limit is {limit:,}: raise max_value_bytes"
        )
    due = now + spec.delay_ms if spec.delay_ms is not None else spec.due_ms
    expires = spec.expires_ms if spec.ttl_ms is None else (due or now) + spec.ttl_ms
    spec = spec._replace(due_ms=due, delay_ms=None, expires_ms=expires, ttl_ms=None)
    first = due if due is not None else following(spec, 0, now)
    if first is None or (expires is not None and first > expires):
        raise InvalidArgumentError(
            f"job {spec.name!r} would never run: its schedule has no occurrence"
            + (" before its ttl is over" if expires is not None else "")
        )
    return spec, first


def stays_due(new: JobSpec, spec: str, due: int | None) -> bool:
    """Return whether a job's columns ``spec`` and ``next`` have the same occurrences as a new definition. Then an overwrite, as at each start of an application, keeps those that are due. One that cannot be read keeps none."""
    try:
        old = read_spec(new.name, spec, None)
        _check_times(due)
    except Exception:  # which a read of the job names
        return False
    open_ended = all(each.due_ms is None and each.expires_ms is None and each.repeats is None for each in (old, new))
    return due is not None and open_ended and (old.schedule, old.timezone) == (new.schedule, new.timezone)


_FIELDS: Final = {
    "schedule": "schedule",
    "due": "due_ms",
    "repeats": "repeats",
    "expires": "expires_ms",
    "content_type": "content_type",
    "misfire": "misfire",
    "timezone": "timezone",
}
"""Name in the column ``spec`` → field of `JobSpec`; beside them are the target and the failure policy."""


def written(spec: JobSpec) -> str:
    """Return the column ``spec`` of a job."""
    target, policy = spec.target, spec.failure_policy
    fields: dict[str, Any] = {name: getattr(spec, field) for name, field in _FIELDS.items()}
    fields["target"] = target
    if isinstance(target, RpcTarget):
        fields["target"] = {"service": target.service, "method": target.method}
    elif isinstance(target, TopicTarget):
        fields["target"] = {"pubsub": target.pubsub_name, "topic": target.topic}
    fields["failure"] = [policy.attempts, policy.interval] if isinstance(policy, Retry) else policy
    return json.dumps(fields)


def read_spec(name: str, text: str, data: bytes | None) -> JobSpec:
    """Return a job from its column ``spec``."""
    fields = json.loads(text)
    target, failure = fields["target"], fields["failure"]
    if isinstance(target, dict):
        target = RpcTarget(**target) if "service" in target else TopicTarget(target["pubsub"], target["topic"])
    spec = JobSpec(
        name=name,
        delay_ms=None,
        ttl_ms=None,
        data=data,
        target=target,
        failure_policy=Retry(*failure) if isinstance(failure, list) else failure,
        **{field: fields[key] for key, field in _FIELDS.items()},
    )
    for field, kinds in _KINDS.items():
        if not isinstance(value := getattr(spec, field), kinds):
            raise TypeError(f"{field} is of type {type(value).__name__}")
    policy = spec.failure_policy
    if spec.misfire not in get_args(Misfire) or not (isinstance(policy, Retry) or policy == "drop"):
        raise ValueError("its misfire or failure policy is none")
    if isinstance(policy, Retry):
        policy.attempts + policy.interval
    _check_times(spec.due_ms, spec.expires_ms)
    return spec


_NONE: Final = type(None)
_KINDS: Final[Mapping[str, Any]] = {
    "data": (bytes, _NONE),
    "schedule": (str, _NONE),
    "repeats": (int, _NONE),
    "content_type": (str, _NONE),
    "misfire": str,
    "timezone": str,
    "target": (str, RpcTarget, TopicTarget),
    "failure_policy": (str, Retry),
}


def _check_times(*times: int | None) -> None:
    """Raise for what is no time of the calendar."""
    for each in times:
        if each is not None:
            from_ms(each)


def stored(row: Sequence[Any]) -> StoredJob:
    """Return a row of `COLUMNS` as a job; never raises. One that cannot be read is named once, and has an ``error``."""
    try:
        name, spec, data, due, occurrences, skipped, created, paused = row
        _check_times(due, created)
        return StoredJob(read_spec(name, spec, data), due, occurrences + 0, skipped + 0, created, bool(paused))
    except Exception as error:
        name = str(row[0] or "")
        skip("jobs", name, error)
        return StoredJob(unreadable_spec(name), error=f"{type(error).__name__}: {error}"[:_MAX_ERROR])


def info(app: str, job: StoredJob, ended_ms: int | None, error: str | None, failed: int, *, running: bool) -> JobInfo:
    """Return a job as ``client.admin`` shows it, with how its last run ended."""
    return JobInfo(
        name=job.spec.name,
        app_id=app,
        schedule=job.spec.schedule,
        next_run=None if job.paused or job.next_ms is None else from_ms(job.next_ms),
        last_run=None if ended_ms is None else from_ms(ended_ms),
        last_error=job.error or error,
        failed=failed,
        running=running,
        paused=job.paused,
    )


def unreadable_spec(name: str) -> JobSpec:
    """Return the definition of a job of which nothing but the name is known."""
    return JobSpec(name, None, None, None, None, None, None, None, None, name, "drop", "once", "UTC")


def exists(name: str) -> AlreadyExistsError:
    """Return why a job is not saved."""
    return AlreadyExistsError(f"there is a job {name!r} already: overwrite=True replaces it, delete_job deletes it")


def following(spec: JobSpec, count: int, after_ms: int) -> int | None:
    """Return the next occurrence after ``after_ms`` of a job that had ``count``; ``None``: that was the last."""
    if spec.schedule is None or (spec.repeats is not None and count >= spec.repeats):
        return None
    fire_ms = occurrences(spec.schedule, spec.timezone).after(after_ms)
    return None if fire_ms is None or (spec.expires_ms is not None and fire_ms > spec.expires_ms) else fire_ms


def record(row: Any) -> RunRecord:
    """Return a row of `RUN_COLUMNS` as what the caller gets."""
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


def records(name: str, rows: Iterable[Any]) -> list[RunRecord]:
    """Return the history of a job, without records that cannot be read."""
    return list(read_entries(f"history of job {name!r}", rows, lambda row: str(row[1]), record))


def run_id(app: str, name: str, fire_ms: int) -> str:
    """Return the id of the run of an occurrence: the same in every process and at each try."""
    return str(uuid5(_NAMESPACE, f"{app}\0{name}\0{fire_ms}"))


class Stretch(NamedTuple):
    """Occurrences that share a record."""

    first: int
    last: int
    number: int


class Advance(NamedTuple):
    """How a job moves on to its next occurrence.

    Attributes:
        fire: the occurrence to run; ``None``: none of those that were due.
        skipped: stretches that have a record each.
        following: the next occurrence; ``None``: there is none.
        due: how many occurrences were, ``missed`` of them without a run.
    """

    fire: int | None
    skipped: Sequence[Stretch]
    following: int | None
    due: int
    missed: int


def advance(job: StoredJob, wall: int) -> Advance:
    """Return how a job that is due moves on.

    Raises:
        InvalidArgumentError: its time zone is not known here.
    """
    spec = job.spec
    assert job.occurrences is not None
    stretch, due, whole = _due(job, wall)
    last = due[-1]
    late = wall - last > GRACE_MS
    runs = spec.misfire == "all" or (whole and not (spec.misfire == "skip" and late))
    skipped = due[:-1] if runs else due
    # skipped occurrences: the last ones one by one, those before them as one
    border = max(0, len(skipped) - _LISTED)
    count = len(due) + (stretch.number if stretch else 0)
    if border:
        first, number = (stretch.first, stretch.number) if stretch else (skipped[0], 0)
        stretch = Stretch(first, skipped[border - 1], number + border)
    rows = [*([stretch] if stretch else []), *(Stretch(fire, fire, 1) for fire in skipped[border:])]
    return Advance(last if runs else None, rows, following(spec, job.occurrences + count, last), count, count - runs)


def _due(job: StoredJob, wall: int) -> tuple[Stretch | None, Sequence[int], bool]:
    """Return a job's due occurrences, one or more, and whether these are all. With ``misfire="all"`` it is the first alone. Of very many, the earlier ones are only counted."""
    spec, first = job.spec, job.next_ms
    assert first is not None
    assert job.occurrences is not None
    if spec.misfire == "all" or spec.schedule is None:
        return None, (first,), True
    remaining = None if spec.repeats is None else spec.repeats - job.occurrences
    times = occurrences(spec.schedule, spec.timezone)
    end = wall + 1 if spec.expires_ms is None else max(first, min(wall, spec.expires_ms)) + 1
    if isinstance(times, Interval):
        return None, range(first, end, times.ms)[:remaining], True
    due = [first]
    while len(due) < _SCAN:
        coming = following(spec, job.occurrences + len(due), due[-1])
        if coming is None or coming >= end:
            return None, due, True
        due.append(coming)
    begin = due[-1] // QUARTER_MS * QUARTER_MS + QUARTER_MS
    until = (end - QUARTER_MS) // QUARTER_MS * QUARTER_MS
    if remaining is not None or begin >= until:
        return None, due, False
    count = len(due) + len(list(times.between(due[-1] + 1, begin))) + times.count(begin, until)
    latest = list(times.between(until, end))
    if not latest:  # then those above will do
        return None, due, False
    back = until
    while not (last := list(times.between(back - QUARTER_MS, back))):
        back -= QUARTER_MS
    return Stretch(first, last[-1], count), latest, True
