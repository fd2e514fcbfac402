"""Rows of the table of APIs: state."""

from __future__ import annotations

from typing import Any

from cloud_runtimes import CloudRuntimesClient
from tests.sidecar.rows import Api, Case, Http, Rpc

STATE = "State"


def _saved(client: CloudRuntimesClient) -> None:
    client.state.save("store", "k", 1)


def _deleted(client: CloudRuntimesClient) -> None:
    client.state.delete("store", "k")


def _stores(method: str, path: str, body: Any = None, **fields: Any) -> tuple[Case, ...]:
    """Return the cases of a store that is not there; ``{}`` in the path is its name."""
    name = fields.pop("name", "store_name")
    return tuple(
        Case(
            what=what,
            http=Http(method, path.format("nope"), body) if method else None,
            status=status,
            error=error,
            rpc=Rpc({name: "nope", **fields}),
            code=code,
            reason=reason,
            over=over,
        )
        for what, status, error, code, reason, over in (
            (
                "no such store",
                400,
                "ERR_STATE_STORE_NOT_FOUND",
                "INVALID_ARGUMENT",
                "DAPR_STATE_NOT_FOUND",
                "declared",
            ),
            (
                "no state store at all",
                500,
                "ERR_STATE_STORE_NOT_CONFIGURED",
                "FAILED_PRECONDITION",
                "DAPR_STATE_NOT_CONFIGURED",
                "other",
            ),
        )
    )


def _illegal(http: Http | None, **fields: Any) -> Case:
    return Case(
        what="key with `||`",
        http=http,
        status=400,
        error="ERR_MALFORMED_REQUEST",
        rpc=Rpc(fields),
        code="INVALID_ARGUMENT",
        reason="DAPR_STATE_ILLEGAL_KEY",
    )


def _malformed(what: str, method: str, path: str, body: Any) -> Case:
    return Case(what=what, http=Http(method, path, body), status=400, error="ERR_MALFORMED_REQUEST")


SAVE = "/v1.0/state/store"
BULK = "/v1.0/state/store/bulk"
TRANSACTION = "/v1.0/state/store/transaction"
STALE: dict[str, Any] = {"key": "k", "value": b"1", "etag": {"value": "stale"}}

