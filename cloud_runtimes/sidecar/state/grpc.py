"""State over gRPC."""

from __future__ import annotations

from typing import Any

from ..._dapr.messages import messages
from .api import StateApi

__all__ = ["StateMethods"]


class StateMethods:
    """The methods of state."""

    def __init__(self, api: StateApi) -> None:
        self._api = api

    def add_to(self, grpc: Any) -> None:
        """Add them."""
        grpc.unary("GetState", "GetStateRequest", self._get)

    async def _get(self, request: Any, context: Any) -> Any:
        item = await self._api.get(request.store_name, request.key, None, dict(request.metadata))
        reply = messages().GetStateResponse()
        if item is not None:
            reply.data, reply.etag = item.value, item.etag
        return reply
