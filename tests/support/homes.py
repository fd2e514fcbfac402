"""What holds of a home on every engine, and clients whose home is a server of the test's own."""

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
from cloud_runtimes.errors import DeadlineExceededError
from cloud_runtimes.testing import Api
from tests.support.ports import reserved_port

__all__ = ["Homes", "clients"]


@pytest.fixture(name="client")
def clients() -> Iterator[Callable[..., CloudRuntimesClient]]:
    """Make a client whose home is a URL."""
    with ExitStack() as resources:

        def make(url: str, **settings: Any) -> CloudRuntimesClient:
            config = {"capa": {"home": {"url": url, **settings}}}
            return resources.enter_context(CloudRuntimesClient(app_id="suite", config=config, timeout=20))

        yield make


class Homes:
    """A subclass names the engine, and the features of one of its services."""

    engine: ClassVar[str]
    service: ClassVar[str]
    features: ClassVar[list[str]]

    def test_by_the_environment(self, home: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, api: Api) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("CLOUD_RUNTIMES_HOME", home.server.url)
        store = home.store()
        with CloudRuntimesClient(app_id="suite") as one, CloudRuntimesClient(app_id="suite") as two:
            api.call(one.state, "save", store, "k", 1)
            assert api.call(two.state, "get", store, "k") == 1
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
        starting = threading.Timer(0.2, server.start)
        starting.start()
        with CloudRuntimesClient(config={"capa": {"home": server.url}}) as client:
            api.call(client, "wait_ready", timeout=60)
            assert api.call(client.state, "get", "s", "k") is None
        starting.join()

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
        (found,) = [each for each in report["components"] if each["name"] == self.engine]
        assert found["services"][self.service] == self.features
