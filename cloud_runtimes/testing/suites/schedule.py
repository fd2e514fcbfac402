"""Conformance of a `ScheduleDriver`, through the service."""

from __future__ import annotations

from ._schedule_failures import FailureTests
from ._schedule_jobs import JobTests
from ._schedule_runs import RunTests

__all__ = ["ScheduleSuite"]


class ScheduleSuite(JobTests, RunTests, FailureTests):
    """Each occurrence at least once with one id; misfire and failure policies applied exactly, and what is skipped is listed."""
