"""`ScheduleService`: what ``client.schedule`` is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._core.handlers import is_async_callable, signature
from .._service import error_context, run_until_closed, run_until_closed_async
from ..errors import InvalidArgumentError
from ..spi import schedule as spi
from ..spi.operation import Method, Operation
from ..spi.schedule import FailurePolicy, Misfire, Retry, RpcTarget, ScheduleDriver, TopicTarget
from ._jobs import StoredJobs
from ._prepare import check_job_name, make_spec
from .runner import JobRun, JobRunner

F = TypeVar("F", bound=Callable[..., Any])

_SCHEDULE: Final = Method("schedule", "schedule_job", repeatable=False)


class Handler(NamedTuple):
    """Local handler of a job."""

    name: str
    function: Callable[..., Any]
    takes: tuple[int, ...]
    is_async: bool
    type: Any


class ScheduleService(StoredJobs):
    """Jobs that are stored, and run when they are due by any process of the application that has their handler.

    A job's name is 1 to 253 ASCII letters, digits, ``-``, ``_``, ``:``, spaces, and ``.`` between parts. Jobs belong to the ``app_id``.

    Each occurrence is run at least once, and with the same run id whenever it is run again; never twice while the process that runs it lives. A job's runs follow one another: what is due during a run waits for its end, and ``misfire`` says what becomes of it.

    Over a sidecar the jobs are the sidecar's, which sends those that are due to this application's server, and holds itself to no more than docs/reference/sidecar.md says.
    """

    # -- jobs -------------------------------------------------------------

    @error_context(_SCHEDULE, named=False)
    def schedule_job(
        self,
        name: str,
        *,
        schedule: str | timedelta | None = None,
        due_time: datetime | timedelta | str | float | None = None,
        repeats: int | None = None,
        ttl: datetime | timedelta | str | float | None = None,
        data: Any = None,
        target: RpcTarget | TopicTarget | Callable[..., Any] | None = None,
        overwrite: bool = False,
        failure_policy: FailurePolicy | None = None,
        misfire: Misfire = "once",
        timezone: str = "UTC",
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Store a job; ``schedule`` or ``due_time`` is needed.

        Args:
            name: see the class.
            schedule: cron of 5 fields (minute hour day month weekday) or 6 (second first), ``"@every 5s"``, ``"@hourly"``, ``"@daily"``, ``"@weekly"``, ``"@monthly"``, ``"@yearly"``, or a timedelta, which is ``@every``.
            due_time: the first run, without a schedule the only one. A datetime with its zone, RFC 3339, or a delay: seconds, a timedelta, ``"5s"``, ``"PT5S"``.
            repeats: occurrences at most, those that are skipped included.
            ttl: no occurrence after so long, counted from ``due_time``, else from now; or until a datetime.
            data: what the target gets, by the payload rules; ``None``: nothing.
            target: a method, a topic or a handler registered by `job`; ``None``: the handler of the job's own name, which need not be registered in this process.
            overwrite: replace a job of the name; else it is an error.
            failure_policy: ``"drop"``, or ``Retry(attempts, interval)``; the default is ``Retry(3, 1.0)``.
            misfire: what becomes of occurrences that nobody could run in time. ``"once"`` runs the latest of all that are due, however late, and skips the others. ``"skip"`` skips those that are 10 seconds late, or have a later one due. ``"all"`` runs each. Skipped ones are counted and in the history.
            timezone: of cron text, by its IANA name; an interval has none.
            timeout, metadata: seconds, the client's by default; and what is for the component.

        Raises:
            AlreadyExistsError: there is a job of the name, and no ``overwrite``.
            InvalidArgumentError: what cannot be a job, such as one without any occurrence.
            UnsupportedError: the misfire policy is not that of the runtime.
            UnavailableError, DeadlineExceededError: the store cannot be reached, or does not answer within ``timeout``.
        """
        spec = self._spec(
            name, target, failure_policy, overwrite, schedule, due_time, repeats, ttl, data, misfire, timezone
        )
        op, driver = self._storing(spec, overwrite, timeout, metadata)
        self._frame.call(op, driver.save, spec, overwrite)

    @error_context(_SCHEDULE, named=False)
    async def schedule_job_async(
        self,
        name: str,
        *,
        schedule: str | timedelta | None = None,
        due_time: datetime | timedelta | str | float | None = None,
        repeats: int | None = None,
        ttl: datetime | timedelta | str | float | None = None,
        data: Any = None,
        target: RpcTarget | TopicTarget | Callable[..., Any] | None = None,
        overwrite: bool = False,
        failure_policy: FailurePolicy | None = None,
        misfire: Misfire = "once",
        timezone: str = "UTC",
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Store a job; ``schedule`` or ``due_time`` is needed.

        Args:
            name: see the class.
            schedule: cron of 5 fields (minute hour day month weekday) or 6 (second first), ``"@every 5s"``, ``"@hourly"``, ``"@daily"``, ``"@weekly"``, ``"@monthly"``, ``"@yearly"``, or a timedelta, which is ``@every``.
            due_time: the first run, without a schedule the only one. A datetime with its zone, RFC 3339, or a delay: seconds, a timedelta, ``"5s"``, ``"PT5S"``.
            repeats: occurrences at most, those that are skipped included.
            ttl: no occurrence after so long, counted from ``due_time``, else from now; or until a datetime.
            data: what the target gets, by the payload rules; ``None``: nothing.
            target: a method, a topic or a handler registered by `job`; ``None``: the handler of the job's own name, which need not be registered in this process.
            overwrite: replace a job of the name; else it is an error.
            failure_policy: ``"drop"``, or ``Retry(attempts, interval)``; the default is ``Retry(3, 1.0)``.
            misfire: what becomes of occurrences that nobody could run in time. ``"once"`` runs the latest of all that are due, however late, and skips the others. ``"skip"`` skips those that are 10 seconds late, or have a later one due. ``"all"`` runs each. Skipped ones are counted and in the history.
            timezone: of cron text, by its IANA name; an interval has none.
            timeout, metadata: seconds, the client's by default; and what is for the component.

        Raises:
            AlreadyExistsError: there is a job of the name, and no ``overwrite``.
            InvalidArgumentError: what cannot be a job, such as one without any occurrence.
            UnsupportedError: the misfire policy is not that of the runtime.
            UnavailableError, DeadlineExceededError: the store cannot be reached, or does not answer within ``timeout``.
        """
        spec = self._spec(
            name, target, failure_policy, overwrite, schedule, due_time, repeats, ttl, data, misfire, timezone
        )
        op, driver = self._storing(spec, overwrite, timeout, metadata)
        await self._frame.call_async(op, driver.save_async, spec, overwrite)

    def _spec(self, name: str, target: Any, policy: Any, overwrite: Any, *rest: Any) -> spi.JobSpec:
        if not isinstance(overwrite, bool):
            raise InvalidArgumentError(f"overwrite must be True or False, not {type(overwrite).__name__}")
        check_job_name(name)
        if target is None:
            target = name
        elif callable(target):
            target = self._registered(target)
        elif isinstance(target, str):
            raise InvalidArgumentError(
                "target must be the handler itself, not its name: a job without a target runs the handler of its own name"
            )
        return make_spec(name, target, Retry() if policy is None else policy, *rest)

    def _storing(
        self, spec: spi.JobSpec, overwrite: bool, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> tuple[Operation, ScheduleDriver]:
        op, driver = self._asking(_SCHEDULE, timeout, metadata)
        if spec.misfire != "once":
            self._frame.need(driver, spi.MISFIRE, f"misfire={spec.misfire!r}", op.component)
        op.repeatable = overwrite  # then it is the same job, however often it is stored
        return op, driver

    def _registered(self, function: Callable[..., Any]) -> str:
        for name, handler in self._frame.handlers.items():
            if handler.function == function:
                return str(name)
        raise InvalidArgumentError(
            f"target {function!r:.80} is no handler of this client: register it by @client.schedule.job('name')"
        )

    # -- running ----------------------------------------------------------

    def job(self, name: str, *, type: Any = None) -> Callable[[F], F]:
        """Decorator that makes a function the handler of a name: ``@client.schedule.job("cleanup")``.

        >>> @client.schedule.job("report")
        ... def report(run: JobRun) -> None:
        ...     print(f"the report of {run.fire_time:%Y-%m-%d}")
        >>> client.schedule.schedule_job("report", schedule="0 3 * * *", overwrite=True)

        This process runs only jobs whose handler it has; the others wait for a process that has theirs.

        Args:
            name: of the handler, and of the job that runs it unless that has another ``target``.
            type: what the data is decoded into, strictly, where no annotation says it; what does not fit is a failure of the run.

        The handler, plain (in a thread) or ``async``, takes what its parameters are annotated with: the data, the `JobRun`, the `CloudRuntimesClient`. Without annotations the first one gets the data and the second the `JobRun`. An exception is a failure.

        Raises:
            InvalidArgumentError: the name has a handler, the function takes something else, or an annotation cannot be resolved.
        """
        check_job_name(name)
        self._frame.context.runtime(self._frame)  # a closed client refuses

        def register(function: F) -> F:
            if name in self._frame.handlers:
                raise InvalidArgumentError(f"job {name!r} has a handler already: one handler has it")
            if not callable(function):
                raise InvalidArgumentError(f"job {name!r}: the handler must be callable, not {function!r:.80}")
            client = self._frame.context.client
            takes, kind = signature(function, f"job {name!r}", context=JobRun, client=client, type=type)
            self._frame.handlers[name] = Handler(name, function, takes, is_async_callable(function), kind)
            return function

        return register

    def run(self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None) -> None:
        """Run due jobs until the client is closed, or SIGINT or SIGTERM comes; then let running handlers end.

        `run_async` runs async handlers in the running loop. Cancelling it ends it too.

        Args:
            timeout, metadata: seconds for running handlers to end; and what is for the component.

        Raises:
            UnsupportedError: the runtime has no schedules.
            CloudRuntimesError: the store refused the first attempt.
        """
        run_until_closed(self.running(timeout=timeout, metadata=metadata))

    async def run_async(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Run due jobs until the client is closed, or SIGINT or SIGTERM comes; then let running handlers end.

        `run_async` runs async handlers in the running loop. Cancelling it ends it too.

        Args:
            timeout, metadata: seconds for running handlers to end; and what is for the component.

        Raises:
            UnsupportedError: the runtime has no schedules.
            CloudRuntimesError: the store refused the first attempt.
        """
        await run_until_closed_async(self.running(timeout=timeout, metadata=metadata))

    def running(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> JobRunner:
        """Return a handle that runs due jobs in the background while it is open.

        Over a sidecar it serves on ``APP_PORT`` too, as `RpcService.serving` does, unless this client serves already or has an `asgi_app`.

        Async handlers run in the loop of ``async with``, in the sync API in one of the client's own.

        Args:
            timeout, metadata: as in `run`.

        Raises:
            UnsupportedError: on entering: the runtime has no schedules.
        """
        check_metadata(metadata)
        return JobRunner(self, check_timeout(timeout, self._frame.context.timeout))
