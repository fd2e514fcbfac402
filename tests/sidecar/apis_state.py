"""Rows of the table of APIs: state."""

from __future__ import annotations

from typing import Any

from cloud_runtimes import CloudRuntimesClient
from tests.sidecar.rows import Api, Case, Http

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
            what,
            answers,
            Http(method, path.format("nope"), body) if method else None,
            {name: "nope", **fields},
            over=over,
        )
        for what, over, answers in (
            ("no such store", "declared", "400 ERR_STATE_STORE_NOT_FOUND, INVALID_ARGUMENT DAPR_STATE_NOT_FOUND"),
            (
                "no state store at all",
                "other",
                "500 ERR_STATE_STORE_NOT_CONFIGURED, FAILED_PRECONDITION DAPR_STATE_NOT_CONFIGURED",
            ),
        )
    )


def _illegal(http: Http | None, **fields: Any) -> Case:
    return Case("key with `||`", "400 ERR_MALFORMED_REQUEST, INVALID_ARGUMENT DAPR_STATE_ILLEGAL_KEY", http, fields)


def _malformed(what: str, method: str, path: str, body: Any) -> Case:
    return Case(what, "400 ERR_MALFORMED_REQUEST, -", Http(method, path, body))


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
        note="Absent is an empty reply over gRPC, without an etag. MessagePack, which only our own client saves, is read as JSON.",
        cases=(
            Case(
                "success",
                "200, OK",
                Http("GET", "/v1.0/state/store/k"),
                {"store_name": "store", "key": "k"},
                before=_saved,
            ),
            Case(
                "absent key",
                "204, OK",
                Http("GET", "/v1.0/state/store/k"),
                {"store_name": "store", "key": "k"},
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
        note="Over HTTP the JSON encoding of `value` is kept, over gRPC the bytes. An empty etag is none; `first-write` without an etag only creates. Of several items each is tried.",
        cases=(
            Case(
                "success",
                "204, OK",
                Http("POST", SAVE, [{"key": "k", "value": {"a": 1}}]),
                {"store_name": "store", "states": [{"key": "k", "value": b"1"}]},
            ),
            Case("`PUT`", "204, -", Http("PUT", SAVE, [{"key": "k", "value": 1}])),
            Case("no items", "204, OK", Http("POST", SAVE, []), {"store_name": "store"}),
            Case(
                "stale etag",
                "409 ERR_STATE_SAVE, ABORTED ERR_STATE_SAVE",
                Http("POST", SAVE, [{"key": "k", "value": 1, "etag": "stale"}]),
                {"store_name": "store", "states": [STALE]},
                before=_saved,
            ),
            Case(
                "`first-write` of what is there",
                "409 ERR_STATE_SAVE, ABORTED ERR_STATE_SAVE",
                Http("POST", SAVE, [{"key": "k", "value": 1, "options": {"concurrency": "first-write"}}]),
                {"store_name": "store", "states": [{"key": "k", "value": b"1", "options": {"concurrency": 1}}]},
                before=_saved,
            ),
            Case(
                "`ttlInSeconds` that is no number",
                "500 ERR_STATE_SAVE, INTERNAL ERR_STATE_SAVE",
                Http("POST", SAVE, [{"key": "k", "value": 1, "metadata": {"ttlInSeconds": "soon"}}]),
                {"store_name": "store", "states": [{"key": "k", "value": b"1", "metadata": {"ttlInSeconds": "soon"}}]},
            ),
            Case(
                "unknown concurrency",
                "500 ERR_STATE_SAVE, -",
                Http("POST", SAVE, [{"key": "k", "value": 1, "options": {"concurrency": "best"}}]),
            ),
            Case(
                "no key",
                "400 ERR_MALFORMED_REQUEST, INVALID_ARGUMENT ERR_STATE_SAVE",
                Http("POST", SAVE, [{"value": 1}]),
                {"store_name": "store", "states": [{"value": b"1"}]},
            ),
            _malformed("not JSON", "POST", SAVE, b"{"),
            _malformed("an object", "POST", SAVE, {"key": "k", "value": 1}),
            _malformed("an etag that is no string", "POST", SAVE, [{"key": "k", "value": 1, "etag": 1}]),
            Case(
                "`contentType` JSON, but other bytes",
                "-, UNKNOWN",
                rpc={
                    "store_name": "store",
                    "states": [{"key": "k", "value": b"{", "metadata": {"contentType": "application/json"}}],
                },
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
        note="The etag is the header `If-Match` over HTTP.",
        cases=(
            Case(
                "success",
                "204, OK",
                Http("DELETE", "/v1.0/state/store/k"),
                {"store_name": "store", "key": "k"},
                before=_saved,
            ),
            Case(
                "absent key",
                "204, OK",
                Http("DELETE", "/v1.0/state/store/k"),
                {"store_name": "store", "key": "k"},
                before=_deleted,
            ),
            Case(
                "stale etag",
                "409 ERR_STATE_DELETE, ABORTED ERR_STATE_DELETE",
                Http("DELETE", "/v1.0/state/store/k", headers={"If-Match": "stale"}),
                {"store_name": "store", "key": "k", "etag": {"value": "stale"}},
                before=_saved,
            ),
            Case(
                "unknown concurrency", "500 ERR_STATE_DELETE, -", Http("DELETE", "/v1.0/state/store/k?concurrency=best")
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
        note="An item for each key, in their order; of an absent one the key alone. Over HTTP text and bytes that are no JSON come as a string, bytes as base64.",
        cases=(
            Case(
                "success",
                "200, OK",
                Http("POST", BULK, {"keys": ["k", "absent"]}),
                {"store_name": "store", "keys": ["k", "absent"]},
                before=_saved,
            ),
            Case("no keys", "200, OK", Http("POST", BULK, {"keys": []}), {"store_name": "store"}),
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
        cases=(
            Case(
                "success",
                "-, OK",
                rpc={"store_name": "store", "states": [{"key": "k"}, {"key": "absent"}]},
                before=_saved,
            ),
            Case(
                "stale etag",
                "-, ABORTED ERR_STATE_BULK_DELETE",
                rpc={"store_name": "store", "states": [{"key": "x"}, {"key": "k", "etag": {"value": "stale"}}]},
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
        note="All or none. A stale etag is told as any other failure, as Dapr does.",
        cases=(
            Case(
                "success",
                "204, OK",
                Http(
                    "POST",
                    TRANSACTION,
                    {
                        "operations": [
                            {"operation": "upsert", "request": {"key": "k", "value": 1}},
                            {"operation": "delete", "request": {"key": "x"}},
                        ]
                    },
                ),
                {
                    "storeName": "store",
                    "operations": [
                        {"operationType": "upsert", "request": {"key": "k", "value": b"1"}},
                        {"operationType": "delete", "request": {"key": "x"}},
                    ],
                },
            ),
            Case("no operations", "204, OK", Http("POST", TRANSACTION, {"operations": []}), {"storeName": "store"}),
            Case(
                "stale etag",
                "500 ERR_STATE_TRANSACTION, INTERNAL ERR_STATE_TRANSACTION",
                Http(
                    "POST",
                    TRANSACTION,
                    {"operations": [{"operation": "upsert", "request": {"key": "k", "value": 1, "etag": "stale"}}]},
                ),
                {"storeName": "store", "operations": [{"operationType": "upsert", "request": STALE}]},
                before=_saved,
            ),
            Case(
                "unknown operation",
                "400 ERR_NOT_SUPPORTED_STATE_OPERATION, UNIMPLEMENTED ERR_NOT_SUPPORTED_STATE_OPERATION",
                Http("POST", TRANSACTION, {"operations": [{"operation": "merge", "request": {"key": "k"}}]}),
                {"storeName": "store", "operations": [{"operationType": "merge", "request": {"key": "k"}}]},
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
        served=False,
        note="Refused as of a store that has no queries.",
        cases=(
            Case(
                "any query",
                "500 ERR_STATE_STORE_NOT_SUPPORTED, INTERNAL DAPR_STATE_QUERYING_NOT_SUPPORTED",
                Http("POST", "/v1.0-alpha1/state/store/query", {"filter": {}}),
                {"store_name": "store", "query": "{}"},
            ),
            *_stores("POST", "/v1.0-alpha1/state/{}/query", {}, query="{}"),
        ),
    ),
)
