"""Homes, watched files, and a source that does as it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, _log


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said once a minute is said in every test."""
    monkeypatch.setattr(_log, "_said", {})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def client(home: Path) -> Iterator[CloudRuntimesClient]:
    """A client on the embedded store."""
    with CloudRuntimesClient(config={"capa": {"home": str(home)}}, app_id="test") as made:
        yield made


@pytest.fixture
def on_file(tmp_path: Path) -> Iterator[Callable[..., CloudRuntimesClient]]:
    """Make clients whose store ``app`` is a file."""
    made: list[CloudRuntimesClient] = []

    def make(path: Path, /, **settings: Any) -> CloudRuntimesClient:
        table = {"component": "file", "path": str(path), "watch": "poll", "poll_interval": "20ms", **settings}
        made.append(CloudRuntimesClient(config={"configuration": {"app": table}}, app_id="test"))
        return made[-1]

    yield make
    for client in made:
        client.close()
