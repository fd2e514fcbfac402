"""Secrets: ``/v1.0/secrets``."""

from __future__ import annotations

from typing import Any

from ..context import Context
from ..http.app import HttpApi
from .api import SecretApi
from .http import SecretRoutes

__all__ = ["SecretBlock"]


class SecretBlock:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._api = SecretApi(context)

    def routes(self, http: HttpApi) -> None:
        """Add its routes."""
        SecretRoutes(self._api).add_to(http)

    def methods(self, grpc: Any) -> None:
        """Add its methods."""
        from .grpc import SecretMethods

        SecretMethods(self._api).add_to(grpc)

    async def start(self) -> None:
        """Nothing runs by itself."""

    async def stop(self) -> None:
        """Nothing runs by itself."""
