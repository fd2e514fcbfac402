"""The official SDK, as it is: its client for events, calls and jobs, and its FastAPI and gRPC applications beside a sidecar."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from dapr.common.pubsub.subscription import SubscriptionMessage

from cloud_runtimes import CloudRuntimesClient
from tests.sidecar.official import Sdk, aio_sdk, sync_sdk
from tests.support.apps import App, Reply
from tests.support.running import declared, serving, sidecar_process
from tests.support.waiting import until


@contextmanager
def fastapi_app(app: Any) -> Iterator[int]:
    """Serve a FastAPI application by uvicorn, in a thread; gives its port."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, "uvicorn")
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def grpc_app(app: Any) -> Iterator[int]:
    """Serve an application of ``dapr.ext.grpc``; gives its port."""
    port = app._server.add_insecure_port("127.0.0.1:0")
    app._server.start()
    try:
        yield port
    finally:
        app.stop()


Beside = Callable[..., Any]


@pytest.fixture
def closing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the loops that the SDK makes for each sync ``invoke_method`` and leaves open."""
    loops: list[asyncio.AbstractEventLoop] = []
    make = asyncio.new_event_loop

    def noted() -> asyncio.AbstractEventLoop:
        loop = make()
        if threading.current_thread() is threading.main_thread():
            loops.append(loop)
        return loop

    monkeypatch.setattr(asyncio, "new_event_loop", noted)
    yield
    for loop in loops:
        if not loop.is_closed():
            loop.run_until_complete(asyncio.sleep(0.01))
            loop.close()
    asyncio.set_event_loop(None)


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The SDK's extension for applications of gRPC, which needs the first version of ``cloudevents``; the second has it under another name."""
    for name in ("sdk", "sdk.event", "sdk.event.v1"):
        monkeypatch.setitem(sys.modules, f"cloudevents.{name}", importlib.import_module(f"cloudevents.v1.{name}"))
    return importlib.import_module("dapr.ext.grpc")


@pytest.fixture(params=["sync", pytest.param("aio", marks=pytest.mark.process)])
def beside(request: pytest.FixtureRequest, tmp_path: Path, closing: None) -> Iterator[Beside]:
    """Make a client of the SDK at a sidecar with these settings."""
    home = str(tmp_path / "home")
    with ExitStack() as stack:
        ours = stack.enter_context(CloudRuntimesClient(config=declared(home), app_id="app"))

        def make(**settings: Any) -> Sdk:
            if request.param == "sync":
                sidecar = stack.enter_context(serving(declared(home), **settings))
                return stack.enter_context(sync_sdk(sidecar.http_address, sidecar.grpc_address, ours))
            process = stack.enter_context(sidecar_process(home, **settings))
            return stack.enter_context(aio_sdk(process.http, process.grpc, ours))

        yield make


def received(sdk: Sdk, topic: str, count: int) -> list[Any]:
    events: list[Any] = []

    def another() -> bool:
        if sdk._loop is not None:  # what the SDK still has to send
            sdk._loop.run_until_complete(asyncio.sleep(0.01))
        event = subscription.receive(timeout=0.05)
        if event is not None:
            event.ack()
            events.append(event)
        return len(events) == count

    with sdk.ours.pubsub.subscribe("store", topic, group="test") as subscription:
        until(another, f"{count} events of {topic}")
    return events


# -- the client -------------------------------------------------------------


def test_publish(beside: Beside) -> None:
    sdk = beside()
    sdk.call("publish_event", "store", "t", '{"n": 1}', data_content_type="application/json")
    sdk.call("publish_event", "store", "t", b"raw", publish_metadata={"rawPayload": "true"})
    first, second = received(sdk, "t", 2)
    assert (first.data, first.type, first.source) == ({"n": 1}, "com.dapr.event.sent", "app")
    assert second._record.raw
    assert second._record.payload == b"raw"
    code, text = sdk.refused("publish_event", "gone", "t", "x")
    assert code in (None, "INVALID_ARGUMENT")
    assert "pubsub gone is not found" in text


def test_publish_several(beside: Beside) -> None:
    from dapr.clients.grpc._request import BulkPublishEntry

    sdk = beside()
    entries = ["a", b"b", BulkPublishEntry(event="1", content_type="application/json", metadata={"cloudevent.id": "i"})]
    answer = sdk.call("publish_events", "store", "t", entries)
    assert not answer.failed_entries
    events = received(sdk, "t", 3)
    assert [event._record.payload for event in events] == [b"a", b"b", b"1"]
    assert events[2].id == "i"


