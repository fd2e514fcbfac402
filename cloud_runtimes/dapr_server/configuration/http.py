"""Configuration over HTTP."""

from __future__ import annotations

from ...codec import json
from ...codec.payload import JSON
from ..http.app import HttpApi
from ..http.request import Reply, Request, empty, json_reply
from ..http.router import Route
from .api import ConfigurationApi, item_document

__all__ = ["ConfigurationRoutes"]


class ConfigurationRoutes:
    """The routes of configuration, of which Dapr has each twice."""

    def __init__(self, api: ConfigurationApi) -> None:
        self._api = api

    def add_to(self, http: HttpApi) -> None:
        """Add them."""
        for version in ("v1.0", "v1.0-alpha1"):
            store = f"/{version}/configuration/{{store}}"
            http.add(
                Route("GET", store, self._get),
                Route("GET", f"{store}/subscribe", self._subscribe),
                Route("GET", f"{store}/{{id}}/unsubscribe", self._unsubscribe),
            )

    async def _get(self, request: Request) -> Reply:
        found = await self._api.get(request.params["store"], _keys(request), request.metadata())
        if not found:
            return empty
        budget = self._api.budget(request.params["store"])
        members: list[bytes] = []
        for key, item in found.items():
            members.append(json.encode(key) + b":" + json.encode(item_document(item)))
            budget.add(len(members[-1]) + 1)
        return Reply(200, b"{" + b",".join(members) + b"}", JSON)

    async def _subscribe(self, request: Request) -> Reply:
        store = request.params["store"]
        return json_reply({"id": await self._api.subscribe_application(store, _keys(request), request.metadata())})

    async def _unsubscribe(self, request: Request) -> Reply:
        self._api.need_store(request.params["store"])
        failure = await self._api.unsubscribe(request.params["id"])
        # a false `ok` is left out (dapr/dapr ``pkg/api/http``: omitempty)
        return json_reply({"message": failure}, 500) if failure else json_reply({"ok": True})


def _keys(request: Request) -> list[str]:
    return [value for name, value in request.query if name == "key"]
