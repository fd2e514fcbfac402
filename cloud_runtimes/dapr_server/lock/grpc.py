"""Locks over gRPC."""

from __future__ import annotations

from typing import Any

from ...protocols.dapr.messages import messages
from .api import LockApi

__all__ = ["LockMethods"]


class LockMethods:
    """The methods of locks."""

    def __init__(self, api: LockApi) -> None:
        self._api = api

    def add_to(self, grpc: Any) -> None:
        """Add them."""
        grpc.unary("TryLockAlpha1", "TryLockRequest", self._try_lock)
        grpc.unary("UnlockAlpha1", "UnlockRequest", self._unlock)

    async def _try_lock(self, request: Any, context: Any) -> Any:
        success = await self._api.try_lock(
            request.store_name, request.resource_id, request.lock_owner, request.expiry_in_seconds
        )
        return messages().TryLockResponse(success=success)

    async def _unlock(self, request: Any, context: Any) -> Any:
        status = await self._api.unlock(request.store_name, request.resource_id, request.lock_owner)
        return messages().UnlockResponse(status=status)
