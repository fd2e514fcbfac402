"""Locks over HTTP."""

from __future__ import annotations

from ..http.app import HttpApi
from ..http.request import Reply, Request, integer, json_reply, members, text
from ..http.router import Route
from .api import LockApi

__all__ = ["LockRoutes"]


class LockRoutes:
    """The routes of locks; their bodies are ProtoJSON, which takes the names of both cases."""

    def __init__(self, api: LockApi) -> None:
        self._api = api

    def add_to(self, http: HttpApi) -> None:
        """Add them."""
        http.add(
            Route("POST", "/v1.0-alpha1/lock/{store}", self._try_lock),
            Route("POST", "/v1.0-alpha1/unlock/{store}", self._unlock),
        )

    async def _try_lock(self, request: Request) -> Reply:
        body = members(request.json() if request.body else None)
        resource = text(body, "resourceId", "resource_id") or ""
        owner = text(body, "lockOwner", "lock_owner") or ""
        expiry = integer(body, "expiryInSeconds", "expiry_in_seconds")
        return json_reply({"success": await self._api.try_lock(request.params["store"], resource, owner, expiry)})

    async def _unlock(self, request: Request) -> Reply:
        body = members(request.json() if request.body else None)
        resource = text(body, "resourceId", "resource_id") or ""
        owner = text(body, "lockOwner", "lock_owner") or ""
        return json_reply({"status": await self._api.unlock(request.params["store"], resource, owner)})
