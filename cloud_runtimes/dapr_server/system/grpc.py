"""The sidecar itself over gRPC."""

from __future__ import annotations

from typing import Any, Final

from ...protocols.dapr.messages import messages
from .api import RUNTIME_VERSION, SystemApi
from .unavailable import APIS

__all__ = ["SystemMethods"]

_KINDS: Final = {"DECLARATIVE": 1, "PROGRAMMATIC": 2, "STREAMING": 3}
_DISABLED: Final = 1


class SystemMethods:
    """The methods of metadata and shutdown, and of what there is not."""

    def __init__(self, api: SystemApi) -> None:
        self._api = api

    def add_to(self, grpc: Any) -> None:
        """Add them."""
        grpc.unary("GetMetadata", "GetMetadataRequest", self._get)
        grpc.unary("SetMetadata", "SetMetadataRequest", self._set)
        grpc.unary("Shutdown", "ShutdownRequest", self._shutdown)
        for api in APIS:
            for method in api.methods:
                grpc.refuse(method, api.failure(""))

    async def _get(self, request: Any, context: Any) -> Any:
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
            told = reply.subscriptions.add(
                pubsub_name=each.pubsub_name,
                topic=each.topic,
                metadata=dict(each.metadata),
                dead_letter_topic=each.dead_letter_topic or "",
                type=_KINDS.get(each.kind, 0),
            )
            for match, path in each.rules:
                told.rules.rules.add(match=match, path=path)
            if each.default_route:
                told.rules.rules.add(path=each.default_route)
        connection = reply.app_connection_properties
        connection.protocol, connection.channel_address = settings.app_protocol, settings.app_host
        connection.port = settings.app_port or 0
        reply.actor_runtime.runtime_status = _DISABLED
        return reply

    async def _set(self, request: Any, context: Any) -> Any:
        self._api.set_attribute(request.key, request.value)
        return messages().Empty()

    async def _shutdown(self, request: Any, context: Any) -> Any:
        self._api.shutdown()
        return messages().Empty()
