"""``bindings.cron``: calls of the application at times."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.dapr_server.resources import load
from cloud_runtimes.dapr_server.settings import CronBinding
from cloud_runtimes.protocols.dapr.messages import messages
from cloud_runtimes.testing.sidecar import serve
from tests.sidecar.raw import send
from tests.sidecar.test_resources import component, refusal, write
from tests.support.apps import App, Got, GrpcApp, Reply, serving_grpc
from tests.support.running import declared, serving
from tests.support.waiting import until


def test_the_application_is_called_at_times() -> None:
    timers = (
        CronBinding("fast", "@every 50ms", asks=False),
        CronBinding("asked", "@every 50ms", route="/at/times"),
        CronBinding("unwanted", "@every 50ms"),
        CronBinding("never", "0 0 1 1 *", asks=False),
    )

    def answer(got: Got) -> Reply:
        return Reply({"/unwanted": 404, "/fast": 500}.get(got.path, 200))

    with App(answer=answer) as app, serving(declared(":memory:cron"), app_port=app.port, timers=timers):
        until(lambda: len(app.at("/fast")) >= 3 and len(app.at("/at/times")) >= 3)
    asked = [(got.method, got.path) for got in app.got if got.method == "OPTIONS"]
    assert sorted(asked) == [("OPTIONS", "/at/times"), ("OPTIONS", "/unwanted")]
    assert {got.path for got in app.got} == {"/fast", "/at/times", "/unwanted"}
    called = next(got for got in app.at("/fast"))
    assert (called.method, called.body, called.header("content-type")) == ("POST", b"", "application/json")
    assert called.header("timezone") == "UTC"
    assert str(called.header("readtimeutc")).endswith("+0000 UTC")


def test_calls_that_take_long_overlap_and_end_with_the_sidecar() -> None:
    hold, lock, under_way = threading.Event(), threading.Lock(), [0, 0]

    def answer(got: Got) -> Reply:
        with lock:
            under_way[0] += 1
            under_way[1] = max(under_way)
        hold.wait(30)
        with lock:
            under_way[0] -= 1
        return Reply()

    timers = (CronBinding("slow", "@every 50ms", asks=False),)
    with App(answer=answer) as app:
        with serving(declared(":memory:cron-slow"), app_port=app.port, timers=timers):
            until(lambda: under_way[1] >= 2)
            hold.set()
        count = len(app.got)
        time.sleep(0.2)  # nothing comes any more
        assert len(app.got) == count


def test_over_grpc() -> None:
    kinds = messages()

    def taken(request: Any, context: Any) -> Any:
        return kinds.BindingEventResponse()

    listed = "Empty", lambda request, context: kinds.ListInputBindingsResponse(bindings=["wanted"])
    app = GrpcApp(ListInputBindings=listed, OnBindingEvent=("BindingEventRequest", taken))
    timers = (CronBinding("wanted", "@every 50ms"), CronBinding("unwanted", "@every 50ms"))
    with serving_grpc(app):
        options: dict[str, Any] = {"app_port": app.port, "app_protocol": "grpc", "timers": timers}
        with serving(declared(":memory:cron-grpc"), **options):
            until(lambda: len(app.named("OnBindingEvent")) >= 3)
    assert {request.name for request in app.named("OnBindingEvent")} == {"wanted"}
    assert app.named("OnBindingEvent")[0].metadata["timeZone"] == "UTC"


def test_components(tmp_path: Path) -> None:
    found = load(
        write(
            tmp_path,
            component("a", "bindings.cron", '{name: schedule, value: "@every 1m30s"}'),
            component(
                "b",
                "bindings.cron",
                '{name: schedule, value: "CRON_TZ=Europe/Paris 0 30 9 * * *"}',
                "{name: route, value: /x}",
                "{name: direction, value: input}",
            ),
            component("c", "bindings.cron", '{name: schedule, value: "@daily"}', "{name: direction, value: output}"),
        ),
        "shop",
    )
    assert found.timers == (
        CronBinding("a", "@every 1m30s"),
        CronBinding("b", "0 30 9 * * *", "Europe/Paris", "/x", asks=False),
    )
    assert [(each.name, each.type, each.capabilities) for each in found.components] == [
        (name, "bindings.cron", ("INPUT_BINDING",)) for name in ("a", "b")
    ]
    assert [each.partition("): ")[2] for each in found.warnings] == ["direction has no input: the binding calls nobody"]
    told = {"name": "a", "type": "bindings.cron", "version": "v1", "capabilities": ["INPUT_BINDING"]}
    (tmp_path / "all.yaml").write_text(component("a", "bindings.cron", '{name: schedule, value: "@every 50ms"}'))
    with App() as app, serve(app_id="shop", app_port=app.port, resources=tmp_path) as sidecar:
        assert send(sidecar.http_endpoint, "GET", "/v1.0/metadata").json["components"] == [told]
        until(lambda: [got for got in app.at("/a") if got.method == "POST"])


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ([], "metadata 'schedule': "),
        (['{name: schedule, value: "every minute"}'], "metadata 'schedule': "),
        (['{name: schedule, value: "TZ=Nowhere/At 0 * * * *"}'], "timezone 'Nowhere/At' is not known"),
        (['{name: schedule, value: "@daily"}', "{name: url, value: x}"], "direction, route, schedule"),
    ],
)
def test_components_that_are_none(tmp_path: Path, metadata: list[str], said: str) -> None:
    assert said in refusal(tmp_path, component("a", "bindings.cron", *metadata))
