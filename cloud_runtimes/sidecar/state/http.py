"""State over HTTP."""

from __future__ import annotations

from ..http.app import HttpApi
from ..http.request import Reply, Request, empty
from ..http.router import Route
from .api import StateApi

__all__ = ["StateRoutes"]


class StateRoutes:
    """The routes of state."""

    def __init__(self, api: StateApi) -> None:
        self._api = api

    def add_to(self, http: HttpApi) -> None:
        """Add them."""
        http.add(Route("GET", "/v1.0/state/{store}/{key}", self._get))

    async def _get(self, request: Request) -> Reply:
        item = await self._api.get(request.params["store"], request.params["key"], None, request.metadata())
        if item is None:
            return empty
        return Reply(200, item.value, item.content_type, [("etag", item.etag)])
