"""The sidecar itself: metadata, health, tokens, shutdown."""

from __future__ import annotations

from pathlib import Path

import pytest

import cloud_runtimes
from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.dapr_server.settings import ComponentInfo, Subscription
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.official import Sdk, sync_sdk
from tests.sidecar.raw import call, send
from tests.support.apps import App
from tests.support.running import BINDINGS, declared, serving
from tests.support.waiting import until


def metadata(sidecar: Sidecar) -> object:
    return call(sidecar.grpc_address, "GetMetadata", messages().GetMetadataRequest(), "GetMetadataResponse").message


def test_what_is_declared(tmp_path: Path) -> None:
    with serving(declared(str(tmp_path)), bindings=BINDINGS, app_port=None) as one:
        document = send(one.http_address, "GET", "/v1.0/metadata").json
        assert document["id"] == "app"
        assert document["runtimeVersion"] == "1.19.0"
        assert document["extended"] == {
            "daprRuntimeVersion": "1.19.0",
            "cloudRuntimesVersion": cloud_runtimes.__version__,
        }
        assert document["actorRuntime"] == {"runtimeStatus": "DISABLED", "hostReady": False}
        assert document["appConnectionProperties"] == {"protocol": "http", "channelAddress": "127.0.0.1"}
        assert "subscriptions" not in document
        components = {(each["name"], each["type"]): each["capabilities"] for each in document["components"]}
        assert components == {
            ("store", "state.sqlite"): ["ETAG", "TRANSACTIONAL", "TTL"],
            ("store", "pubsub.sqlite"): [],
            ("store", "secretstores.env"): [],
            ("store", "configuration.sqlite"): [],
            ("store", "lock.sqlite"): [],
            ("files", "bindings.localstorage"): ["OUTPUT_BINDING"],
            ("sql", "bindings.sqlalchemy"): ["OUTPUT_BINDING"],
        }
        assert {each["version"] for each in document["components"]} == {"v1"}
        reply: object = metadata(one)
        reported = {(each.name, each.type): list(each.capabilities) for each in reply.registered_components}  # type: ignore[attr-defined]
        assert reported == components


def test_nothing_is_declared() -> None:
    with serving({"capa": {"home": ":memory:free-metadata"}}) as one:
        assert "components" not in send(one.http_address, "GET", "/v1.0/metadata").json


def test_components_of_the_settings(tmp_path: Path) -> None:
    components = (ComponentInfo("statestore", "state.redis", "v2", ("ETAG",)),)
    with serving(declared(str(tmp_path)), components=components) as one:
        assert send(one.http_address, "GET", "/v1.0/metadata").json["components"] == [
            {"name": "statestore", "type": "state.redis", "version": "v2", "capabilities": ["ETAG"]}
        ]


def test_subscriptions(tmp_path: Path) -> None:
    with serving(declared(str(tmp_path))) as one:
        one.context.subscriptions.append(
            Subscription(
                "store", "t", "/default", (('event.type == "x"', "/x"),), "dead", {"a": "b"}, kind="PROGRAMMATIC"
            )
        )
        one.context.subscriptions.append(Subscription("store", "u", kind="STREAMING"))
        assert send(one.http_address, "GET", "/v1.0/metadata").json["subscriptions"] == [
            {
                "pubsubname": "store",
                "topic": "t",
                "metadata": {"a": "b"},
                "rules": [{"match": 'event.type == "x"', "path": "/x"}, {"path": "/default"}],
                "deadLetterTopic": "dead",
                "type": "PROGRAMMATIC",
            },
            {"pubsubname": "store", "topic": "u", "deadLetterTopic": "", "type": "STREAMING"},
        ]
        first, second = metadata(one).subscriptions  # type: ignore[attr-defined]
        assert [(rule.match, rule.path) for rule in first.rules.rules] == [
            ('event.type == "x"', "/x"),
            ("", "/default"),
        ]
        assert (first.type, first.dead_letter_topic, second.type) == (2, "dead", 3)


def test_subscriptions_that_cannot_be_opened_are_told(tmp_path: Path) -> None:
    absent = Subscription("absent", "t", "/in")
    subscription = {"pubsubname": "absent", "topic": "t", "rules": [{"path": "/in"}], "deadLetterTopic": ""}
    others = Subscription("absent", "t", "/in", scopes=("another",))
    with serving(declared(str(tmp_path)), subscriptions=(absent, others)) as one:
        listed = send(one.http_address, "GET", "/v1.0/metadata").json["subscriptions"]
        assert listed == [{**subscription, "type": "DECLARATIVE"}]
    asks = [
        {"pubsubname": "absent", "topic": "u", "route": "/in"},
        {"pubsubname": "store", "topic": "v", "route": "/in"},
    ]
    with App(asks) as app, serving(declared(str(tmp_path)), app_port=app.port, subscriptions=(absent,)) as one:
        until(lambda: one.context.subscriptions)
        listed = send(one.http_address, "GET", "/v1.0/metadata").json["subscriptions"]
    assert [(each["pubsubname"], each["topic"], each["type"]) for each in listed] == [
        ("absent", "t", "DECLARATIVE"),
        ("absent", "u", "PROGRAMMATIC"),
        ("store", "v", "PROGRAMMATIC"),
    ]


