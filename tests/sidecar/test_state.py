"""State: what the table of APIs cannot say in codes: values, etags, expiry, both encodings."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.official import Sdk
from tests.sidecar.raw import Answer, call, send

STORE = "/v1.0/state/store"


def get(sidecar: Sidecar, key: str, query: str = "") -> Answer:
    return send(sidecar.http_address, "GET", f"{STORE}/{key}{query}")


def save(sidecar: Sidecar, *items: dict[str, Any], query: str = "") -> Answer:
    return send(sidecar.http_address, "POST", STORE + query, list(items))


def grpc_get(sidecar: Sidecar, key: str) -> Answer:
    return call(
        sidecar.grpc_address, "GetState", messages().GetStateRequest(store_name="store", key=key), "GetStateResponse"
    )


def grpc_save(sidecar: Sidecar, *items: dict[str, Any]) -> Answer:
    return call(sidecar.grpc_address, "SaveState", messages().SaveStateRequest(store_name="store", states=items))


def test_http_keeps_the_json_encoding(sidecar: Sidecar) -> None:
    values: tuple[Any, ...] = ("text", 1, 12345678901234567, 0.1, None, True, {"a": [1, {"b": "ü"}]}, [])
    for value in values:
        assert save(sidecar, {"key": "k", "value": value}).status == 204
        reply = get(sidecar, "k")
        assert (reply.status, reply.json) == (200, value)
        assert reply.headers["content-type"] == "application/json"
        assert grpc_get(sidecar, "k").message.data == reply.body
        assert sidecar.context.client.state.get("store", "k") == value


def test_no_value_is_null(sidecar: Sidecar) -> None:
    assert save(sidecar, {"key": "k"}).status == 204
    assert get(sidecar, "k").body == b"null"


def test_grpc_keeps_bytes(sidecar: Sidecar) -> None:
    for value in (b"\x00\xff", b"text", b"", b'{"a": 1}'):
        assert grpc_save(sidecar, {"key": "k", "value": value}).code == "OK"
        reply = grpc_get(sidecar, "k").message
        assert reply.data == value
        assert reply.etag
        over_http = get(sidecar, "k")
        assert (over_http.status, over_http.body, over_http.headers["etag"]) == (200, value, reply.etag)
        assert sidecar.context.client.state.get("store", "k") == value


def test_grpc_content_type(sidecar: Sidecar) -> None:
    item = {"key": "k", "value": b'{"a": 1}', "metadata": {"contentType": "application/json"}}
    assert grpc_save(sidecar, item).code == "OK"
    assert sidecar.context.client.state.get("store", "k") == {"a": 1}
    assert grpc_save(sidecar, {"key": "k", "value": b"hi", "metadata": {"contentType": "text/plain"}}).code == "OK"
    assert sidecar.context.client.state.get("store", "k") == "hi"
    # what would not come back as it was, or is no media type, stays bytes
    for content_type in ("application/msgpack", "nonsense", "application/ld+json"):
        assert (
            grpc_save(sidecar, {"key": "k", "value": b"\x81", "metadata": {"contentType": content_type}}).code == "OK"
        )
        assert grpc_get(sidecar, "k").message.data == b"\x81"


def test_what_our_own_client_saved(sidecar: Sidecar) -> None:
    """Each content type reads sensibly, alone and in bulk."""
    state = sidecar.context.client.state
    state.save("store", "json", {"a": 1})
    state.save("store", "text", "grüße", content_type="text/plain")
    state.save("store", "msgpack", {"a": [1, 2]}, content_type="application/msgpack")
    state.save("store", "bytes", b"\xff\x00")
    wanted: dict[str, tuple[bytes, str, Any]] = {
        "json": (b'{"a":1}', "application/json", {"a": 1}),
        "text": ("grüße".encode(), "text/plain", "grüße"),
        "msgpack": (b'{"a":[1,2]}', "application/json", {"a": [1, 2]}),
        "bytes": (b"\xff\x00", "application/json", "/wA="),
    }
    for key, (body, content_type, _) in wanted.items():
        reply = get(sidecar, key)
        assert (reply.status, reply.body, reply.headers["content-type"]) == (200, body, content_type)
        assert grpc_get(sidecar, key).message.data == body
    bulk = send(sidecar.http_address, "POST", f"{STORE}/bulk", {"keys": list(wanted)}).json
    assert {item["key"]: item["data"] for item in bulk} == {key: value for key, (_, _, value) in wanted.items()}


def test_msgpack_that_json_has_no_form_for(sidecar: Sidecar) -> None:
    sidecar.context.client.state.save("store", "k", {"a": b"\xff"}, content_type="application/msgpack")
    assert get(sidecar, "k").body == b"\x81\xa1a\xc4\x01\xff"


def test_etags(sidecar: Sidecar) -> None:
    save(sidecar, {"key": "k", "value": 1})
    first = get(sidecar, "k").headers["etag"]
    assert save(sidecar, {"key": "k", "value": 2, "etag": first}).status == 204
    second = get(sidecar, "k").headers["etag"]
    assert second != first
    stale = save(sidecar, {"key": "k", "value": 3, "etag": first})
    assert (stale.status, stale.error) == (409, "ERR_STATE_SAVE")
    assert "possible etag mismatch" in stale.json["message"]
    assert get(sidecar, "k").json == 2
    assert save(sidecar, {"key": "k", "value": 3, "etag": ""}).status == 204
    assert save(sidecar, {"key": "absent", "value": 3, "etag": second}).status == 409
    assert get(sidecar, "absent").status == 204


def test_delete_with_an_etag(sidecar: Sidecar) -> None:
    save(sidecar, {"key": "k", "value": 1})
    etag = get(sidecar, "k").headers["etag"]
    path = f"{STORE}/k"
    assert send(sidecar.http_address, "DELETE", path, headers={"If-Match": "stale"}).status == 409
    assert get(sidecar, "k").status == 200
    assert send(sidecar.http_address, "DELETE", path, headers={"If-Match": etag}).status == 204
    assert get(sidecar, "k").status == 204
    # an empty one is none
    assert send(sidecar.http_address, "DELETE", path, headers={"If-Match": ""}).status == 204


@pytest.mark.parametrize("concurrency", ["first-write", "last-write", ""])
@pytest.mark.parametrize("consistency", ["strong", "eventual", ""])
def test_options(sidecar: Sidecar, concurrency: str, consistency: str) -> None:
    options = {"concurrency": concurrency, "consistency": consistency}
    assert save(sidecar, {"key": "k", "value": 1, "options": options}).status == 204
    again = save(sidecar, {"key": "k", "value": 2, "options": options})
    assert again.status == (409 if concurrency == "first-write" else 204)
    etag = get(sidecar, "k", f"?consistency={consistency}").headers["etag"]
    assert save(sidecar, {"key": "k", "value": 3, "etag": etag, "options": options}).status == 204
    query = f"?concurrency={concurrency}&consistency={consistency}"
    assert send(sidecar.http_address, "DELETE", f"{STORE}/k{query}").status == 204


def test_expiry(sidecar: Sidecar) -> None:
    """``ttlInSeconds`` in an item's metadata, and in the URL, which goes before it."""
    began = datetime.now(UTC)
    assert save(sidecar, {"key": "k", "value": 1, "metadata": {"ttlInSeconds": "600"}}).status == 204
    expiry = get(sidecar, "k").headers["metadata.ttlexpiretime"]
    expires = datetime.strptime(expiry, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert timedelta(seconds=590) < expires - began < timedelta(seconds=660)
    assert grpc_get(sidecar, "k").message.metadata["ttlExpireTime"] == expiry
    bulk = send(sidecar.http_address, "POST", f"{STORE}/bulk", {"keys": ["k"]}).json
    assert bulk[0]["metadata"] == {"ttlExpireTime": expiry}
    for metadata, query in (
        ({}, ""),
        ({"ttlInSeconds": "-1"}, ""),
        ({"ttlInSeconds": "600"}, "?metadata.ttlInSeconds=0"),
    ):
        save(sidecar, {"key": "k", "value": 1, "metadata": {"ttlInSeconds": "600"}})
        assert save(sidecar, {"key": "k", "value": 1, "metadata": metadata}, query=query).status == 204
        assert "metadata.ttlexpiretime" not in get(sidecar, "k").headers


def test_several_items_are_tried_each(sidecar: Sidecar) -> None:
    save(sidecar, {"key": "b", "value": 1})
    answer = save(
        sidecar, {"key": "a", "value": 2}, {"key": "b", "value": 2, "etag": "stale"}, {"key": "c", "value": 2}
    )
    assert (answer.status, answer.error) == (409, "ERR_STATE_SAVE")
    assert [get(sidecar, key).json for key in "abc"] == [2, 1, 2]


def test_bulk_get(sidecar: Sidecar) -> None:
    save(sidecar, {"key": "a", "value": 12345678901234567890123}, {"key": "b", "value": {"x": 1}})
    answer = send(sidecar.http_address, "PUT", f"{STORE}/bulk", {"keys": ["b", "absent", "a", "b"], "parallelism": 2})
    results = answer.json
    assert [item["key"] for item in results] == ["b", "absent", "a"]  # each once
    assert results[1] == {"key": "absent"}
    assert results[0]["data"] == {"x": 1}
    assert results[0]["etag"] == get(sidecar, "b").headers["etag"]
    request = messages().GetBulkStateRequest(store_name="store", keys=["b", "absent"])
    items = call(sidecar.grpc_address, "GetBulkState", request, "GetBulkStateResponse").message.items
    assert [(item.key, item.data, bool(item.etag)) for item in items] == [
        ("b", b'{"x":1}', True),
        ("absent", b"", False),
    ]


def test_no_operations_and_empty_bodies(sidecar: Sidecar) -> None:
    assert save(sidecar).status == 204
    assert send(sidecar.http_address, "POST", STORE, b"null").status == 204
    for path in (STORE, f"{STORE}/bulk", f"{STORE}/transaction"):
        answer = send(sidecar.http_address, "POST", path, b"")
        assert (answer.status, answer.error) == (400, "ERR_MALFORMED_REQUEST")


@pytest.mark.parametrize(
    "body",
    [
        [1],
        ["k"],
        [{"key": 1, "value": 1}],
        [{"key": "k", "value": 1, "metadata": {"a": 1}}],
        [{"key": "k", "value": 1, "metadata": []}],
        [{"key": "k", "value": 1, "options": "strong"}],
        [{"key": "k", "value": 1, "options": {"concurrency": 1}}],
        "text",
        7,
    ],
)
def test_malformed_saves(sidecar: Sidecar, body: Any) -> None:
    answer = send(sidecar.http_address, "POST", STORE, body)
    assert (answer.status, answer.error) == (400, "ERR_MALFORMED_REQUEST")
    assert get(sidecar, "k").status == 204


def test_names_of_members_in_any_case(sidecar: Sidecar) -> None:
    """As Go's decoder reads them; names of metadata stay as they are."""
    assert save(sidecar, {"Key": "k", "VALUE": {"A": 1}, "Metadata": {"ttlInSeconds": "600"}}).status == 204
    assert get(sidecar, "k").json == {"A": 1}
    assert "metadata.ttlexpiretime" in get(sidecar, "k").headers
    assert send(sidecar.http_address, "POST", f"{STORE}/bulk", {"Keys": ["k"]}).json[0]["data"] == {"A": 1}


def test_keys_in_urls(sidecar: Sidecar) -> None:
    for key, escaped in (("a b", "a%20b"), ("a b", "a+b"), ("a/b", "a%2Fb"), ("ü", "%C3%BC"), ("bulk", "bulk")):
        save(sidecar, {"key": key, "value": key})
        assert get(sidecar, escaped).json == key
        assert send(sidecar.http_address, "DELETE", f"{STORE}/{escaped}").status == 204
        assert get(sidecar, escaped).status == 204
    for escaped in ("%FF", "%zz", "a%2"):
        assert get(sidecar, escaped).status == 400


def test_keys_that_the_store_does_not_take(sidecar: Sidecar) -> None:
    answer = save(sidecar, {"key": "k" * 1025, "value": 1})
    assert (answer.status, answer.error) == (400, "ERR_MALFORMED_REQUEST")
    refused = grpc_save(sidecar, {"key": "a||b", "value": b""})
    assert refused.text == "input key/keyPrefix 'a||b' can't contain '||'"
    assert refused.details["ResourceInfo"].resource_name == "store"
    assert [each.field for each in refused.details["BadRequest"].field_violations] == ["a||b"]


def test_details_over_http(sidecar: Sidecar) -> None:
    """A rich failure has its details in the body, a plain one has none."""
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "dapr.io", "metadata": {"appID": "app"}}
    details = send(sidecar.http_address, "GET", "/v1.0/state/nope/k").json["details"]
    assert details == [{**info, "reason": "DAPR_STATE_NOT_FOUND"}]
    save(sidecar, {"key": "k", "value": 1})
    assert set(save(sidecar, {"key": "k", "value": 1, "etag": "stale"}).json) == {"errorCode", "message"}
    request = messages().GetStateRequest(store_name="nope", key="k")
    assert dict(call(sidecar.grpc_address, "GetState", request).details["ErrorInfo"].metadata) == {}


