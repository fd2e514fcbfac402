"""Operating: the methods of `AdminService` for locks, services and jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .._core.arguments import CLIENT_TIMEOUT
from .._service import ServiceFrame, error_context
from ..errors import ConflictError, InvalidArgumentError, NotFoundError
from ..spi.inventory import JobInfo, LockInfo, ServiceInfo
from ..spi.lock import UnlockStatus
from ..spi.operation import Method, Operation
from ._audit import audited
from ._looking import Looking, check_limit

_LOCKS: Final = Method("admin", "locks", repeatable=True, writes=False)
_BREAK_LOCK: Final = Method("admin", "break_lock", repeatable=True)
_SERVICES: Final = Method("admin", "services", repeatable=True, writes=False)
_JOBS: Final = Method("admin", "jobs", repeatable=True, writes=False)
_PAUSE_JOB: Final = Method("admin", "pause_job", repeatable=True)
_RESUME_JOB: Final = Method("admin", "resume_job", repeatable=True)
_RETRY_RUN: Final = Method("admin", "retry_run", repeatable=False)


class Operating(Looking):
    """See and mend locks, services and jobs."""

    @error_context(_LOCKS)
    def locks(
        self,
        store_name: str,
        *,
        prefix: str = "",
        limit: int = 1000,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[LockInfo]:
        """Return the locks of a store that are held or waited for, in the order of their names.

        Args:
            store_name: the component.
            prefix: of the names of the locked resources.
            limit: how many at most.
            timeout, metadata: as in `topics`.

        Raises:
            UnsupportedError: the component cannot tell.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, driver = self._begin(_LOCKS, store_name, timeout, metadata)
        return list(frame.call(op, driver.locks, _text("prefix", prefix, empty=True), check_limit(limit)))

    @error_context(_LOCKS)
    async def locks_async(
        self,
        store_name: str,
        *,
        prefix: str = "",
        limit: int = 1000,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[LockInfo]:
        """Return the locks of a store that are held or waited for, in the order of their names.

        Args:
            store_name: the component.
            prefix: of the names of the locked resources.
            limit: how many at most.
            timeout, metadata: as in `topics`.

        Raises:
            UnsupportedError: the component cannot tell.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, driver = self._begin(_LOCKS, store_name, timeout, metadata)
        return list(
            await frame.call_async(op, driver.locks_async, _text("prefix", prefix, empty=True), check_limit(limit))
        )

    @error_context(_BREAK_LOCK)
    @audited
    def break_lock(
        self,
        store_name: str,
        resource_id: str,
        token: int,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """End the lease of whoever holds a lock, so that the next one gets it, with a higher token.

        Its holder learns it at the next renewal. What it does until then is refused where it gives its token as ``fence=``, once the key has seen a higher one.

        Args:
            store_name, resource_id: the component and the lock.
            token: of the lease, as `locks` tells it.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: nobody holds it.
            ConflictError: somebody else holds it by now.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, driver = self._begin(_BREAK_LOCK, store_name, timeout, metadata)
        resource_id, token = _text("resource_id", resource_id), _token(token)
        _check_broken(frame.call(op, driver.break_lock, resource_id, token), store_name, resource_id, token)

    @error_context(_BREAK_LOCK)
    @audited
    async def break_lock_async(
        self,
        store_name: str,
        resource_id: str,
        token: int,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """End the lease of whoever holds a lock, so that the next one gets it, with a higher token.

        Its holder learns it at the next renewal. What it does until then is refused where it gives its token as ``fence=``, once the key has seen a higher one.

        Args:
            store_name, resource_id: the component and the lock.
            token: of the lease, as `locks` tells it.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: nobody holds it.
            ConflictError: somebody else holds it by now.
            UnsupportedError: the component cannot do it.
            ComponentNotFoundError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, driver = self._begin(_BREAK_LOCK, store_name, timeout, metadata)
        resource_id, token = _text("resource_id", resource_id), _token(token)
        _check_broken(
            await frame.call_async(op, driver.break_lock_async, resource_id, token), store_name, resource_id, token
        )

    @error_context(_SERVICES, named=False)
    def services(
        self,
        *,
        prefix: str = "",
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[ServiceInfo]:
        """Return the applications that can be called on this home, in the order of their names.

        Args:
            prefix: of their names.
            timeout, metadata: as in `topics`.

        Raises:
            UnsupportedError: the home has no registry.
            PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, driver = self._begin(_SERVICES, None, timeout, metadata)
        return list(frame.call(op, driver.services, _text("prefix", prefix, empty=True)))

    @error_context(_SERVICES, named=False)
    async def services_async(
        self,
        *,
        prefix: str = "",
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[ServiceInfo]:
        """Return the applications that can be called on this home, in the order of their names.

        Args:
            prefix: of their names.
            timeout, metadata: as in `topics`.

        Raises:
            UnsupportedError: the home has no registry.
            PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, driver = self._begin(_SERVICES, None, timeout, metadata)
        return list(await frame.call_async(op, driver.services_async, _text("prefix", prefix, empty=True)))

    @error_context(_JOBS, named=False)
    def jobs(
        self,
        *,
        prefix: str = "",
        limit: int = 1000,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[JobInfo]:
        """Return the jobs of all applications, in the order of applications and names. `list_jobs` and `list_runs` of ``client.schedule`` tell more of those of one.

        Args:
            prefix: of the names of the jobs.
            limit: how many at most.
            timeout, metadata: as in `topics`.

        Raises:
            UnsupportedError: the runtime cannot tell.
            PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, driver = self._begin(_JOBS, None, timeout, metadata)
        return list(frame.call(op, driver.jobs, _text("prefix", prefix, empty=True), check_limit(limit)))

    @error_context(_JOBS, named=False)
    async def jobs_async(
        self,
        *,
        prefix: str = "",
        limit: int = 1000,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[JobInfo]:
        """Return the jobs of all applications, in the order of applications and names. `list_jobs` and `list_runs` of ``client.schedule`` tell more of those of one.

        Args:
            prefix: of the names of the jobs.
            limit: how many at most.
            timeout, metadata: as in `topics`.

        Raises:
            UnsupportedError: the runtime cannot tell.
            PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, driver = self._begin(_JOBS, None, timeout, metadata)
        return list(
            await frame.call_async(op, driver.jobs_async, _text("prefix", prefix, empty=True), check_limit(limit))
        )

    @error_context(_PAUSE_JOB, named=False)
    @audited
    def pause_job(
        self,
        name: str,
        *,
        app_id: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Let a job have no occurrences until `resume_job`. Restarts and ``schedule_job(…, overwrite=True)`` change nothing of it.

        Runs under way go on, and are tried again where they fail. ``run_now`` still runs it.

        Args:
            name: of the job.
            app_id: of its application; ``None``: the client's own.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: there is no such job.
            UnsupportedError: the runtime cannot do it.
            PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, driver = self._begin(_PAUSE_JOB, None, timeout, metadata)
        app, name = self._app(app_id), _text("name", name)
        if not frame.call(op, driver.pause, app, name, True):
            raise _no_job(app, name)

    @error_context(_PAUSE_JOB, named=False)
    @audited
    async def pause_job_async(
        self,
        name: str,
        *,
        app_id: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Let a job have no occurrences until `resume_job`. Restarts and ``schedule_job(…, overwrite=True)`` change nothing of it.

        Runs under way go on, and are tried again where they fail. ``run_now`` still runs it.

        Args:
            name: of the job.
            app_id: of its application; ``None``: the client's own.
            timeout, metadata: as in `topics`.

        Raises:
            NotFoundError: there is no such job.
            UnsupportedError: the runtime cannot do it.
            PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `topics`.
        """
        frame, op, driver = self._begin(_PAUSE_JOB, None, timeout, metadata)
        app, name = self._app(app_id), _text("name", name)
        if not await frame.call_async(op, driver.pause_async, app, name, True):
            raise _no_job(app, name)

    @error_context(_RESUME_JOB, named=False)
    @audited
    def resume_job(
        self,
        name: str,
        *,
        app_id: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Let a paused job have its occurrences again. Its ``misfire`` says what becomes of those it has missed.

        Args:
            name, app_id, timeout, metadata: as in `pause_job`.

        Raises:
            NotFoundError, UnsupportedError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `pause_job`.
        """
        frame, op, driver = self._begin(_RESUME_JOB, None, timeout, metadata)
        app, name = self._app(app_id), _text("name", name)
        if not frame.call(op, driver.pause, app, name, False):
            raise _no_job(app, name)

    @error_context(_RESUME_JOB, named=False)
    @audited
    async def resume_job_async(
        self,
        name: str,
        *,
        app_id: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Let a paused job have its occurrences again. Its ``misfire`` says what becomes of those it has missed.

        Args:
            name, app_id, timeout, metadata: as in `pause_job`.

        Raises:
            NotFoundError, UnsupportedError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `pause_job`.
        """
        frame, op, driver = self._begin(_RESUME_JOB, None, timeout, metadata)
        app, name = self._app(app_id), _text("name", name)
        if not await frame.call_async(op, driver.pause_async, app, name, False):
            raise _no_job(app, name)

    @error_context(_RETRY_RUN, named=False)
    @audited
    def retry_run(
        self,
        name: str,
        run_id: str,
        *,
        app_id: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Have a run that failed run again, under its id and with all the tries of its failure policy. The history has it twice then.

        Args:
            name: of the job.
            run_id: of the run, as ``client.schedule.list_runs`` tells it.
            app_id, timeout, metadata: as in `pause_job`.

        Raises:
            NotFoundError: there is no such job any more, or no such run in its history.
            ConflictError: the run has not failed.
            UnsupportedError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `pause_job`.
        """
        frame, op, driver = self._begin(_RETRY_RUN, None, timeout, metadata)
        app, name, run_id = self._app(app_id), _text("name", name), _text("run_id", run_id)
        _check_retried(frame.call(op, driver.retry_run, app, name, run_id), app, name, run_id)

    @error_context(_RETRY_RUN, named=False)
    @audited
    async def retry_run_async(
        self,
        name: str,
        run_id: str,
        *,
        app_id: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Have a run that failed run again, under its id and with all the tries of its failure policy. The history has it twice then.

        Args:
            name: of the job.
            run_id: of the run, as ``client.schedule.list_runs`` tells it.
            app_id, timeout, metadata: as in `pause_job`.

        Raises:
            NotFoundError: there is no such job any more, or no such run in its history.
            ConflictError: the run has not failed.
            UnsupportedError, PermissionDeniedError, UnavailableError, DeadlineExceededError: as in `pause_job`.
        """
        frame, op, driver = self._begin(_RETRY_RUN, None, timeout, metadata)
        app, name, run_id = self._app(app_id), _text("name", name), _text("run_id", run_id)
        _check_retried(await frame.call_async(op, driver.retry_run_async, app, name, run_id), app, name, run_id)

    def _begin(
        self, method: Method, name: str | None, timeout: float | None, metadata: Any
    ) -> tuple[ServiceFrame, Operation, Any]:
        """Return the frame whose driver answers, the operation and the driver. ``name``: ``None`` where a service has one component."""
        frame = self._service_of(method)
        if name is None:
            name = frame.context.settings.app_id if frame.name == "rpc" else frame.only()
        return self._operation(method, name, timeout, metadata)

    def _app(self, app_id: str | None) -> str:
        return self._frame.context.settings.app_id if app_id is None else _text("app_id", app_id)


def _text(what: str, value: Any, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        raise InvalidArgumentError(f"{what} must be text, got {value!r:.80}")
    return value


def _token(token: Any) -> int:
    if not isinstance(token, int) or isinstance(token, bool):
        raise InvalidArgumentError(f"token must be a whole number, got {token!r:.80}: client.admin.locks tells it")
    return token


def _check_broken(status: UnlockStatus, store_name: str, resource_id: str, token: int) -> None:
    lock = f"the lock {resource_id!r} of {store_name!r}"
    if status is UnlockStatus.NOT_FOUND:
        raise NotFoundError(f"nobody holds {lock}: client.admin.locks shows those that are held")
    if status is UnlockStatus.NOT_OWNER:
        raise ConflictError(f"{lock} has another token than {token} by now: look again with client.admin.locks")


def _no_job(app: str, name: str) -> NotFoundError:
    return NotFoundError(f"{app!r} has no job {name!r}: client.admin.jobs shows those there are")


def _check_retried(status: str | None, app: str, name: str, run_id: str) -> None:
    if status is None:
        raise NotFoundError(
            f"{app!r} has no job {name!r} with a run {run_id!r}: client.schedule.list_runs shows its history"
        )
    if status != "failed":
        raise ConflictError(f"the run {run_id!r} of {name!r} is {status}: only one that failed is run again")
