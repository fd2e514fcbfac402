"""Locks of a sidecar (Dapr, "Distributed Lock API reference"; Layotto ``TryLock``, ``Unlock``): whole seconds, no renewal, no token, no line."""

from __future__ import annotations

from typing import Final

from ...errors import InternalError, UnsupportedError
from ...spi.lock import Grant, LockDriver, LockRequest, UnlockStatus
from ...spi.operation import Operation
from .transport import Flow, Transport

__all__ = ["SidecarLock"]

_STATUS: Final = {0: UnlockStatus.SUCCESS, 1: UnlockStatus.NOT_FOUND, 2: UnlockStatus.NOT_OWNER}
_MOST: Final = 2**31 - 1


class SidecarLock(LockDriver):
    """Locks of one store of the sidecar.

    To a sidecar the owner is who holds a lock, so two leases of one owner's name are the same to it. A lease that has ended is therefore not released where its owner's name is not its own.
    """

    features = frozenset()

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self._name = name
        # claim → when the lease ends by its holder's clock, of leases whose owner was named
        self._ends: dict[str, float] = {}

    def acquire(self, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        return self._transport.run(op, self._acquire(request))

    async def acquire_async(self, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        return await self._transport.run_async(op, self._acquire(request))

    def _acquire(self, request: LockRequest) -> Flow[Grant | None]:
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

    async def renew_async(self, op: Operation, request: LockRequest, /) -> bool:
        raise UnsupportedError("a sidecar has no renewal of locks")

    def release(self, op: Operation, request: LockRequest, /) -> bool:
        return self._transport.run(op, self._release(request))

    async def release_async(self, op: Operation, request: LockRequest, /) -> bool:
        return await self._transport.run_async(op, self._release(request))

    def _release(self, request: LockRequest) -> Flow[bool]:
        if request.owner != request.claim and self._ends.pop(request.claim, 0.0) <= request.now():
            return False
        return (yield from self._unlock(request.resource_id, request.owner)) is UnlockStatus.SUCCESS

    def unlock(self, op: Operation, resource_id: str, owner: str, /) -> UnlockStatus:
        return self._transport.run(op, self._unlock(resource_id, owner))

    async def unlock_async(self, op: Operation, resource_id: str, owner: str, /) -> UnlockStatus:
        return await self._transport.run_async(op, self._unlock(resource_id, owner))

    def _unlock(self, resource: str, owner: str) -> Flow[UnlockStatus]:
        number = yield from self._transport.unlock(self._name, resource, owner)
        status = _STATUS.get(number)
        if status is None:
            raise InternalError(f"the store {self._name!r} failed to release {resource!r}", maybe_applied=True)
        return status
