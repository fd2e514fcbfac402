"""Schedules over a sidecar of ours, whose application is the client under test."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from dapr_harnesses import Beside, DaprGrpc, DaprHttp

from cloud_runtimes import CloudRuntimesClient


class Jobs(Beside):
    """A sidecar that sends what is due to a port, on which each test listens in turn."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        super().__init__(folder, app_port=self.port, client={"app_id": "suite"})


class DaprJobs(DaprHttp):
    """Over HTTP."""

    applications = False

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        return super().client(**arguments)

    def close(self) -> None:
        super().close()
        schedule = self.beside.client.schedule
        for job in schedule.list_jobs():
            schedule.delete_job(job.name)


class DaprGrpcJobs(DaprJobs, DaprGrpc):
    """Over gRPC."""

    name = DaprGrpc.name


DAPR_JOBS: dict[str, type[DaprJobs]] = {harness.name: harness for harness in (DaprJobs, DaprGrpcJobs)}
