"""Tests of a home for every engine, and clients whose home is a server of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ConflictError, DeadlineExceededError, InvalidArgumentError, UnavailableError
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.canary import Canary
from tests.support import Make
from tests.support.fault_proxy import End, FaultProxy
from tests.support.forked import Forked
from tests.support.ports import reserved_port
from tests.support.servers import stopped
from tests.support.waiting import Stopwatch, running

__all__ = ["Homes", "clients", "receive"]


@pytest.fixture(name="client")
def clients() -> Iterator[Callable[..., CloudRuntimesClient]]:
    """Make a client whose home is a URL."""
    with ExitStack() as resources:

        def make(url: str, **settings: Any) -> CloudRuntimesClient:
            config = {"capa": {"home": {"url": url, **settings}}}
            return resources.enter_context(CloudRuntimesClient(app_id="suite", config=config, timeout=20))

        yield make


def receive(api: Api, subscription: Any, key: str, value: str | None) -> None:
    """Receive until a key of configuration has a value; ``None``: until it is deleted."""
    for _ in range(20):
        items = api.call(subscription, "receive", 10)
        assert items is not None, f"{key} = {value} did not come"
        if key in items and (None if items[key].deleted else items[key].value) == value:
            return
    pytest.fail(f"{key} = {value} did not come")


class Homes:
    """A subclass names the engine, and the features of one of its services."""

    engine: ClassVar[str]
    service: ClassVar[str]
    features: ClassVar[list[str]]
    wrong_urls: ClassVar[tuple[str, ...]]
    """URLs that are none; ``{}`` is a password."""
    url_help: ClassVar[str]
    """Message of the error of such a URL."""
    after_hanging: ClassVar[tuple[int, ...]] = (1, 2)
    """Values that a server may have after the write of 2 that ran out of time."""
    durable: ClassVar[dict[str, Any]] = {}
    """Options of a server that has after SIGKILL what it acknowledged."""

    def test_by_the_environment(self, home: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, api: Api) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("CLOUD_RUNTIMES_HOME", home.server.url)
        store = home.store()
        config = {"capa": {"home": home.server.url}}
        with CloudRuntimesClient(app_id="suite") as one, CloudRuntimesClient(app_id="suite", config=config) as two:
            api.call(one.state, "save", store, "k", 1)
            assert api.call(two.state, "get", store, "k") == 1
            one.telemetry.logger("test").info("here")
            api.call(two, "wait_ready")
        assert {path.name for path in tmp_path.iterdir()} <= {".cloud_runtimes"}

    def test_waiting_for_the_server(self, served: Callable[..., Any], tmp_path: Path, api: Api) -> None:
        beside = {"docs": {"component": "local", "path": str(tmp_path)}}
        with reserved_port() as port:
            for file in ({}, {"file": beside}):  # the home is waited for beside what is declared: RPC is there
                config = {"capa": {"home": f"{self.engine}://127.0.0.1:{port}"}, **file}
                with CloudRuntimesClient(config=config) as client:
                    with pytest.raises(DeadlineExceededError, match="ready"):
                        client.wait_ready(timeout=0.1)
        server = served()
        server.kill()
        with running(threading.Timer(0.2, server.start)):
            with CloudRuntimesClient(config={"capa": {"home": server.url}}) as client:
                api.call(client, "wait_ready", timeout=60)
                assert api.call(client.state, "get", "s", "k") is None

    def test_nobody_listens(self, client: Make, api: Api) -> None:
        with reserved_port() as port:
            state = client(f"{self.engine}://127.0.0.1:{port}").state
            error = api.fails(UnavailableError, match="can(not)? be reached")(state, "save", "s", "k", 1)
        assert not error.maybe_applied
        assert f"127.0.0.1:{port}" in str(error)

    def test_a_url_that_is_none(self, client: Make, canary: Canary) -> None:
        for url in self.wrong_urls:
            instance = client(url.replace("{}", canary.value()))
            with canary.raises(InvalidArgumentError, match=self.url_help):
                instance.state.get("s", "k")

    def test_a_server_that_hangs(self, served: Callable[..., Any], client: Make, api: Api) -> None:
        """Deadlines hold, and calls after it need no restart."""
        server = served()
        state = client(server.url).state
        api.call(state, "save", "s", "k", 1)
        with stopped(server):
            with Stopwatch() as watch:
                written = api.fails(DeadlineExceededError)(state, "save", "s", "k", 2, timeout=0.3)
                read = api.fails(DeadlineExceededError, match="0.3 s were not enough")(
                    state, "get", "s", "k", timeout=0.3
                )
                assert watch.seconds < 3
        assert written.maybe_applied
        assert not read.maybe_applied
        assert api.until(lambda: state.get("s", "k") in self.after_hanging)
        api.call(state, "save", "s", "k", 3)
        assert api.call(state, "get", "s", "k") == 3

    def test_a_server_that_is_killed(self, served: Callable[..., Any], client: Make, api: Api) -> None:
        server = served(**self.durable)
        state = client(server.url).state
        for turn in range(3):
            api.call(state, "save", "s", "k", turn)
            server.kill()
            api.pause(0.02)
            error = api.fails(UnavailableError)(state, "save", "s", "k", -1, timeout=1)
            assert not error.maybe_applied
            assert error.retryable
            server.start()
            assert api.call(state, "get", "s", "k") == turn

    def test_a_restart_misses_nothing(self, served: Callable[..., Any], client: Make, api: Api) -> None:
        server = served(**self.durable)
        mine = client(server.url)
        mine.configuration.save_configuration("app", {"k": "1", "kept": "1"})
        with api.opened(mine.configuration.subscribe_configuration("app")) as subscription:
            receive(api, subscription, "k", "1")
            server.kill()
            server.start()
            client(server.url).configuration.save_configuration("app", {"k": "2"})
            receive(api, subscription, "k", "2")
        assert mine.configuration.get_configuration("app") == {"k": "2", "kept": "1"}

    def test_connections_that_were_cut_are_replaced(self, home: Any, client: Make, api: Api) -> None:
        with FaultProxy(home.server.port) as proxy:
            state = client(f"{self.engine}://127.0.0.1:{proxy.port}", prefix=home.prefix).state
            for turn in range(4):
                ends: list[End] = ["reset", "close"] if turn % 2 else ["close", "reset"]
                api.call(state, "save", "s", "k", turn)
                for end in ends:
                    proxy.break_all(end)
                    api.pause(0.05)
                    assert api.call(state, "get", "s", "k") == turn

    def test_a_child_leaves_the_connections_of_its_parent_alone(self, home: Any, api: Api) -> None:
        client = home.client()
        api.call(client.state, "save", "s", "k", 1)
        child = Forked(lambda: client.state.save("s", "child", client.state.get("s", "k") + 1))
        for _ in range(100):
            assert client.state.get("s", "k") == 1
        child.result()
        assert api.call(client.state, "get", "s", "child") == 2

    def test_an_error_of_ours_is_not_its_own_cause(self, home: Any, api: Api) -> None:
        state = home.client().state
        api.call(state, "save", "s", "k", 1)
        assert api.fails(ConflictError)(state, "save", "s", "k", 2, etag=home.bad_etag).__cause__ is None

    def test_doctor_shows_the_home(self, home: Any, tmp_path: Path) -> None:
        """Its servers without user and password, whether they answer, and what it has."""
        servers = f"127.0.0.1:{home.server.port},localhost:{home.server.port}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CLOUD_RUNTIMES")}
        environment["CLOUD_RUNTIMES_HOME"] = f"{self.engine}://user:canary@{servers}"
        command = [sys.executable, "-m", "cloud_runtimes", "doctor", "--json"]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert "canary" not in result.stdout + result.stderr
        report = json.loads(result.stdout)
        assert report["home"] == f"{self.engine}://{servers}"
        assert report["ready"], report["problem"]
        (component,) = [each for each in report["components"] if each["name"] == self.engine]
        assert component["services"][self.service] == self.features