def test_attributes(sidecar: Sidecar) -> None:
    assert send(sidecar.http_address, "PUT", "/v1.0/metadata/a%20b", "grüße".encode()).status == 204
    call(sidecar.grpc_address, "SetMetadata", messages().SetMetadataRequest(key="c", value="d"))
    call(sidecar.grpc_address, "SetMetadata", messages().SetMetadataRequest(value="nameless"))
    send(sidecar.http_address, "PUT", "/v1.0/metadata/daprRuntimeVersion", b"0")
    extended = send(sidecar.http_address, "GET", "/v1.0/metadata").json["extended"]
    assert extended == {
        "a b": "grüße",
        "c": "d",
        "daprRuntimeVersion": "1.19.0",
        "cloudRuntimesVersion": cloud_runtimes.__version__,
    }
    assert dict(metadata(sidecar).extended_metadata) == extended  # type: ignore[attr-defined]
    assert send(sidecar.http_address, "PUT", "/v1.0/metadata/a", b"\xff").error == "ERR_MALFORMED_REQUEST"


def test_a_token(tmp_path: Path) -> None:
    """Health needs none, all else does (Dapr, "Enable API token authentication")."""
    with serving(declared(str(tmp_path)), api_token="let me in") as one:
        for path in ("/v1.0/healthz", "/v1.0/healthz/outbound"):
            assert send(one.http_address, "GET", path).status == 204
        for headers in ({}, {"dapr-api-token": "other"}):
            refused = send(one.http_address, "GET", "/v1.0/metadata", headers=headers)
            assert (refused.status, refused.body) == (401, b"invalid api token")
            assert send(one.http_address, "POST", "/v1.0/shutdown", headers=headers).status == 401
            assert call(one.grpc_address, "InvokeActor", messages().Empty(), metadata=headers).code == "UNAUTHENTICATED"
            assert call(one.grpc_address, "Shutdown", messages().Empty(), metadata=headers).code == "UNAUTHENTICATED"
        token = {"dapr-api-token": "let me in"}
        assert send(one.http_address, "GET", "/v1.0/metadata", headers=token).status == 200
        assert call(one.grpc_address, "GetMetadata", messages().Empty(), metadata=token).code == "OK"


@pytest.mark.parametrize("protocol", ["HTTP", "gRPC"])
def test_shutdown(tmp_path: Path, protocol: str) -> None:
    """It is answered, and then the sidecar ends by itself."""
    with serving(declared(str(tmp_path))) as one:
        if protocol == "HTTP":
            assert send(one.http_address, "POST", "/v1.0/shutdown").status == 204
        else:
            assert call(one.grpc_address, "Shutdown", messages().ShutdownRequest()).code == "OK"
        one.wait()
        with pytest.raises(OSError, match=r"refused|reset"):
            send(one.http_address, "GET", "/v1.0/healthz")


def test_unavailable_apis_name_what_was_asked_for(sidecar: Sidecar) -> None:
    answer = send(sidecar.http_address, "POST", "/v1.0-alpha1/conversation/gpt/converse", {})
    assert answer.json["message"] == "failed finding conversation component gpt"


def test_what_nobody_knows(sidecar: Sidecar) -> None:
    assert send(sidecar.http_address, "GET", "/v1.0/nothing").status == 404
    assert send(sidecar.http_address, "GET", "/").status == 404
    assert call(sidecar.grpc_address, "Nothing", messages().Empty()).code == "UNIMPLEMENTED"


@pytest.mark.filterwarnings("ignore:The wait method is deprecated:DeprecationWarning")
def test_sdk_metadata(sdk: Sdk) -> None:
    sdk.call("set_metadata", "sdk", "was here")
    metadata = sdk.call("get_metadata")
    assert metadata.application_id == "app"
    assert metadata.extended_metadata["sdk"] == "was here"
    assert ("store", "state.sqlite", "v1", ["ETAG", "TRANSACTIONAL", "TTL"]) in [
        (each.name, each.type, each.version, list(each.capabilities)) for each in metadata.registered_components
    ]
    assert metadata.active_actors_count == {}
    sdk.call("wait", 30)


def test_sdk_shutdown(tmp_path: Path) -> None:
    with serving(declared(str(tmp_path))) as one:
        with sync_sdk(one.http_address, one.grpc_address, one.context.client) as sdk:
            sdk.call("shutdown")
        one.wait()


@pytest.mark.filterwarnings("ignore:.*Alpha version:UserWarning")
def test_sdk_what_is_not_served(sdk: Sdk) -> None:
    from dapr.clients.grpc.conversation import ConversationInput

    code, text = sdk.refused("converse_alpha1", "gpt", [ConversationInput("hello")])
    assert (code, text) == ("INVALID_ARGUMENT", "failed finding conversation component")


def test_metadata_is_bounded(tmp_path: Path) -> None:
    """All of it is in each answer; what is there can still be changed."""

    def put(one: Sidecar, name: str, value: str) -> tuple[object, ...]:
        http = send(one.http_address, "PUT", f"/v1.0/metadata/{name}", value.encode())
        rpc = call(one.grpc_address, "SetMetadata", messages().SetMetadataRequest(key=name, value=value))
        return http.status, http.error, rpc.code

    refused = (413, "ERR_METADATA_TOO_LARGE", "RESOURCE_EXHAUSTED")
    with serving(declared(str(tmp_path))) as one:
        assert put(one, "long", "x" * 65_533) == refused
        assert put(one, "long", "x" * 65_532) == (204, None, "OK")
        assert put(one, "b", "") == refused
        assert put(one, "long", "ü") == (204, None, "OK")
        assert [put(one, f"k{number}", "v") for number in range(99)] == [(204, None, "OK")] * 99
        assert put(one, "k99", "v") == refused
        assert put(one, "k98", "w") == (204, None, "OK")
        text = send(one.http_address, "PUT", "/v1.0/metadata/k99", b"v").json["message"]
        assert "101 attributes" in text
        assert "set fewer or shorter ones" in text
