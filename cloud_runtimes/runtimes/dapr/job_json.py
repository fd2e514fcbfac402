"""Jobs as Dapr writes them: JSON over HTTP, and over gRPC a ``Job``, whose ProtoJSON is the same (Dapr, "Jobs API reference")."""

from __future__ import annotations

import base64
from typing import Any

from ...codec import json
from ...protocols.dapr.messages import VALUE_TYPE, messages, plain
from .answers import odd
from .transport import DaprJob

__all__ = ["job_document", "job_message", "job_of", "job_of_message"]


def job_document(job: DaprJob) -> dict[str, Any]:
    """Return a job in JSON, without its name."""
    policy: Any = job.policy
    if policy == "drop":
        policy = {"drop": {}}
    elif policy is not None:
        interval, retries = policy
        policy = {"constant": {"interval": f"{interval:.9f}s"} | ({} if retries is None else {"maxRetries": retries})}
    document = {
        "schedule": job.schedule,
        "repeats": job.repeats,
        "dueTime": job.due_time,
        "ttl": job.ttl,
        "failurePolicy": policy,
        "data": None if job.data is None else json.decode(job.data),
    }
    return {name: value for name, value in document.items() if value is not None}


def job_message(job: DaprJob) -> Any:
    """Return a job as a message. Its data is a ``google.protobuf.Value``, so that applications get it as JSON."""
    from google.protobuf import json_format

    document = {"name": job.name, **job_document(job)}
    if "data" in document:
        document["data"] = {"@type": VALUE_TYPE, "value": document["data"]}
    pb = messages()
    return json_format.ParseDict(document, pb.Job(), descriptor_pool=pb.pool)


def job_of_message(message: Any) -> DaprJob:
    """Return the job of a message."""
    from google.protobuf import json_format

    pb = messages()
    rest = pb.Job()
    rest.CopyFrom(message)
    rest.ClearField("data")
    document = json_format.MessageToDict(rest)
    if message.data.type_url:
        document["data"] = {"value": _value(pb, message.data)}
    return job_of(message.name, document)


def _value(pb: Any, data: Any) -> Any:
    """Return what an ``Any`` holds; of a type that is not known here its bytes, as base64."""
    from google.protobuf import json_format

    try:
        if data.type_url == VALUE_TYPE:
            return plain(pb.Value.FromString(data.value))
        found = json_format.MessageToDict(data, descriptor_pool=pb.pool)
    except Exception:  # whatever its bytes are
        return base64.b64encode(data.value).decode("ascii")
    return found.get("value", found)


def job_of(name: str, found: Any) -> DaprJob:
    """Return the job of an answer.

    Raises:
        InternalError: it is of another form.
    """
    if not isinstance(found, dict):
        odd()
    texts = [found.get(key) for key in ("schedule", "dueTime", "ttl")]
    repeats, data = found.get("repeats"), found.get("data")
    if not all(isinstance(each, str | None) for each in texts) or not isinstance(repeats, int | None):
        odd()
    schedule, due_time, ttl = texts
    # of an Any in ProtoJSON the value, where its type has one
    body = json.encode(data.get("value", data)) if isinstance(data, dict) and data else None
    return DaprJob(name, schedule, repeats, due_time, ttl, body, _policy_of(found.get("failurePolicy")))


def _policy_of(found: Any) -> Any:
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