def test_transaction(sidecar: Sidecar) -> None:
    save(sidecar, {"key": "gone", "value": 1})
    operations = [
        {"operation": "upsert", "request": {"key": "a", "value": "x", "metadata": {"ttlInSeconds": "600"}}},
        {"operation": "delete", "request": {"key": "gone"}},
    ]
    answer = send(
        sidecar.http_address, "POST", f"{STORE}/transaction", {"operations": operations, "metadata": {"m": "1"}}
    )
    assert answer.status == 204
    assert get(sidecar, "a").body == b'"x"'
    assert "metadata.ttlexpiretime" in get(sidecar, "a").headers
    assert get(sidecar, "gone").status == 204


def test_transaction_is_all_or_none(sidecar: Sidecar) -> None:
    save(sidecar, {"key": "b", "value": 1})
    operations = [
        {"operationType": "upsert", "request": {"key": "a", "value": b"1"}},
        {"operationType": "upsert", "request": {"key": "b", "value": b"2", "etag": {"value": "stale"}}},
    ]
    request = messages().ExecuteStateTransactionRequest(storeName="store", operations=operations)
    answer = call(sidecar.grpc_address, "ExecuteStateTransaction", request)
    assert (answer.code, answer.reason) == ("INTERNAL", "ERR_STATE_TRANSACTION")
    assert answer.text.startswith("error while executing state transaction: possible etag mismatch")
    assert get(sidecar, "a").status == 204
    assert get(sidecar, "b").json == 1


