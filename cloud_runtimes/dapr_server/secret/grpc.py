"""Secrets over gRPC."""

from __future__ import annotations

from typing import Any

from ...protocols.dapr.messages import messages
from .api import SecretApi

__all__ = ["SecretMethods"]


class SecretMethods:
    """The methods of secrets."""

    def __init__(self, api: SecretApi) -> None:
        self._api = api

    def add_to(self, grpc: Any) -> None:
        """Add them."""
        grpc.unary("GetSecret", "GetSecretRequest", self._get)
        grpc.unary("GetBulkSecret", "GetBulkSecretRequest", self._get_bulk)

    async def _get(self, request: Any, context: Any) -> Any:
        secret = await self._api.get(request.store_name, request.key, dict(request.metadata))
        return messages().GetSecretResponse(data=dict(secret))

    async def _get_bulk(self, request: Any, context: Any) -> Any:
        reply = messages().GetBulkSecretResponse()
        budget = self._api.budget(request.store_name)
        for key, secret in (await self._api.get_bulk(request.store_name, dict(request.metadata))).items():
            reply.data[key].secrets.update(dict(secret))
            budget.add(reply.data[key].ByteSize())
        return reply
