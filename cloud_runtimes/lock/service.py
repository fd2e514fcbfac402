"""`LockService`: what ``client.lock`` is."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from time import monotonic, sleep
from typing import Any, Final, NamedTuple

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._core.backoff import Backoff
from .._service import ClientContext, Service, ServiceHandle, error_context
from ..errors import ClosedError, DeadlineExceededError, InvalidArgumentError
from ..spi import lock as spi
from ..spi.lock import Grant, LockDriver, LockRequest, UnlockStatus
from ..spi.operation import Method, Operation, mark_interrupted
from .lease import Lease, LeaseRenewer

_TRY: Final = Method("lock", "try_lock", repeatable=False, handle=True)
_UNLOCK: Final = Method("lock", "unlock", repeatable=False)
_HOLD: Final = Method("lock", "hold", repeatable=False, handle=True)

_MAX_BYTES: Final = 1024
_MAX_EXPIRY: Final = 1e9
_PAUSES: Final = Backoff(0.02, 1.0, growth=1.5)
# what a try has at least, however little is left to wait: one cut off may have taken the lock for nobody
_LEAST_TRY: Final = 1.0


class LockService(Service):
    """Locks between processes and machines: leases that end by themselves.

    A resource's name is 1 to 1,024 bytes of UTF-8 without NUL or ``||``. A lease lasts ``expiry`` seconds by the store's clock, unless it is renewed or released. A lock that expires while its holder still works protects nothing any more: `Lease.lost` says so in time to those who look, and ``fence=lease.token`` has the state service refuse the writes of those who do not.
    """

    name = "lock"

    def __init__(self, context: ClientContext) -> None:
        super().__init__(context)
        self._renewer = LeaseRenewer(self)

    # -- one try ----------------------------------------------------------

    @error_context(_TRY)
    def try_lock(
        self,
        store_name: str,
        resource_id: str,
        owner: str | None = None,
        *,
        expiry: float = 30.0,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> Lease | None:
        """Take a lock if it is free and nobody waits for it; never waits for its holder.

        >>> if lease := client.lock.try_lock("locks", "report"):
        ...     with lease:
        ...         print(lease.resource_id)
        report

        Not re-entrant: who has it gets ``None`` too, whatever ``owner``. Nothing renews the lease by itself.

        Args:
            store_name: the component.
            resource_id: what to lock.
            owner: who holds it, for `unlock`; by default a name that no other lease has.
            expiry: seconds, > 0, rounded up to the store's resolution.
            timeout: seconds for this and for the lease's own calls.
            metadata: for the component.

        Returns:
            The lease; ``None``: others have the lock.

        Raises:
            InvalidArgumentError: a name or ``expiry`` is wrong.
            ComponentNotFoundError: the configuration does not declare it, and is strict.
            UnavailableError: the store cannot be reached.
            DeadlineExceededError: no answer came within ``timeout``.
        """
        request = self._request(resource_id, owner, expiry)
        op, driver = self._asking(_TRY, store_name, timeout, metadata)
        grant = self._frame.call(op, driver.acquire, request, False)
        return None if grant is None else Lease(self, store_name, request, grant, op.timeout)

    @error_context(_TRY)
    async def try_lock_async(
        self,
        store_name: str,
        resource_id: str,
        owner: str | None = None,
        *,
        expiry: float = 30.0,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> Lease | None:
        """Take a lock if it is free and nobody waits for it; never waits for its holder.

        >>> if lease := client.lock.try_lock("locks", "report"):
        ...     with lease:
        ...         print(lease.resource_id)
        report

        Not re-entrant: who has it gets ``None`` too, whatever ``owner``. Nothing renews the lease by itself.

        Args:
            store_name: the component.
            resource_id: what to lock.
            owner: who holds it, for `unlock`; by default a name that no other lease has.
            expiry: seconds, > 0, rounded up to the store's resolution.
            timeout: seconds for this and for the lease's own calls.
            metadata: for the component.

        Returns:
            The lease; ``None``: others have the lock.

        Raises:
            InvalidArgumentError: a name or ``expiry`` is wrong.
            ComponentNotFoundError: the configuration does not declare it, and is strict.
            UnavailableError: the store cannot be reached.
            DeadlineExceededError: no answer came within ``timeout``.
        """
        request = self._request(resource_id, owner, expiry)
        op, driver = self._asking(_TRY, store_name, timeout, metadata)
        grant = await self._frame.call_async(op, driver.acquire_async, request, False)
        return None if grant is None else Lease(self, store_name, request, grant, op.timeout)

    def _request(self, resource_id: str, owner: str | None, expiry: float) -> LockRequest:
        _text("resource_id", resource_id)
        claim = os.urandom(16).hex()
        if owner is not None:
            _text("owner", owner)
        if isinstance(expiry, bool) or not isinstance(expiry, (int, float)):
            raise InvalidArgumentError(f"expiry must be a number of seconds, not {type(expiry).__name__}")
        if not 0 < expiry <= _MAX_EXPIRY:
            raise InvalidArgumentError(
                f"expiry must be more than 0 and at most {_MAX_EXPIRY:,.0f} seconds, not {expiry}"
            )
        return LockRequest(
            resource_id, claim if owner is None else owner, claim, math.ceil(expiry * 1000), self._frame.context.now
        )

    def _asking(
        self, method: Method, store_name: str, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> tuple[Operation, LockDriver]:
        check_metadata(metadata)
        driver: LockDriver = self._frame.driver(store_name)
        limit = self._frame.timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        return Operation(method, store_name, limit, metadata), driver

    # -- by name ----------------------------------------------------------

    @error_context(_UNLOCK)
    def unlock(
        self,
        store_name: str,
        resource_id: str,
        owner: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> UnlockStatus:
        """Release a lock by its owner's name, without its lease.

        Args:
            store_name, resource_id, owner, metadata: as in `try_lock`.
            timeout: seconds; the client's by default.

        Raises:
            InvalidArgumentError: a name is wrong.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `try_lock`.
        """
        op, driver = self._asking(_UNLOCK, store_name, timeout, metadata)
        return self._frame.call(op, driver.unlock, _text("resource_id", resource_id), _text("owner", owner))

    @error_context(_UNLOCK)
    async def unlock_async(
        self,
        store_name: str,
        resource_id: str,
        owner: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> UnlockStatus:
        """Release a lock by its owner's name, without its lease.

        Args:
            store_name, resource_id, owner, metadata: as in `try_lock`.
            timeout: seconds; the client's by default.

        Raises:
            InvalidArgumentError: a name is wrong.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `try_lock`.
        """
        op, driver = self._asking(_UNLOCK, store_name, timeout, metadata)
        return await self._frame.call_async(
            op, driver.unlock_async, _text("resource_id", resource_id), _text("owner", owner)
        )

    # -- for a block ------------------------------------------------------

    @error_context(_HOLD)
    def hold(
        self,
        store_name: str,
        resource_id: str,
        *,
        expiry: float = 30.0,
        wait: float | None = None,
        renew: bool | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> LockHold:
        """Return a handle that waits for a lock, holds it during its block, and renews it meanwhile.

        >>> with client.lock.hold("locks", "report") as lease:  # doctest: +SKIP
        ...     client.state.save("reports", "daily", build(), fence=lease.token)

        Args:
            store_name: the component.
            resource_id: what to lock.
            expiry: seconds that a lease lasts: how long others wait for a holder that died.
            wait: seconds to wait for the lock: ``None`` for ever, 0 one try. A store that does not declare ``lock.fair`` is asked once more at their end, for which it has a second.
            renew: renew in the background, at a third of ``expiry``; ``None``: if the store can.
            timeout: seconds for each renewal and the release, and with ``wait=0`` for the try.
            metadata: for the component.

        Raises:
            DeadlineExceededError: on entering, the lock did not become free within ``wait``.
            LeaseLostError: on leaving, the lease was lost, unless an exception leaves the block.
            UnsupportedError: ``renew=True``, and the store does not renew.
            InvalidArgumentError: an argument is wrong.
        """
        request = self._request(resource_id, None, expiry)
        _check_wait(wait)
        if renew is not None and not isinstance(renew, bool):
            raise InvalidArgumentError(f"renew must be True, False or None, not {type(renew).__name__}")
        check_timeout(timeout)
        check_metadata(metadata)
        driver: LockDriver = self._frame.driver(store_name)
        if renew:
            self._frame.need(driver, spi.RENEW, "renew=True", store_name)
        if renew is None:
            renew = spi.RENEW in driver.features
        return LockHold(self, store_name, request, wait, renew, timeout, metadata)


class _Wait(Operation):
    """A call that has the time of a wait."""

    __slots__ = ()
    argument = "wait"


class _Try(NamedTuple):
    """A single call of a driver's ``acquire``."""

    op: Operation
    driver: LockDriver
    wait: bool
    number: int = 0
    end: float | None = None

    def rest(self) -> float:
        """Return the seconds until the next try."""
        pause = _PAUSES.after(self.number)
        return pause if self.end is None else max(0.0, min(pause, self.end - monotonic()))


