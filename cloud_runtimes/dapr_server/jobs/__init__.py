"""Jobs: ``/v1.0/jobs``; those that are due come to the application while the sidecar serves."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping
from typing import Any, Final

from ..._core.logs import logger
from ...errors import CloudRuntimesError
from ...protocols.dapr.messages import VALUE_TYPE, messages, plain
from ..app.channel import AppChannel
from ..context import Block, Context
from ..http.app import HttpApi, Route
from ..http.request import Reply, Request, empty, integer, json_reply, malformed, members, text
from .api import HANDLER, JobsApi
from .job import DaprJob, JobData, Policy, any_message, go_duration
from .trigger import Trigger

__all__ = ["JobsBlock"]

_LANDING: Final = 5.0
_TRIMMED: Final = re.compile(r"\.?0+$")


class JobsBlock(Block):
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._api = JobsApi(context)
        self._beginning: asyncio.Task[None] | None = None
        self._runner: Any = None
        self._trigger: Trigger | None = None

    def routes(self, http: HttpApi) -> None:
        for version in ("v1.0", "v1.0-alpha1"):
            path = f"/{version}/jobs/{{name}}"
            http.add(
                Route("POST", path, self._http_schedule),
                Route("GET", path, self._http_get),
                Route("DELETE", path, self._http_delete),
            )

    def methods(self, grpc: Any) -> None:
        for suffix in ("", "Alpha1"):
            grpc.unary(f"ScheduleJob{suffix}", "ScheduleJobRequest", self._grpc_schedule)
            grpc.unary(f"GetJob{suffix}", "GetJobRequest", self._grpc_get)
            grpc.unary(f"DeleteJob{suffix}", "DeleteJobRequest", self._grpc_delete)
            grpc.unary(f"ListJobs{suffix}", "ListJobsRequest", self._grpc_list)
            grpc.unary(f"DeleteJobsByPrefix{suffix}", "DeleteJobsByPrefixRequest", self._grpc_delete_by_prefix)

    async def start(self) -> None:
        """Begin to run due jobs, once the application listens."""
        # a handler of a sidecar that is over, of the same client, gives way
        self._context.frame("schedule").handlers.pop(HANDLER, None)
        if self._context.app is None:
            # jobs can be scheduled by their handler's name, and wait for a sidecar that has an application
            self._context.client.schedule.job(HANDLER)(_nobody)
        else:
            self._trigger = Trigger(self._context.app)
            self._context.client.schedule.job(HANDLER)(self._trigger.run)
            self._beginning = asyncio.create_task(self._begin(self._context.app))

    async def _begin(self, app: AppChannel) -> None:
        await app.ready()
        runner = self._context.client.schedule.running(timeout=self._context.settings.grace)
        try:
            await runner.__aenter__()
        except CloudRuntimesError as error:
            logger().warning("due jobs are not run: %s", error)
            return
        self._runner = runner

    async def stop(self) -> None:
        """Let triggers under way end within the grace; what did not end runs again."""
        if self._beginning is not None:
            self._beginning.cancel()
            await asyncio.wait((self._beginning,))
        if self._runner is not None:
            grace = self._context.settings.grace
            # what is given up after the grace still lands, and is free for another process at once
            closing = asyncio.create_task(self._runner.close_async(timeout=grace + _LANDING))
            await asyncio.wait((closing,), timeout=grace)
            if self._trigger is not None:
                await self._trigger.end()
            await closing
        self._context.frame("schedule").handlers.pop(HANDLER, None)

    # -- over HTTP --------------------------------------------------------

    async def _http_schedule(self, request: Request) -> Reply:
        document = members(request.json()) if request.body.strip() else {}
        if text(document, "name"):
            raise self._api.named_twice()
        overwrite = document.get("overwrite")
        if not isinstance(overwrite, bool | None):
            raise malformed("'overwrite' is true or false")
        job = DaprJob(
            request.params["name"].strip(),
            text(document, "schedule"),
            _count(document, "repeats"),
            text(document, "dueTime", "due_time"),
            text(document, "ttl"),
            JobData(document["data"]) if "data" in document else None,
            _policy(document),
        )
        await self._api.schedule(job, bool(overwrite))
        return empty

    async def _http_get(self, request: Request) -> Reply:
        return json_reply(_job_document(await self._api.get(request.params["name"])))

    async def _http_delete(self, request: Request) -> Reply:
        await self._api.delete(request.params["name"])
        return empty

    # -- over gRPC --------------------------------------------------------

    async def _grpc_schedule(self, request: Any, context: Any) -> Any:
        if not request.HasField("job"):
            raise self._api.no_job()
        await self._api.schedule(_job(request.job), request.overwrite)
        return messages().ScheduleJobResponse()

    async def _grpc_get(self, request: Any, context: Any) -> Any:
        return messages().GetJobResponse(job=_message(await self._api.get(request.name)))

    async def _grpc_delete(self, request: Any, context: Any) -> Any:
        await self._api.delete(request.name)
        return messages().DeleteJobResponse()

    async def _grpc_list(self, request: Any, context: Any) -> Any:
        reply = messages().ListJobsResponse()
        budget = self._api.budget()
        for job in await self._api.list():
            message = _message(job)
            budget.add(message.ByteSize())
            reply.jobs.append(message)
        return reply

    async def _grpc_delete_by_prefix(self, request: Any, context: Any) -> Any:
        await self._api.delete_by_prefix(request.name_prefix)
        return messages().DeleteJobsByPrefixResponse()


async def _nobody(data: Any) -> None:
    raise CloudRuntimesError("there is no application beside this sidecar")


def _count(document: Mapping[str, Any], *names: str) -> int | None:
    """Return a member that is a number of 0 or more; ``None``: it is not there."""
    if not any(document.get(name) is not None for name in names):
        return None
    number = integer(document, *names)
    if number < 0:
        raise malformed(f"{names[0]!r} is less than 0")
    return number


def _policy(document: Mapping[str, Any]) -> Policy | None:
    given = members(document.get("failurePolicy", document.get("failure_policy")), "'failurePolicy'")
    if given.get("drop") is not None:
        return Policy(drop=True)
    if given.get("constant") is None:
        return None
    constant = members(given["constant"], "'constant'")
    duration = text(constant, "interval")
    interval = None if duration is None else go_duration(duration)
    if duration is not None and interval is None:
        raise malformed("'interval' is seconds such as \"1.5s\"")
    return Policy(interval=interval, max_retries=_count(constant, "maxRetries", "max_retries"))


def _job_document(job: DaprJob) -> dict[str, Any]:
    """Return a job in ProtoJSON; what was not told is left out."""
    document: dict[str, Any] = {"name": job.name}
    for name, value in (
        ("schedule", job.schedule),
        ("repeats", job.repeats),
        ("dueTime", job.due_time),
        ("ttl", job.ttl),
    ):
        if value is not None:
            document[name] = value
    if job.data is not None:
        document["data"] = _any(job.data)
    if job.policy is not None:
        document["failurePolicy"] = _policy_told(job.policy)
    return document


def _policy_told(policy: Policy) -> dict[str, Any]:
    if policy.drop:
        return {"drop": {}}
    constant: dict[str, Any] = {}
    if policy.interval is not None:
        constant["interval"] = f"{_TRIMMED.sub('', f'{policy.interval:.9f}')}s"
    if policy.max_retries is not None:
        constant["maxRetries"] = policy.max_retries
    return {"constant": constant}


def _any(data: JobData) -> dict[str, Any]:
    """Return data as an ``Any`` in ProtoJSON; of a type that is not known the bytes."""
    if data.type_url is None:
        return {"@type": VALUE_TYPE, "value": data.value}
    from google.protobuf import json_format

    kinds = messages()
    try:
        if data.type_url == VALUE_TYPE:
            return {"@type": VALUE_TYPE, "value": plain(kinds.Value.FromString(data.body))}
        document: dict[str, Any] = json_format.MessageToDict(
            kinds.Any(type_url=data.type_url, value=data.body), descriptor_pool=kinds.pool
        )
    except Exception:  # whatever its bytes are
        return {"@type": data.type_url, "value": base64.b64encode(data.body).decode("ascii")}
    return document


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
