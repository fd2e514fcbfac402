"""The sidecar itself over HTTP."""

from __future__ import annotations

from typing import Any

from ..http.app import HttpApi
from ..http.request import Reply, Request, empty, json_reply, malformed
from ..http.router import Route
from ..pubsub.types import Subscription
from .api import RUNTIME_VERSION, SystemApi
from .unavailable import APIS, Unavailable

__all__ = ["SystemRoutes"]


class SystemRoutes:
    """The routes of metadata, health and shutdown, and of what there is not."""

    def __init__(self, api: SystemApi) -> None:
        self._api = api

    def add_to(self, http: HttpApi) -> None:
        """Add them."""
        http.add(
            Route("GET", "/v1.0/metadata", self._get),
            Route("PUT", "/v1.0/metadata/{key}", self._set),
            Route("GET", "/v1.0/healthz", self._health, open=True),
            Route("GET", "/v1.0/healthz/outbound", self._outbound, open=True),
            Route("POST", "/v1.0/shutdown", self._shutdown),
        )
        for api in APIS:
            http.add(*(Route(methods, path, _refuses(api)) for methods, path in api.routes))

    async def _get(self, request: Request) -> Reply:
        settings = self._api.settings
        connection: dict[str, Any] = {"protocol": settings.app_protocol, "channelAddress": settings.app_host}
        if settings.app_port is not None:
            connection["port"] = settings.app_port
        document = {
            "id": settings.app_id,
            "runtimeVersion": RUNTIME_VERSION,
            "components": [
                {
                    "name": each.name,
                    "type": each.type,
                    "version": each.version,
                    "capabilities": list(each.capabilities),
                }
                for each in self._api.components()
            ],
            "extended": self._api.attributes(),
            "subscriptions": [_subscription(each) for each in self._api.subscriptions],
            "appConnectionProperties": connection,
            "actorRuntime": {"runtimeStatus": "DISABLED", "hostReady": False},
        }
        return json_reply({name: value for name, value in document.items() if value})

    async def _set(self, request: Request) -> Reply:
        try:
            value = str(request.body, "utf-8")
        except UnicodeDecodeError as error:
            raise malformed("the value is not UTF-8") from error
        self._api.set_attribute(request.params["key"], value)
        return empty

    async def _health(self, request: Request) -> Reply:
        self._api.check_health(request.argument("appid"))
        return empty

    async def _outbound(self, request: Request) -> Reply:
        return empty

    async def _shutdown(self, request: Request) -> Reply:
        self._api.shutdown()
        return empty


def _subscription(given: Subscription) -> dict[str, Any]:
    rules = [{"match": match, "path": path} if match else {"path": path} for match, path in given.rules]
    if given.default_route:
        rules.append({"path": given.default_route})
    told: dict[str, Any] = {"pubsubname": given.pubsub_name, "topic": given.topic}
    if given.metadata:
        told["metadata"] = dict(given.metadata)
    if rules:
        told["rules"] = rules
    return {**told, "deadLetterTopic": given.dead_letter_topic or "", "type": given.kind}


def _refuses(api: Unavailable) -> Any:
    async def refuse(request: Request) -> Reply:
        raise api.failure(request.params.get("name", ""))

    return refuse
