"""A lease: a lock as long as it lasts."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from .._core import fork
from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._core.logs import repeated
from .._core.threads import Background, Changes
from .._service import ServiceHandle, error_context, frame_of
from ..errors import ClosedError, CloudRuntimesError, LeaseLostError
from ..spi import lock as spi
from ..spi.lock import Grant, LockDriver, LockRequest
from ..spi.operation import Method, Operation

if TYPE_CHECKING:
    from .service import LockService

_RENEW: Final = Method("lock", "renew", repeatable=False, handle=True)
_RELEASE: Final = Method("lock", "release", repeatable=False, handle=True)


class Lease(ServiceHandle):
    """A lock that is held until its expiry; made by `LockService.try_lock` and `LockService.hold`.

    ``with lease:`` (or ``async with``) releases it at the end, and raises `LeaseLostError` if it was lost before, unless an exception leaves the block.

    What must not be written by a holder that was paused for too long and does not know it yet takes the token: ``client.state.save(…, fence=lease.token)``.

    Attributes:
        resource_id: what is locked.
        owner: who holds it.
        token: fencing token, higher than all before; ``None`` where the store has none.
    """

    def __init__(
        self, service: LockService, store_name: str, request: LockRequest, grant: Grant, timeout: float | None
    ) -> None:
        super().__init__(service)
        self.resource_id = request.resource_id
        self.owner = request.owner
        self.token = grant.token
        self._service = service
        self._store_name = store_name
        self._request = request
        self._timeout = timeout
        self._holds = grant.holds
        self._lost = False
        self._ending = self._released = False
        self._set_deadline(grant.asked)

    def __repr__(self) -> str:
        state = "released" if self._released else "lost" if self._lost else "held"
        return f"<Lease {self.resource_id!r} owner={self.owner!r} token={self.token} {state}>"

    def _add_context(self, error: BaseException, method: Method, component: Any) -> None:
        """Complete an error as the service does, for `error_context`."""
        self._frame.add_context(error, method, self._store_name)

    # -- what it knows without asking -------------------------------------

    @property
    def expires_at(self) -> datetime:
        """When it ends unless it is renewed, UTC; as the wall clock stood at the last renewal."""
        return self._expires_at

    @property
    def lost(self) -> bool:
        """Whether it may have ended before its release. Once ``True``, always.

        By a local clock that no step moves and that counts from before the last request, so it comes before the store gives the lock to others. Also once an embedded store's files were removed or replaced, since others then find another store.
        """
        self._check_process()
        if not self._lost and not self._released:
            over = self._frame.context.now() >= self._deadline
            self._lost = over or (self._holds is not None and not self._holds())
        return self._lost

    def check(self) -> None:
        """Return while it is held.

        Raises:
            LeaseLostError: it is lost.
            ClosedError: it was released, or belongs to a process that forked this one.
        """
        if self.lost:
            raise self._loss()
        if self._released:
            raise ClosedError(
                f"the lease of {self.resource_id!r} was released: acquire another", component=self._store_name
            )

    def _loss(self) -> LeaseLostError:
        return LeaseLostError(
            f"the lease of {self.resource_id!r} (owner {self.owner!r}) ended before its release: others may have "
            "the lock; renew in time or take a longer expiry=, and guard writes by fence=",
            service="lock",
            component=self._store_name,
        )

    # -- renewing ---------------------------------------------------------

    @error_context(_RENEW, named=False)
    def renew(self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None) -> None:
        """Let it last another ``expiry`` from now.

        Args:
            timeout: seconds; that of the lease's maker by default.
            metadata: for the component.

        Raises:
            LeaseLostError: it has ended. It cannot be renewed any more.
            UnsupportedError: the store does not renew.
        """
        op, driver, began = self._renewing(timeout, metadata)
        self._renewed(self._frame.call(op, driver.renew, self._request), began)

    @error_context(_RENEW, named=False)
    async def renew_async(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Let it last another ``expiry`` from now.

        Args:
            timeout: seconds; that of the lease's maker by default.
            metadata: for the component.

        Raises:
            LeaseLostError: it has ended. It cannot be renewed any more.
            UnsupportedError: the store does not renew.
        """
        op, driver, began = self._renewing(timeout, metadata)
        self._renewed(await self._frame.call_async(op, driver.renew_async, self._request), began)

    def _renewing(
        self, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> tuple[Operation, LockDriver, float]:
        self.check()
        op, driver = self._operation(_RENEW, timeout, metadata)
        self._frame.need(driver, spi.RENEW, "renew", self._store_name)
        return op, driver, self._frame.context.now()

    def _renewed(self, alive: bool, began: float) -> None:
        if self._ending:
            return
        if not alive:
            self._lost = True
        if self._lost:
            raise self._loss()
        self._set_deadline(began)

    def _set_deadline(self, began: float) -> None:
        expiry = self._request.expiry_ms / 1000
        now = self._frame.context.now()
        self._deadline = began + expiry
        self._due = began + expiry / 3
        self._expires_at = datetime.now(UTC) + timedelta(seconds=self._deadline - now)

    def _renew_in_background(self, op: Operation, driver: LockDriver) -> None:
        """Renew, on the renewing thread; what fails is tried again until the lease is lost."""
        began = self._frame.context.now()
        try:
            self._renewed(self._frame.call(op, driver.renew, self._request), began)
        except LeaseLostError:
            repeated(f"lost {self._store_name}", "%s: the lock %r was lost", self._store_name, self.resource_id)
        except Exception as error:
            self._due = self._frame.context.now() + min(1.0, self._request.expiry_ms / 10_000)
            repeated(
                f"renew {self._store_name}",
                "%s: renewing the lock %r failed and is tried again: %s",
                self._store_name,
                self.resource_id,
                error,
            )

    # -- releasing --------------------------------------------------------

    @error_context(_RELEASE, named=False)
    def release(self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None) -> None:
        """End it, so that others can have the lock at once. Releasing twice does nothing.

        Args:
            timeout: seconds; that of the lease's maker by default.
            metadata: for the component.

        Raises:
            LeaseLostError: it had ended before: what was done under it was not protected to the end.
        """
        self._check_process()
        if self._released:
            return
        op, driver, lost = self._releasing(timeout, metadata)
        self._gone(self._frame.call(op, driver.release, self._request), lost)

    @error_context(_RELEASE, named=False)
    async def release_async(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> None:
        """End it, so that others can have the lock at once. Releasing twice does nothing.

        Args:
            timeout: seconds; that of the lease's maker by default.
            metadata: for the component.

        Raises:
            LeaseLostError: it had ended before: what was done under it was not protected to the end.
        """
        self._check_process()
        if self._released:
            return
        op, driver, lost = self._releasing(timeout, metadata)
        self._gone(await self._frame.call_async(op, driver.release_async, self._request), lost)

    def _releasing(
        self, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> tuple[Operation, LockDriver, bool | None]:
        """Prepare; returns whether it is lost, ``None``: an earlier release may have ended it, so absence proves nothing."""
        lost = True if self.lost else None if self._ending else False
        op, driver = self._operation(_RELEASE, timeout, metadata)
        self._ending = True  # no renewal from here on, whatever happens
        return op, driver, lost

    def _gone(self, alive: bool, lost: bool | None) -> None:
        self._released = True
        self._service._renewer.forget(self)
        if lost or (lost is False and not alive):
            self._lost = True
            raise self._loss()

    def _operation(
        self, method: Method, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> tuple[Operation, LockDriver]:
        check_metadata(metadata)
        limit = self._timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        driver: LockDriver = self._frame.driver(self._store_name)
        return Operation(method, self._store_name, limit, metadata), driver

    # -- blocks -----------------------------------------------------------

    def _open(self) -> None:
        self.check()

    async def _open_async(self) -> None:
        self.check()

    def _exit(self, error: BaseException | None) -> None:
        try:
            self.release()
        except Exception as failure:
            self._failed_exit(error, failure)

    async def _exit_async(self, error: BaseException | None) -> None:
        try:
            await self.release_async()
        except Exception as failure:
            self._failed_exit(error, failure)

    def _failed_exit(self, error: BaseException | None, failure: Exception) -> None:
        """Raise what went wrong at the end of a block, unless an exception leaves it anyway."""
        if error is None:
            raise failure
        repeated(f"release {self._store_name}", "%s: leaving a lock's block: %s", self._store_name, failure)


class LeaseRenewer:
    """The renewing thread of a client: it renews leases when a third of their time is over. It refers to them weakly, so one that nobody has any more expires."""

    def __init__(self, service: LockService) -> None:
        self._service = service
        self._frame = frame_of(service)
        self._begin()
        fork.register(self)

    def _begin(self) -> None:
        self._leases: dict[int, weakref.ref[Lease]] = {}
        self._changes = Changes()
        self._thread = Background(self._run, "cloud-runtimes-renewer")
        self._closed = False

    def forked(self) -> None:
        """In a forked child: the leases are the parent's, which goes on renewing them."""
        self._begin()

    def add(self, lease: Lease) -> None:
        """Renew a lease from now on."""
        self._leases[id(lease)] = weakref.ref(lease)
        self._frame.context.handles.add(self)
        self._thread.start()
        self._changes.announce()

    def forget(self, lease: Lease) -> None:
        """Stop renewing a lease."""
        self._leases.pop(id(lease), None)

    def _run(self) -> None:
        while not self._closed:
            ticket = self._changes.ticket()
            self._changes.wait(ticket, self._renew_due())

    def _renew_due(self) -> float | None:
        """Renew what is due; returns seconds until the next is, ``None``: there is none."""
        pauses: list[float] = []
        for key, reference in list(self._leases.items()):
            lease = reference()
            if lease is None or lease._ending or lease.lost:
                self._leases.pop(key, None)
                continue
            now = self._frame.context.now()
            if lease._due <= now and not self._closed:
                # one that hangs must leave time for another try, and for the others
                limit = max(0.05, (lease._deadline - now) / 3)
                if lease._timeout is not None:
                    limit = min(limit, lease._timeout)
                try:
                    driver = self._frame.driver(lease._store_name)
                except CloudRuntimesError:  # the client is being closed
                    self._leases.pop(key, None)
                    continue
                lease._renew_in_background(Operation(_RENEW, lease._store_name, limit), driver)
            pauses.append(max(0.0, min(lease._due, lease._deadline) - self._frame.context.now()))
        return min(pauses) if pauses else None

    def _close_by_client(self, end: float | None) -> None:
        """End the thread. Leases expire instead of being released, since their holders may be in the middle of what they guard."""
        self._closed = True
        self._changes.announce()
        self._thread.join(None if end is None else max(0.0, end - monotonic()))
        self._frame.context.handles.discard(self)
