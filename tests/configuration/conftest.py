"""Homes, watched files, and a source that does as it is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core import logs
from cloud_runtimes._core.clocks import Clocks


class SetClocks(Clocks):
    """Clocks that the test sets. `write` sets the wall clock just after the time of the file."""

    __slots__ = ("passed", "skew", "wall")

    def __init__(self) -> None:
        self.passed = self.skew = 0.0
        self.wall = time.time()

    def set(self, path: Path) -> None:
        self.wall = path.stat().st_ctime + 0.001 - self.passed

    def monotonic(self) -> float:
        return 1000.0 + self.passed

    def wall_ms(self) -> int:
        return round((self.wall + self.passed + self.skew) * 1000)

    def write(self, path: Path, text: str) -> None:
        path.write_text(text)
        self.set(path)


@pytest.fixture
def clocks() -> SetClocks:
    return SetClocks()


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset of the log throttle, so that each test sees the messages that are logged once a minute."""
    monkeypatch.setattr(logs, "_said", {})


@pytest.fixture
def client(home: Path) -> Iterator[CloudRuntimesClient]:
    """A client on the embedded store."""
    with CloudRuntimesClient(config={"capa": {"home": str(home)}}, app_id="test") as instance:
        yield instance


@pytest.fixture
def on_file(tmp_path: Path) -> Iterator[Callable[..., CloudRuntimesClient]]:
    """Make clients whose store ``app`` is a file."""
    clients: list[CloudRuntimesClient] = []

    def make(path: Path, /, **settings: Any) -> CloudRuntimesClient:
        table = {"component": "config_file", "path": str(path), "watch": "poll", "poll_interval": "20ms", **settings}
        clients.append(CloudRuntimesClient(config={"configuration": {"app": table}}, app_id="test"))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