def test_subscribe(beside: Beside) -> None:
    sdk = beside()
    subscription = sdk.call("subscribe", "store", "t", dead_letter_topic="dead")

    def do(name: str, *args: Any) -> Any:
        result = getattr(subscription, name)(*args)
        return sdk._loop.run_until_complete(result) if sdk._loop is not None and asyncio.iscoroutine(result) else result

    for number in range(3):
        sdk.call("publish_event", "store", "t", json.dumps({"n": number}), data_content_type="application/json")
    messages = [do("next_message") for _ in range(3)]
    assert [message.data() for message in messages] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert {(each.topic(), each.pubsub_name(), each.type()) for each in messages} == {
        ("t", "store", "com.dapr.event.sent")
    }
    do("respond_success", messages[0])
    do("respond_drop", messages[1])
    do("respond_retry", messages[2])  # with a dead-letter topic there is no other try
    assert sorted(event.data["n"] for event in received(sdk, "dead", 2)) == [1, 2]
    do("close")


def test_subscribe_with_a_handler(tmp_path: Path) -> None:
    from dapr.clients.grpc._response import TopicEventResponse

    got: list[Any] = []

    def handle(message: Any) -> Any:
        got.append(message.data())
        return TopicEventResponse("retry" if len(got) == 1 else "success")

    with serving(declared(str(tmp_path))) as sidecar:
        with sync_sdk(sidecar.http_address, sidecar.grpc_address, sidecar.context.client) as sdk:
            close = sdk.client.subscribe_with_handler("store", "t", handle)
            sdk.client.publish_event("store", "t", "hello")
            until(lambda: len(got) == 2, "the second try")
            close()
            until(lambda: not sidecar.context.subscriptions, "the end")
    assert got == ["hello", "hello"]


def test_invoke_a_method(beside: Beside) -> None:
    with App(answer=lambda got: Reply(200, got.body[::-1], [("content-type", "text/x"), ("x-back", "1")])) as app:
        sdk = beside(app_port=app.port)
        answer = sdk.call(
            "invoke_method",
            "app",
            "a/b",
            b"abc",
            http_verb="PUT",
            http_querystring=(("q", "1"),),
            metadata=(("x-one", "1"),),
        )
        assert (answer.data, answer.content_type) == (b"cba", "text/x")
        (got,) = app.got
        assert (got.method, got.path, got.body, got.header("x-one")) == ("PUT", "/a/b?q=1", b"abc", "1")


def test_invoke_a_method_that_fails(beside: Beside) -> None:
    with App(answer=lambda got: Reply(404, b'{"errorCode":"MINE","message":"no such thing"}')) as app:
        sdk = beside(app_port=app.port)
        code, text = sdk.refused("invoke_method", "app", "x", b"1", http_verb="POST")
        assert code is None
        assert "no such thing" in text
        _, text = sdk.refused("invoke_method", "nobody", "x", b"1", http_verb="POST")
        assert "failed to invoke, id: nobody" in text


def test_jobs(beside: Beside) -> None:
    from dapr.clients import ConstantFailurePolicy, Job
    from google.protobuf.any_pb2 import Any as Packed

    sdk = beside()
    data = Packed(type_url="mine/Thing", value=b"data")
    job = Job(
        name="j",
        schedule="@every 1h",
        repeats=2,
        data=data,
        failure_policy=ConstantFailurePolicy(max_retries=2, interval_seconds=3),
    )
    sdk.call("schedule_job", job)
    stored = sdk.call("get_job", "j")
    assert (stored.name, stored.schedule, stored.repeats, stored.data) == ("j", "@every 1h", 2, data)
    code, text = sdk.refused("schedule_job", job)
    assert code in (None, "ALREADY_EXISTS")
    assert "already exists" in text
    sdk.call("schedule_job", Job(name="j", due_time="1h"), overwrite=True)
    assert sdk.call("get_job", "j").due_time == "1h"
    sdk.call("delete_job", "j")
    _, text = sdk.refused("get_job", "j")
    assert "job not found: j" in text


def test_calls_of_grpc_are_passed_on(tmp_path: Path, extension: Any) -> None:
    """As a client of its own service would call another application: its stub over the sidecar's port, with ``dapr-app-id``."""
    from dapr.proto import appcallback_service_v1
    from google.protobuf.empty_pb2 import Empty

    app = extension.App()
    app.register_health_check(lambda: None)
    with ExitStack() as stack:
        port = stack.enter_context(grpc_app(app))
        sidecar = stack.enter_context(serving(declared(str(tmp_path)), app_port=port, app_protocol="grpc"))
        channel = stack.enter_context(grpc.insecure_channel(sidecar.grpc_address))
        stub = appcallback_service_v1.AppCallbackHealthCheckStub(channel)
        stub.HealthCheck(Empty(), metadata=(("dapr-app-id", "app"),), timeout=30)


# -- applications -----------------------------------------------------------


