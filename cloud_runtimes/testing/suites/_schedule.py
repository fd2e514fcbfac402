"""What the parts of the suite of a `ScheduleDriver` share: a handler that notes its runs, and what is known of a job."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import NotFoundError
from ...schedule import JobRun
from ..faces import AsyncFace, Face
from ._base import Call, Suite

__all__ = ["HOUR", "Runs", "ScheduleCases"]

HOUR = 3600.0


class Runs:
    """A handler that notes what it is given, in both faces."""

    def __init__(self, client: CloudRuntimesClient, face: Face, name: str = "j", **options: Any) -> None:
        self.seen: list[tuple[Any, JobRun]] = []
        self.fails = 0
        self.hold: threading.Event | None = None

        def note(data: Any, run: JobRun) -> None:
            self.seen.append((data, run))
            if self.fails:
                self.fails -= 1
                raise ValueError(f"attempt {run.attempt}")

        async def note_async(data: Any, run: JobRun) -> None:
            await asyncio.sleep(0)
            note(data, run)
            while self.hold is not None and not self.hold.is_set():
                await asyncio.sleep(0.002)

        def note_plain(data: Any, run: JobRun) -> None:
            note(data, run)
            if self.hold is not None:
                assert self.hold.wait(30)

        self.function: Callable[..., Any] = note_async if isinstance(face, AsyncFace) else note_plain
        client.schedule.job(name, **options)(self.function)

    @property
    def ids(self) -> list[str]:
        return [run.run_id for _, run in self.seen]

    @property
    def fires(self) -> list[datetime]:
        return [run.fire_time for _, run in self.seen]


class ScheduleCases(Suite):
    """Base of the parts."""

    service = "schedule"

    @pytest.fixture
    def call(self, client: CloudRuntimesClient, face: Face) -> Call:
        """The service, whose methods take no name of a component."""
        return Call(face, client, "schedule")

    def _names(self, call: Call) -> list[str] | None:
        """Return the names of all jobs, ``None`` where they cannot be listed."""
        if call.lacks("schedule.list_jobs"):
            return None
        return [each.name for each in call("list_jobs")]

    @staticmethod
    def _gone(call: Call, name: str = "j") -> bool:
        try:
            call("get_job", name)
        except NotFoundError:
            return True
        return False

    @staticmethod
    def _states(call: Call, name: str = "j") -> list[str]:
        return [each.status for each in call("list_runs", name)]
