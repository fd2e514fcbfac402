"""Secrets over HTTP."""

from __future__ import annotations

from ...codec import json
from ...codec.payload import JSON
from ..http.app import HttpApi
from ..http.request import Reply, Request, json_reply
from ..http.router import Route
from .api import SecretApi

__all__ = ["SecretRoutes"]


class SecretRoutes:
    """The routes of secrets."""

    def __init__(self, api: SecretApi) -> None:
        self._api = api

    def add_to(self, http: HttpApi) -> None:
        """Add them."""
        http.add(
            Route("GET", "/v1.0/secrets/{store}/bulk", self._get_bulk),
            Route("GET", "/v1.0/secrets/{store}/{key}", self._get),
        )

    async def _get(self, request: Request) -> Reply:
        secret = await self._api.get(request.params["store"], request.params["key"], request.metadata())
        return json_reply(dict(secret))

    async def _get_bulk(self, request: Request) -> Reply:
        store = request.params["store"]
        found = await self._api.get_bulk(store, request.metadata())
        budget = self._api.budget(store)
        members: list[bytes] = []
        for key, secret in found.items():
            members.append(json.encode(key) + b":" + json.encode(dict(secret)))
            budget.add(len(members[-1]) + 1)
        return Reply(200, b"{" + b",".join(members) + b"}", JSON)
