"""Locks, sequencers and secrets."""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError
from cloud_runtimes.lock import UnlockStatus
from cloud_runtimes.protocols.layotto.messages import messages

from .quirks import Quirks, Refuse, check_store

_STATUS = {UnlockStatus.SUCCESS: 0, UnlockStatus.NOT_FOUND: 1, UnlockStatus.NOT_OWNER: 2}


class Locks:
    """Locks of the embedded runtime, and numbers in this process."""

    def __init__(self, client: CloudRuntimesClient, quirks: Quirks) -> None:
        self._locks = client.lock
        self._quirks = quirks
        self._lock = threading.Lock()
        self._numbers: dict[str, itertools.count[int]] = defaultdict(lambda: itertools.count(1))

    def TryLock(self, request: Any, context: Any) -> Any:
        store = check_store(request.store_name)
        if not request.resource_id or not request.lock_owner or request.expire <= 0:
            raise Refuse("INVALID_ARGUMENT", "a field of TryLock is empty")
        lease = self._locks.try_lock(store, request.resource_id, request.lock_owner, expiry=request.expire)
        return messages().TryLockResponse(success=lease is not None)

    def Unlock(self, request: Any, context: Any) -> Any:
        store = check_store(request.store_name)
        status = self._locks.unlock(store, request.resource_id, request.lock_owner)
        return messages().UnlockResponse(status=_STATUS[status])

    def LockKeepAlive(self, request: Any, context: Any) -> Any:
        if self._quirks.keep_alive_fails:
            raise Refuse("INTERNAL", "grpc: error while marshaling: proto: Marshal called with nil")
        return messages().LockKeepAliveResponse()

    def GetNextId(self, request: Any, context: Any) -> Any:
        check_store(request.store_name)
        with self._lock:
            # what has a segment is known by its key alone
            return messages().GetNextIdResponse(next_id=next(self._numbers[request.key]))


# -- secrets


class Secrets:
    """Secrets of the embedded runtime."""

    def __init__(self, client: CloudRuntimesClient) -> None:
        self._secrets = client.secret

    def GetSecret(self, request: Any, context: Any) -> Any:
        store = check_store(request.store_name)
        try:
            secret = self._secrets.get_secret(store, request.key)
        except CloudRuntimesError:
            raise Refuse(
                "INTERNAL", f"failed getting secret with key {request.key} from secret store {store}"
            ) from None
        return messages().GetSecretResponse(data=dict(secret))

    def GetBulkSecret(self, request: Any, context: Any) -> Any:
        store = check_store(request.store_name)
        kinds = messages()
        try:
            stored = self._secrets.get_bulk_secret(store)
        except CloudRuntimesError:
            raise Refuse("INTERNAL", f"failed getting secrets from secret store {store}") from None
        return kinds.GetBulkSecretResponse(
            data={key: kinds.SecretResponse(secrets=dict(each)) for key, each in stored.items()}
        )
