"""The handle that runs due jobs: a thread between a `RunSource` and the handlers.

The thread claims runs, renews them and reports outcomes; handlers run in worker threads or as tasks of a loop, and hand their outcomes to the thread by a deque.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from .._core import fork
from .._core.handlers import CONTEXT, DATA
from .._core.handles import close_by
from .._core.logs import kind_of, logger, repeated
from .._core.threads import Background
from .._core.workers import Workers
from .._service import Health, RunningHandle
from ..codec.payload import decode_payload
from ..errors import ClosedError
from ..spi.flow import run_sync
from ..spi.operation import Method, Operation
from ..spi.schedule import DueRun, Outcome, Retry, RpcTarget, RunSource, ScheduleDriver, TopicTarget
from ._unhandled import UnhandledJobs
from .times import from_ms

if TYPE_CHECKING:

    from ..rpc.server import RpcServer
    from .service import Handler, ScheduleService

_RUN: Final = Method("schedule", "run", repeatable=True, writes=False, handle=True)
_AT_ONCE: Final = 64
"""Runs under way. What else is due waits, or goes to other processes."""
_LOOK: Final = 1.0
_MAX_ERROR: Final = 300


@dataclass(frozen=True, slots=True)
class JobRun:
    """Run of a job, as its handler sees it.

    Attributes:
        name: of the job.
        run_id: the same for every try of one (job, fire time), whichever process makes it. Some runtimes do not
            report it (``schedule.progress``). Then it is new for each try, ``fire_time`` is its arrival, and
            ``attempt`` is 1.
        fire_time: when it was due, UTC.
        attempt: 1 for the first try; each further one counts, after a failure as after the death of a process.
    """

    name: str
    run_id: str
    fire_time: datetime
    attempt: int


class JobRunner(RunningHandle):
    """Runs due jobs while it is open, at most 64 at once; made by `ScheduleService.running`.

    `close`, or the end of the block, begins no run any more and lets running handlers end. A run that goes on longer loses its lease, and is run again.
    """

    def __init__(self, service: ScheduleService, timeout: float | None) -> None:
        super().__init__(service, timeout)
        self._service: ScheduleService = service
        self._server: RpcServer | None = None
        self._done: deque[Outcome] = deque()
        self._under_way: set[object] = set()
        self._source: RunSource | None = None
        self._loop = self._frame.context.loop
        self._thread: Background | None = None
        self._workers: Any = None
        self._waiting = self._closing = self._ending = self._closed = False
        self.health = Health("running jobs", "schedule")
        self._unhandled = UnhandledJobs(service)

    @property
    def needed(self) -> bool:  # type: ignore[override]
        """Whether there are handlers; without any it runs jobs that call methods or publish."""
        return bool(self._frame.handlers)

    # -- opening ----------------------------------------------------------

    def _open(self) -> None:
        op, driver = self._opening()
        self._start(self._frame.call(op, driver.join, self._names))
        self._serve(driver)

    async def _open_async(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        self._loop = lambda: loop
        op, driver = self._opening()
        self._start(await self._frame.call_async(op, driver.join_async, self._names))
        await asyncio.to_thread(self._serve, driver)

    def _opening(self) -> tuple[Operation, ScheduleDriver]:
        if self._thread is not None or self._closed:
            raise ClosedError("this runner has run: ask for another by running()")
        name, driver = self._service._component()
        return Operation(_RUN, name, self._timeout), driver

    def _serve(self, driver: ScheduleDriver) -> None:
        """Open a server, where due jobs come to one and there is none."""
        if not driver.by_callback:
            return
        with fork.importing:
            from ..rpc.server import callback_server
        try:
            self._server = callback_server(self._frame.context.service("rpc"), self._timeout)
            if self._server is not None:
                self._server.__enter__()
        except BaseException:
            self._close_by_client(monotonic() + _LOOK)
            raise

    def _names(self) -> frozenset[str]:
        return frozenset(self._frame.handlers)

    def _start(self, source: RunSource) -> None:
        self._source = source
        self.health.works()  # it has joined
        self._workers = Workers("cloud-runtimes-job", _AT_ONCE)
        self._thread = Background(self._run, "cloud-runtimes-scheduler")
        self._frame.context.handles.add(self)
        self._thread.start()

    # -- the thread -------------------------------------------------------

    def _run(self) -> None:
        source = self._source
        assert source is not None
        outcomes: list[Outcome] = []
        while True:
            ending, closing = self._ending, self._closing
            outcomes += self._take_outcomes()
            if ending or (closing and not self._under_way and not outcomes):
                break
            want = 0 if closing else _AT_ONCE - len(self._under_way)
            try:
                runs = source.exchange(outcomes, want)
                outcomes = []
                self.health.works()
                for run in runs:
                    self._begin(run)
                self._unhandled.look()
                self._waiting = True
                if not self._done:
                    source.wait(_LOOK)
                self._waiting = False
            except Exception as error:
                pause = self.health.failed(error)
                if pause is None:
                    self.error = self.health.problem
                    if not self._closing:
                        logger().error("running jobs has ended: %s", error)
                    break
                self._changes.wait_for(lambda: (self._ending, self._closing) != (ending, closing), pause)  # noqa: B023
        try:
            source.close(outcomes)
        except Exception as error:
            # nothing is lost by this: what was not reported runs again, with the same id
            repeated("jobs", "leaving the jobs failed: %s", error)
        self._closing = True
        self._changes.announce()

    def _take_outcomes(self) -> list[Outcome]:
        outcomes = []
        while self._done:
            outcome = self._done.popleft()
            self._under_way.discard(outcome.token)
            outcomes.append(outcome)
        return outcomes

    def _begin(self, run: DueRun) -> None:
        self._under_way.add(run.token)
        handler = self._frame.handlers.get(run.spec.target) if isinstance(run.spec.target, str) else None
        if handler is None or not handler.is_async:
            self._workers.submit(lambda: run_sync(self._execute(run, handler, sync=True)))
            return
        import asyncio

        flow = self._execute(run, handler, sync=False)
        try:
            asyncio.run_coroutine_threadsafe(flow, self._loop())
        except (ClosedError, RuntimeError):  # the loop is closed: another process has a better one
            flow.close()
            self._settle(Outcome(run.token, begun=False))

    # -- running one ------------------------------------------------------

    async def _execute(self, run: DueRun, handler: Handler | None, *, sync: bool) -> None:
        """Run one; in a thread nothing of it suspends."""
        assert self._source is not None
        if not self._source.holds(run.token):  # lost, while this process was held up
            self._settle(Outcome(run.token, begun=False))
            return
        entered = self._frame.first(lambda each: each.running(run))
        outcome, failure = Outcome(run.token), None
        try:
            target = run.spec.target
            if isinstance(target, RpcTarget):
                self._call_method(run, target)
            elif isinstance(target, TopicTarget):
                self._publish(run, target)
            else:
                assert handler is not None
                answer = handler.function(*[self._argument(each, run, handler) for each in handler.takes])
                if not sync:
                    await answer
        except BaseException as error:  # SystemExit too: a handler ends no runner
            failure = error
            outcome = self._failed(run, error)
            if not sync and not isinstance(error, (Exception, SystemExit)):
                raise  # its loop ends
        finally:
            if entered is not None:
                entered.leave(failure)
            self._settle(outcome)  # last: whoever closes the runner waits for no more than this

    def _argument(self, what: int, run: DueRun, handler: Handler) -> Any:
        spec = run.spec
        if what == CONTEXT:
            return JobRun(spec.name, run.run_id, from_ms(run.fire_ms), run.attempt)
        if what != DATA:
            return self._frame.context.client
        if spec.data is not None:
            return decode_payload(spec.data, spec.content_type, handler.type)
        if handler.type is None:
            return None
        from ..codec.convert import convert

        return convert(None, handler.type)

    def _call_method(self, run: DueRun, target: RpcTarget) -> None:
        headers = {
            "job-name": run.spec.name,
            "job-run-id": run.run_id,
            "job-fire-time": from_ms(run.fire_ms).isoformat(),
            "job-attempt": str(run.attempt),
        }
        data, content_type = run.spec.data, run.spec.content_type
        self._frame.context.service("rpc").invoke_method(
            target.service, target.method, data, content_type=content_type, headers=headers, type=bytes
        )

    def _publish(self, run: DueRun, target: TopicTarget) -> None:
        data, content_type = run.spec.data, run.spec.content_type
        self._frame.context.service("pubsub").publish(
            target.pubsub_name, target.topic, data, content_type=content_type, attributes={"id": run.run_id}
        )

    def _failed(self, run: DueRun, error: BaseException) -> Outcome:
        if self._closing and isinstance(error, ClosedError):  # of the client's own services
            return Outcome(run.token, begun=False)
        text = f"{type(error).__name__}: {error}"[:_MAX_ERROR]
        policy = run.spec.failure_policy
        again = policy.interval if isinstance(policy, Retry) and run.failures < policy.attempts else None
        if self._closing and not isinstance(error, Exception):
            again = 0.0  # a task whose loop was ended under it has not failed by itself
        name, then = run.spec.name, "is not tried again" if again is None else f"is tried again in {again:g} s"
        message = "job %r, run %s, attempt %d failed and %s: %s"
        repeated(f"job {name} {kind_of(error)}", message, name, run.run_id, run.attempt, then, text, exc_info=error)
        return Outcome(run.token, text, again)

    def _settle(self, outcome: Outcome) -> None:
        self._done.append(outcome)
        # the thread looks for outcomes once more after it has said that it waits
        if self._waiting and self._source is not None:
            self._source.wake()

    def _over(self) -> bool:
        return bool(self.signal or self._closing)

    def _close_by_client(self, end: float | None) -> None:
        if self._closed or self._generation != fork.generation():
            return
        self._closing = True
        self._changes.announce()
        if self._thread is not None and self._source is not None:
            self._source.wake()
            if not self._thread.join(None if end is None else max(0.0, end - monotonic())):
                if not self._thread.is_current():
                    logger().warning("jobs were still running when their runner was left")
                self._ending = True
                self._changes.announce()
                self._source.wake()
                self._thread.join(1.0)
        if self._server is not None:
            close_by(self._server, end)
        if self._workers is not None:
            self._workers.close()
        self._closed = True
        self._frame.context.handles.discard(self)
