"""Configuration: what comes to subscribers, over gRPC and to an application over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from official import Sdk
from raw import TIMEOUT, call, send, stream

from cloud_runtimes._dapr.messages import messages
from cloud_runtimes.configuration import ConfigurationItem
from cloud_runtimes.sidecar import Sidecar
from cloud_runtimes.sidecar.app.channel import AppAnswer, NotReached

STORE = "/v1.0/configuration/store"


class Application:
    """A server that keeps what it is told, and answers with ``status``."""

    def __init__(self) -> None:
        self.told: queue.Queue[tuple[str, str, Any]] = queue.Queue()
        self.status = 200
        application = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                application.told.put((self.path, self.headers["content-type"], body))
                self.send_response(application.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def next(self) -> tuple[str, str, Any]:
        """Return path, content type and body of the next request."""
        return self.told.get(timeout=TIMEOUT)


class Channel:
    """The way to it, as the sidecar's own is: over HTTP, without blocking the loop."""

    def __init__(self, application: Application) -> None:
        self._port = application.server.server_port

    async def post(
        self,
        path: str,
        body: bytes,
        content_type: str,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> AppAnswer:
        return await asyncio.to_thread(self._post, path, body, content_type)

    def _post(self, path: str, body: bytes, content_type: str) -> AppAnswer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)
        try:
            connection.request("POST", path, body, {"content-type": content_type})
            return AppAnswer(connection.getresponse().status, [], None, b"")
        except OSError as error:
            raise NotReached(str(error), sent=False) from error
        finally:
            connection.close()


@pytest.fixture
def application(sidecar: Sidecar) -> Iterator[Application]:
    """An application beside the sidecar."""
    made = Application()
    sidecar.context.app = Channel(made)
    yield made
    made.close()


def save(sidecar: Sidecar, **values: str) -> None:
    sidecar.context.client.configuration.save_configuration("store", values)


def test_get(sidecar: Sidecar) -> None:
    item = ConfigurationItem("a", "1", metadata={"who": "me"})
    sidecar.context.client.configuration.save_configuration("store", [item, ConfigurationItem("b", "")])
    found = send(sidecar.http_address, "GET", f"{STORE}?key=a&key=absent&metadata.x=1").json
    version = found["a"].pop("version")
    assert found == {"a": {"value": "1", "metadata": {"who": "me"}}}
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

        def ended() -> bool:
            # asking ends it too, so ask but once it may have gone: the open subscriptions of the client tell
            return not list(sidecar.context.client._loose_handles)

        _until(ended)
        reply = call(sidecar.grpc_address, "UnsubscribeConfiguration", end, "UnsubscribeConfigurationResponse")
        assert reply.message.ok is False


def test_the_end_of_the_sidecar_ends_streams(sidecar: Sidecar) -> None:
    request = messages().SubscribeConfigurationRequest(store_name="store")
    with grpc.insecure_channel(sidecar.grpc_address) as channel:
        answers = stream(channel, "SubscribeConfiguration", request, "SubscribeConfigurationResponse")
        next(answers)
        sidecar.close()
        assert list(answers) == []


def test_the_application_is_told(sidecar: Sidecar, application: Application) -> None:
    """One request for each key that changes (Dapr, "Configuration API reference", "Optional application routes")."""
    save(sidecar, a="before")
    id = send(sidecar.http_address, "GET", f"{STORE}/subscribe?key=a&key=b%2Fc").json["id"]
    save(sidecar, a="after")
    path, content_type, body = application.next()
    assert (path, content_type, body["id"]) == ("/configuration/store/a", "application/json", id)
    assert set(body["items"]) == {"a"}
    assert body["items"]["a"]["value"] == "after"
    save(sidecar, **{"b/c": "x"})
    assert application.next()[0] == "/configuration/store/b/c"
    sidecar.context.client.configuration.delete_configuration("store", ["a"])
    assert application.next()[2] == {"id": id, "items": {"a": {}}}
    assert send(sidecar.http_address, "GET", f"{STORE}/{id}/unsubscribe").json == {"ok": True}
    again = send(sidecar.http_address, "GET", f"{STORE}/{id}/unsubscribe")
    assert (again.status, again.json) == (
        500,
        {"message": f"failed to unsubscribe to configuration request {id}: subscription does not exist"},
    )
    # what changes now goes to the other subscription alone
    other = send(sidecar.http_address, "GET", "/v1.0-alpha1/configuration/store/subscribe?key=a").json["id"]
    save(sidecar, a="again")
    assert application.next()[2]["id"] == other
    assert application.told.empty()


def test_an_application_that_does_not_take_it(
    sidecar: Sidecar, application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the next change is told nevertheless."""
    send(sidecar.http_address, "GET", f"{STORE}/subscribe")
    application.status = 500
    save(sidecar, a="1")
    application.next()
    _until(lambda: "POST /configuration/store/a: status 500" in caplog.text)
    application.status = 200
    save(sidecar, a="2")
    assert application.next()[2]["items"]["a"]["value"] == "2"


def test_an_application_that_is_not_there(
    sidecar: Sidecar, application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    application.close()
    send(sidecar.http_address, "GET", f"{STORE}/subscribe")
    save(sidecar, a="1")
    _until(lambda: "a configuration item was not told to the application" in caplog.text)
    application.__init__()  # type: ignore[misc]  # another one, which the fixture closes
    sidecar.context.app = Channel(application)
    save(sidecar, a="2")
    assert application.next()[2]["items"]["a"]["value"] == "2"


def _until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(int(TIMEOUT / 0.02)):
        if condition():
            return
        waiting.wait(0.02)
    raise AssertionError("it did not happen")


def test_sdk_configuration(sdk: Sdk) -> None:
    sdk.ours.configuration.save_configuration("store", {"sdk-a": "1", "sdk-b": "2"})
    found = sdk.call("get_configuration", "store", ["sdk-a", "sdk-absent"], config_metadata={"x": "y"}).items
    assert {key: item.value for key, item in found.items()} == {"sdk-a": "1"}
    assert found["sdk-a"].version
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
