"""Schedules: persistent jobs, run once or again and again, by whichever process has their handler."""

from ..spi.schedule import (
    DueRun,
    JobSpec,
    Outcome,
    Retry,
    RpcTarget,
    RunRecord,
    RunSource,
    ScheduleDriver,
    StoredJob,
    TopicTarget,
)
from .runner import JobRunner
from .service import ScheduleService
from .types import Job, JobRun

__all__ = [
    "DueRun",
    "Job",
    "JobRun",
    "JobRunner",
    "JobSpec",
    "Outcome",
    "Retry",
    "RpcTarget",
    "RunRecord",
    "RunSource",
    "ScheduleDriver",
    "ScheduleService",
    "StoredJob",
    "TopicTarget",
]
