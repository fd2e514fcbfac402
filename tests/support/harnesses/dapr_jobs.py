"""Schedules over a sidecar of ours, whose application is the client under test."""

from __future__ import annotations

from pathlib import Path

from tests.support.harnesses.dapr import Beside, DaprGrpc, DaprHttp
from tests.support.ports import reserved_port


class Jobs(Beside):
    """A sidecar that sends what is due to a port, on which each test listens in turn."""

    def __init__(self, folder: Path) -> None:
        self._reserved = reserved_port()
        self.port = self._reserved.__enter__()
        super().__init__(folder, app_port=self.port, client={"app_id": "suite"})

    def close(self) -> None:
        super().close()
        self._reserved.__exit__(None, None, None)


class DaprJobs(DaprHttp):
    """Over HTTP."""

    applications = False

    def close(self) -> None:
        super().close()
        schedule = self.beside.client.schedule
        for job in schedule.list_jobs():
            schedule.delete_job(job.name)


class DaprGrpcJobs(DaprJobs, DaprGrpc):
    """Over gRPC."""

    name = DaprGrpc.name


DAPR_JOBS: dict[str, type[DaprJobs]] = {harness.name: harness for harness in (DaprJobs, DaprGrpcJobs)}
