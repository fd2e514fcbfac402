"""Configuration: ``/v1.0/configuration``."""

from __future__ import annotations

from typing import Any

from ..context import Context
from ..http.app import HttpApi
from .api import ConfigurationApi
from .http import ConfigurationRoutes

__all__ = ["ConfigurationBlock"]


class ConfigurationBlock:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._api = ConfigurationApi(context)

    def routes(self, http: HttpApi) -> None:
        """Add its routes."""
        ConfigurationRoutes(self._api).add_to(http)

    def methods(self, grpc: Any) -> None:
        """Add its methods."""
        from .grpc import ConfigurationMethods

        ConfigurationMethods(self._api).add_to(grpc)

    async def start(self) -> None:
        """Nothing runs by itself."""

    async def stop(self) -> None:
        """End all subscriptions."""
        await self._api.close()
