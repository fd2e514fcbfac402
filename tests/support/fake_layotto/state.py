"""State, as Redis behind Layotto does it."""

from __future__ import annotations

import re
import threading
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.protocols.layotto.messages import messages

from .quirks import Quirks, Refuse, check_store

__all__ = ["State"]

_INTEGER = re.compile(r"-?[0-9]+")
_OCTETS = "application/octet-stream"


class State:
    """State API that performs one write at a time, like Redis."""

    def __init__(self, client: CloudRuntimesClient, quirks: Quirks) -> None:
        self._state = client.state
        self._quirks = quirks
        self._lock = threading.RLock()

    # -- reading ------------------------------------------------------------

    def GetState(self, request: Any, context: Any) -> Any:
        item = self._get(check_store(request.store_name), request.key)
        if item is None:
            return messages().GetStateResponse()
        return messages().GetStateResponse(data=item.value, etag=_etag(item))

    def GetBulkState(self, request: Any, context: Any) -> Any:
        store = check_store(request.store_name)
        items = []
        for key in request.keys:
            item = self._get(store, key)
            message = messages().BulkStateItem(key=key)
            if item is not None:
                message.data, message.etag = item.value, _etag(item)
            items.append(message)
        return messages().GetBulkStateResponse(items=items)

    def _get(self, store: str, key: str) -> Any:
        if not key or "||" in key:
            raise Refuse("UNKNOWN", f"input key/keyPrefix '{key}' can't contain '||'")
        return self._state.get_item(store, key, type=bytes)

    # -- writing ------------------------------------------------------------

    def SaveState(self, request: Any, context: Any) -> Any:
        store = check_store(request.store_name)
        with self._lock:
            for item in request.states:
                self._save(store, item)
        return messages().Empty()

    def DeleteState(self, request: Any, context: Any) -> Any:
        store = check_store(request.store_name)
        etag = request.etag.value if request.HasField("etag") else ""
        with self._lock:
            self._delete(store, request.key, etag)
        return messages().Empty()

    def DeleteBulkState(self, request: Any, context: Any) -> Any:
        store = check_store(request.store_name)
        with self._lock:
            for item in request.states:
                if item.HasField("etag"):
                    try:
                        self._delete(store, item.key, item.etag.value)
                    except Refuse as error:
                        raise Refuse("UNKNOWN", str(error)) from None
                else:
                    self._get(store, item.key)
                    self._state.delete(store, item.key)
        return messages().Empty()

    def ExecuteStateTransaction(self, request: Any, context: Any) -> Any:
        store = check_store(request.storeName)
        steps = [each for each in request.operations if each.HasField("request")]
        failure: Refuse | None = None
        with self._lock:
            if not self._quirks.half_transactions:
                for each in steps:
                    self._check(store, each.operationType, each.request)
            for each in steps:
                try:
                    if each.operationType == "upsert":
                        self._save(store, each.request)
                    elif each.operationType == "delete":
                        self._delete(store, each.request.key, each.request.etag.value)
                    else:
                        raise Refuse("UNIMPLEMENTED", f"operation type {each.operationType} not supported")
                except Refuse as error:
                    failure = failure or error
        if failure is not None:
            code = failure.code if failure.code == "UNIMPLEMENTED" else "INTERNAL"
            raise Refuse(code, f"error while executing state transaction: {failure}")
        return messages().Empty()

    def _check(self, store: str, kind: str, item: Any) -> None:
        now = self._get(store, item.key)
        if kind == "delete" and not item.etag.value and now is not None and self._quirks.delete_needs_etag:
            raise Refuse("INTERNAL", "etag mismatch")
        if item.etag.value and now is not None and _etag(now) != item.etag.value:
            raise Refuse("INTERNAL", "etag mismatch")

    def _save(self, store: str, item: Any) -> None:
        now = self._get(store, item.key)
        etag = item.etag.value if item.HasField("etag") else ""
        if etag:
            self._condition(item.key, now, etag)
        ttl: float | None = None
        text = item.metadata.get("ttlInSeconds")
        if text is not None:
            ttl = float(text) if int(text) > 0 else None
        elif now is not None and self._quirks.keeps_ttl:
            ttl = now.ttl
        self._state.save(store, item.key, item.value, ttl=ttl, content_type=_OCTETS)

    def _delete(self, store: str, key: str, etag: str) -> None:
        now = self._get(store, key)
        if etag:
            self._condition(key, now, etag)
        elif now is not None and self._quirks.delete_needs_etag:
            raise Refuse("ABORTED", f"possible etag mismatch. error from state store: failed to delete {key}")
        self._state.delete(store, key)

    def _condition(self, key: str, now: Any, etag: str) -> None:
        if not _INTEGER.fullmatch(etag):
            raise Refuse("INVALID_ARGUMENT", f"invalid etag value: {etag}")
        if now is None:
            if not self._quirks.etag_on_absent:
                raise Refuse("ABORTED", f"possible etag mismatch: {key} is absent")
        elif _etag(now) != etag:
            raise Refuse("ABORTED", f"possible etag mismatch: failed to set key {key}")


def _etag(item: Any) -> str:
    return str(int(item.etag, 16))
