"""Jobs as messages of gRPC (``dapr.proto.runtime.v1.Job``)."""

from __future__ import annotations

from typing import Any

from ...codec import json
from ...protocols.dapr.messages import VALUE_TYPE, messages, plain
from .transport import DaprJob

__all__ = ["job_message", "job_of"]


def job_message(job: DaprJob) -> Any:
    """Return a message; data is in a ``google.protobuf.Value``, as what comes over HTTP is, so that applications get it as JSON."""
    from google.protobuf import json_format

    pb = messages()
    made = pb.Job(name=job.name, schedule=job.schedule, repeats=job.repeats, due_time=job.due_time, ttl=job.ttl)
    if job.data is not None:
        value = json_format.ParseDict(json.decode(job.data), pb.Value())
        made.data.type_url, made.data.value = VALUE_TYPE, value.SerializeToString()
    if job.policy == "drop":
        made.failure_policy.drop.SetInParent()
    elif job.policy is not None:
        interval, retries = job.policy
        made.failure_policy.constant.interval.FromNanoseconds(round(interval * 1e9))
        if retries is not None:
            made.failure_policy.constant.max_retries = retries
    return made


def job_of(message: Any) -> DaprJob:
    """Return a job; data of a type that is not known here is its bytes, as base64."""

    def told(name: str) -> Any:
        return getattr(message, name) if message.HasField(name) else None

    policy: Any = None
    if message.HasField("failure_policy"):
        if message.failure_policy.HasField("drop"):
            policy = "drop"
        elif message.failure_policy.HasField("constant"):
            constant = message.failure_policy.constant
            policy = (
                constant.interval.ToTimedelta().total_seconds(),
                constant.max_retries if constant.HasField("max_retries") else None,
            )
    return DaprJob(
        message.name, told("schedule"), told("repeats"), told("due_time"), told("ttl"), _data(message), policy
    )


def _data(message: Any) -> bytes | None:
    if not message.HasField("data") or not message.data.type_url:
        return None
    from google.protobuf import json_format

    pb = messages()
    try:
        if message.data.type_url == VALUE_TYPE:
            return json.encode(plain(pb.Value.FromString(message.data.value)))
        found: Any = json_format.MessageToDict(message.data, descriptor_pool=pb.pool)
    except Exception:  # whatever its bytes are
        import base64

        return json.encode(base64.b64encode(message.data.value).decode("ascii"))
    return json.encode(found.get("value", found))
