"""Secrets: ``/v1.0/secrets``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..codec import json
from ..codec.payload import JSON
from ..errors import CloudRuntimesError
from ..protocols.dapr.failures import DaprError
from ..protocols.dapr.messages import messages
from ..spi.secret import Secret
from .context import Block, Context, Lack
from .http.app import HttpApi, Route
from .http.request import Reply, Request, json_reply
from .limits import Budget


class SecretApi:
    """The secret stores of a client: what a store has, every caller may read."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._secret = context.client.secret

    async def get(self, store: str, key: str, metadata: Mapping[str, str]) -> Secret:
        """Return a secret; an absent one is a failure as any other (dapr/dapr#6471)."""
        self._need_store(store)
        try:
            return await self._secret.get_secret_async(store, key, metadata=metadata or None)
        except CloudRuntimesError as error:
            text = f"failed getting secret with key {key} from secret store {store}: {error.message}"
            raise DaprError(500, "INTERNAL", "ERR_SECRET_GET", text) from error

    async def get_bulk(self, store: str, metadata: Mapping[str, str]) -> dict[str, Secret]:
        """Return all secrets of a store."""
        self._need_store(store)
        try:
            return await self._secret.get_bulk_secret_async(store, metadata=metadata or None)
        except CloudRuntimesError as error:
            text = f"failed getting secrets from secret store {store}: {error.message}"
            raise DaprError(500, "INTERNAL", "ERR_SECRET_GET", text) from error

    def budget(self, store: str) -> Budget:
        """Return the budget for the answer of `get_bulk`."""
        return self._context.budget(f"the secrets of store {store}", "ask for them one by one")

    def _need_store(self, store: str) -> None:
        lack = self._context.lack("secret", store)
        if lack is Lack.NOT_CONFIGURED:
            raise DaprError(
                500, "FAILED_PRECONDITION", "ERR_SECRET_STORES_NOT_CONFIGURED", "secret store is not configured"
            )
        if lack is Lack.NOT_FOUND:
            raise DaprError(
                401, "INVALID_ARGUMENT", "ERR_SECRET_STORE_NOT_FOUND", f"failed finding secret store with key {store}"
            )


class SecretBlock(Block):
    """Secrets: ``/v1.0/secrets``."""

    def __init__(self, context: Context) -> None:
        self._api = SecretApi(context)

    def routes(self, http: HttpApi) -> None:
        http.add(
            Route("GET", "/v1.0/secrets/{store}/bulk", self._http_get_bulk),
            Route("GET", "/v1.0/secrets/{store}/{key}", self._http_get),
        )

    def methods(self, grpc: Any) -> None:
        grpc.unary("GetSecret", "GetSecretRequest", self._grpc_get)
        grpc.unary("GetBulkSecret", "GetBulkSecretRequest", self._grpc_get_bulk)

    # -- over HTTP --------------------------------------------------------

    async def _http_get(self, request: Request) -> Reply:
        secret = await self._api.get(request.params["store"], request.params["key"], request.metadata())
        return json_reply(dict(secret))

    async def _http_get_bulk(self, request: Request) -> Reply:
        store = request.params["store"]
        secrets = await self._api.get_bulk(store, request.metadata())
        budget = self._api.budget(store)
        members: list[bytes] = []
        for key, secret in secrets.items():
            members.append(json.encode(key) + b":" + json.encode(dict(secret)))
            budget.add(len(members[-1]) + 1)
        return Reply(200, b"{" + b",".join(members) + b"}", JSON)

    # -- over gRPC --------------------------------------------------------

    async def _grpc_get(self, request: Any, context: Any) -> Any:
        secret = await self._api.get(request.store_name, request.key, dict(request.metadata))
        return messages().GetSecretResponse(data=dict(secret))

    async def _grpc_get_bulk(self, request: Any, context: Any) -> Any:
        reply = messages().GetBulkSecretResponse()
        budget = self._api.budget(request.store_name)
        for key, secret in (await self._api.get_bulk(request.store_name, dict(request.metadata))).items():
            reply.data[key].secrets.update(dict(secret))
            budget.add(reply.data[key].ByteSize())
        return reply
