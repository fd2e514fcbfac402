"""Locks: ``/v1.0-alpha1/lock`` and ``unlock``."""

from __future__ import annotations

from typing import Any

from ..context import Context
from ..http.app import HttpApi
from .api import LockApi
from .http import LockRoutes

__all__ = ["LockBlock"]


class LockBlock:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._api = LockApi(context)

    def routes(self, http: HttpApi) -> None:
        """Add its routes."""
        LockRoutes(self._api).add_to(http)

    def methods(self, grpc: Any) -> None:
        """Add its methods."""
        from .grpc import LockMethods

        LockMethods(self._api).add_to(grpc)

    async def start(self) -> None:
        """Nothing runs by itself."""

    async def stop(self) -> None:
        """Nothing runs by itself."""
