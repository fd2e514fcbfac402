"""Configuration: what comes to subscribers, over gRPC and to an application over HTTP."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cloud_runtimes.configuration import ConfigurationItem
from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.dapr_server.app.channel import AppAnswer, AppCall, NotReached
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.official import Sdk
from tests.sidecar.raw import TIMEOUT, call, send, stream
from tests.support.apps import App, Got, Reply
from tests.support.running import declared, serving
from tests.support.waiting import until

STORE = "/v1.0/configuration/store"


@pytest.fixture
def application() -> Iterator[App]:
    """An application that takes what it is told."""
    with App() as app:
        yield app


@pytest.fixture(params=["memory", "file"])
def beside(request: pytest.FixtureRequest, application: App, tmp_path: Path) -> Iterator[Sidecar]:
    """A sidecar beside it."""
    home = f":memory:{request.node.name[:100]}" if request.param == "memory" else str(tmp_path)
    with serving(declared(home), app_port=application.port) as sidecar:
        yield sidecar


def received(application: App, count: int) -> Got:
    """Return the last of so many requests, which came at last."""
    until(lambda: len(application.got) >= count, f"{count} requests")
    assert len(application.got) == count
    return application.got[-1]


def save(sidecar: Sidecar, **values: str) -> None:
    sidecar.context.client.configuration.save_configuration("store", values)


def test_get(sidecar: Sidecar) -> None:
    item = ConfigurationItem("a", "1", metadata={"who": "me"})
    sidecar.context.client.configuration.save_configuration("store", [item, ConfigurationItem("b", "")])
    result = send(sidecar.http_address, "GET", f"{STORE}?key=a&key=absent&metadata.x=1").json
    version = result["a"].pop("version")
    assert result == {"a": {"value": "1", "metadata": {"who": "me"}}}
    assert version
    # what is empty is left out
    everything = send(sidecar.http_address, "GET", STORE).json
    assert set(everything) == {"a", "b"}
    assert "value" not in everything["b"]
    request = messages().GetConfigurationRequest(store_name="store", keys=["a", "absent"])
    items = call(sidecar.grpc_address, "GetConfiguration", request, "GetConfigurationResponse").message.items
    assert {key: (item.value, item.version, dict(item.metadata)) for key, item in items.items()} == {
        "a": ("1", version, {"who": "me"})
    }


@pytest.mark.parametrize("suffix", ["", "Alpha1"])
def test_stream(sidecar: Sidecar, suffix: str) -> None:
    """First the id alone, then what changes; a deleted key without a value."""
    save(sidecar, a="before", other="x")
    request = messages().SubscribeConfigurationRequest(store_name="store", keys=["a"])
    with grpc.insecure_channel(sidecar.grpc_address) as channel:
        answers = stream(channel, f"SubscribeConfiguration{suffix}", request, "SubscribeConfigurationResponse")
        first = next(answers)
        assert first.id
        assert not first.items
        save(sidecar, a="after", other="y")
        change = next(answers)
        assert (change.id, {key: item.value for key, item in change.items.items()}) == (first.id, {"a": "after"})
        assert change.items["a"].version
        sidecar.context.client.configuration.delete_configuration("store", ["a"])
        gone = next(answers)
        assert {key: (item.value, item.version) for key, item in gone.items.items()} == {"a": ("", "")}
        end = messages().UnsubscribeConfigurationRequest(store_name="store", id=first.id)
        reply = call(sidecar.grpc_address, f"UnsubscribeConfiguration{suffix}", end, "UnsubscribeConfigurationResponse")
        assert (reply.message.ok, reply.message.message) == (True, "")
        assert list(answers) == []
        again = call(sidecar.grpc_address, f"UnsubscribeConfiguration{suffix}", end, "UnsubscribeConfigurationResponse")
        assert (again.message.ok, again.message.message) == (
            False,
            f"failed to unsubscribe to configuration request {first.id}: subscription does not exist",
        )


def test_a_caller_that_goes_ends_the_subscription(sidecar: Sidecar) -> None:
    request = messages().SubscribeConfigurationRequest(store_name="store")
    with grpc.insecure_channel(sidecar.grpc_address) as channel:
        answers: Any = stream(channel, "SubscribeConfiguration", request, "SubscribeConfigurationResponse")
        id = next(answers).id
        answers.cancel()
        end = messages().UnsubscribeConfigurationRequest(store_name="store", id=id)

        # asking would end it too; the client's open handles tell
        until(lambda: not list(sidecar.context.client._context.handles._loose))
        reply = call(sidecar.grpc_address, "UnsubscribeConfiguration", end, "UnsubscribeConfigurationResponse")
        assert reply.message.ok is False


def test_the_end_of_the_sidecar_ends_streams(sidecar: Sidecar) -> None:
    request = messages().SubscribeConfigurationRequest(store_name="store")
    with grpc.insecure_channel(sidecar.grpc_address) as channel:
        answers = stream(channel, "SubscribeConfiguration", request, "SubscribeConfigurationResponse")
        next(answers)
        sidecar.close()
        assert list(answers) == []


def test_the_application_is_told(beside: Sidecar, application: App) -> None:
    """Each changed key causes one request (Dapr, "Configuration API reference", "Optional application routes")."""
    save(beside, a="before")
    id = send(beside.http_address, "GET", f"{STORE}/subscribe?key=a&key=b%2Fc%20d").json["id"]
    save(beside, a="after")
    got = received(application, 1)
    assert (got.method, got.path, got.header("content-type")) == ("POST", "/configuration/store/a", "application/json")
    assert (got.json["id"], set(got.json["items"])) == (id, {"a"})
    assert got.json["items"]["a"]["value"] == "after"
    save(beside, **{"b/c d": "x"})
    assert received(application, 2).path == "/configuration/store/b/c%20d"
    beside.context.client.configuration.delete_configuration("store", ["a"])
    assert received(application, 3).json == {"id": id, "items": {"a": {}}}
    assert send(beside.http_address, "GET", f"{STORE}/{id}/unsubscribe").json == {"ok": True}
    again = send(beside.http_address, "GET", f"{STORE}/{id}/unsubscribe")
    assert (again.status, again.json) == (
        500,
        {"message": f"failed to unsubscribe to configuration request {id}: subscription does not exist"},
    )
    # what changes now goes to the other subscription alone
    other = send(beside.http_address, "GET", "/v1.0-alpha1/configuration/store/subscribe?key=a").json["id"]
    save(beside, a="again")
    assert received(application, 4).json["id"] == other


def test_an_application_that_does_not_take_it(
    beside: Sidecar, application: App, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the next change is told nevertheless."""
    send(beside.http_address, "GET", f"{STORE}/subscribe")
    application.answer = lambda got: Reply(500)
    save(beside, a="1")
    until(lambda: "POST /configuration/store/a: status 500" in caplog.text)
    application.answer = None
    save(beside, a="2")
    assert received(application, 2).json["items"]["a"]["value"] == "2"


