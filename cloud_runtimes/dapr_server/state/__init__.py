"""State: ``/v1.0/state``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...codec import json
from ...codec.payload import JSON
from ...errors import PayloadError
from ...protocols.dapr.failures import DaprError
from ...protocols.dapr.messages import messages
from ..context import Block, Context
from ..http.app import HttpApi, Route
from ..http.request import Reply, Request, empty, malformed, mapping, members, text, texts
from .api import Change, StateApi, empty_key, not_an_operation
from .values import as_json, content_type_of, metadata_of, raw, reply_type

__all__ = ["StateBlock"]

_CONCURRENCIES: Final = {1: "first-write", 2: "last-write"}
_CONSISTENCIES: Final = {1: "eventual", 2: "strong"}
"""Of gRPC, by their numbers."""


class StateBlock(Block):
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._api = StateApi(context, context.settings.app_id)
        self._grpc_api = StateApi(context)

    def routes(self, http: HttpApi) -> None:
        http.add(
            Route("GET", "/v1.0/state/{store}/{key}", self._http_get),
            Route("DELETE", "/v1.0/state/{store}/{key}", self._http_delete),
            Route("POST PUT", "/v1.0/state/{store}", self._http_save),
            Route("POST PUT", "/v1.0/state/{store}/bulk", self._http_get_bulk),
            Route("POST PUT", "/v1.0/state/{store}/transaction", self._http_transact),
            Route("POST PUT", "/v1.0-alpha1/state/{store}/query", self._http_query),
        )

    def methods(self, grpc: Any) -> None:
        grpc.unary("GetState", "GetStateRequest", self._grpc_get)
        grpc.unary("GetBulkState", "GetBulkStateRequest", self._grpc_get_bulk)
        grpc.unary("SaveState", "SaveStateRequest", self._grpc_save)
        grpc.unary("DeleteState", "DeleteStateRequest", self._grpc_delete)
        grpc.unary("DeleteBulkState", "DeleteBulkStateRequest", self._grpc_delete_bulk)
        grpc.unary("ExecuteStateTransaction", "ExecuteStateTransactionRequest", self._grpc_transact)
        grpc.unary("QueryStateAlpha1", "QueryStateRequest", self._grpc_query)

    # -- over HTTP --------------------------------------------------------

    async def _http_get(self, request: Request) -> Reply:
        consistency = request.argument("consistency") or ""
        item = await self._api.get(request.params["store"], request.params["key"], consistency, request.metadata())
        if item is None:
            return empty
        headers = [(f"metadata.{name}", value) for name, value in metadata_of(item).items()]
        if item.etag is not None:
            headers.append(("etag", item.etag))
        return Reply(200, raw(item), reply_type(item), headers)

    async def _http_get_bulk(self, request: Request) -> Reply:
        store = request.params["store"]
        budget = self._api.bulk_budget(store)
        document = members(request.json())
        keys = texts(document, "keys")
        metadata = {**mapping(document, "metadata"), **request.metadata()}
        items = []
        async for key, item in self._api.get_bulk(store, keys, metadata, budget):
            told_of = json.encode({"key": key})
            if item is not None:
                rest = {"etag": item.etag, "metadata": metadata_of(item)}
                # the value is pasted: decoding it would not keep its numbers as they are
                more = json.encode({name: value for name, value in rest.items() if value})
                told_of = told_of[:-1] + b',"data":' + as_json(item) + (b"," + more[1:] if more != b"{}" else b"}")
                budget.add(len(told_of), 0)
            items.append(told_of)
        return Reply(200, b"[" + b",".join(items) + b"]", JSON)

    async def _http_save(self, request: Request) -> Reply:
        store = request.params["store"]
        self._api.need_store(store)
        document = request.json()
        if document is not None and not isinstance(document, list):
            raise malformed("the body is not an array of items")
        changes = [_upsert(members(item, "an item"), request.metadata()) for item in document or ()]
        for change in changes:
            if not change.key:
                raise DaprError(400, "INVALID_ARGUMENT", "ERR_MALFORMED_REQUEST", '"key" is a required field')
        await self._api.save(store, changes)
        return empty

    async def _http_delete(self, request: Request) -> Reply:
        change = Change(
            request.params["key"],
            etag=request.header("if-match") or "",
            concurrency=request.argument("concurrency") or "",
            consistency=request.argument("consistency") or "",
            metadata=request.metadata(),
        )
        await self._api.delete(request.params["store"], change)
        return empty

    async def _http_transact(self, request: Request) -> Reply:
        store = request.params["store"]
        self._api.need_transactions(store)
        document = members(request.json())
        metadata = {**mapping(document, "metadata"), **request.metadata()}
        operations = document.get("operations") or ()
        if not isinstance(operations, (list, tuple)):
            raise malformed("'operations' is not an array")
        changes = []
        for each in operations:
            operation = members(each, "an operation")
            kind = text(operation, "operation") or ""
            if kind not in ("upsert", "delete"):
                raise not_an_operation(kind)
            wanted = members(operation.get("request"), "a request")
            changes.append(_upsert(wanted, metadata) if kind == "upsert" else _change(wanted, metadata))
        await self._api.transact(store, changes)
        return empty

    async def _http_query(self, request: Request) -> Reply:
        await self._api.query(request.params["store"])
        return empty

    # -- over gRPC --------------------------------------------------------

    async def _grpc_get(self, request: Any, context: Any) -> Any:
        consistency = _CONSISTENCIES.get(request.consistency, "")
        item = await self._grpc_api.get(request.store_name, request.key, consistency, dict(request.metadata))
        if item is None:
            return messages().GetStateResponse()
        return messages().GetStateResponse(data=raw(item), etag=item.etag, metadata=metadata_of(item))

    async def _grpc_get_bulk(self, request: Any, context: Any) -> Any:
        reply = messages().GetBulkStateResponse()
        budget = self._grpc_api.bulk_budget(request.store_name)
        async for key, item in self._grpc_api.get_bulk(
            request.store_name, request.keys, dict(request.metadata), budget
        ):
            if item is None:
                reply.items.add(key=key)
            else:
                data = raw(item)
                budget.add(len(data), 0)
                reply.items.add(key=key, data=data, etag=item.etag, metadata=metadata_of(item))
        return reply

    async def _grpc_save(self, request: Any, context: Any) -> Any:
        self._grpc_api.need_store(request.store_name)
        await self._grpc_api.save(request.store_name, [_saved(item) for item in request.states])
        return messages().Empty()

    async def _grpc_delete(self, request: Any, context: Any) -> Any:
        await self._grpc_api.delete(request.store_name, _changed(request))
        return messages().Empty()

    async def _grpc_delete_bulk(self, request: Any, context: Any) -> Any:
        await self._grpc_api.delete_bulk(request.store_name, [_changed(item) for item in request.states])
        return messages().Empty()

    async def _grpc_transact(self, request: Any, context: Any) -> Any:
        self._grpc_api.need_transactions(request.storeName)
        changes = []
        for operation in request.operations:
            if operation.operationType not in ("upsert", "delete"):
                raise not_an_operation(operation.operationType)
            change = _changed(operation.request)
            if operation.operationType == "upsert":
                _set_value(change, operation.request.value)
            changes.append(change)
        await self._grpc_api.transact(request.storeName, changes)
        return messages().Empty()

    async def _grpc_query(self, request: Any, context: Any) -> Any:
        await self._grpc_api.query(request.store_name)


def _change(item: Mapping[str, Any], metadata: Mapping[str, str]) -> Change:
    options = members(item.get("options"), "'options'")
    return Change(
        text(item, "key") or "",
        etag=text(item, "etag") or "",
        concurrency=text(options, "concurrency") or "",
        consistency=text(options, "consistency") or "",
        metadata={**mapping(item, "metadata"), **metadata},
    )


def _upsert(item: Mapping[str, Any], metadata: Mapping[str, str]) -> Change:
    change = _change(item, metadata)
    change.data = json.encode(item.get("value"))
    return change


def _changed(item: Any) -> Change:
    """Read what a ``StateItem`` and a ``DeleteStateRequest`` have in common."""
    metadata: Mapping[str, str] = dict(item.metadata)
    return Change(
        item.key,
        etag=item.etag.value,
        concurrency=_CONCURRENCIES.get(item.options.concurrency, ""),
        consistency=_CONSISTENCIES.get(item.options.consistency, ""),
        metadata=metadata,
    )


def _saved(item: Any) -> Change:
    if not item.key:
        raise empty_key()
    change = _changed(item)
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
