"""``schedule add|list|rm|history|run``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..codec import json
from ..errors import PayloadError
from ..schedule import Job, Retry, RpcTarget, RunRecord, TopicTarget
from ._errors import UsageError
from ._session import Invocation, connect
from ._streams import write
from ._tables import rows

__all__ = ["add", "history", "listing", "remove", "run"]


def add(
    invocation: Invocation,
    name: str,
    data: str | None,
    *,
    schedule: str | None,
    due: str | None,
    rpc: str | None,
    topic: str | None,
    retries: int,
    interval: float,
    **options: Any,
) -> int:
    """Store a job."""
    target = _target(rpc, topic)
    value: Any = None
    if data is not None:
        try:
            value = json.decode(data.encode())
        except (PayloadError, UnicodeEncodeError):
            value = data
    with connect(invocation) as client:
        client.schedule.schedule_job(
            name,
            schedule=schedule,
            due_time=due,
            data=value,
            target=target,
            failure_policy=Retry(retries, interval) if retries else "drop",
            **options,
        )
    return 0


def _target(rpc: str | None, topic: str | None) -> RpcTarget | TopicTarget | None:
    if rpc is not None and topic is not None:
        raise UsageError("give --rpc or --topic, not both")
    if rpc is not None:
        service, _, method = rpc.partition("/")
        return RpcTarget(service, method)
    if topic is not None:
        pubsub_name, _, name = topic.partition("/")
        return TopicTarget(pubsub_name, name)
    return None


def listing(invocation: Invocation) -> int:
    """Write all jobs."""
    with connect(invocation) as client:
        jobs = client.schedule.list_jobs()
        errors = ("error",) if any(job.error for job in jobs) else ()
        rows(map(_fields, jobs), ("name", "schedule", "next_run", "target", "data", *errors))
    return 0


def history(invocation: Invocation, name: str) -> int:
    """Write the runs of a job."""
    with connect(invocation) as client:
        rows(map(_fields, client.schedule.list_runs(name)), ("run_id", "fire_time", "status", "attempt", "error"))
    return 0


def remove(invocation: Invocation, names: Sequence[str]) -> int:
    """Delete jobs."""
    with connect(invocation) as client:
        for name in names:
            client.schedule.delete_job(name)
    return 0


def run(invocation: Invocation, name: str | None) -> int:
    """Have one job run at once and write the run's id, or run due jobs until a signal comes."""
    with connect(invocation) as client:
        if name is not None:
            write(client.schedule.run_now(name).encode() + b"\n")
        else:
            client.schedule.run()
    return 0


def _fields(item: Job | RunRecord) -> dict[str, Any]:
    return {field.name: _plain(getattr(item, field.name)) for field in dataclasses.fields(item)}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value