def test_bulk_delete(sidecar: Sidecar) -> None:
    save(sidecar, *({"key": key, "value": 1} for key in "abc"))
    etag = get(sidecar, "a").headers["etag"]
    request = messages().DeleteBulkStateRequest(
        store_name="store",
        states=[{"key": "a", "etag": {"value": etag}}, {"key": "b", "etag": {"value": "stale"}}, {"key": "c"}],
    )
    answer = call(sidecar.grpc_address, "DeleteBulkState", request)
    assert (answer.code, answer.reason) == ("ABORTED", "ERR_STATE_BULK_DELETE")
    assert [get(sidecar, key).status for key in "abc"] == [204, 200, 204]


# -- the official SDK ---------------------------------------------------------


def test_sdk_state(sdk: Sdk) -> None:
    from dapr.clients.grpc._state import Concurrency, Consistency, StateItem, StateOptions

    sdk.call("save_state", "store", "sdk-k", "value")
    reply = sdk.call("get_state", "store", "sdk-k")
    assert reply.data == b"value"
    assert reply.etag
    absent = sdk.call("get_state", "store", "sdk-absent")
    assert (absent.data, absent.etag) == (b"", "")
    options = StateOptions(concurrency=Concurrency.first_write, consistency=Consistency.strong)
    sdk.call("save_state", "store", "sdk-k", json.dumps({"a": 1}), etag=reply.etag, options=options)
    again = sdk.call("get_state", "store", "sdk-k")
    assert again.json() == {"a": 1}
    metadata = {"contentType": "application/json", "ttlInSeconds": "600"}
    sdk.call("save_bulk_state", "store", [StateItem("sdk-a", "1", metadata=metadata), StateItem("sdk-b", "text")])
    bulk = sdk.call("get_bulk_state", "store", ["sdk-a", "sdk-b", "sdk-absent"], parallelism=2)
    assert [(item.key, item.data, item.error) for item in bulk.items] == [
        ("sdk-a", b"1", ""),
        ("sdk-b", b"text", ""),
        ("sdk-absent", b"", ""),
    ]
    assert sdk.ours.state.get("store", "sdk-a") == 1
    item = sdk.ours.state.get_item("store", "sdk-a")
    assert item is not None
    assert item.expires_at is not None
    sdk.call("delete_state", "store", "sdk-k", etag=again.etag, options=options)
    assert sdk.call("get_state", "store", "sdk-k").data == b""


