"""State: ``/v1.0/state``."""

from __future__ import annotations

from typing import Any

from ..context import Block, Context
from ..http.app import HttpApi
from .api import StateApi
from .http import StateRoutes

__all__ = ["StateBlock"]


class StateBlock(Block):
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def routes(self, http: HttpApi) -> None:
        StateRoutes(StateApi(self._context, self._context.settings.app_id)).add_to(http)

    def methods(self, grpc: Any) -> None:
        from .grpc import StateMethods

        StateMethods(StateApi(self._context)).add_to(grpc)
