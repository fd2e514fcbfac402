"""Jobs over HTTP."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

from ...protocols.dapr.messages import VALUE_TYPE, messages, plain
from ..http.app import HttpApi, Route
from ..http.request import Reply, Request, empty, integer, json_reply, malformed, members, text
from .api import JobsApi
from .job import DaprJob, JobData, Policy, go_duration

_TRIMMED: Final = re.compile(r"\.?0+$")


class JobRoutes:
    """The routes of jobs."""

    def __init__(self, api: JobsApi) -> None:
        self._api = api

    def add_to(self, http: HttpApi) -> None:
        """Add them."""
        for version in ("v1.0", "v1.0-alpha1"):
            path = f"/{version}/jobs/{{name}}"
            http.add(
                Route("POST", path, self._schedule), Route("GET", path, self._get), Route("DELETE", path, self._delete)
            )

    async def _schedule(self, request: Request) -> Reply:
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

    async def _get(self, request: Request) -> Reply:
        return json_reply(_job_document(await self._api.get(request.params["name"])))

    async def _delete(self, request: Request) -> Reply:
        await self._api.delete(request.params["name"])
        return empty


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
