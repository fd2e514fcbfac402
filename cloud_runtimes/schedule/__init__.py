"""Schedules: persistent jobs, run once or again and again, by whichever process has their handler."""

from .driver import DueRun, JobSpec, Outcome, RunSource, ScheduleDriver, StoredJob
from .runner import JobRunner
from .service import ScheduleService
from .types import Job, JobRun, Retry, RpcTarget, RunRecord, TopicTarget

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
