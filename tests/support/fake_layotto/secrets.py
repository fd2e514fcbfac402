"""Secrets."""

from __future__ import annotations

from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError
from cloud_runtimes.protocols.layotto.messages import messages

from .refusals import Refuse, check_store

__all__ = ["Secrets"]


class Secrets:
    """Secrets of the embedded runtime."""

    def __init__(self, client: CloudRuntimesClient) -> None:
        self._secrets = client.secret

    def GetSecret(self, request: Any, context: Any) -> Any:
        store = check_store(request.store_name)
        try:
            found = self._secrets.get_secret(store, request.key)
        except CloudRuntimesError:
            raise Refuse(
                "INTERNAL", f"failed getting secret with key {request.key} from secret store {store}"
            ) from None
        return messages().GetSecretResponse(data=dict(found))

    def GetBulkSecret(self, request: Any, context: Any) -> Any:
        store = check_store(request.store_name)
        kinds = messages()
        try:
            found = self._secrets.get_bulk_secret(store)
        except CloudRuntimesError:
            raise Refuse("INTERNAL", f"failed getting secrets from secret store {store}") from None
        return kinds.GetBulkSecretResponse(
            data={key: kinds.SecretResponse(secrets=dict(each)) for key, each in found.items()}
        )