APIS = (
    Api(
        block=STATE,
        name="Get state",
        http="GET /v1.0/state/{store}/{key}",
        rpc="GetState",
        request="GetStateRequest",
        reply="GetStateResponse",
        note="Absent is an empty reply over gRPC, without an etag. MessagePack, which only our own client saves, is read as JSON.",
        cases=(
            Case(
                what="success",
                http=Http("GET", "/v1.0/state/store/k"),
                status=200,
                rpc=Rpc({"store_name": "store", "key": "k"}),
                before=_saved,
            ),
            Case(
                what="absent key",
                http=Http("GET", "/v1.0/state/store/k"),
                status=204,
                rpc=Rpc({"store_name": "store", "key": "k"}),
                before=_deleted,
            ),
            _illegal(Http("GET", "/v1.0/state/store/a%7C%7Cb"), store_name="store", key="a||b"),
            *_stores("GET", "/v1.0/state/{}/k", key="k"),
        ),
    ),
    Api(
        block=STATE,
        name="Save state",
        http="POST, PUT /v1.0/state/{store}",
        rpc="SaveState",
        request="SaveStateRequest",
        note="Over HTTP the JSON encoding of `value` is kept, over gRPC the bytes. An empty etag is none; `first-write` without an etag only creates. Of several items each is tried.",
        cases=(
            Case(
                what="success",
                http=Http("POST", SAVE, [{"key": "k", "value": {"a": 1}}]),
                status=204,
                rpc=Rpc({"store_name": "store", "states": [{"key": "k", "value": b"1"}]}),
            ),
            Case(what="`PUT`", http=Http("PUT", SAVE, [{"key": "k", "value": 1}]), status=204),
            Case(what="no items", http=Http("POST", SAVE, []), status=204, rpc=Rpc({"store_name": "store"})),
            Case(
                what="stale etag",
                http=Http("POST", SAVE, [{"key": "k", "value": 1, "etag": "stale"}]),
                status=409,
                error="ERR_STATE_SAVE",
                rpc=Rpc({"store_name": "store", "states": [STALE]}),
                code="ABORTED",
                reason="ERR_STATE_SAVE",
                before=_saved,
            ),
            Case(
                what="`first-write` of what is there",
                http=Http("POST", SAVE, [{"key": "k", "value": 1, "options": {"concurrency": "first-write"}}]),
                status=409,
                error="ERR_STATE_SAVE",
                rpc=Rpc(
                    {"store_name": "store", "states": [{"key": "k", "value": b"1", "options": {"concurrency": 1}}]}
                ),
                code="ABORTED",
                reason="ERR_STATE_SAVE",
                before=_saved,
            ),
            Case(
                what="`ttlInSeconds` that is no number",
                http=Http("POST", SAVE, [{"key": "k", "value": 1, "metadata": {"ttlInSeconds": "soon"}}]),
                status=500,
                error="ERR_STATE_SAVE",
                rpc=Rpc(
                    {
                        "store_name": "store",
                        "states": [{"key": "k", "value": b"1", "metadata": {"ttlInSeconds": "soon"}}],
                    }
                ),
                code="INTERNAL",
                reason="ERR_STATE_SAVE",
            ),
            Case(
                what="unknown concurrency",
                http=Http("POST", SAVE, [{"key": "k", "value": 1, "options": {"concurrency": "best"}}]),
                status=500,
                error="ERR_STATE_SAVE",
            ),
            Case(
                what="no key",
                http=Http("POST", SAVE, [{"value": 1}]),
                status=400,
                error="ERR_MALFORMED_REQUEST",
                rpc=Rpc({"store_name": "store", "states": [{"value": b"1"}]}),
                code="INVALID_ARGUMENT",
                reason="ERR_STATE_SAVE",
            ),
            _malformed("not JSON", "POST", SAVE, b"{"),
            _malformed("an object", "POST", SAVE, {"key": "k", "value": 1}),
            _malformed("an etag that is no string", "POST", SAVE, [{"key": "k", "value": 1, "etag": 1}]),
            Case(
                what="`contentType` JSON, but other bytes",
                rpc=Rpc(
                    {
                        "store_name": "store",
                        "states": [{"key": "k", "value": b"{", "metadata": {"contentType": "application/json"}}],
                    }
                ),
                code="UNKNOWN",
            ),
            _illegal(
                Http("POST", SAVE, [{"key": "a||b", "value": 1}]),
                store_name="store",
                states=[{"key": "a||b", "value": b"1"}],
            ),
            *_stores("POST", "/v1.0/state/{}", [{"key": "k", "value": 1}], states=[{"key": "k", "value": b"1"}]),
        ),
    ),
    Api(
        block=STATE,
        name="Delete state",
        http="DELETE /v1.0/state/{store}/{key}",
        rpc="DeleteState",
        request="DeleteStateRequest",
        note="The etag is the header `If-Match` over HTTP.",
        cases=(
            Case(
                what="success",
                http=Http("DELETE", "/v1.0/state/store/k"),
                status=204,
                rpc=Rpc({"store_name": "store", "key": "k"}),
                before=_saved,
            ),
            Case(
                what="absent key",
                http=Http("DELETE", "/v1.0/state/store/k"),
                status=204,
                rpc=Rpc({"store_name": "store", "key": "k"}),
                before=_deleted,
            ),
            Case(
                what="stale etag",
                http=Http("DELETE", "/v1.0/state/store/k", headers={"If-Match": "stale"}),
                status=409,
                error="ERR_STATE_DELETE",
                rpc=Rpc({"store_name": "store", "key": "k", "etag": {"value": "stale"}}),
                code="ABORTED",
                reason="ERR_STATE_DELETE",
                before=_saved,
            ),
            Case(
                what="unknown concurrency",
                http=Http("DELETE", "/v1.0/state/store/k?concurrency=best"),
                status=500,
                error="ERR_STATE_DELETE",
            ),
            _illegal(Http("DELETE", "/v1.0/state/store/a%7C%7Cb"), store_name="store", key="a||b"),
            *_stores("DELETE", "/v1.0/state/{}/k", key="k"),
        ),
    ),
    Api(
        block=STATE,
        name="Get bulk state",
        http="POST, PUT /v1.0/state/{store}/bulk",
        rpc="GetBulkState",
        request="GetBulkStateRequest",
        reply="GetBulkStateResponse",
        note="An item for each key, in their order; of an absent one the key alone. Over HTTP text and bytes that are no JSON come as a string, bytes as base64.",
        cases=(
            Case(
                what="success",
                http=Http("POST", BULK, {"keys": ["k", "absent"]}),
                status=200,
                rpc=Rpc({"store_name": "store", "keys": ["k", "absent"]}),
                before=_saved,
            ),
            Case(what="no keys", http=Http("POST", BULK, {"keys": []}), status=200, rpc=Rpc({"store_name": "store"})),
            _malformed("not JSON", "POST", BULK, b"["),
            _malformed("keys that are no strings", "POST", BULK, {"keys": [1]}),
            _illegal(Http("POST", BULK, {"keys": ["a||b"]}), store_name="store", keys=["a||b"]),
            *_stores("POST", "/v1.0/state/{}/bulk", {"keys": ["k"]}, keys=["k"]),
        ),
    ),
    Api(
        block=STATE,
        name="Delete bulk state",
        rpc="DeleteBulkState",
        request="DeleteBulkStateRequest",
        cases=(
            Case(
                what="success",
                rpc=Rpc({"store_name": "store", "states": [{"key": "k"}, {"key": "absent"}]}),
                before=_saved,
            ),
            Case(
                what="stale etag",
                rpc=Rpc({"store_name": "store", "states": [{"key": "x"}, {"key": "k", "etag": {"value": "stale"}}]}),
                code="ABORTED",
                reason="ERR_STATE_BULK_DELETE",
                before=_saved,
            ),
            _illegal(None, store_name="store", states=[{"key": "a||b"}]),
            *_stores("", "", states=[{"key": "k"}]),
        ),
    ),
    Api(
        block=STATE,
        name="Execute state transaction",
        http="POST, PUT /v1.0/state/{store}/transaction",
        rpc="ExecuteStateTransaction",
        request="ExecuteStateTransactionRequest",
        note="All or none. A stale etag is told as any other failure, as Dapr does.",
        cases=(
            Case(
                what="success",
                http=Http(
                    "POST",
                    TRANSACTION,
                    {
                        "operations": [
                            {"operation": "upsert", "request": {"key": "k", "value": 1}},
                            {"operation": "delete", "request": {"key": "x"}},
                        ]
                    },
                ),
                status=204,
                rpc=Rpc(
                    {
                        "storeName": "store",
                        "operations": [
                            {"operationType": "upsert", "request": {"key": "k", "value": b"1"}},
                            {"operationType": "delete", "request": {"key": "x"}},
                        ],
                    }
                ),
            ),
            Case(
                what="no operations",
                http=Http("POST", TRANSACTION, {"operations": []}),
                status=204,
                rpc=Rpc({"storeName": "store"}),
            ),
            Case(
                what="stale etag",
                http=Http(
                    "POST",
                    TRANSACTION,
                    {"operations": [{"operation": "upsert", "request": {"key": "k", "value": 1, "etag": "stale"}}]},
                ),
                status=500,
                error="ERR_STATE_TRANSACTION",
                rpc=Rpc({"storeName": "store", "operations": [{"operationType": "upsert", "request": STALE}]}),
                code="INTERNAL",
                reason="ERR_STATE_TRANSACTION",
                before=_saved,
            ),
            Case(
                what="unknown operation",
                http=Http("POST", TRANSACTION, {"operations": [{"operation": "merge", "request": {"key": "k"}}]}),
                status=400,
                error="ERR_NOT_SUPPORTED_STATE_OPERATION",
                rpc=Rpc({"storeName": "store", "operations": [{"operationType": "merge", "request": {"key": "k"}}]}),
                code="UNIMPLEMENTED",
                reason="ERR_NOT_SUPPORTED_STATE_OPERATION",
            ),
            _malformed("not JSON", "POST", TRANSACTION, b"["),
            _malformed("an array", "POST", TRANSACTION, [1]),
            _illegal(
                Http("POST", TRANSACTION, {"operations": [{"operation": "delete", "request": {"key": "a||b"}}]}),
                storeName="store",
                operations=[{"operationType": "delete", "request": {"key": "a||b"}}],
            ),
            *_stores("POST", "/v1.0/state/{}/transaction", {"operations": []}, name="storeName"),
        ),
    ),
    Api(
        block=STATE,
        name="Query state",
        http="POST, PUT /v1.0-alpha1/state/{store}/query",
        rpc="QueryStateAlpha1",
        request="QueryStateRequest",
        reply="QueryStateResponse",
        served=False,
        note="Refused as of a store that has no queries.",
        cases=(
            Case(
                what="any query",
                http=Http("POST", "/v1.0-alpha1/state/store/query", {"filter": {}}),
                status=500,
                error="ERR_STATE_STORE_NOT_SUPPORTED",
                rpc=Rpc({"store_name": "store", "query": "{}"}),
                code="INTERNAL",
                reason="DAPR_STATE_QUERYING_NOT_SUPPORTED",
            ),
            *_stores("POST", "/v1.0-alpha1/state/{}/query", {}, query="{}"),
        ),
    ),
)
