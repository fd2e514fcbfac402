"""Schedules: persistent jobs, run once or again and again, by whichever process has their handler."""

from ..spi.schedule import Retry, RpcTarget, RunRecord, TopicTarget
from .runner import JobRunner
from .service import ScheduleService
from .types import Job, JobRun

__all__ = ["Job", "JobRun", "JobRunner", "Retry", "RpcTarget", "RunRecord", "ScheduleService", "TopicTarget"]
