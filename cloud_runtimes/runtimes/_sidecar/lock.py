"""Locks of a sidecar (Dapr, "Distributed Lock API reference"; Layotto ``TryLock``, ``Unlock``): whole seconds, no renewal, no token, no queue."""

from __future__ import annotations

from typing import Final

from ...errors import InternalError, UnsupportedError
from ...spi.lock import Grant, LockDriver, LockRequest, UnlockStatus
from ...spi.operation import Operation
from .driver import SidecarDriver, operation
from .transport import Flow, Transport

__all__ = ["SidecarLock"]

_STATUS: Final = {0: UnlockStatus.SUCCESS, 1: UnlockStatus.NOT_FOUND, 2: UnlockStatus.NOT_OWNER}
_MOST: Final = 2**31 - 1


class SidecarLock(SidecarDriver, LockDriver):
    """Locks of one store of the sidecar.

    A sidecar knows a holder by its owner's name alone, so two leases of one name are the same to it. A lease with a given owner that has ended is therefore not released: another may hold the lock by that name.
    """

    def __init__(self, transport: Transport, name: str) -> None:
        super().__init__(transport, name)
        # claim → when the lease ends by its holder's clock, of leases whose owner was named
        self._ends: dict[str, float] = {}

    @operation
    def acquire(self, op: Operation, request: LockRequest, wait: bool, /) -> Flow[Grant | None]:
        seconds = min(_MOST, -(-request.expiry_ms // 1000))
        asked = request.now()
        taken = yield from self._transport.try_lock(self._name, request.resource_id, request.owner, seconds)
        if not taken:
            return None
        if request.owner != request.claim:
            for claim in [claim for claim, end in list(self._ends.items()) if end <= asked]:
                self._ends.pop(claim, None)
            self._ends[request.claim] = asked + seconds
        return Grant(None, asked)

    def renew(self, op: Operation, request: LockRequest, /) -> bool:
        raise UnsupportedError("a sidecar has no renewal of locks")

    @operation
    def release(self, op: Operation, request: LockRequest, /) -> Flow[bool]:
        if request.owner != request.claim and self._ends.pop(request.claim, 0.0) <= request.now():
            return False
        return (yield from self._unlock(op, request.resource_id, request.owner)) is UnlockStatus.SUCCESS

    def _unlock(self, op: Operation, resource_id: str, owner: str, /) -> Flow[UnlockStatus]:
        number = yield from self._transport.unlock(self._name, resource_id, owner)
        status = _STATUS.get(number)
        if status is None:
            raise InternalError(f"the store {self._name!r} failed to release {resource_id!r}", maybe_applied=True)
        return status

    unlock = operation(_unlock)
