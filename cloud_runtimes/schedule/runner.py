"""The handle that runs due jobs: a thread between a `RunSource` and the handlers.

The thread claims runs, renews them and reports outcomes; handlers run in worker threads or as tasks of a loop, and hand their outcomes to the thread by a deque.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from .._core import fork
from .._core.handlers import ALONE
from .._core.logs import logger, repeated
from .._core.threads import Background
from .._core.workers import Workers
from .._service import RunningHandle
from ..codec.payload import decode_payload
from ..errors import ClosedError, CloudRuntimesError
from ..spi.flow import run_sync
from ..spi.operation import Method, Operation
from ..spi.schedule import DueRun, Outcome, Retry, RpcTarget, RunSource, ScheduleDriver, TopicTarget
from .times import from_ms
from .types import JobRun

if TYPE_CHECKING:
    import asyncio

    from ..rpc.server import RpcServer
    from .service import Handler, ScheduleService

__all__ = ["JobRunner"]

_RUN: Final = Method("schedule", "run", repeatable=True, writes=False)
_FIRST_LIMIT: Final = 64
_MAX_LIMIT: Final = 1024
_PATIENCE: Final = 1.0
"""Seconds that a claimed run waits for a worker; then it is given back, for another process."""
_WORKERS: Final = 64
_LOOK: Final = 1.0
_MAX_BACKOFF: Final = 5.0
_MAX_ERROR: Final = 300


class _Try:
    """One claimed run. Whoever takes it, to begin it or to give it back, has it alone."""

    def __init__(self, run: DueRun) -> None:
        self.run = run
        self.claimed = monotonic()
        self._taken = Lock()

    def take(self) -> bool:
        return self._taken.acquire(blocking=False)

    @property
    def begun(self) -> bool:
        return self._taken.locked()


class JobRunner(RunningHandle):
    """Runs due jobs while it is open; made by `ScheduleService.running`.

    `close`, or the end of the block, begins no run any more and lets running handlers end. A run that goes on longer loses its lease, and is run again.
    """

    def __init__(self, service: ScheduleService, timeout: float | None) -> None:
        super().__init__(service, timeout)
        self._service: ScheduleService = service
        self._server: RpcServer | None = None
        self._done: deque[Outcome] = deque()
        self._open_tries: dict[object, _Try] = {}
        self._limit = _FIRST_LIMIT
        self._source: RunSource | None = None
        self._loop: Callable[[], asyncio.AbstractEventLoop] = service._context.loop
        self._thread: Background | None = None
        self._workers: Any = None
        self._closing = self._ending = self._closed = False

    # -- opening ----------------------------------------------------------

    def _open(self, loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        op, driver = self._opening()
        source = self._service._call(op, driver.join, self._names)
        self._start(source, loop or self._service._context.loop)
        self._serve(driver)

    async def _open_async(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        op, driver = self._opening()
        source = await self._service._call_async(op, driver.join_async, self._names)
        self._start(source, lambda: loop)
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
            self._server = callback_server(self._service._context.service("rpc"), self._timeout)
            if self._server is not None:
                self._server.__enter__()
        except BaseException:
            self._close_by_client(monotonic() + _LOOK)
            raise

    def _names(self) -> frozenset[str]:
        return frozenset(self._service._handlers)

    def _start(self, source: RunSource, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._source, self._loop = source, loop
        self._workers = Workers("cloud-runtimes-job", _WORKERS)
        self._thread = Background(self._run, "cloud-runtimes-scheduler")
        self._service._context.handles.add(self)
        self._thread.start()

    # -- the thread -------------------------------------------------------

    def _run(self) -> None:
        source = self._source
        assert source is not None
        outcomes: list[Outcome] = []
        backoff = 0.0
        while True:
            ending = self._ending
            outcomes += self._take_outcomes()
            outcomes += self._give_back()
            if ending or (self._closing and not self._open_tries and not outcomes):
                break
            want = 0 if self._closing else max(0, self._limit - len(self._open_tries))
            try:
                runs = source.exchange(outcomes, want)
                outcomes = []
                backoff = 0.0
                for run in runs:
                    self._begin(run)
                if not self._done:
                    source.wait(_LOOK)
                continue
            except Exception as error:
                permanent = isinstance(error, CloudRuntimesError) and not (
                    error.retryable or error.code == "DEADLINE_EXCEEDED"
                )
                failure = error
            if permanent:
                assert isinstance(failure, CloudRuntimesError)
                self.error = failure
                if not self._closing:
                    logger().error("running jobs has ended: %s", failure)
                break
            backoff = min(_MAX_BACKOFF, backoff * 2 or 0.05)
            repeated("jobs", "running jobs: %s: %s; trying again", type(failure).__name__, failure, exc_info=failure)
            source.wait(backoff)
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
            self._open_tries.pop(outcome.token, None)
            outcomes.append(outcome)
        return outcomes

    def _give_back(self) -> list[Outcome]:
        """Give back what no worker was free for; the limit grows while workers keep up, and falls when they do not."""
        late = monotonic() - _PATIENCE
        waiting = [each for each in self._open_tries.values() if not each.begun]
        if not self._closing and not any(each.claimed < late for each in waiting):
            if not waiting:
                self._limit = min(_MAX_LIMIT, self._limit * 2)
            return []
        self._limit = _FIRST_LIMIT
        back = [each for each in waiting if each.take()]
        for each in back:
            self._open_tries.pop(each.run.token, None)
        return [Outcome(each.run.token, begun=False) for each in back]

    def _begin(self, run: DueRun) -> None:
        each = _Try(run)
        self._open_tries[run.token] = each
        handler = self._service._handlers.get(run.spec.target) if isinstance(run.spec.target, str) else None
        if handler is None or not handler.is_async:
            self._workers.submit(lambda: run_sync(self._execute(each, handler, sync=True)))
            return
        import asyncio

        flow = self._execute(each, handler, sync=False)
        try:
            asyncio.run_coroutine_threadsafe(flow, self._loop())
        except (ClosedError, RuntimeError):  # the loop is closed: another process has a better one
            flow.close()
            if each.take():
                self._settle(Outcome(run.token, begun=False))

    # -- running one ------------------------------------------------------

    def _may_begin(self, each: _Try) -> bool:
        """Take a try, unless it was given back or, while this process was held up, lost."""
        assert self._source is not None
        if not each.take():
            return False
        if self._source.holds(each.run.token):
            return True
        self._settle(Outcome(each.run.token, begun=False))
        return False

    async def _execute(self, each: _Try, handler: Handler | None, *, sync: bool) -> None:
        """Run one; in a thread nothing of it suspends."""
        if not self._may_begin(each):
            return
        try:
            target = each.run.spec.target
            if isinstance(target, RpcTarget):
                self._call_method(each.run, target)
            elif isinstance(target, TopicTarget):
                self._publish(each.run, target)
            else:
                assert handler is not None
                answer = handler.function(*_arguments(each.run, handler))
                if not sync:
                    await answer
        except BaseException as error:  # SystemExit too: a handler ends no runner
            self._failed(each.run, error)
            if not sync and not isinstance(error, (Exception, SystemExit)):
                raise  # its loop ends
        else:
            self._settle(Outcome(each.run.token))

    def _call_method(self, run: DueRun, target: RpcTarget) -> None:
        headers = {
            "job-name": run.spec.name,
            "job-run-id": run.run_id,
            "job-fire-time": from_ms(run.fire_ms).isoformat(),
            "job-attempt": str(run.attempt),
        }
        data, content_type = run.spec.data, run.spec.content_type
        self._service._context.service("rpc").invoke_method(
            target.service, target.method, data, content_type=content_type, headers=headers, type=bytes
        )

    def _publish(self, run: DueRun, target: TopicTarget) -> None:
        data, content_type = run.spec.data, run.spec.content_type
        self._service._context.service("pubsub").publish(
            target.pubsub_name, target.topic, data, content_type=content_type, attributes={"id": run.run_id}
        )

    def _failed(self, run: DueRun, error: BaseException) -> None:
        if self._closing and isinstance(error, ClosedError):  # of the client's own services
            self._settle(Outcome(run.token, begun=False))
            return
        text = f"{type(error).__name__}: {error}"[:_MAX_ERROR]
        policy = run.spec.failure_policy
        again = policy.interval if isinstance(policy, Retry) and run.failures < policy.attempts else None
        if self._closing and not isinstance(error, Exception):
            again = 0.0  # a task whose loop was ended under it has not failed by itself
        repeated(
            f"job {run.spec.name}",
            "job %r, run %s, attempt %d failed%s: %s",
            run.spec.name,
            run.run_id,
            run.attempt,
            " and is not tried again" if again is None else f" and is tried again in {again:g} s",
            text,
            exc_info=error,
        )
        self._settle(Outcome(run.token, text, again))

    def _settle(self, outcome: Outcome) -> None:
        self._done.append(outcome)
        if self._source is not None:
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
                self._source.wake()
                self._thread.join(1.0)
        if self._server is not None:
            self._server._close_by_client(end)
        if self._workers is not None:
            self._workers.close()
        self._closed = True
        self._service._context.handles.discard(self)


def _arguments(run: DueRun, handler: Handler) -> tuple[Any, ...]:
    if handler.arity == 0:
        return ()
    spec = run.spec
    about = JobRun(spec.name, run.run_id, from_ms(run.fire_ms), run.attempt)
    if handler.arity == ALONE:
        return (about,)
    if spec.data is not None:
        data = decode_payload(spec.data, spec.content_type, handler.type)
    elif handler.type is None:
        data = None
    else:
        from ..codec._convert import convert

        data = convert(None, handler.type)
    if handler.arity == 1:
        return (data,)
    return data, about
