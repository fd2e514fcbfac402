"""Jobs over gRPC."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from ...codec import json
from ...protocols.dapr.messages import VALUE_TYPE, messages, plain
from .api import JobsApi
from .job import DaprJob, JobData, Policy


class JobMethods:
    """The methods of jobs, and their names of earlier versions."""

    def __init__(self, api: JobsApi) -> None:
        self._api = api

    def add_to(self, grpc: Any) -> None:
        """Add them."""
        for suffix in ("", "Alpha1"):
            grpc.unary(f"ScheduleJob{suffix}", "ScheduleJobRequest", self._schedule)
            grpc.unary(f"GetJob{suffix}", "GetJobRequest", self._get)
            grpc.unary(f"DeleteJob{suffix}", "DeleteJobRequest", self._delete)
            grpc.unary(f"ListJobs{suffix}", "ListJobsRequest", self._list)
            grpc.unary(f"DeleteJobsByPrefix{suffix}", "DeleteJobsByPrefixRequest", self._delete_by_prefix)

    async def _schedule(self, request: Any, context: Any) -> Any:
        if not request.HasField("job"):
            raise self._api.no_job()
        await self._api.schedule(_job(request.job), request.overwrite)
        return messages().ScheduleJobResponse()

    async def _get(self, request: Any, context: Any) -> Any:
        return messages().GetJobResponse(job=_message(await self._api.get(request.name)))

    async def _delete(self, request: Any, context: Any) -> Any:
        await self._api.delete(request.name)
        return messages().DeleteJobResponse()

    async def _list(self, request: Any, context: Any) -> Any:
        reply = messages().ListJobsResponse()
        budget = self._api.budget()
        for job in await self._api.list():
            message = _message(job)
            budget.add(message.ByteSize())
            reply.jobs.append(message)
        return reply

    async def _delete_by_prefix(self, request: Any, context: Any) -> Any:
        await self._api.delete_by_prefix(request.name_prefix)
        return messages().DeleteJobsByPrefixResponse()


def _job(message: Any) -> DaprJob:
    def get_field(name: str) -> Any:
        return getattr(message, name) if message.HasField(name) else None

    policy: Policy | None = None
    if message.HasField("failure_policy"):
        if message.failure_policy.HasField("drop"):
            policy = Policy(drop=True)
        elif message.failure_policy.HasField("constant"):
            constant = message.failure_policy.constant
            interval = constant.interval.ToTimedelta().total_seconds() if constant.HasField("interval") else None
            policy = Policy(
                interval=interval, max_retries=constant.max_retries if constant.HasField("max_retries") else None
            )
    data = JobData(None, message.data.type_url, message.data.value) if message.HasField("data") else None
    return DaprJob(
        message.name, get_field("schedule"), get_field("repeats"), get_field("due_time"), get_field("ttl"), data, policy
    )


def _message(job: DaprJob) -> Any:
    kinds = messages()
    message = kinds.Job(name=job.name, schedule=job.schedule, repeats=job.repeats, due_time=job.due_time, ttl=job.ttl)
    if job.data is not None:
        message.data.CopyFrom(any_message(job.data))
    if job.policy is not None and job.policy.drop:
        message.failure_policy.drop.SetInParent()
    elif job.policy is not None:
        message.failure_policy.constant.SetInParent()
        if job.policy.interval is not None:
            message.failure_policy.constant.interval.FromNanoseconds(round(job.policy.interval * 1e9))
        if job.policy.max_retries is not None:
            message.failure_policy.constant.max_retries = job.policy.max_retries
    return message


def any_message(data: JobData) -> Any:
    """Return an ``Any``; JSON is in a ``google.protobuf.Value``."""
    kinds = messages()
    if data.type_url is not None:
        return kinds.Any(type_url=data.type_url, value=data.body)
    value = json_format.ParseDict(data.value, kinds.Value())
    return kinds.Any(type_url=VALUE_TYPE, value=value.SerializeToString())


def json_of(data: JobData) -> bytes:
    """Return the JSON of an ``Any`` that holds a ``google.protobuf.Value``."""
    value = messages().Value.FromString(data.body)
    return b"" if value.WhichOneof("kind") is None else json.encode(plain(value))
