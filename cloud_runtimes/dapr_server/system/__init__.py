"""The sidecar itself: metadata, health, shutdown; and the APIs of Dapr that it does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ...protocols.dapr.messages import messages
from ..context import Block, Context
from ..http.app import HttpApi, Route
from ..http.request import Reply, Request, empty, json_reply, malformed
from ..settings import Subscription
from .api import RUNTIME_VERSION, SystemApi
from .unavailable import APIS, Unavailable

__all__ = ["SystemBlock"]

_KINDS: Final = {"DECLARATIVE": 1, "PROGRAMMATIC": 2, "STREAMING": 3}
_DISABLED: Final = 1


class SystemBlock(Block):
    """The sidecar itself: metadata, health, shutdown; and the APIs of Dapr that it does not have."""

    def __init__(self, context: Context, shutdown: Callable[[], None]) -> None:
        self._api = SystemApi(context, shutdown)

    def routes(self, http: HttpApi) -> None:
        http.add(
            Route("GET", "/v1.0/metadata", self._http_get),
            Route("PUT", "/v1.0/metadata/{key}", self._http_set),
            Route("GET", "/v1.0/healthz", self._http_health, open=True),
            Route("GET", "/v1.0/healthz/outbound", self._http_outbound, open=True),
            Route("POST", "/v1.0/shutdown", self._http_shutdown),
        )
        for api in APIS:
            http.add(*(Route(methods, path, _refuses(api)) for methods, path in api.routes))

    def methods(self, grpc: Any) -> None:
        grpc.unary("GetMetadata", "GetMetadataRequest", self._grpc_get)
        grpc.unary("SetMetadata", "SetMetadataRequest", self._grpc_set)
        grpc.unary("Shutdown", "ShutdownRequest", self._grpc_shutdown)
        for api in APIS:
            for method in api.methods:
                grpc.refuse(method, api.failure(""))

    # -- over HTTP --------------------------------------------------------

    async def _http_get(self, request: Request) -> Reply:
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

    async def _http_set(self, request: Request) -> Reply:
        try:
            value = str(request.body, "utf-8")
        except UnicodeDecodeError as error:
            raise malformed("the value is not UTF-8") from error
        self._api.set_attribute(request.params["key"], value)
        return empty

    async def _http_health(self, request: Request) -> Reply:
        self._api.check_health(request.argument("appid"))
        return empty

    async def _http_outbound(self, request: Request) -> Reply:
        return empty

    async def _http_shutdown(self, request: Request) -> Reply:
        self._api.shutdown()
        return empty

    # -- over gRPC --------------------------------------------------------

    async def _grpc_get(self, request: Any, context: Any) -> Any:
        settings = self._api.settings
        reply = messages().GetMetadataResponse(
            id=settings.app_id, runtime_version=RUNTIME_VERSION, extended_metadata=self._api.attributes()
        )
        for component in self._api.components():
            reply.registered_components.add(
                name=component.name,
                type=component.type,
                version=component.version,
                capabilities=component.capabilities,
            )
        for each in self._api.subscriptions:
            subscription = reply.subscriptions.add(
                pubsub_name=each.pubsub_name,
                topic=each.topic,
                metadata=dict(each.metadata),
                dead_letter_topic=each.dead_letter_topic or "",
                type=_KINDS.get(each.kind, 0),
            )
            for match, path in each.rules:
                subscription.rules.rules.add(match=match, path=path)
            if each.default_route:
                subscription.rules.rules.add(path=each.default_route)
        connection = reply.app_connection_properties
        connection.protocol, connection.channel_address = settings.app_protocol, settings.app_host
        connection.port = settings.app_port or 0
        reply.actor_runtime.runtime_status = _DISABLED
        return reply

    async def _grpc_set(self, request: Any, context: Any) -> Any:
        self._api.set_attribute(request.key, request.value)
        return messages().Empty()

    async def _grpc_shutdown(self, request: Any, context: Any) -> Any:
        self._api.shutdown()
        return messages().Empty()


def _subscription(given: Subscription) -> dict[str, Any]:
    rules = [{"match": match, "path": path} if match else {"path": path} for match, path in given.rules]
    if given.default_route:
        rules.append({"path": given.default_route})
    document: dict[str, Any] = {"pubsubname": given.pubsub_name, "topic": given.topic}
    if given.metadata:
        document["metadata"] = dict(given.metadata)
    if rules:
        document["rules"] = rules
    return {**document, "deadLetterTopic": given.dead_letter_topic or "", "type": given.kind}


def _refuses(api: Unavailable) -> Any:
    async def refuse(request: Request) -> Reply:
        raise api.failure(request.params.get("name", ""))

    return refuse
