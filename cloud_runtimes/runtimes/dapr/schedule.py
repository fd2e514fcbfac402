"""Schedules (Dapr, "Jobs API reference"): the sidecar keeps the jobs of its application, and sends those that are due to the application's server."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from ..._core.clocks import Clocks
from ...errors import AlreadyExistsError, UnsupportedError
from ...schedule.times import occurrences
from ...spi import schedule as spi
from ...spi.operation import Operation
from ...spi.schedule import JobSpec, RunRecord, RunSource, ScheduleDriver, StoredJob
from .._sidecar.driver import SidecarDriver, operation
from .._sidecar.transport import Flow
from .failures import DaprSidecarError
from .jobs import never_runs, restored, stored
from .transport import DaprJob, DaprTransport

__all__ = ["DaprSchedule"]


class DaprSchedule(SidecarDriver, ScheduleDriver):
    """The jobs of the sidecar's application.

    The alpha names of the API are asked for: those without it came later, and all versions that have those have these too.
    """

    _transport: DaprTransport
    by_callback = True

    def __init__(self, transport: DaprTransport, name: str) -> None:
        super().__init__(transport, name)
        # only gRPC has a call that lists them
        self.features = frozenset({spi.LIST_JOBS} if transport.streams else ())

    @operation
    def save(self, op: Operation, spec: JobSpec, overwrite: bool, /) -> Flow[None]:
        try:
            yield from self._transport.schedule_job(_checked(spec), overwrite)
        except DaprSidecarError as refused:
            if refused.error_reply.status != 409:
                raise
            raise AlreadyExistsError(
                f"there is a job {spec.name!r} already: overwrite=True replaces it, delete_job deletes it"
            ) from None

    @operation
    def get(self, op: Operation, name: str, /) -> Flow[StoredJob | None]:
        try:
            return restored((yield from self._transport.get_job(name)))
        except DaprSidecarError as refused:
            # Dapr has no code for it
            said = refused.error_reply
            if "GET_JOB" in said.code + said.reason and "not found" in said.message:
                return None
            raise

    @operation
    def list_jobs(self, op: Operation, /) -> Flow[list[StoredJob]]:
        found = yield from self._transport.list_jobs()
        return [restored(each) for each in sorted(found, key=lambda job: job.name)]

    @operation
    def delete(self, op: Operation, name: str, /) -> Flow[None]:
        yield from self._transport.delete_job(name)

    def join(self, op: Operation, handlers: Callable[[], frozenset[str]], /) -> RunSource:
        from .runs import DaprRuns

        return DaprRuns(self._transport.callbacks, handlers)

    # -- what Dapr has not ----------------------------------------------------

    def run_now(self, op: Operation, name: str, /) -> NoReturn:
        raise UnsupportedError("Dapr cannot run a job beside its schedule")

    def list_runs(self, op: Operation, name: str, /) -> list[RunRecord]:
        raise UnsupportedError("Dapr keeps no history of jobs")


def _checked(spec: JobSpec) -> DaprJob:
    """Return a job that has an occurrence, which Dapr does not look at."""
    if spec.schedule is not None and (spec.expires_ms is not None or spec.ttl_ms is not None):
        now = Clocks().wall_ms()
        due = now + spec.delay_ms if spec.delay_ms is not None else spec.due_ms
        first = due if due is not None else occurrences(spec.schedule, spec.timezone).after(now)
        expires = spec.expires_ms if spec.ttl_ms is None else (due or now) + spec.ttl_ms
        if first is None or (expires is not None and first > expires):
            raise never_runs(spec.name, expires is not None)
    return stored(spec)
