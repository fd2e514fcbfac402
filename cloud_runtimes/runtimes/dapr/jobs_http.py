"""Jobs as JSON (Dapr, "Jobs API reference"; ProtoJSON where Dapr tells one)."""

from __future__ import annotations

from typing import Any

from ...codec import json
from .answers import odd
from .transport import DaprJob

__all__ = ["job_document", "job_of"]


def job_document(job: DaprJob, overwrite: bool) -> bytes:
    """Return the body of a request that stores a job."""
    document: dict[str, Any] = {"overwrite": overwrite}
    for name, value in (
        ("schedule", job.schedule),
        ("repeats", job.repeats),
        ("dueTime", job.due_time),
        ("ttl", job.ttl),
        ("failurePolicy", _policy(job)),
    ):
        if value is not None:
            document[name] = value
    body = json.encode(document)
    return body if job.data is None else body[:-1] + b',"data":' + job.data + b"}"


def job_of(name: str, found: Any) -> DaprJob:
    """Return the job of an answer.

    Raises:
        InternalError: it is of another form.
    """
    if not isinstance(found, dict):
        odd()
    texts = {key: found.get(key) for key in ("schedule", "dueTime", "ttl")}
    repeats, data = found.get("repeats"), found.get("data")
    if not all(isinstance(each, str | None) for each in texts.values()) or not isinstance(repeats, int | None):
        odd()
    return DaprJob(
        name,
        texts["schedule"],
        repeats,
        texts["dueTime"],
        texts["ttl"],
        # of an Any in ProtoJSON the value, where its type has one
        json.encode(data.get("value", data)) if isinstance(data, dict) and data else None,
        _policy_of(found.get("failurePolicy")),
    )


def _policy(job: DaprJob) -> dict[str, Any] | None:
    if job.policy is None:
        return None
    if job.policy == "drop":
        return {"drop": {}}
    interval, retries = job.policy
    constant: dict[str, Any] = {"interval": f"{interval:.9f}s"}
    if retries is not None:
        constant["maxRetries"] = retries
    return {"constant": constant}


def _policy_of(found: Any) -> Any:
    """Return what follows a failure."""
    if found is None:
        return None
    if not isinstance(found, dict):
        odd()
    if "drop" in found:
        return "drop"
    constant = found.get("constant")
    if not isinstance(constant, dict):
        return None
    interval, retries = constant.get("interval", "0s"), constant.get("maxRetries")
    try:
        return float(interval.removesuffix("s")), retries if retries is None else int(retries)
    except (AttributeError, TypeError, ValueError):
        odd()
