"""Bindings over gRPC."""

from __future__ import annotations

from typing import Any

from ...protocols.dapr.messages import messages
from .api import BindingsApi

__all__ = ["BindingsMethods"]


class BindingsMethods:
    """The method of bindings."""

    def __init__(self, api: BindingsApi) -> None:
        self._api = api

    def add_to(self, grpc: Any) -> None:
        """Add it."""
        grpc.unary("InvokeBinding", "InvokeBindingRequest", self._invoke)

    async def _invoke(self, request: Any, context: Any) -> Any:
        found = await self._api.invoke(request.name, request.operation, request.data, dict(request.metadata))
        if found is None:
            return messages().InvokeBindingResponse()
        return messages().InvokeBindingResponse(data=found[0], metadata=found[1])
