"""Locks in words of neither protocol."""

from __future__ import annotations

from typing import Final

from ...errors import CloudRuntimesError
from ...protocols.dapr.failures import DaprError
from ...spi.lock import UnlockStatus
from ..context import Context, Lack

__all__ = ["LockApi"]

_STATUS: Final = {UnlockStatus.SUCCESS: 0, UnlockStatus.NOT_FOUND: 1, UnlockStatus.NOT_OWNER: 2}
"""``UnlockResponse.Status`` of Dapr: SUCCESS, LOCK_DOES_NOT_EXIST, LOCK_BELONGS_TO_OTHERS."""


class LockApi:
    """The lock stores of a client."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = context.client.lock

    async def try_lock(self, store: str, resource: str, owner: str, expiry: int) -> bool:
        """Tell whether the lock is the caller's now, for ``expiry`` seconds."""
        if expiry <= 0:
            raise _malformed(f"ExpiryInSeconds is not positive in lock store {store}")
        self._check(store, resource, owner)
        text = "failed to try acquiring lock"
        _check_bars(resource, "ERR_TRY_LOCK", text)
        try:
            return await self._lock.try_lock_async(store, resource, owner, expiry=expiry) is not None
        except CloudRuntimesError as error:
            raise DaprError(500, "INTERNAL", "ERR_TRY_LOCK", f"{text}: {error.message}") from error

    async def unlock(self, store: str, resource: str, owner: str) -> int:
        """Release a lock; return the number of Dapr's status."""
        self._check(store, resource, owner)
        text = "failed to release lock"
        _check_bars(resource, "ERR_UNLOCK", text)
        try:
            return _STATUS[await self._lock.unlock_async(store, resource, owner)]
        except CloudRuntimesError as error:
            raise DaprError(500, "INTERNAL", "ERR_UNLOCK", f"{text}: {error.message}") from error

    def _check(self, store: str, resource: str, owner: str) -> None:
        """Refuse in Dapr's order: no store at all, no resource, no owner, no such store."""
        lack = self._context.lack("lock", store)
        if lack is Lack.NOT_CONFIGURED:
            raise DaprError(500, "FAILED_PRECONDITION", "ERR_LOCK_STORE_NOT_CONFIGURED", "lock store is not configured")
        if not resource:
            raise _malformed(f"ResourceId is empty in lock store {store}")
        if not owner:
            raise _malformed(f"LockOwner is empty in lock store {store}")
        if lack is Lack.NOT_FOUND:
            raise DaprError(400, "INVALID_ARGUMENT", "ERR_LOCK_STORE_NOT_FOUND", f"lock store {store} not found")


def _malformed(text: str) -> DaprError:
    return DaprError(400, "INVALID_ARGUMENT", "ERR_MALFORMED_REQUEST", text)


def _check_bars(resource: str, code: str, text: str) -> None:
    if "||" in resource:
        raise DaprError(500, "INTERNAL", code, f"{text}: input key/keyPrefix '{resource}' can't contain '||'")
