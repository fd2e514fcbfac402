"""State over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...codec import json
from ...codec.payload import JSON
from ...protocols.dapr.failures import DaprError
from ..http.app import HttpApi, Route
from ..http.request import Reply, Request, empty, malformed, mapping, members, text, texts
from . import failures
from .api import Change, StateApi
from .values import as_json, metadata_of, raw, reply_type


class StateRoutes:
    """The routes of state."""

    def __init__(self, api: StateApi) -> None:
        self._api = api

    def add_to(self, http: HttpApi) -> None:
        """Add them."""
        http.add(
            Route("GET", "/v1.0/state/{store}/{key}", self._get),
            Route("DELETE", "/v1.0/state/{store}/{key}", self._delete),
            Route("POST PUT", "/v1.0/state/{store}", self._save),
            Route("POST PUT", "/v1.0/state/{store}/bulk", self._get_bulk),
            Route("POST PUT", "/v1.0/state/{store}/transaction", self._transact),
            Route("POST PUT", "/v1.0-alpha1/state/{store}/query", self._query),
        )

    async def _get(self, request: Request) -> Reply:
        consistency = request.argument("consistency") or ""
        item = await self._api.get(request.params["store"], request.params["key"], consistency, request.metadata())
        if item is None:
            return empty
        headers = [(f"metadata.{name}", value) for name, value in metadata_of(item).items()]
        if item.etag is not None:
            headers.append(("etag", item.etag))
        return Reply(200, raw(item), reply_type(item), headers)

    async def _get_bulk(self, request: Request) -> Reply:
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

    async def _save(self, request: Request) -> Reply:
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

    async def _delete(self, request: Request) -> Reply:
        change = Change(
            request.params["key"],
            etag=request.header("if-match") or "",
            concurrency=request.argument("concurrency") or "",
            consistency=request.argument("consistency") or "",
            metadata=request.metadata(),
        )
        await self._api.delete(request.params["store"], change)
        return empty

    async def _transact(self, request: Request) -> Reply:
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
                raise failures.not_an_operation(kind)
            wanted = members(operation.get("request"), "a request")
            changes.append(_upsert(wanted, metadata) if kind == "upsert" else _change(wanted, metadata))
        await self._api.transact(store, changes)
        return empty

    async def _query(self, request: Request) -> Reply:
        await self._api.query(request.params["store"])
        return empty


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