def test_a_fastapi_application(beside: Beside) -> None:
    from dapr.ext.fastapi import DaprApp
    from fastapi import Body, FastAPI, Response

    app = FastAPI()
    dapr = DaprApp(app)
    got: list[tuple[str, Any]] = []

    @dapr.subscribe(pubsub="store", topic="t", route="/orders", dead_letter_topic="dead")
    def order(event: Any = Body()) -> Any:  # noqa: B008
        got.append(("order", event["data"]))
        return {"status": "DROP"} if event["data"] == {"n": 2} else None

    @dapr.subscribe(pubsub="store", topic="dead")
    def dead(event: Any = Body()) -> None:  # noqa: B008
        got.append(("dead", event["data"]))

    @app.post("/job/{name}")
    def job(name: str, body: Any = Body()) -> None:  # noqa: B008
        got.append((f"job {name}", body))

    @app.get("/greet/{name}")
    def greet(name: str) -> Response:
        return Response(f"hello {name}", 201, media_type="text/plain")

    with fastapi_app(app) as port:
        sdk = beside(app_port=port)
        for number in (1, 2):
            sdk.call("publish_event", "store", "t", json.dumps({"n": number}), data_content_type="application/json")
        until(lambda: ("dead", {"n": 2}) in got and ("order", {"n": 1}) in got, "the events")
        answer = sdk.call("invoke_method", "app", "greet/Ada", http_verb="GET")
        assert (answer.status_code, answer.text()) == (201, "hello Ada")
        from dapr.clients import Job
        from google.protobuf.any_pb2 import Any as Packed

        sdk.call("schedule_job", Job(name="later", due_time="0s", data=Packed(value=b'{"x":1}')))
        until(lambda: ("job later", {"x": 1}) in got, "the job")


def test_an_application_of_grpc(beside: Beside, extension: Any) -> None:
    from dapr.clients import Job
    from dapr.clients.grpc._response import TopicEventResponse
    from google.protobuf.any_pb2 import Any as Packed

    app = extension.App()
    got: list[tuple[str, Any]] = []

    @app.method(name="greet")
    def greet(request: Any) -> Any:
        return extension.InvokeMethodResponse(b"hello " + request.text().encode(), "text/plain; charset=utf-8")

    @app.subscribe(pubsub_name="store", topic="t")
    def event(event: SubscriptionMessage) -> Any:
        got.append(("event", event.data()))
        return TopicEventResponse("retry" if len(got) == 1 else "success")

    @app.subscribe(pubsub_name="store", topic="ruled", rule=extension.Rule('event.type == "special"', 1))
    def special(event: SubscriptionMessage) -> None:
        got.append(("special", event.data()))

    @app.job_event("later")
    def later(event: Any) -> None:
        got.append(("job", event.get_data_as_string()))

    with grpc_app(app) as port:
        sdk = beside(app_port=port, app_protocol="grpc")
        sdk.call("publish_event", "store", "t", '{"n": 1}', data_content_type="application/json")
        until(lambda: got.count(("event", {"n": 1})) == 2, "the second try")
        metadata = {"cloudevent.type": "special"}
        sdk.call(
            "publish_event", "store", "ruled", "2", publish_metadata=metadata, data_content_type="application/json"
        )
        until(lambda: ("special", 2) in got, "the event of the rule")
        sdk.call("schedule_job", Job(name="later", due_time="0s", data=Packed(value=b"text")))
        until(lambda: ("job", "text") in got, "the job")
        answer = sdk.call("invoke_method", "app", "greet", b"Ada", http_verb="POST")
        assert answer.text() == "hello Ada"


@pytest.mark.filterwarnings("ignore:invoke_method with protocol gRPC is deprecated:DeprecationWarning")
def test_invoke_service_by_the_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: Any) -> None:
    """``DAPR_API_METHOD_INVOCATION_PROTOCOL=grpc``."""
    from dapr.conf import settings

    app = extension.App()

    @app.method(name="greet")
    def greet(request: Any) -> Any:
        return extension.InvokeMethodResponse(b"hello " + request.text().encode(), "text/plain; charset=utf-8")

    monkeypatch.setattr(settings, "DAPR_API_METHOD_INVOCATION_PROTOCOL", "grpc")
    with grpc_app(app) as port, serving(declared(str(tmp_path)), app_port=port, app_protocol="grpc") as sidecar:
        with sync_sdk(sidecar.http_address, sidecar.grpc_address, sidecar.context.client) as sdk:
            assert sdk.client.invoke_method("app", "greet", b"Ada").text() == "hello Ada"
            code, text = sdk.refused("invoke_method", "app", "gone", b"Ada")
            assert code == "UNIMPLEMENTED"
            assert "gone" in text