class LockHold(ServiceHandle):
    """A lock for one block; made by `LockService.hold`. Entering gives the `Lease`."""

    def __init__(
        self,
        service: LockService,
        store_name: str,
        request: LockRequest,
        wait: float | None,
        renew: bool,
        timeout: float | None,
        metadata: Mapping[str, str] | None,
    ) -> None:
        super().__init__(service)
        self._service = service
        self._store_name = store_name
        self._request = request
        self._wait = wait
        self._renew = renew
        self._timeout = timeout
        self._metadata = metadata
        self._entered = False
        self._lease: Lease | None = None

    def _tries(self) -> Iterator[_Try]:
        """Yield one try after the other: a single one where the driver waits by itself."""
        self._check_process()
        if self._entered:
            raise ClosedError("this handle has served its block: call hold() again")
        self._entered = True
        end = None if self._wait is None else monotonic() + self._wait
        op, driver = self._service._asking(_HOLD, self._store_name, self._timeout, self._metadata)
        # leases and their calls have the timeout, waiting has its own
        self._timeout = op.timeout
        if self._wait == 0:
            yield _Try(op, driver, False)
            return
        if spi.FAIR in driver.features:
            yield _Try(_Wait(_HOLD, self._store_name, self._wait, self._metadata), driver, True)
            return
        tries, remaining = 0, math.inf
        while remaining > 0:
            remaining = math.inf if end is None else end - monotonic()
            seconds = max(remaining, _LEAST_TRY)
            if op.timeout is None or seconds < op.timeout:
                once: Operation = _Wait(_HOLD, self._store_name, None if end is None else seconds, self._metadata)
            else:
                once = Operation(_HOLD, self._store_name, op.timeout, self._metadata)
            tries += 1
            yield _Try(once, driver, False, tries, end)
            driver = self._frame.driver(self._store_name)  # refuses once the client is closed

    def __enter__(self) -> Lease:  # type: ignore[override]
        grant: Grant | None = None
        asked = False
        try:
            for current in self._tries():
                asked = True
                grant = self._frame.call(current.op, current.driver.acquire, self._request, current.wait)
                if grant is not None:
                    break
                asked = False
                sleep(current.rest())
            return self._take(grant)
        except BaseException as error:
            self._add_context(error, asked=asked)
            raise

    async def __aenter__(self) -> Lease:  # type: ignore[override]
        import asyncio

        grant: Grant | None = None
        asked = False
        try:
            for current in self._tries():
                asked = True
                grant = await self._frame.call_async(
                    current.op, current.driver.acquire_async, self._request, current.wait
                )
                if grant is not None:
                    break
                asked = False
                await asyncio.sleep(current.rest())
            return self._take(grant)
        except BaseException as error:
            self._add_context(error, asked=asked)
            raise

    def _take(self, grant: Grant | None) -> Lease:
        """Make the lease, and have it renewed."""
        if grant is None:
            wait = f"within {self._wait:g} s: give a longer wait=" if self._wait else "at the one try: give a wait="
            raise DeadlineExceededError(
                f"the lock {self._request.resource_id!r} of {self._store_name!r} was not free {wait}"
            )
        lease = Lease(self._service, self._store_name, self._request, grant, self._timeout)
        if self._renew:
            self._service._renewer.add(lease)
        self._lease = lease
        return lease

    def _add_context(self, error: BaseException, *, asked: bool) -> None:
        if not asked and not isinstance(error, Exception):
            mark_interrupted(error, False)
        self._frame.add_context(error, _HOLD, self._store_name)

    def _exit(self, error: BaseException | None) -> None:
        if self._lease is not None:
            self._lease._exit(error)

    async def _exit_async(self, error: BaseException | None) -> None:
        if self._lease is not None:
            await self._lease._exit_async(error)


def _text(what: str, value: Any) -> str:
    """Check a resource's or owner's name."""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{what} must be text, not {type(value).__name__}")
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{what} {value!r} is not UTF-8: it holds a lone surrogate") from None
    if not 1 <= length <= _MAX_BYTES:
        raise InvalidArgumentError(f"{what} must have 1 to {_MAX_BYTES:,} bytes of UTF-8, not {length:,}")
    if "\0" in value or "||" in value:
        raise InvalidArgumentError(f"{what} {value!r} holds a NUL or '||', which stores use as separators")
    return value


def _check_wait(wait: float | None) -> None:
    if wait is None:
        return
    if isinstance(wait, bool) or not isinstance(wait, (int, float)):
        raise InvalidArgumentError(f"wait must be a number of seconds or None, not {type(wait).__name__}")
    if not 0 <= wait < math.inf:
        raise InvalidArgumentError(f"wait must be 0 (one try), seconds > 0, or None (for ever); got {wait}")
