"""The same policies over real HTTP: in Capa, and through a sidecar."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import UnavailableError
from cloud_runtimes.resiliency import stats
from tests.support.apps import App, Got, Reply
from tests.support.running import declared, serving

IN_MEMORY = {"capa": {"home": ":memory:"}}
RETRY = {"policy": "constant", "duration": 0.01, "repeat": "all", "budget_reserve": 100}


class Behaviour:
    """Behaviour of the application: statuses one after the other, 0 for an answer that comes too late."""

    def __init__(self) -> None:
        self.script: list[int] = []
        self.seen = 0
        self.go_on = threading.Event()

    def __call__(self, got: Got) -> Reply | None:
        if got.path != "/m":
            return None
        self.seen += 1
        status = self.script.pop(0) if self.script else 200
        if not status:
            self.go_on.wait(30)
        return Reply(status or 200, b"1", [("content-type", "application/json")])


@pytest.fixture
def behaviour() -> Iterator[Behaviour]:
    make = Behaviour()
    yield make
    make.go_on.set()


@pytest.fixture(params=["capa", "dapr"])
def make(request: pytest.FixtureRequest, behaviour: Behaviour) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """Make a client of that runtime that calls the application ``app``."""
    with App(answer=behaviour) as app, ExitStack() as stack:
        options: dict[str, Any] = {"runtime": "capa"}
        config: dict[str, Any] = {"rpc": {"app": {"address": f"http://127.0.0.1:{app.port}"}}, **IN_MEMORY}
        if request.param == "dapr":
            sidecar = stack.enter_context(serving(declared(":memory:over"), app_port=app.port))
            options, config = {"runtime": "dapr", "endpoint": sidecar.http_address}, {}

        def make(policy: dict[str, Any]) -> CloudRuntimesClient:
            return CloudRuntimesClient(config={**config, "resiliency": {"targets": {"rpc.app": policy}}}, **options)

        yield make
        behaviour.go_on.set()


def test_statuses(make: Any, behaviour: Behaviour, api: Any) -> None:
    with make({"retry": RETRY}) as client:
        behaviour.script = [503, 429, 200]
        assert api.call(client.rpc, "invoke_method", "app", "m", 7) == 1
        assert behaviour.seen == 3
        behaviour.script = [503, 503, 503]
        error = api.fails(UnavailableError)(client.rpc, "invoke_method", "app", "m", 7)
        assert error.response is not None
        assert error.response.status == 503
        assert behaviour.seen == 6


def test_an_attempt_that_takes_too_long(make: Any, behaviour: Behaviour, api: Any) -> None:
    with make({"timeout": "400ms", "retry": RETRY}) as client:
        behaviour.script = [0]
        assert api.call(client.rpc, "invoke_method", "app", "m", 7, timeout=60) == 1
        assert stats(client)["rpc.app"].retries >= 1
        behaviour.go_on.set()


def test_a_breaker(make: Any, behaviour: Behaviour, api: Any) -> None:
    with make({"retry": False, "breaker": {"consecutive_failures": 2, "timeout": 60}}) as client:
        behaviour.script = [500, 500]
        for _ in range(2):
            assert api.call(client.rpc, "invoke", "app", "m").status == 500
        api.fails(UnavailableError, match=r"circuit breaker of rpc\.app is open")(client.rpc, "invoke", "app", "m")
        assert behaviour.seen == 2
        assert stats(client)["rpc.app"].refused == 1
