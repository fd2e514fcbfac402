"""Schedules (Dapr, "Jobs API reference"): the sidecar keeps the jobs of its application, and sends those that are due to the application's server (``POST /job/<name>``)."""

from __future__ import annotations

from asyncio import wrap_future
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, NoReturn
from uuid import uuid4

from ..._core.clocks import Clocks
from ..._core.logs import repeated
from ..._core.threads import Changes
from ...errors import AlreadyExistsError, InvalidArgumentError, UnsupportedError
from ...schedule.times import occurrences
from ...spi import schedule as spi
from ...spi.flow import both_apis
from ...spi.operation import Operation
from ...spi.rpc import RpcReply
from ...spi.schedule import DueRun, JobSpec, Outcome, RunRecord, RunSource, ScheduleDriver, StoredJob
from .._sidecar.transport import Flow, SidecarDriver, resolve
from .callbacks import DaprCallbacks
from .grpc_transport import GrpcTransport
from .jobs import opened, restored, stored
from .transport import DaprSidecarError

_DONE: Final = RpcReply(204, {}, None, b"")
_FAILED: Final = RpcReply(500, {}, None, b"")
_GIVEN_BACK: Final = RpcReply(503, {}, None, b"")
_MOST: Final = 1024
"""Runs that wait here; further ones are given back at once."""


class DaprSchedule(SidecarDriver, ScheduleDriver):
    """The jobs of the sidecar's application.

    The alpha names of the API are asked for: those without it came later, and all versions that have those have these too.
    """

    _transport: GrpcTransport
    by_callback = True

    def __init__(self, transport: GrpcTransport, name: str) -> None:
        super().__init__(transport, name)
        # only gRPC has a call that lists them
        self.features = frozenset({spi.LIST_JOBS} if transport.streams else ())

    def _save(self, op: Operation, spec: JobSpec, overwrite: bool, /) -> Flow[None]:
        try:
            yield from self._transport.schedule_job(spec.name, _checked(spec), overwrite)
        except DaprSidecarError as refused:
            if refused.error_reply.status != 409:
                raise
            raise AlreadyExistsError(
                f"there is a job {spec.name!r} already: overwrite=True replaces it, delete_job deletes it"
            ) from None

    save, save_async = both_apis(_save)

    def _get(self, op: Operation, name: str, /) -> Flow[StoredJob | None]:
        try:
            return restored(name, (yield from self._transport.get_job(name)))
        except DaprSidecarError as refused:
            # Dapr has no code for it
            said = refused.error_reply
            if "GET_JOB" in said.code + said.reason and "not found" in said.message:
                return None
            raise

    get, get_async = both_apis(_get)

    def _list_jobs(self, op: Operation, /) -> Flow[list[StoredJob]]:
        jobs = yield from self._transport.list_jobs()
        return [restored(each["name"], each) for each in sorted(jobs, key=lambda job: str(job["name"]))]

    list_jobs, list_jobs_async = both_apis(_list_jobs)

    def _delete(self, op: Operation, name: str, /) -> Flow[None]:
        yield from self._transport.delete_job(name)

    delete, delete_async = both_apis(_delete)

    def join(self, op: Operation, handlers: Callable[[], frozenset[str]], /) -> RunSource:
        return DaprRuns(self._transport.callbacks, handlers)

    def run_now(self, op: Operation, name: str, /) -> NoReturn:
        raise UnsupportedError("Dapr cannot run a job beside its schedule")

    def list_runs(self, op: Operation, name: str, /) -> list[RunRecord]:
        raise UnsupportedError("Dapr keeps no history of jobs")


def _checked(spec: JobSpec) -> dict[str, Any]:
    """Return a job that has an occurrence, which Dapr does not look at."""
    if spec.schedule is not None and (spec.expires_ms is not None or spec.ttl_ms is not None):
        now = Clocks().wall_ms()
        due = now + spec.delay_ms if spec.delay_ms is not None else spec.due_ms
        first = due if due is not None else occurrences(spec.schedule, spec.timezone).after(now)
        expires = spec.expires_ms if spec.ttl_ms is None else (due or now) + spec.ttl_ms
        if first is None or (expires is not None and first > expires):
            raise InvalidArgumentError(
                f"job {spec.name!r} would never run: its schedule has no occurrence"
                + (" before its ttl is over" if expires is not None else "")
            )
    return stored(spec)


class DaprRuns(RunSource):
    """Due jobs: each waits for its outcome, which is the answer. Dapr gives the job's name and data, and neither the occurrence nor the attempt."""

    def __init__(self, callbacks: DaprCallbacks, handlers: Callable[[], frozenset[str]]) -> None:
        self._callbacks = callbacks
        self._handlers = handlers
        self._changes = Changes()
        self._woken = self._closed = False
        self._waiting: deque[DueRun] = deque()
        callbacks.joined(self)

    async def run(self, job: str, data: bytes) -> RpcReply | None:
        """Have a job run, and return what to answer; ``None``: it cannot be run here."""
        payload, content_type, target = opened(job, data)
        if self._closed or len(self._waiting) >= _MOST:
            return None
        if isinstance(target, str) and target not in self._handlers():
            repeated(f"no handler {target}", "job %r is due, and there is no handler %r in this process", job, target)
            return None
        # the sidecar knows what follows a failure
        spec = JobSpec(job, None, None, None, None, None, None, payload, content_type, target, "drop", "once", "UTC")
        reply: Future[RpcReply] = Future()
        self._waiting.append(DueRun(reply, str(uuid4()), Clocks().wall_ms(), 1, 0, spec))
        self._changes.announce()
        if self._closed:
            self._give_back()  # nobody else does any more
        return await wrap_future(reply)

    def exchange(self, outcomes: Sequence[Outcome], want: int, /) -> list[DueRun]:
        self._land(outcomes)
        runs: list[DueRun] = []
        while len(runs) < want and self._waiting:
            runs.append(self._waiting.popleft())
        return runs

    @staticmethod
    def _land(outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            assert isinstance(outcome.token, Future)
            resolve(outcome.token, _GIVEN_BACK if not outcome.begun else _DONE if outcome.error is None else _FAILED)

    def holds(self, token: object, /) -> bool:
        assert isinstance(token, Future)
        return not token.done()

    def wait(self, seconds: float, /) -> None:
        ticket = self._changes.ticket()
        self._changes.wait(ticket, 0.0 if self._woken or self._waiting else seconds)
        self._woken = False

    def wake(self) -> None:
        self._woken = True
        self._changes.announce()

    def close(self, outcomes: Sequence[Outcome], /) -> None:
        self._closed = True
        self._callbacks.remove(self)
        self._land(outcomes)
        self._give_back()

    def _give_back(self) -> None:
        while self._waiting:
            try:
                run = self._waiting.popleft()
            except IndexError:
                return
            self._land([Outcome(run.token, begun=False)])
