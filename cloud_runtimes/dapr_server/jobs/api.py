"""Jobs in words of neither protocol; refusals as in dapr/dapr ``pkg/api/errors/scheduler.go`` and ``pkg/api/universal/jobs.go``."""

from __future__ import annotations

from typing import Any, Final

from ...errors import AlreadyExistsError, CloudRuntimesError, InvalidArgumentError, NotFoundError
from ...protocols.dapr.failures import GRPC_TO_HTTP, DaprError
from ...schedule import Job
from ..context import Context
from ..limits import Budget
from .job import DaprJob, restored, zoned

HANDLER: Final = "cloud-runtimes-sidecar"
"""Name of the handler of all jobs that a sidecar has scheduled."""


class JobsApi:
    """The jobs of an application."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._schedule = context.client.schedule
        self._metadata = {"appID": context.settings.app_id, "namespace": context.settings.namespace}

    async def schedule(self, job: DaprJob, overwrite: bool) -> None:
        """Store a job."""
        self._check_name(job.name)
        if job.schedule is None and job.due_time is None:
            raise self._empty("Schedule", "SCHEDULE_EMPTY")
        try:
            schedule, timezone = _cron(job.schedule)
            await self._schedule.schedule_job_async(
                job.name,
                schedule=schedule,
                due_time=job.due_time,
                repeats=job.repeats,
                ttl=job.ttl,
                data=job.stored(),
                target=self._context.frame("schedule").handlers[HANDLER].function,
                overwrite=overwrite,
                failure_policy=None if job.policy is None else job.policy.ours(),
                timezone=timezone,
            )
        except AlreadyExistsError as error:
            why = f"rpc error: code = AlreadyExists desc = job already exists: '{job.name}'"
            raise self._failure("SCHEDULE_JOB", f"failed to schedule job due to: {why}", "ALREADY_EXISTS") from error
        except InvalidArgumentError as error:
            raise self._failure(
                "SCHEDULE_JOB", f"failed to schedule job due to: {error.message}", "INVALID_ARGUMENT"
            ) from error
        except CloudRuntimesError as error:
            raise self._failure("SCHEDULE_JOB", f"failed to schedule job due to: {error.message}") from error

    async def get(self, name: str) -> DaprJob:
        """Return a job."""
        self._check_name(name)
        try:
            job = _restored(await self._schedule.get_job_async(name))
        except (NotFoundError, InvalidArgumentError):
            job = None
        except CloudRuntimesError as error:
            raise self._failure("GET_JOB", f"failed to get job due to: {error.message}") from error
        if job is None:
            why = f"rpc error: code = NotFound desc = job not found: {name}"
            raise self._failure("GET_JOB", f"failed to get job due to: {why}")
        return job

    async def delete(self, name: str) -> None:
        """Delete a job; one that is not there is no error."""
        self._check_name(name)
        try:
            await self._schedule.delete_job_async(name)
        except InvalidArgumentError:  # there can be none of such a name
            return
        except CloudRuntimesError as error:
            raise self._failure("DELETE_JOB", f"failed to delete job due to: {error.message}") from error

    async def list(self) -> list[DaprJob]:
        """Return all jobs that a sidecar of the application has scheduled."""
        try:
            jobs = await self._schedule.list_jobs_async()
        except CloudRuntimesError as error:
            raise self._failure("LIST_JOBS", f"failed to list jobs due to: {error.message}") from error
        return [restored for job in jobs if (restored := _restored(job)) is not None]

    def budget(self) -> Budget:
        """Return the budget for the answer that tells all of `list`."""
        return self._context.budget(
            "the jobs of the application", "delete those that are over, or ask for one by its name"
        )

    async def delete_by_prefix(self, prefix: str) -> None:
        """Delete the jobs whose names begin so; ``""``: all."""
        for job in await self.list():
            if job.name.startswith(prefix):
                await self.delete(job.name)

    # -- refusing ---------------------------------------------------------

    def named_twice(self) -> DaprError:
        """Return the refusal of a body with a name."""
        details = {"appID": self._metadata["appID"]}
        return self._refused("JOB_NAME", "Set the job name in the url only", details)

    def no_job(self) -> DaprError:
        """Return the refusal of a request without a job."""
        return self._empty("Job", "EMPTY")

    def _check_name(self, name: str) -> None:
        if not name:
            raise self._empty("Name", "JOB_NAME_EMPTY")

    def _empty(self, what: str, reason: str) -> DaprError:
        return self._refused(reason, f"{what} is empty", self._metadata)

    def _refused(self, reason: str, text: str, details: dict[str, str]) -> DaprError:
        code = f"DAPR_SCHEDULER_{reason}"
        return DaprError(400, "INVALID_ARGUMENT", code, text, reason=code, metadata=details)

    def _failure(self, reason: str, text: str, grpc_code: str = "INTERNAL") -> DaprError:
        code = f"DAPR_SCHEDULER_{reason}"
        return DaprError(GRPC_TO_HTTP[grpc_code], grpc_code, code, text, reason=code, metadata=self._metadata)


def _cron(text: str | None) -> tuple[str | None, str]:
    """Return a schedule and its time zone.

    Raises:
        InvalidArgumentError: it has no field for seconds, so that Dapr would refuse it.
    """
    if text is None:
        return None, "UTC"
    schedule, timezone = zoned(text)
    if not schedule.startswith("@") and len(schedule.split()) != 6:
        raise InvalidArgumentError(
            f"schedule {text!r:.80}: give cron of 6 fields (second minute hour day month weekday), @every with a duration, or @hourly, @daily …"
        )
    return schedule, timezone


def _restored(job: Job) -> DaprJob | None:
    """Return a job that a sidecar has scheduled, ``None``: another has."""
    data: Any = job.data
    if job.target != HANDLER or not isinstance(data, dict):
        return None
    return restored(job.name, data)
