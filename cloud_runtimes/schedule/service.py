"""`ScheduleService`: what ``client.schedule`` is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._core.handlers import count_arguments, is_async_callable
from .._service import Service, error_context
from ..codec.payload import decode_payload
from ..errors import InvalidArgumentError, NotFoundError
from ..spi import schedule as spi
from ..spi.operation import Method, Operation
from ..spi.schedule import FailurePolicy, Misfire, Retry, RpcTarget, RunRecord, ScheduleDriver, StoredJob, TopicTarget
from ._prepare import check_job_name, make_spec
from .runner import JobRunner
from .times import from_ms
from .types import Job, JobRun

if TYPE_CHECKING:
    from .._service import ClientContext

__all__ = ["Handler", "ScheduleService"]

F = TypeVar("F", bound=Callable[..., Any])

_SCHEDULE: Final = Method("schedule", "schedule_job", repeatable=False)
_GET: Final = Method("schedule", "get_job", repeatable=True, writes=False)
_LIST: Final = Method("schedule", "list_jobs", repeatable=True, writes=False)
_DELETE: Final = Method("schedule", "delete_job", repeatable=True)
_RUN_NOW: Final = Method("schedule", "run_now", repeatable=False)
_LIST_RUNS: Final = Method("schedule", "list_runs", repeatable=True, writes=False)


class Handler(NamedTuple):
    """What runs a job here."""

    name: str
    function: Callable[..., Any]
    arity: int
    is_async: bool
    type: Any


class ScheduleService(Service):
    """Jobs that are stored, and run when they are due by any process of the application that has their handler.

    A job's name is 1 to 253 ASCII letters, digits, ``-``, ``_``, ``:``, spaces, and ``.`` between parts. Jobs belong to the ``app_id``.

    Each occurrence is run at least once, and with the same run id whenever it is run again; never twice while the process that runs it lives. A job's runs follow one another: what is due during a run waits for its end, and ``misfire`` says what becomes of it.

    Over a sidecar the jobs are the sidecar's, which sends those that are due to this application's server, and holds itself to no more than docs/sidecar.md says.
    """

    name = "schedule"

    def __init__(self, context: ClientContext) -> None:
        super().__init__(context)
        self._handlers: dict[str, Handler] = {}

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
            timeout: seconds; the client's by default.
            metadata: for the component.

        Raises:
            AlreadyExistsError: there is a job of the name, and no ``overwrite``.
            InvalidArgumentError: what cannot be a job, such as one without any occurrence.
            UnsupportedError: the misfire policy is not that of the runtime.
            UnavailableError: the store cannot be reached.
            DeadlineExceededError: no answer came within ``timeout``.
        """
        op, driver, spec, overwrite = self._scheduling(
            name,
            schedule,
            due_time,
            repeats,
            ttl,
            data,
            target,
            overwrite,
            failure_policy,
            misfire,
            timezone,
            timeout,
            metadata,
        )
        self._call(op, driver.save, spec, overwrite)

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
            timeout: seconds; the client's by default.
            metadata: for the component.

        Raises:
            AlreadyExistsError: there is a job of the name, and no ``overwrite``.
            InvalidArgumentError: what cannot be a job, such as one without any occurrence.
            UnsupportedError: the misfire policy is not that of the runtime.
            UnavailableError: the store cannot be reached.
            DeadlineExceededError: no answer came within ``timeout``.
        """
        op, driver, spec, overwrite = self._scheduling(
            name,
            schedule,
            due_time,
            repeats,
            ttl,
            data,
            target,
            overwrite,
            failure_policy,
            misfire,
            timezone,
            timeout,
            metadata,
        )
        await self._call_async(op, driver.save_async, spec, overwrite)

    def _scheduling(
        self,
        name: str,
        schedule: Any,
        due_time: Any,
        repeats: Any,
        ttl: Any,
        data: Any,
        target: Any,
        overwrite: Any,
        failure_policy: Any,
        misfire: Any,
        timezone: Any,
        timeout: float | None,
        metadata: Mapping[str, str] | None,
    ) -> tuple[Operation, ScheduleDriver, spi.JobSpec, bool]:
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
        policy = Retry() if failure_policy is None else failure_policy
        spec = make_spec(name, schedule, due_time, repeats, ttl, data, target, policy, misfire, timezone)
        op, driver = self._asking(_SCHEDULE, timeout, metadata)
        if misfire != "once":
            self._need(driver, spi.MISFIRE, f"misfire={misfire!r}", op.component)
        op.repeatable = overwrite  # then it is the same job, however often it is stored
        return op, driver, spec, overwrite

    def _registered(self, function: Callable[..., Any]) -> str:
        for handler in self._handlers.values():
            if handler.function == function:
                return handler.name
        raise InvalidArgumentError(
            f"target {function!r:.80} is no handler of this client: register it by @client.schedule.job('name')"
        )

    @error_context(_GET, named=False)
    def get_job(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> Job:
        """Return a job.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            NotFoundError: there is none of the name, or it has had its last run.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        check_job_name(name)
        op, driver = self._asking(_GET, timeout, metadata)
        return _job(name, self._call(op, driver.get, name))

    @error_context(_GET, named=False)
    async def get_job_async(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> Job:
        """Return a job.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            NotFoundError: there is none of the name, or it has had its last run.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        check_job_name(name)
        op, driver = self._asking(_GET, timeout, metadata)
        return _job(name, await self._call_async(op, driver.get_async, name))

    @error_context(_LIST, named=False)
    def list_jobs(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> list[Job]:
        """Return all jobs of this application, in the order of their names.

        Args:
            timeout, metadata: as in `schedule_job`.

        Raises:
            UnsupportedError: the runtime cannot list them.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        op, driver = self._listing_jobs(timeout, metadata)
        return [_job(each.spec.name, each) for each in self._call(op, driver.list_jobs)]

    @error_context(_LIST, named=False)
    async def list_jobs_async(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> list[Job]:
        """Return all jobs of this application, in the order of their names.

        Args:
            timeout, metadata: as in `schedule_job`.

        Raises:
            UnsupportedError: the runtime cannot list them.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        op, driver = self._listing_jobs(timeout, metadata)
        return [_job(each.spec.name, each) for each in await self._call_async(op, driver.list_jobs_async)]

    def _listing_jobs(
        self, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> tuple[Operation, ScheduleDriver]:
        op, driver = self._asking(_LIST, timeout, metadata)
        self._need(driver, spi.LIST_JOBS, "list_jobs", op.component)
        return op, driver

    @error_context(_DELETE, named=False)
    def delete_job(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Delete a job; an absent one is fine. A run under way ends as it would. One that waits is cancelled. The history stays.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        check_job_name(name)
        op, driver = self._asking(_DELETE, timeout, metadata)
        self._call(op, driver.delete, name)

    @error_context(_DELETE, named=False)
    async def delete_job_async(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Delete a job; an absent one is fine. A run under way ends as it would. One that waits is cancelled. The history stays.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        check_job_name(name)
        op, driver = self._asking(_DELETE, timeout, metadata)
        await self._call_async(op, driver.delete_async, name)

    @error_context(_RUN_NOW, named=False)
    def run_now(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Have a job run beside its schedule, as soon as a runner is free; return the run's id, for `list_runs`. It does not wait for the run.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            NotFoundError: there is no such job.
            UnsupportedError: the runtime cannot.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        op, driver = self._running_now(name, timeout, metadata)
        return _run_id(name, self._call(op, driver.run_now, name))

    @error_context(_RUN_NOW, named=False)
    async def run_now_async(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Have a job run beside its schedule, as soon as a runner is free; return the run's id, for `list_runs`. It does not wait for the run.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            NotFoundError: there is no such job.
            UnsupportedError: the runtime cannot.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        op, driver = self._running_now(name, timeout, metadata)
        return _run_id(name, await self._call_async(op, driver.run_now_async, name))

    def _running_now(
        self, name: str, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> tuple[Operation, ScheduleDriver]:
        check_job_name(name)
        op, driver = self._asking(_RUN_NOW, timeout, metadata)
        self._need(driver, spi.RUN_NOW, "run_now", op.component)
        return op, driver

    @error_context(_LIST_RUNS, named=False)
    def list_runs(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> list[RunRecord]:
        """Return the runs of a job, oldest first, as far back as the runtime keeps them; also of one that is gone.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            UnsupportedError: the runtime has no history.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        op, driver = self._listing(name, timeout, metadata)
        return self._call(op, driver.list_runs, name)

    @error_context(_LIST_RUNS, named=False)
    async def list_runs_async(
        self, name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> list[RunRecord]:
        """Return the runs of a job, oldest first, as far back as the runtime keeps them; also of one that is gone.

        Args:
            name: of the job.
            timeout, metadata: as in `schedule_job`.

        Raises:
            UnsupportedError: the runtime has no history.
            UnavailableError, DeadlineExceededError: as in `schedule_job`.
        """
        op, driver = self._listing(name, timeout, metadata)
        return await self._call_async(op, driver.list_runs_async, name)

    def _listing(
        self, name: str, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> tuple[Operation, ScheduleDriver]:
        check_job_name(name)
        op, driver = self._asking(_LIST_RUNS, timeout, metadata)
        self._need(driver, spi.LIST_RUNS, "list_runs", op.component)
        return op, driver

    def _asking(
        self, method: Method, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> tuple[Operation, ScheduleDriver]:
        check_metadata(metadata)
        name, driver = self._component()
        limit = self._timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        return Operation(method, name, limit, metadata), driver

    def _component(self) -> tuple[str, ScheduleDriver]:
        """Return the one component: the only one that is declared, else ``default``."""
        declared = [name for service, name in self._context.runtime(self).declared() if service == "schedule"]
        name = declared[0] if len(declared) == 1 else "default"
        return name, self._driver(name)

    # -- running ----------------------------------------------------------

    def job(self, name: str, *, type: Any = None) -> Callable[[F], F]:
        """Decorator that makes a function the handler of a name: ``@client.schedule.job("cleanup")``.

        This process runs only jobs whose handler it has; the others wait for a process that has theirs.

        Args:
            name: of the handler, and of the job that runs it unless that has another ``target``.
            type: what the data is decoded into, strictly; what does not fit is a failure of the run.

        The handler, plain (in a thread) or ``async``, takes nothing, the data, or the data and the `JobRun`; a single parameter that is annotated `JobRun` gets that. An exception is a failure.

        Raises:
            InvalidArgumentError: the name has a handler, or the function takes something else.
        """
        check_job_name(name)
        self._context.runtime(self)  # a closed client refuses

        def register(function: F) -> F:
            if name in self._handlers:
                raise InvalidArgumentError(f"job {name!r} has a handler already: one handler has it")
            if not callable(function):
                raise InvalidArgumentError(f"job {name!r}: the handler must be callable, not {function!r:.80}")
            arity = count_arguments(function, f"job {name!r}", JobRun)
            self._handlers[name] = Handler(name, function, arity, is_async_callable(function), type)
            return function

        return register

    def run(self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None) -> None:
        """Run due jobs until the client is closed, or SIGINT or SIGTERM comes; then let running handlers end.

        `run_async` runs async handlers in the running loop. Cancelling it ends it too.

        Args:
            timeout: seconds for running handlers to end.
            metadata: for the component.

        Raises:
            UnsupportedError: the runtime has no schedules.
            CloudRuntimesError: the store refused, with an error that will not pass.
        """
        self.running(timeout=timeout, metadata=metadata)._run_until_closed()

    async def run_async(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Run due jobs until the client is closed, or SIGINT or SIGTERM comes; then let running handlers end.

        `run_async` runs async handlers in the running loop. Cancelling it ends it too.

        Args:
            timeout: seconds for running handlers to end.
            metadata: for the component.

        Raises:
            UnsupportedError: the runtime has no schedules.
            CloudRuntimesError: the store refused, with an error that will not pass.
        """
        await self.running(timeout=timeout, metadata=metadata)._run_until_closed_async()

    def running(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> JobRunner:
        """Return a handle that runs due jobs in the background while it is open.

        Over a sidecar it serves on ``APP_PORT`` too, as `RpcService.serving` does, unless this client serves already or has an `asgi_app`.

        Async handlers run in the loop of ``async with``, in the sync face in one of the client's own.

        Args:
            timeout, metadata: as in `run`.

        Raises:
            UnsupportedError: on entering: the runtime has no schedules.
        """
        check_metadata(metadata)
        return JobRunner(self, check_timeout(timeout, self._context.timeout))


def _job(name: str, stored: StoredJob | None) -> Job:
    if stored is None:
        raise NotFoundError(f"there is no job {name!r}: schedule_job stores one; after its last run it is gone")
    spec = stored.spec
    return Job(
        name=spec.name,
        schedule=spec.schedule,
        due_time=None if spec.due_ms is None else from_ms(spec.due_ms),
        repeats=spec.repeats,
        expires_at=None if spec.expires_ms is None else from_ms(spec.expires_ms),
        data=None if spec.data is None else decode_payload(spec.data, spec.content_type),
        target=spec.target,
        failure_policy=spec.failure_policy,
        misfire=spec.misfire,
        timezone=spec.timezone,
        next_run=None if stored.next_ms is None else from_ms(stored.next_ms),
        occurrences=stored.occurrences,
        skipped=stored.skipped,
        created_at=None if stored.created_ms is None else from_ms(stored.created_ms),
    )


def _run_id(name: str, run_id: str | None) -> str:
    if run_id is None:
        raise NotFoundError(f"there is no job {name!r} to run")
    return run_id
