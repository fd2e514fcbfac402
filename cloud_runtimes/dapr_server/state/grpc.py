"""State over gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...codec import json
from ...codec.payload import JSON
from ...errors import PayloadError
from ...protocols.dapr.failures import DaprError
from ...protocols.dapr.messages import messages
from . import failures
from .api import Change, StateApi
from .values import content_type_of, metadata_of, raw

_CONCURRENCY: Final = {1: "first-write", 2: "last-write"}
_CONSISTENCY: Final = {1: "eventual", 2: "strong"}


class StateMethods:
    """The methods of state."""

    def __init__(self, api: StateApi) -> None:
        self._api = api

    def add_to(self, grpc: Any) -> None:
        """Add them."""
        grpc.unary("GetState", "GetStateRequest", self._get)
        grpc.unary("GetBulkState", "GetBulkStateRequest", self._get_bulk)
        grpc.unary("SaveState", "SaveStateRequest", self._save)
        grpc.unary("DeleteState", "DeleteStateRequest", self._delete)
        grpc.unary("DeleteBulkState", "DeleteBulkStateRequest", self._delete_bulk)
        grpc.unary("ExecuteStateTransaction", "ExecuteStateTransactionRequest", self._transact)
        grpc.unary("QueryStateAlpha1", "QueryStateRequest", self._query)

    async def _get(self, request: Any, context: Any) -> Any:
        consistency = _CONSISTENCY.get(request.consistency, "")
        item = await self._api.get(request.store_name, request.key, consistency, dict(request.metadata))
        if item is None:
            return messages().GetStateResponse()
        return messages().GetStateResponse(data=raw(item), etag=item.etag, metadata=metadata_of(item))

    async def _get_bulk(self, request: Any, context: Any) -> Any:
        reply = messages().GetBulkStateResponse()
        budget = self._api.bulk_budget(request.store_name)
        async for key, item in self._api.get_bulk(request.store_name, request.keys, dict(request.metadata), budget):
            if item is None:
                reply.items.add(key=key)
            else:
                data = raw(item)
                budget.add(len(data), 0)
                reply.items.add(key=key, data=data, etag=item.etag, metadata=metadata_of(item))
        return reply

    async def _save(self, request: Any, context: Any) -> Any:
        self._api.need_store(request.store_name)
        await self._api.save(request.store_name, [_saved(item) for item in request.states])
        return messages().Empty()

    async def _delete(self, request: Any, context: Any) -> Any:
        await self._api.delete(request.store_name, _change(request))
        return messages().Empty()

    async def _delete_bulk(self, request: Any, context: Any) -> Any:
        await self._api.delete_bulk(request.store_name, [_change(item) for item in request.states])
        return messages().Empty()

    async def _transact(self, request: Any, context: Any) -> Any:
        self._api.need_transactions(request.storeName)
        changes = []
        for operation in request.operations:
            if operation.operationType not in ("upsert", "delete"):
                raise failures.not_an_operation(operation.operationType)
            change = _change(operation.request)
            if operation.operationType == "upsert":
                _set_value(change, operation.request.value)
            changes.append(change)
        await self._api.transact(request.storeName, changes)
        return messages().Empty()

    async def _query(self, request: Any, context: Any) -> Any:
        await self._api.query(request.store_name)


def _change(item: Any) -> Change:
    """Read what a ``StateItem`` and a ``DeleteStateRequest`` have in common."""
    metadata: Mapping[str, str] = dict(item.metadata)
    return Change(
        item.key,
        etag=item.etag.value,
        concurrency=_CONCURRENCY.get(item.options.concurrency, ""),
        consistency=_CONSISTENCY.get(item.options.consistency, ""),
        metadata=metadata,
    )


def _saved(item: Any) -> Change:
    if not item.key:
        raise failures.empty_key()
    change = _change(item)
    if change.metadata.get("contentType") == JSON:
        try:
            json.decode(item.value)
        except PayloadError as error:
            # Dapr has no code for it
            raise DaprError(500, "UNKNOWN", "ERR_STATE_SAVE", f"{item.key}: {error.message}") from error
    _set_value(change, item.value)
    return change


def _set_value(change: Change, value: bytes) -> None:
    change.data = value
    change.content_type = content_type_of(value, change.metadata)