def test_sdk_state_transaction(sdk: Sdk) -> None:
    from dapr.clients.grpc._request import TransactionalStateOperation, TransactionOperationType

    sdk.call("save_state", "store", "sdk-gone", "x")
    operations = [
        TransactionalStateOperation(key="sdk-t", data="1"),
        TransactionalStateOperation(key="sdk-gone", data="", operation_type=TransactionOperationType.delete),
    ]
    sdk.call("execute_state_transaction", "store", operations, transactional_metadata={"partitionKey": "p"})
    assert sdk.call("get_state", "store", "sdk-t").data == b"1"
    assert sdk.call("get_state", "store", "sdk-gone").etag == ""


def test_sdk_state_refusals(sdk: Sdk) -> None:
    sdk.call("save_state", "store", "sdk-k", "1")
    code, text = sdk.refused("save_state", "store", "sdk-k", "2", etag="stale")
    assert code in ("ABORTED", None)  # the asynchronous client keeps the text alone
    assert "possible etag mismatch" in text
    assert sdk.refused("get_state", "nope", "k") == ("INVALID_ARGUMENT", "state store nope is not found")
    with pytest.warns(UserWarning, match="Query API"):
        code, text = sdk.refused("query_state", "store", "{}")
    assert (code, text) == ("INTERNAL", "state store does not support querying")
