"""Files of secrets, with clocks that say when they were written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.components.config_file import FileComponent
from cloud_runtimes.components.env import EnvComponent
from cloud_runtimes.testing.canary import Canary

ENVIRONMENT = (
    "APP_ID",
    "CLOUD_RUNTIMES_RUNTIME",
    "DAPR_HTTP_ENDPOINT",
    "DAPR_GRPC_ENDPOINT",
    "DAPR_HTTP_PORT",
    "DAPR_GRPC_PORT",
    "LAYOTTO_GRPC_ENDPOINT",
)


class AheadClocks(Clocks):
    """The real clocks, some milliseconds ahead."""

    __slots__ = ("ahead_ms",)

    def __init__(self) -> None:
        self.ahead_ms = 3_600_000

    def wall_ms(self) -> int:
        return super().wall_ms() + self.ahead_ms


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUD_RUNTIMES_HOME", ":memory:")


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> AheadClocks:
    """An hour ahead: no file counts as just written, until it is set back."""
    clocks = AheadClocks()
    monkeypatch.setattr(FileComponent, "clocks", clocks)
    monkeypatch.setattr(EnvComponent, "clocks", clocks)
    return clocks


@pytest.fixture
def sources(tmp_path: Path, canary: Canary, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds secrets on purpose; the working directory."""
    folder = canary.declare(tmp_path / "sources")
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def write(sources: Path) -> Callable[..., Path]:
    """Write a file of secrets, in place: text, or what becomes JSON."""

    def write(name: str, content: Any, mode: int = 0o600) -> Path:
        path = sources / name
        data = content if isinstance(content, (str, bytes)) else json.dumps(content)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def client() -> Iterator[Callable[..., CloudRuntimesClient]]:
    """Make a client whose store ``s`` is a component with these settings."""
    opened: list[CloudRuntimesClient] = []

    def client(component: str = "config_file", **settings: Any) -> CloudRuntimesClient:
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
        opened.append(CloudRuntimesClient(config={"secret": {"s": {"component": component, **settings}}}))
        return opened[-1]

    yield client
    for each in opened:
        each.close()
