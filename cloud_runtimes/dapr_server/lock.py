"""Locks: ``/v1.0-alpha1/lock`` and ``unlock``."""

from __future__ import annotations

from typing import Any, Final

from ..errors import CloudRuntimesError
from ..protocols.dapr.failures import DaprError
from ..protocols.dapr.messages import messages
from ..spi.lock import UnlockStatus
from .context import Block, Context, Lack
from .http.app import HttpApi, Route
from .http.request import Reply, Request, integer, json_reply, members, text

_STATUS: Final = {UnlockStatus.SUCCESS: 0, UnlockStatus.NOT_FOUND: 1, UnlockStatus.NOT_OWNER: 2}
"""``UnlockResponse.Status`` of Dapr: SUCCESS, LOCK_DOES_NOT_EXIST, LOCK_BELONGS_TO_OTHERS."""


class LockApi:
    """The lock stores of a client."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = context.client.lock

    async def try_lock(self, store: str, resource: str, owner: str, expiry: int) -> bool:
        """Return whether the lock is the caller's now, for ``expiry`` seconds."""
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


class LockBlock(Block):
    """Locks: ``/v1.0-alpha1/lock`` and ``unlock``. Bodies are ProtoJSON, which takes the names of both cases."""

    def __init__(self, context: Context) -> None:
        self._api = LockApi(context)

    def routes(self, http: HttpApi) -> None:
        http.add(
            Route("POST", "/v1.0-alpha1/lock/{store}", self._http_try_lock),
            Route("POST", "/v1.0-alpha1/unlock/{store}", self._http_unlock),
        )

    def methods(self, grpc: Any) -> None:
        grpc.unary("TryLockAlpha1", "TryLockRequest", self._grpc_try_lock)
        grpc.unary("UnlockAlpha1", "UnlockRequest", self._grpc_unlock)

    # -- over HTTP --------------------------------------------------------

    async def _http_try_lock(self, request: Request) -> Reply:
        body = members(request.json() if request.body else None)
        resource = text(body, "resourceId", "resource_id") or ""
        owner = text(body, "lockOwner", "lock_owner") or ""
        expiry = integer(body, "expiryInSeconds", "expiry_in_seconds")
        return json_reply({"success": await self._api.try_lock(request.params["store"], resource, owner, expiry)})

    async def _http_unlock(self, request: Request) -> Reply:
        body = members(request.json() if request.body else None)
        resource = text(body, "resourceId", "resource_id") or ""
        owner = text(body, "lockOwner", "lock_owner") or ""
        return json_reply({"status": await self._api.unlock(request.params["store"], resource, owner)})

    # -- over gRPC --------------------------------------------------------

    async def _grpc_try_lock(self, request: Any, context: Any) -> Any:
        success = await self._api.try_lock(
            request.store_name, request.resource_id, request.lock_owner, request.expiry_in_seconds
        )
        return messages().TryLockResponse(success=success)

    async def _grpc_unlock(self, request: Any, context: Any) -> Any:
        status = await self._api.unlock(request.store_name, request.resource_id, request.lock_owner)
        return messages().UnlockResponse(status=status)
