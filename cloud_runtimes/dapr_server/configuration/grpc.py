"""Configuration over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from ...protocols.dapr.messages import messages
from ...spi.configuration import ConfigurationItem
from .api import ConfigurationApi

__all__ = ["ConfigurationMethods"]


class ConfigurationMethods:
    """The methods of configuration, of which Dapr has each twice."""

    def __init__(self, api: ConfigurationApi) -> None:
        self._api = api

    def add_to(self, grpc: Any) -> None:
        """Add them."""
        for version in ("", "Alpha1"):
            grpc.unary(f"GetConfiguration{version}", "GetConfigurationRequest", self._get)
            grpc.server_stream(f"SubscribeConfiguration{version}", "SubscribeConfigurationRequest", self._subscribe)
            grpc.unary(f"UnsubscribeConfiguration{version}", "UnsubscribeConfigurationRequest", self._unsubscribe)

    async def _get(self, request: Any, context: Any) -> Any:
        found = await self._api.get(request.store_name, list(request.keys), dict(request.metadata))
        reply = messages().GetConfigurationResponse()
        budget = self._api.budget(request.store_name)
        for key, item in found.items():
            _add(reply, {key: item})
            budget.add(reply.items[key].ByteSize())
        return reply

    async def _subscribe(self, request: Any, context: Any) -> AsyncIterator[Any]:
        changes = await self._api.subscribe(request.store_name, list(request.keys), dict(request.metadata))
        try:
            yield messages().SubscribeConfigurationResponse(id=changes.id)
            async for items in changes:
                reply = messages().SubscribeConfigurationResponse(id=changes.id)
                _add(reply, items)
                yield reply
        finally:
            await self._api.unsubscribe(changes.id)

    async def _unsubscribe(self, request: Any, context: Any) -> Any:
        failure = await self._api.unsubscribe(request.id)
        return messages().UnsubscribeConfigurationResponse(ok=not failure, message=failure)


def _add(reply: Any, items: Mapping[str, ConfigurationItem]) -> None:
    for key, item in items.items():
        told = reply.items[key]
        if not item.deleted:
            told.value, told.version = item.value, item.version or ""
            told.metadata.update(item.metadata)
