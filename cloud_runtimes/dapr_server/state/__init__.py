"""State: ``/v1.0/state``."""

from __future__ import annotations

from typing import Any

from ..context import Context
from ..http.app import HttpApi
from .api import StateApi
from .http import StateRoutes

__all__ = ["StateBlock"]


class StateBlock:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def routes(self, http: HttpApi) -> None:
        """Add its routes."""
        StateRoutes(StateApi(self._context, self._context.settings.app_id)).add_to(http)

    def methods(self, grpc: Any) -> None:
        """Add its methods."""
        from .grpc import StateMethods

        StateMethods(StateApi(self._context)).add_to(grpc)

    async def start(self) -> None:
        """Nothing runs by itself."""

    async def stop(self) -> None:
        """Nothing runs by itself."""