def test_an_application_that_is_gone(
    beside: Sidecar, application: App, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and the subscription goes on."""

    async def gone(call: AppCall, timeout: float | None = None) -> AppAnswer:
        raise NotReached("nobody listens there", sent=False)

    send(beside.http_address, "GET", f"{STORE}/subscribe")
    with monkeypatch.context() as patch:
        patch.setattr(beside.context.app, "invoke", gone)
        save(beside, a="1")
        until(lambda: "not told to the application: POST /configuration/store/a: nobody listens there" in caplog.text)
    save(beside, a="2")
    assert received(application, 1).json["items"]["a"]["value"] == "2"


def test_sdk_configuration(sdk: Sdk) -> None:
    sdk.ours.configuration.save_configuration("store", {"sdk-a": "1", "sdk-b": "2"})
    result = sdk.call("get_configuration", "store", ["sdk-a", "sdk-absent"], config_metadata={"x": "y"}).items
    assert {key: item.value for key, item in result.items()} == {"sdk-a": "1"}
    assert result["sdk-a"].version
    everything = sdk.call("get_configuration", "store", []).items
    assert {"sdk-a", "sdk-b"} <= set(everything)
    assert sdk.refused("get_configuration", "nope", []) == ("INVALID_ARGUMENT", "configuration store nope not found")
    assert sdk.call("unsubscribe_configuration", "store", "nope") is False


@pytest.mark.parametrize("sdk", ["sync"], indirect=True)
def test_sdk_subscription(sdk: Sdk) -> None:
    """Of the sync client alone: the asynchronous one waits for the stream in a thread without its loop, and never gets an id."""
    changes: queue.Queue[tuple[str, dict[str, str]]] = queue.Queue()
    sdk.ours.configuration.save_configuration("store", {"sdk-c": "1"})

    def handler(id: str, response: Any) -> None:
        changes.put((id, {key: item.value for key, item in response.items.items()}))

    id = sdk.call("subscribe_configuration", "store", ["sdk-c"], handler)
    assert id
    sdk.ours.configuration.save_configuration("store", {"sdk-c": "2"})
    assert changes.get(timeout=TIMEOUT) == (id, {"sdk-c": "2"})
    assert sdk.call("unsubscribe_configuration", "store", id) is True
    assert sdk.call("unsubscribe_configuration", "store", id) is False


def test_no_more_subscriptions_than_a_sidecar_can_bear(beside: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a thread; one that has ended makes room, over either protocol."""
    monkeypatch.setattr("cloud_runtimes.dapr_server.configuration.MAX_OPEN", 3)
    request = messages().SubscribeConfigurationRequest(store_name="store")
    ids = [send(beside.http_address, "GET", f"{STORE}/subscribe").json["id"] for _ in range(3)]
    refused = send(beside.http_address, "GET", f"{STORE}/subscribe")
    assert (refused.status, refused.error) == (429, "ERR_TOO_MANY_SUBSCRIPTIONS")
    assert "unsubscribe those that are not needed" in refused.json["message"]
    with grpc.insecure_channel(beside.grpc_address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            next(stream(channel, "SubscribeConfiguration", request, "SubscribeConfigurationResponse"))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        send(beside.http_address, "GET", f"{STORE}/{ids[0]}/unsubscribe")
        answers = stream(channel, "SubscribeConfiguration", request, "SubscribeConfigurationResponse")
        assert next(answers).id
        assert send(beside.http_address, "GET", f"{STORE}/subscribe").status == 429


def test_a_subscription_that_fails_takes_no_room(beside: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_runtimes.dapr_server.configuration.MAX_OPEN", 1)
    for _ in range(2):
        assert send(beside.http_address, "GET", f"{STORE}/subscribe?key=").status == 500
    assert send(beside.http_address, "GET", f"{STORE}/subscribe").status == 200
