"""Bindings to files and SQL, ``/v1.0/bindings``, and those that call the application at times."""

from __future__ import annotations

from typing import Any

from ..context import Context
from ..http.app import HttpApi
from .api import BindingsApi
from .cron import Timers
from .http import BindingsRoutes

__all__ = ["BindingsBlock"]


class BindingsBlock:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._api = BindingsApi(context)
        self._timers = Timers(context)

    def routes(self, http: HttpApi) -> None:
        """Add its routes."""
        BindingsRoutes(self._api).add_to(http)

    def methods(self, grpc: Any) -> None:
        """Add its methods."""
        from .grpc import BindingsMethods

        BindingsMethods(self._api).add_to(grpc)

    async def start(self) -> None:
        """Begin to call the application at times."""
        self._timers.start()

    async def stop(self) -> None:
        """Call it no more."""
        await self._timers.stop()
