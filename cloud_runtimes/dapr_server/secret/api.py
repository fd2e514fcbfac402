"""Secrets in words of neither protocol."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import CloudRuntimesError
from ...protocols.dapr.failures import DaprError
from ...spi.secret import Secret
from ..context import Context, Lack
from ..limits import Budget

__all__ = ["SecretApi"]


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
