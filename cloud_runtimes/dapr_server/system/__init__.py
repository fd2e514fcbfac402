"""The sidecar itself: metadata, health, shutdown; and the APIs of Dapr that it does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..context import Context
from ..http.app import HttpApi
from .api import SystemApi
from .http import SystemRoutes

__all__ = ["SystemBlock"]


class SystemBlock:
    """See the module."""

    def __init__(self, context: Context, shutdown: Callable[[], None]) -> None:
        self._api = SystemApi(context, shutdown)

    def routes(self, http: HttpApi) -> None:
        """Add its routes."""
        SystemRoutes(self._api).add_to(http)

    def methods(self, grpc: Any) -> None:
        """Add its methods."""
        from .grpc import SystemMethods

        SystemMethods(self._api).add_to(grpc)

    async def start(self) -> None:
        """Nothing runs by itself."""

    async def stop(self) -> None:
        """Nothing runs by itself."""
