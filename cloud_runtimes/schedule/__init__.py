"""Schedules: persistent jobs, run once or again and again, by whichever process has their handler."""

from ..spi.schedule import Retry, RpcTarget, RunRecord, TopicTarget
from ._jobs import Job
from .runner import JobRun, JobRunner
from .service import ScheduleService

__all__ = ["Job", "JobRun", "JobRunner", "Retry", "RpcTarget", "RunRecord", "ScheduleService", "TopicTarget"]
