"""Requests that are sent to a real daprd and to a sidecar of ours alike, for `against_daprd.py` to compare the answers.

Both have state, pub/sub, secrets and a binding of files under the same names, and an application that echoes calls. ``{etag}`` stands for the etag that came last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.sidecar.rows import Http

__all__ = ["DELIVERIES", "HTTP", "LOCKS", "RPC", "SUBSCRIPTIONS", "Step"]


class Step(NamedTuple):
    """Call over gRPC: method, the names of its messages, the fields of its request."""

    method: str
    request: str
    reply: str
    fields: dict[str, Any]


SUBSCRIPTIONS: tuple[dict[str, Any], ...] = (
    {"pubsubname": "bus", "topic": "loud", "route": "/events"},
    {"pubsubname": "bus", "topic": "raw", "route": "/raw", "metadata": {"rawPayload": "true"}},
    {
        "pubsubname": "bus",
        "topic": "routed",
        "routes": {
            "rules": [{"match": 'event.type == "special"', "path": "/special"}, {"match": "event.data.n > 5", "path": "/large"}],
            "default": "/rest",
        },
    },
    {"pubsubname": "bus", "topic": "bulk", "route": "/bulk", "bulkSubscribe": {"enabled": True, "maxMessagesCount": 3, "maxAwaitDurationMs": 500}},
)  # fmt: skip
"""What the application asks for."""

_CE = {"content-type": "application/cloudevents+json"}
_P = "/v1.0/publish/bus"
DELIVERIES: tuple[tuple[Http, ...], ...] = (
    (Http("POST", f"{_P}/loud", {"a": [1, 1.5, "ü", None]}),),
    (Http("POST", f"{_P}/loud", b"text", {"content-type": "text/plain"}),),
    (Http("POST", f"{_P}/loud", b"\x00\xff", {"content-type": "application/octet-stream"}),),
    (Http("POST", f"{_P}/loud", b"<a/>", {"content-type": "application/xml"}),),
    (Http("POST", f"{_P}/loud", b"no type", {"content-type": ""}),),
    (Http("POST", f"{_P}/loud", b"{", {"content-type": "application/json"}),),
    (Http("POST", f"{_P}/loud", b'"just text"', {"content-type": "application/json"}),),
    (Http("POST", f"{_P}/loud?metadata.cloudevent.type=special&metadata.cloudevent.subject=s&metadata.cloudevent.id=mine", {"a": 1}),),
    (Http("POST", f"{_P}/loud", {"a": 1}, {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}),),
    (Http("POST", f"{_P}/loud", {"specversion": "1.0", "id": "own", "type": "t", "source": "s", "data": {"a": 1}, "extra": "x"}, _CE),),
    (Http("POST", f"{_P}/loud", {"id": "bare"}, _CE),),
    (Http("POST", f"{_P}/loud", {"id": "b64", "datacontenttype": "image/png", "data_base64": "AAE="}, _CE),),
    (Http("POST", f"{_P}/loud?metadata.rawPayload=true", {"id": "r", "data": 1}),),
    (Http("POST", f"{_P}/raw?metadata.rawPayload=true", {"a": 1}),),
    (Http("POST", f"{_P}/raw?metadata.rawPayload=true", b"\x00\x01", {"content-type": "application/octet-stream"}),),
    (Http("POST", f"{_P}/raw", {"a": 1}),),
    (Http("POST", f"{_P}/routed?metadata.cloudevent.type=special", {"n": 9}),),
    (Http("POST", f"{_P}/routed", {"n": 9}),),
    (Http("POST", f"{_P}/routed", {"n": 1}),),
    (Http("POST", "/v1.0/publish/bulk/bus/loud", [{"entryId": "1", "event": {"a": 1}, "contentType": "application/json", "metadata": {"cloudevent.subject": "s"}}]),),
    tuple(Http("POST", f"{_P}/bulk", {"n": n}) for n in range(3)),
)  # fmt: skip
"""Publications, after each of which the application gets one request."""

_LOCK = "/v1.0-alpha1/lock/locks"
_UNLOCK = "/v1.0-alpha1/unlock/locks"
LOCKS: tuple[Http, ...] = (
    Http("POST", _LOCK, {"resourceId": "r", "lockOwner": "o", "expiryInSeconds": 60}),
    Http("POST", _LOCK, {"resourceId": "r", "lockOwner": "o", "expiryInSeconds": 60}),
    Http("POST", _LOCK, {"resourceId": "r", "lockOwner": "other", "expiryInSeconds": 60}),
    Http("POST", _UNLOCK, {"resourceId": "r", "lockOwner": "other"}),
    Http("POST", _UNLOCK, {"resourceId": "r", "lockOwner": "o"}),
    Http("POST", _UNLOCK, {"resourceId": "r", "lockOwner": "o"}),
    Http("POST", _LOCK, {"resourceId": "", "lockOwner": "o", "expiryInSeconds": 60}),
    Http("POST", _LOCK, {"resourceId": "r", "lockOwner": "", "expiryInSeconds": 60}),
    Http("POST", _LOCK, {"resourceId": "r", "lockOwner": "o"}),
    Http("POST", _LOCK, {"resourceId": "r", "lockOwner": "o", "expiryInSeconds": -1}),
    Http("POST", _LOCK, b"{"),
    Http("POST", _UNLOCK, {"resourceId": "", "lockOwner": "o"}),
    Http("POST", _UNLOCK, {"resourceId": "r", "lockOwner": ""}),
    Http("POST", "/v1.0-alpha1/lock/nope", {"resourceId": "r", "lockOwner": "o", "expiryInSeconds": 60}),
    Http("GET", "/v1.0/configuration/settings?key=absent"),
    Http("GET", "/v1.0/configuration/settings"),
    Http("GET", "/v1.0/configuration/settings/nothing/unsubscribe"),
    Http("GET", "/v1.0/configuration/nope"),
)
"""For stores of locks and configuration, which daprd has in Redis alone."""

S = "/v1.0/state/store"
T = f"{S}/transaction"
P = "/v1.0/publish/bus"
B = "/v1.0/bindings/files"


def _save(*items: Any, **headers: str) -> Http:
    return Http("POST", S, list(items), headers)


def _upsert(key: str, **more: Any) -> dict[str, Any]:
    return {"operation": "upsert", "request": {"key": key, "value": 1, **more}}


HTTP: tuple[Http, ...] = (
    # state: reading
    Http("GET", f"{S}/absent"),
    Http("GET", f"{S}/absent?consistency=strong"),
    Http("GET", f"{S}/absent?consistency=wrong"),
    Http("GET", "/v1.0/state/nope/k"),
    Http("GET", f"{S}/a%7C%7Cb"),
    Http("GET", f"{S}/a%2Fb"),
    Http("GET", f"{S}/a/b"),
    Http("GET", f"{S}/%zz"),
    Http("GET", S),
    Http("GET", f"{S}/"),
    Http("PATCH", f"{S}/k"),
    Http("HEAD", f"{S}/k"),
    Http("OPTIONS", f"{S}/k"),
    # state: values
    _save({"key": "text", "value": "v"}),
    Http("GET", f"{S}/text"),
    _save({"key": "number", "value": 1.5}),
    Http("GET", f"{S}/number"),
    Http("POST", S, b'[{"key":"big","value":12345678901234567890}]', {"content-type": "application/json"}),
    Http("GET", f"{S}/big"),
    _save({"key": "null", "value": None}),
    Http("GET", f"{S}/null"),
    _save({"key": "object", "value": {"b": 1, "a": "<ü&>", "list": [True, None]}}),
    Http("GET", f"{S}/object"),
    _save({"key": "without"}),
    Http("GET", f"{S}/without"),
    _save({"key": "a b+c?", "value": 1}),
    Http("GET", f"{S}/a%20b%2Bc%3F"),
    Http("GET", f"{S}/a+b%2Bc%3F"),
    _save({"key": "bytes", "value": "AQI=", "metadata": {"contentType": "application/octet-stream"}}),
    Http("GET", f"{S}/bytes"),
    Http("GET", f"{S}/text?metadata.a=b"),
    Http("GET", f"{S}/text/"),
    # state: conditions
    _save({"key": "k", "value": 1}),
    Http("GET", f"{S}/k"),
    _save({"key": "k", "value": 2, "etag": "{etag}"}),
    _save({"key": "k", "value": 3, "etag": "{etag}"}),
    _save({"key": "k", "value": 3, "etag": "no-etag"}),
    _save({"key": "k", "value": 3, "etag": ""}),
    _save({"key": "k", "value": 3, "etag": "no-etag", "options": {"concurrency": "last-write"}}),
    _save({"key": "k", "value": 3, "options": {"concurrency": "first-write"}}),
    _save({"key": "new", "value": 3, "options": {"concurrency": "first-write"}}),
    _save({"key": "new", "value": 3, "options": {"concurrency": "first-write"}}),
    _save({"key": "new2", "value": 3, "etag": "x"}),
    _save({"key": "k", "value": 3, "options": {"concurrency": "best"}}),
    _save({"key": "k", "value": 3, "options": {"consistency": "best"}}),
    _save({"key": "k", "value": 3, "options": {"consistency": "strong"}}),
    _save({"key": "many1", "value": 1}, {"key": "k", "value": 1, "etag": "no-etag"}, {"key": "many2", "value": 2}),
    Http("GET", f"{S}/many2"),
    # state: what is malformed
    Http("POST", S, b"{"),
    Http("POST", S, b""),
    Http("POST", S, {"key": "k", "value": 1}),
    Http("POST", S, []),
    Http("POST", S, None),
    Http("POST", S, b"null"),
    _save({"value": 1}),
    _save({"key": "", "value": 1}),
    _save({"key": 1, "value": 1}),
    _save({"key": "k", "value": 1, "etag": 1}),
    _save({"key": "a||b", "value": 1}),
    Http("PUT", S, [{"key": "put", "value": 1}]),
    Http("POST", "/v1.0/state/nope", [{"key": "k", "value": 1}]),
    Http("POST", "/v1.0/state/nope", b"{"),
    Http("POST", S, [{"key": "huge", "value": "x" * (4 << 20)}]),
    Http("POST", S, [{"KEY": "case", "Value": 1}]),
    # state: time to live
    _save({"key": "ttl", "value": 1, "metadata": {"ttlInSeconds": "100"}}),
    Http("GET", f"{S}/ttl"),
    _save({"key": "ttl", "value": 1}),
    Http("GET", f"{S}/ttl"),
    _save({"key": "ttl", "value": 1, "metadata": {"ttlInSeconds": "soon"}}),
    _save({"key": "ttl", "value": 1, "metadata": {"ttlInSeconds": "0"}}),
    _save({"key": "ttl", "value": 1, "metadata": {"ttlInSeconds": "-1"}}),
    _save({"key": "ttl", "value": 1, "metadata": {"ttlInSeconds": "-5"}}),
    Http("POST", f"{S}?metadata.ttlInSeconds=100", [{"key": "ttl2", "value": 1}]),
    Http("GET", f"{S}/ttl2"),
    # state: bulk
    Http("POST", f"{S}/bulk", {"keys": ["text", "object", "absent", "ttl2"]}),
    Http("PUT", f"{S}/bulk", {"keys": ["number"], "parallelism": 2}),
    Http("POST", f"{S}/bulk", {"keys": []}),
    Http("POST", f"{S}/bulk", {}),
    Http("POST", f"{S}/bulk", b"["),
    Http("POST", f"{S}/bulk", {"keys": "text"}),
    Http("POST", f"{S}/bulk", {"keys": ["a||b"]}),
    Http("POST", "/v1.0/state/nope/bulk", {"keys": ["a"]}),
    # state: transactions
    Http("POST", T, {"operations": [_upsert("t1"), {"operation": "delete", "request": {"key": "text"}}]}),
    Http("GET", f"{S}/t1"),
    Http("GET", f"{S}/text"),
    Http("POST", T, {"operations": [_upsert("t2"), _upsert("t1", etag="no-etag")]}),
    Http("GET", f"{S}/t2"),
    Http("POST", T, {"operations": []}),
    Http("POST", T, {}),
    Http("POST", T, b"{"),
    Http("POST", T, {"operations": [{"operation": "increment", "request": {"key": "k"}}]}),
    Http("POST", T, {"operations": [{"operation": "upsert", "request": {"value": 1}}]}),
    Http("POST", T, {"operations": [_upsert("a||b")]}),
    Http("POST", T, {"operations": [_upsert("t3", metadata={"ttlInSeconds": "soon"})]}),
    Http("POST", "/v1.0/state/nope/transaction", {"operations": []}),
    # state: deleting and querying
    Http("DELETE", f"{S}/absent"),
    Http("DELETE", f"{S}/t1", None, {"if-match": "no-etag"}),
    Http("DELETE", f"{S}/absent", None, {"if-match": "no-etag"}),
    Http("GET", f"{S}/t1"),
    Http("DELETE", f"{S}/t1", None, {"if-match": "{etag}"}),
    Http("DELETE", f"{S}/t1?concurrency=best"),
    Http("DELETE", f"{S}/a%7C%7Cb"),
    Http("DELETE", "/v1.0/state/nope/k"),
    Http("POST", "/v1.0-alpha1/state/store/query", {"filter": {}}),
    Http("POST", "/v1.0-alpha1/state/nope/query", {"filter": {}}),
    # publishing
    Http("POST", f"{P}/quiet", {"a": 1}),
    Http("PUT", f"{P}/quiet", b"text", {"content-type": "text/plain"}),
    Http("POST", f"{P}/deep/topic", {"a": 1}),
    Http("POST", f"{P}/quiet?metadata.rawPayload=true", {"a": 1}),
    Http("POST", f"{P}/quiet?metadata.rawPayload=perhaps", {"a": 1}),
    Http("POST", f"{P}/quiet?metadata.ttlInSeconds=soon", {"a": 1}),
    Http("POST", "/v1.0/publish/nope/quiet", {"a": 1}),
    Http("POST", P, {"a": 1}),
    Http("POST", f"{P}/", {"a": 1}),
    Http("POST", f"{P}/quiet", {"specversion": "1.0"}, {"content-type": "application/cloudevents+json"}),
    Http("POST", f"{P}/quiet", b"{", {"content-type": "application/cloudevents+json"}),
    Http("POST", f"{P}/quiet", b"{", {"content-type": "application/json"}),
    Http("POST", "/v1.0/publish/bulk/bus/quiet", [{"entryId": "1", "event": "a", "contentType": "text/plain"}]),
    Http("POST", "/v1.0-alpha1/publish/bulk/bus/quiet", [{"entryId": "1", "event": 1, "contentType": "application/json"}]),
    Http("POST", "/v1.0/publish/bulk/bus/quiet", [{"entryId": "1", "event": 1}, {"entryId": "1", "event": 2}]),
    Http("POST", "/v1.0/publish/bulk/bus/quiet", [{"event": 1}]),
    Http("POST", "/v1.0/publish/bulk/bus/quiet", {"entryId": "1"}),
    Http("POST", "/v1.0/publish/bulk/bus/quiet", []),
    Http("POST", "/v1.0/publish/bulk/nope/quiet", []),
    # secrets
    Http("GET", "/v1.0/secrets/vault/one"),
    Http("GET", "/v1.0/secrets/vault/nested:inner"),
    Http("GET", "/v1.0/secrets/vault/absent"),
    Http("GET", "/v1.0/secrets/vault/bulk"),
    Http("GET", "/v1.0/secrets/nope/one"),
    Http("GET", "/v1.0/secrets/nope/bulk"),
    Http("GET", "/v1.0/secrets/vault"),
    # configuration and locks: there are none
    Http("GET", "/v1.0/configuration/nope?key=a"),
    Http("GET", "/v1.0/configuration/nope/subscribe"),
    Http("GET", "/v1.0/configuration/nope/id/unsubscribe"),
    Http("POST", "/v1.0-alpha1/lock/nope", {"resourceId": "r", "lockOwner": "o", "expiryInSeconds": 5}),
    Http("POST", "/v1.0-alpha1/unlock/nope", {"resourceId": "r", "lockOwner": "o"}),
    # bindings
    Http("POST", B, {"operation": "create", "data": "hello", "metadata": {"fileName": "a.txt"}}),
    Http("POST", B, {"operation": "get", "metadata": {"fileName": "a.txt"}}),
    Http("POST", B, {"operation": "create", "data": {"a": 1}, "metadata": {"fileName": "b.json"}}),
    Http("POST", B, {"operation": "get", "metadata": {"fileName": "b.json"}}),
    Http("POST", B, {"operation": "create", "data": "aGVsbG8=", "metadata": {"fileName": "c.txt"}}),
    Http("POST", B, {"operation": "get", "metadata": {"fileName": "c.txt"}}),
    Http("POST", B, {"operation": "list"}),
    Http("POST", B, {"operation": "get", "metadata": {"fileName": "absent"}}),
    Http("POST", B, {"operation": "get", "metadata": {"fileName": "../outside"}}),
    Http("POST", B, {"operation": "get"}),
    Http("POST", B, {"operation": "delete", "metadata": {"fileName": "a.txt"}}),
    Http("POST", B, {"operation": "delete", "metadata": {"fileName": "a.txt"}}),
    Http("POST", B, {"operation": "explode"}),
    Http("POST", B, {}),
    Http("POST", B, b"{"),
    Http("POST", "/v1.0/bindings/nope", {"operation": "get"}),
    # calls of the application
    Http("POST", "/v1.0/invoke/app/method/echo", {"a": 1}),
    Http("GET", "/v1.0/invoke/app/method/echo/deep?q=1&q=2", None, {"x-mine": "v"}),
    Http("PUT", "/v1.0/invoke/app/method/echo", b"text", {"content-type": "text/plain"}),
    Http("DELETE", "/v1.0/invoke/app/method/echo"),
    Http("PATCH", "/v1.0/invoke/app/method/echo", {"a": 1}),
    Http("POST", "/v1.0/invoke/app/method/status/404", {"a": 1}),
    Http("POST", "/v1.0/invoke/app/method/status/500", {"a": 1}),
    Http("POST", "/v1.0/invoke/app/method/status/204", {"a": 1}),
    Http("GET", "/v1.0/invoke/app/method/a/../echo"),
    Http("GET", "/v1.0/invoke/app/method/"),
    Http("GET", "/v1.0/invoke/app/echo"),
    Http("GET", "/v1.0/invoke/app.default/method/echo"),
    Http("GET", "/echo", None, {"dapr-app-id": "app"}),
    Http("GET", "/echo"),
    # the sidecar itself
    Http("GET", "/v1.0/healthz"),
    Http("GET", "/v1.0/healthz?appid=app"),
    Http("GET", "/v1.0/healthz?appid=other"),
    Http("GET", "/v1.0/healthz/outbound"),
    Http("PUT", "/v1.0/metadata/colour", b"red"),
    Http("GET", "/v1.0/metadata"),
    Http("GET", "/v1.0/nothing"),
    Http("GET", "/nothing"),
    # jobs
    Http("POST", "/v1.0/jobs/j1", {"schedule": "@every 1h", "data": {"a": 1}}),
    Http("POST", "/v1.0/jobs/j1", {"schedule": "@every 1h"}),
    Http("POST", "/v1.0/jobs/j1", {"schedule": "@every 1h", "overwrite": True, "data": {"a": 1}}),
    Http("GET", "/v1.0/jobs/j1"),
    Http("POST", "/v1.0-alpha1/jobs/j2", {"dueTime": "1h", "repeats": 1, "data": "text"}),
    Http("GET", "/v1.0-alpha1/jobs/j2"),
    Http("POST", "/v1.0/jobs/j3", {}),
    Http("POST", "/v1.0/jobs/j3", {"schedule": "sometimes"}),
    Http("POST", "/v1.0/jobs/j3", {"name": "other", "schedule": "@daily"}),
    Http("POST", "/v1.0/jobs/j3", b"{"),
    Http("POST", "/v1.0/jobs/no%2Fname", {"schedule": "@daily"}),
    Http("GET", "/v1.0/jobs/absent"),
    Http("DELETE", "/v1.0/jobs/j1"),
    Http("DELETE", "/v1.0/jobs/absent"),
    # not there
    Http("POST", "/v1.0/actors/type/id/method/m", {}),
    Http("GET", "/v1.0/workflows/dapr/id"),
    Http("POST", "/v1.0-alpha2/conversation/nope/converse", {"inputs": []}),
    Http("PUT", "/v1.0-alpha1/crypto/nope/encrypt", b"x"),
)  # fmt: skip


def _state(method: str, reply: str = "Empty", **fields: Any) -> Step:
    return Step(method, f"{method.removesuffix('Alpha1')}Request", reply, {"store_name": "store", **fields})


def _transact(*operations: Any) -> Step:
    fields = {"storeName": "store", "operations": list(operations)}
    return Step("ExecuteStateTransaction", "ExecuteStateTransactionRequest", "Empty", fields)


def _get(key: str, **fields: Any) -> Step:
    return _state("GetState", "GetStateResponse", key=key, **fields)


def _publish(**fields: Any) -> Step:
    return Step("PublishEvent", "PublishEventRequest", "Empty", {"pubsub_name": "bus", "topic": "quiet", **fields})


RPC: tuple[Step, ...] = (
    _get("absent"),
    _get("a||b"),
    _get(""),
    _get("k", store_name="nope"),
    _state("SaveState", states=[{"key": "k", "value": b"\x00\xff"}]),
    _get("k"),
    _state("SaveState", states=[{"key": "k", "value": b"2", "etag": {"value": "{etag}"}}]),
    _state("SaveState", states=[{"key": "k", "value": b"3", "etag": {"value": "{etag}"}}]),
    _state("SaveState", states=[{"key": "k", "value": b"3", "etag": {"value": ""}}]),
    _state("SaveState", states=[{"key": "k", "value": b"3", "options": {"concurrency": 1}}]),
    _state("SaveState", states=[{"key": "k", "value": b"3", "options": {"concurrency": 9}}]),
    _state("SaveState", states=[]),
    _state("SaveState", states=[{"value": b"1"}]),
    _state("SaveState", states=[{"key": "a||b", "value": b"1"}]),
    _state("SaveState", states=[{"key": "e", "value": b""}]),
    _get("e"),
    _state("SaveState", states=[{"key": "j", "value": b'{"b": 1.50}', "metadata": {"contentType": "application/json"}}]),
    _get("j"),
    _state("SaveState", states=[{"key": "j", "value": b"{", "metadata": {"contentType": "application/json"}}]),
    _state("SaveState", states=[{"key": "t", "value": b"1", "metadata": {"ttlInSeconds": "100"}}]),
    _get("t"),
    _state("SaveState", states=[{"key": "t", "value": b"1", "metadata": {"ttlInSeconds": "soon"}}]),
    _state("SaveState", states=[{"key": "x"}, {"key": "y"}], store_name="nope"),
    _state("GetBulkState", "GetBulkStateResponse", keys=["k", "absent", "t"]),
    _state("GetBulkState", "GetBulkStateResponse", keys=[]),
    _state("GetBulkState", "GetBulkStateResponse", keys=["a||b"]),
    _state("GetBulkState", "GetBulkStateResponse", keys=["k"], store_name="nope"),
    _state("DeleteState", key="absent"),
    _state("DeleteState", key="k", etag={"value": "no-etag"}),
    _state("DeleteState", key=""),
    _state("DeleteState", key="a||b"),
    _state("DeleteBulkState", states=[{"key": "k"}, {"key": "absent"}]),
    _state("DeleteBulkState", states=[{"key": "t", "etag": {"value": "no-etag"}}]),
    _state("DeleteBulkState", states=[]),
    _transact({"operationType": "upsert", "request": {"key": "t1", "value": b"1"}}),
    _transact({"operationType": "upsert", "request": {"key": "t1", "value": b"1", "etag": {"value": "no-etag"}}}),
    _transact({"operationType": "increment", "request": {"key": "t1"}}),
    _transact({"operationType": "upsert", "request": {"key": "a||b", "value": b"1"}}),
    _transact(),
    Step("ExecuteStateTransaction", "ExecuteStateTransactionRequest", "Empty", {"storeName": "nope"}),
    Step("QueryStateAlpha1", "QueryStateRequest", "QueryStateResponse", {"store_name": "store", "query": "{}"}),
    _publish(data=b'{"a":1}', data_content_type="application/json"),
    _publish(data=b"text"),
    _publish(data=b"x", pubsub_name="nope"),
    _publish(data=b"x", pubsub_name=""),
    _publish(data=b"x", topic=""),
    _publish(data=b"x", metadata={"rawPayload": "perhaps"}),
    _publish(data=b"{", data_content_type="application/cloudevents+json"),
    Step("BulkPublishEvent", "BulkPublishRequest", "BulkPublishResponse", {"pubsub_name": "bus", "topic": "quiet", "entries": [{"entry_id": "1", "event": b"a", "content_type": "text/plain"}]}),
    Step("BulkPublishEvent", "BulkPublishRequest", "BulkPublishResponse", {"pubsub_name": "bus", "topic": "quiet", "entries": [{"entry_id": "", "event": b"a"}]}),
    Step("BulkPublishEventAlpha1", "BulkPublishRequest", "BulkPublishResponse", {"pubsub_name": "nope", "topic": "quiet", "entries": []}),
    Step("GetSecret", "GetSecretRequest", "GetSecretResponse", {"store_name": "vault", "key": "one"}),
    Step("GetSecret", "GetSecretRequest", "GetSecretResponse", {"store_name": "vault", "key": "absent"}),
    Step("GetSecret", "GetSecretRequest", "GetSecretResponse", {"store_name": "nope", "key": "one"}),
    Step("GetBulkSecret", "GetBulkSecretRequest", "GetBulkSecretResponse", {"store_name": "vault"}),
    Step("GetConfiguration", "GetConfigurationRequest", "GetConfigurationResponse", {"store_name": "nope"}),
    Step("TryLockAlpha1", "TryLockRequest", "TryLockResponse", {"store_name": "nope", "resource_id": "r", "lock_owner": "o", "expiry_in_seconds": 5}),
    Step("UnlockAlpha1", "UnlockRequest", "UnlockResponse", {"store_name": "nope", "resource_id": "r", "lock_owner": "o"}),
    Step("InvokeBinding", "InvokeBindingRequest", "InvokeBindingResponse", {"name": "files", "operation": "create", "data": b"hello", "metadata": {"fileName": "g.txt"}}),
    Step("InvokeBinding", "InvokeBindingRequest", "InvokeBindingResponse", {"name": "files", "operation": "get", "metadata": {"fileName": "g.txt"}}),
    Step("InvokeBinding", "InvokeBindingRequest", "InvokeBindingResponse", {"name": "files", "operation": "get", "metadata": {"fileName": "absent"}}),
    Step("InvokeBinding", "InvokeBindingRequest", "InvokeBindingResponse", {"name": "nope", "operation": "get"}),
    Step("InvokeService", "InvokeServiceRequest", "InvokeResponse", {"id": "app", "message": {"method": "echo", "content_type": "application/json", "http_extension": {"verb": 3}}}),
    Step("InvokeService", "InvokeServiceRequest", "InvokeResponse", {"id": "app", "message": {"method": "status/404", "http_extension": {"verb": 3}}}),
    Step("InvokeService", "InvokeServiceRequest", "InvokeResponse", {"id": "app", "message": {"method": "status/400", "http_extension": {"verb": 3}}}),
    Step("InvokeService", "InvokeServiceRequest", "InvokeResponse", {"id": "app", "message": {"method": "echo"}}),
    Step("InvokeService", "InvokeServiceRequest", "InvokeResponse", {"id": "app"}),
    Step("SetMetadata", "SetMetadataRequest", "Empty", {"key": "colour", "value": "blue"}),
    Step("GetMetadata", "GetMetadataRequest", "GetMetadataResponse", {}),
)  # fmt: skip
