"""The runtime dapr: what it is told, what it refuses before any I/O, and what it makes of a sidecar's answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, errors
from cloud_runtimes.codec.payload import JSON, MSGPACK, OCTETS
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.errors import (
    CloudRuntimesError,
    ConflictError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.runtimes._sidecar.runtime import target
from cloud_runtimes.runtimes._sidecar.stores import unwrap, wrap
from cloud_runtimes.runtimes._sidecar.transport import ErrorReply
from cloud_runtimes.runtimes.dapr.transport import error
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.canary import Canary
from tests.sidecar_client.dapr_peer import Peer, client, peer
from tests.support.listening import Listener

__all__ = ["client", "peer"]


# -- what it is told -----------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "endpoint", "url"),
    [
        ({}, None, "http://127.0.0.1:3500"),
        ({"DAPR_HTTP_PORT": "3501"}, None, "http://127.0.0.1:3501"),
        ({"DAPR_HTTP_PORT": "3501", "DAPR_RUNTIME_HOST": "sidecar"}, None, "http://sidecar:3501"),
        ({"DAPR_HTTP_PORT": "3501", "DAPR_HTTP_ENDPOINT": "https://h/x"}, None, "https://h/x"),
        ({"DAPR_HTTP_ENDPOINT": "https://h/x"}, "http://given:1", "http://given:1"),
    ],
)
def test_where_the_sidecar_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], endpoint: str | None, url: str
) -> None:
    for name in ("DAPR_HTTP_PORT", "DAPR_RUNTIME_HOST", "DAPR_HTTP_ENDPOINT", "DAPR_GRPC_PORT", "DAPR_GRPC_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with CloudRuntimesClient(endpoint, runtime="dapr") as client:
        runtime: Any = client._context.runtime()
        assert runtime.transport.url == url


def test_endpoints_that_are_none(subtests: pytest.Subtests) -> None:
    for endpoint in ("localhost:3500", "ftp://localhost", "grpc://", "unix:", "grpc://h/path", "grpc://h:1?x=1"):
        with subtests.test(endpoint=endpoint):
            with CloudRuntimesClient(endpoint) as client, pytest.raises(InvalidArgumentError, match="endpoint"):
                client.state.get("s", "k")


def test_grpc_addresses(subtests: pytest.Subtests) -> None:
    for address, name, secure in (
        ("grpc://h", "h:50001", False),
        ("grpc://h:7", "h:7", False),
        ("grpcs://h", "h:443", True),
        ("http://h:7", "h:7", False),
        ("https://h", "h:443", True),
        ("h:7", "h:7", False),
        ("[::1]:7", "[::1]:7", False),
        ("dns:h:7?tls=true", "h:7", True),
        ("dns:///h", "/h", None),
        ("unix:/run/x", "unix:/run/x", False),
        ("unix:///run/x", "unix:/run/x", False),
    ):
        with subtests.test(address=address, name=name):
            if secure is None:
                with pytest.raises(InvalidArgumentError, match="here"):
                    target(address, "here", 50001)
            else:
                assert target(address, "here", 50001) == (name, secure)


def test_both_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAPR_HTTP_ENDPOINT", "DAPR_GRPC_ENDPOINT", "DAPR_RUNTIME_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAPR_HTTP_PORT", "3501")
    monkeypatch.setenv("DAPR_GRPC_PORT", "50002")
    with CloudRuntimesClient() as client:
        runtime: Any = client._context.runtime()
        assert runtime.transport.url == "http://127.0.0.1:3501 and grpc://127.0.0.1:50002"
        assert not runtime.transport.buffers_calls
    config = {"dapr": {"grpc_endpoint": "grpc://g:1"}}
    with CloudRuntimesClient("http://h:2", config=config) as client:
        runtime = client._context.runtime()
        assert (runtime.transport.url, runtime.transport.buffers_calls) == ("http://h:2 and grpc://g:1", False)
    with CloudRuntimesClient("grpc://g:1") as client:
        runtime = client._context.runtime()
        assert runtime.transport.buffers_calls


def test_what_dapr_has_not_is_refused_before_any_request(client: CloudRuntimesClient, peer: Peer) -> None:
    assert not client.supports("actors")
    for service in ("file.copy", "database.transaction", "schedule.run_now", "lock.renew", "configuration.write"):
        assert not client.supports(service)
    assert client.supports("state.ttl", "any")
    assert not client.supports("state.fence")
    with pytest.raises(UnsupportedError):
        client.state.list_keys("s")
    with pytest.raises(UnsupportedError):
        client.state.save("s", "k", 1, fence=1)
    assert peer.asked == []


def test_components_in_the_configuration_are_refused() -> None:
    config = {"state": {"orders": {"component": "sqlite"}}}
    with CloudRuntimesClient("http://h", config=config) as client:
        with pytest.raises(InvalidArgumentError, match=r"\[state.orders\]: the sidecar has the components"):
            client.state.get("orders", "k")
    with CloudRuntimesClient("http://h", config={"dapr": {"port": 1}}) as client:
        with pytest.raises(InvalidArgumentError, match="unknown setting, key 1 of the table; known: grpc_endpoint"):
            client.state.get("orders", "k")


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}", "grpc://127.0.0.1:{}"])
@pytest.mark.parametrize("listens", [False, True], ids=["refuses", "hangs up"])
def test_errors_of_a_sidecar_that_is_away_hold_no_token(api: Api, url: str, listens: bool, canary: Canary) -> None:
    with Listener(lambda connection: connection.recv(65536)) as server:
        if not listens:
            server.close()
        address = url.format(server.port)
        with CloudRuntimesClient(address, api_token=canary.value(), timeout=2) as client:
            with canary.raises(CloudRuntimesError):
                api.call(client.state, "get", "s", "k")
            with canary.raises(CloudRuntimesError):
                api.call(client.state, "save", "s", "k", 1, etag="1")


def test_waiting_until_it_is_ready(tmp_path: Path, api: Api, peer: Peer) -> None:
    peer.says(500, b"not yet")
    with CloudRuntimesClient(peer.url) as client:
        api.fails(DeadlineExceededError, match=r"not ready yet \(status 500\)")(client, "wait_ready", timeout=0.2)
        peer.says(204, b"")
        api.call(client, "wait_ready")
    beneath = CloudRuntimesClient(config={"capa": {"home": str(tmp_path)}}, app_id="x")
    settings = SidecarSettings(app_id="x", http_port=0, grpc_port=None)
    with beneath, Sidecar(beneath, settings) as sidecar, CloudRuntimesClient(sidecar.http_address) as client:
        api.call(client, "wait_ready")


def test_nobody_there(api: Api) -> None:
    with CloudRuntimesClient("http://127.0.0.1:1") as client:
        error = api.fails(UnavailableError, match="cloud-runtimes serve, dapr run")(client.state, "save", "s", "k", 1)
        assert not error.maybe_applied
        assert error.runtime == "dapr"


def test_the_token_goes_along_and_its_refusal_is_told(client: CloudRuntimesClient, peer: Peer, api: Api) -> None:
    assert api.call(client.state, "get", "s", "k") is None
    api.call(client.rpc, "invoke", "app", "m", headers={"x-mine": "1"})
    assert [headers["dapr-api-token"] for _, _, headers, _ in peer.asked] == ["hidden"] * 2
    peer.says(401, b"invalid api token")
    for attempt in (("state", "get", "s", "k"), ("rpc", "invoke", "app", "m")):
        error = api.fails(UnauthenticatedError, match="give its DAPR_API_TOKEN")(
            getattr(client, attempt[0]), *attempt[1:]
        )
        assert "hidden" not in repr(error)


# -- state ---------------------------------------------------------------------


def test_keys_are_one_segment(client: CloudRuntimesClient, peer: Peer, api: Api) -> None:
    for key in ("a/b", "..", "a b+c?d#e%", "ü"):
        api.call(client.state, "get", "s.1", key)
        api.call(client.state, "delete", "s.1", key)
    paths = [path for verb, path, _, _ in peer.asked if path != "/v1.0/metadata"]
    assert paths[::2] == paths[1::2]
    assert paths[::2] == [f"/v1.0/state/s%2E1/{each}" for each in ("a%2Fb", "%2E%2E", "a%20b%2Bc%3Fd%23e%25", "%C3%BC")]


def test_create_only_and_ttl_on_redis_and_elsewhere(peer: Peer, api: Api) -> None:
    for kind, etag, options, ttl in (
        ("state.redis", "-1", None, "-1"),
        ("state.sqlite", None, {"concurrency": "first-write"}, None),
    ):
        peer.asked.clear()
        peer.is_component(kind)
        with CloudRuntimesClient(peer.url) as client:
            api.call(client.state, "save", "s", "k", 1, concurrency="first-write")
            api.call(client.state, "save", "s", "k", 1, ttl=1.5)
            api.call(client.state, "save", "s", "k", 1, etag="7", concurrency="last-write")
        [create], [timed], [conditional] = peer.writes()
        assert (create.get("etag"), create.get("options")) == (etag, options)
        assert create.get("metadata", {}).get("ttlInSeconds") == ttl
        assert timed["metadata"] == {"ttlInSeconds": "2"}
        assert (conditional["etag"], conditional.get("options")) == ("7", None)
        assert [path for verb, path, _, _ in peer.asked].count("/v1.0/metadata") == 1


def test_conditions_in_a_transaction_on_redis(peer: Peer, api: Api) -> None:
    peer.is_component("state.redis")
    with CloudRuntimesClient(peer.url) as client, pytest.raises(UnsupportedError, match="Redis behind Dapr"):
        with client.state.transaction("s") as tx:
            tx.save("k", 1, etag="1")
    assert peer.writes() == []


def test_a_transaction_whose_condition_did_not_hold(client: CloudRuntimesClient, peer: Peer) -> None:
    peer.says(500, {"errorCode": "ERR_STATE_TRANSACTION", "message": "any words"}, "POST /v1.0/state/s/transaction")
    peer.says(200, 1, "GET /v1.0/state/s/k", etag="now")
    with pytest.raises(ConflictError, match="'k' has changed"), client.state.transaction("s") as tx:
        tx.save("k", 1, etag="before")
    with pytest.raises(ConflictError, match="'k' exists"), client.state.transaction("s") as tx:
        tx.save("k", 1, concurrency="first-write")
    with pytest.raises(InternalError, match="any words") as caught, client.state.transaction("s") as tx:
        tx.save("k", 1, etag="now")
    assert caught.value.maybe_applied


def test_a_bulk_save_that_fails_is_tried_one_by_one(client: CloudRuntimesClient, peer: Peer) -> None:
    peer.says(500, {"errorCode": "ERR_STATE_SAVE", "message": "full"}, "POST /v1.0/state/s")
    with pytest.raises(errors.BulkError) as caught:
        client.state.save_bulk("s", {"a": 1, "b": 2})
    assert set(caught.value.failed) == {"a", "b"}
    assert [len(body) for body in peer.writes()] == [2, 1, 1]
    peer.asked.clear()
    peer.says(204, b"", "POST /v1.0/state/s")
    client.state.save_bulk("s", {"a": 1, "b": 2})
    assert [len(body) for body in peer.writes()] == [2]


def test_values_that_others_have_written(client: CloudRuntimesClient, peer: Peer) -> None:
    for data, value in (
        (b"\xff\x00", b"\xff\x00"),
        (b'{"a": 1.25}', {"a": 1.25}),
        (b"plain text", b"plain text"),
        (b'{"cloud_runtimes":1,"datacontenttype":"text/plain","data_base64":"!"}', {
            "cloud_runtimes": 1, "datacontenttype": "text/plain", "data_base64": "!",
        }),
    ):  # fmt: skip
        peer.says(200, data, "GET /v1.0/state/s/k", etag="1")
        assert client.state.get("s", "k") == value
        assert client.state.get("s", "k", type=bytes) == data


def test_what_stands_plain(subtests: pytest.Subtests) -> None:
    for data, plain in (
        (b'{"a":[1,true,null,"x1.5e3 99999999999999999999"]}', True),
        (b"9007199254740991", False),
        (b"123456789012345", True),
        (b"1.5", False),
        (b"1e3", False),
        (b'{"cloud_runtimes":2}', False),
        (rb'"\"1.5"', True),
    ):
        with subtests.test(data=data, plain=plain):
            assert (wrap(data, JSON) == data) is plain
            assert unwrap(wrap(data, JSON)) == (data, JSON)


def test_what_is_wrapped(subtests: pytest.Subtests) -> None:
    for content_type in (OCTETS, MSGPACK, "text/plain", "application/json; charset=utf-8"):
        with subtests.test(content_type=content_type):
            envelope = wrap(b'{"a":1}', content_type)
            assert json.loads(envelope)["datacontenttype"] == content_type
            assert unwrap(envelope) == (b'{"a":1}', content_type)


# -- secrets, configuration, locks ---------------------------------------------------


@pytest.mark.parametrize(
    ("key", "message", "kind"),
    [
        ("db", "couldn't find secret: secret db not found", errors.NotFoundError),
        ("db", "ResourceNotFoundException: it does not exist", errors.NotFoundError),
        ("not found", "failed for not found: the connection was refused", InternalError),  # not in the key's own words
    ],
)
def test_absent_secrets(
    client: CloudRuntimesClient, peer: Peer, api: Api, key: str, message: str, kind: type[Exception]
) -> None:
    peer.says(500, {"errorCode": "ERR_SECRET_GET", "message": message})
    error = api.fails(kind)(client.secret, "get_secret", "vault", key)
    assert type(error) is kind
    peer.says(401, {"errorCode": "ERR_SECRET_STORE_NOT_FOUND", "message": "x"})
    api.fails(errors.ComponentNotFoundError)(client.secret, "get_secret", "vault", "k")
    peer.says(403, {"errorCode": "ERR_PERMISSION_DENIED", "message": "x"})
    api.fails(errors.PermissionDeniedError)(client.secret, "get_bulk_secret", "vault")


@pytest.mark.parametrize("answer", [b"{", b"[1]", b'{"k": {"a": 5, "b": "sesame-open"}}', b'{"k": "sesame-open"}'])
def test_answers_that_are_no_secrets(
    client: CloudRuntimesClient, peer: Peer, api: Api, answer: bytes, canary: Canary
) -> None:
    value = canary.value()
    peer.says(200, answer.replace(b"sesame-open", value.encode()))
    with canary.raises(InternalError, match="another form"):
        api.call(client.secret, "get_bulk_secret", "vault")
    if b'"k": "' not in answer:  # which is a secret
        with canary.raises(InternalError, match="another form"):
            api.call(client.secret, "get_secret", "vault", "k")


def test_subscribing_needs_a_stream(client: CloudRuntimesClient, peer: Peer, api: Api) -> None:
    assert not client.supports("configuration.subscribe")
    with pytest.raises(UnsupportedError, match='endpoint="grpc://localhost:50001"'):
        api.call(client.configuration, "subscribe_configuration", "s")
    assert peer.asked == []


def test_configuration_is_asked_for_by_keys(client: CloudRuntimesClient, peer: Peer, api: Api) -> None:
    peer.says(200, {"a b": {"value": "1", "version": "v", "metadata": {"m": "n"}}, "gone": {"value": ""}})
    items = api.call(client.configuration, "get_configuration_items", "s.1", ["a b", "gone"], metadata={"x": "y"})
    assert {key: (item.value, item.version, item.metadata) for key, item in items.items()} == {
        "a b": ("1", "v", {"m": "n"})
    }
    assert peer.asked[0][1] == "/v1.0/configuration/s%2E1?key=a+b&key=gone&metadata.x=y"
    for odd in (["a"], {"a": 1}, {"a": {"value": "1", "metadata": {"m": 1}}}):
        peer.says(200, odd)
        api.fails(InternalError, match="another form")(client.configuration, "get_configuration", "s")


def test_locks_in_whole_seconds(client: CloudRuntimesClient, peer: Peer, api: Api) -> None:
    peer.says(200, {"success": True}, "POST /v1.0-alpha1/lock/s")
    peer.says(200, {"status": 0}, "POST /v1.0-alpha1/unlock/s")
    api.call(client.lock, "try_lock", "s", "r", expiry=1.2)
    named = api.call(client.lock, "try_lock", "s", "r", "me", expiry=30)
    [own, mine] = peer.writes()
    assert (own["expiryInSeconds"], mine["expiryInSeconds"]) == (2, 30)
    assert (own["resourceId"], mine["lockOwner"]) == ("r", "me")
    assert own["lockOwner"] != mine["lockOwner"]
    # a lease that has ended is not released under a name that another may have as well
    now = client._context.now()
    peer.asked.clear()
    named._request = named._request._replace(now=lambda: now + 31)
    api.fails(errors.LeaseLostError)(named, "release")
    assert peer.asked == []
    peer.says(200, {"status": 3}, "POST /v1.0-alpha1/unlock/s")
    assert api.fails(InternalError)(client.lock, "unlock", "s", "r", "me").maybe_applied


# -- refusals --------------------------------------------------------------------


def test_a_refusal_is_one_class(subtests: pytest.Subtests) -> None:
    for status, code, reason, kind in (
        (400, "ERR_STATE_STORE_NOT_FOUND", "DAPR_STATE_NOT_FOUND", errors.ComponentNotFoundError),
        (500, "ERR_STATE_STORE_NOT_CONFIGURED", "", errors.ComponentNotFoundError),
        (400, "DAPR_STATE_NOT_FOUND", "", errors.ComponentNotFoundError),
        (400, "ERR_MALFORMED_REQUEST", "DAPR_STATE_ILLEGAL_KEY", InvalidArgumentError),
        (500, "ERR_STATE_STORE_NOT_SUPPORTED", "", UnsupportedError),
        (500, "X", "DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED", UnsupportedError),
        (400, "ERR_STATE_STORE_TOO_MANY_TRANSACTIONS", "", errors.ResourceExhaustedError),
        (409, "ERR_STATE_SAVE", "", ConflictError),
        (403, "ERR_PERMISSION_DENIED", "", errors.PermissionDeniedError),
        (413, "", "", errors.ResourceExhaustedError),
        (404, "", "", UnsupportedError),
        (500, "ERR_STATE_GET", "", InternalError),
        (503, "", "", UnavailableError),
        (418, "", "", InvalidArgumentError),
    ):
        with subtests.test(status=status, code=code):
            exception = error(ErrorReply(status, code, reason, "words"), applied=True)
            assert type(exception) is kind
            assert "words" in str(exception)
            assert exception.maybe_applied is (kind in (InternalError, UnavailableError))


@pytest.mark.parametrize(
    ("status", "document", "kind"),
    [
        (500, {"errorCode": "ERR_DIRECT_INVOKE", "message": "failed to invoke, id: app, err: broke"}, UnavailableError),
        (404, {"errorCode": "ERR_DIRECT_INVOKE", "message": "no app id"}, UnavailableError),
        (403, {"errorCode": "ERR_DIRECT_INVOKE", "message": "denied"}, errors.PermissionDeniedError),
        (500, {"errorCode": "SHOP_CLOSED"}, InternalError),  # the application's own
        (500, b"not JSON", InternalError),
        (404, {"message": "mine"}, errors.NotFoundError),
    ],
)
def test_dapr_s_failures_are_told_from_the_application_s(
    client: CloudRuntimesClient, peer: Peer, api: Api, status: int, document: Any, kind: type[Exception]
) -> None:
    peer.says(status, document)
    error = api.fails(kind)(client.rpc, "invoke_method", "app", "m")
    assert type(error) is kind
    exception: Any = error
    own = not (isinstance(document, dict) and document.get("errorCode") == "ERR_DIRECT_INVOKE")
    assert (exception.response is not None) is own


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"{", "is no JSON"), ([1], "another form"), ([{"key": "a", "error": "broken"}], "cannot read 'a': broken")],
)
def test_bulk_answers_that_cannot_be_used(client: CloudRuntimesClient, peer: Peer, answer: Any, said: str) -> None:
    peer.says(200, answer, "POST /v1.0/state/s/bulk")
    with pytest.raises(InternalError, match=said):
        client.state.get_bulk("s", ["a", "b"])


def test_absent_keys_of_a_bulk_answer(client: CloudRuntimesClient, peer: Peer) -> None:
    peer.says(200, [{"key": "a"}, {"key": "b", "data": None, "etag": "1"}], "POST /v1.0/state/s/bulk")
    assert set(client.state.get_bulk("s", ["a", "b"])) == {"b"}


@pytest.mark.parametrize("failure", [UnavailableError("gone", maybe_applied=False), KeyboardInterrupt()])
def test_a_bulk_save_that_ends_half_way_says_so(
    client: CloudRuntimesClient, peer: Peer, api: Api, failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime: Any = client._context.runtime()
    transport = runtime.transport
    real, sent = transport.exchange, []

    def send(op: Any, request: Any) -> Any:
        sent.append(request.http_method)
        if sent.count("POST") >= 2:
            raise failure
        return real(op, request)

    async def send_async(op: Any, request: Any) -> Any:
        return send(op, request)

    monkeypatch.setattr(transport, "exchange", send)
    monkeypatch.setattr(transport, "exchange_async", send_async)
    many = {str(number): "x" * 300_000 for number in range(6)}  # two batches
    error = api.fails(type(failure))(client.state, "save_bulk", "s", many, timeout=5)
    exception: Any = error
    assert exception.maybe_applied
