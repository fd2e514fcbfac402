"""Homes and child processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support.child import Child, Start
from tests.support.mounts import small_disk  # noqa: F401

FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
CHILDREN = Path(__file__).parent / "children.py"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, also in the environment."""
    folder = tmp_path / "home"
    monkeypatch.setenv("CLOUD_RUNTIMES_HOME", str(folder))
    return folder


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Start children; all are ended afterwards."""
    children: list[Child] = []

    def start(body: str, *arguments: Any, **options: Any) -> Child:
        child = Child(CHILDREN, body, *arguments, environment={"CLOUD_RUNTIMES_HOME": str(home)}, **options)
        children.append(child)
        return child

    yield start
    for child in children:
        child.close()


@pytest.fixture
def client(home: Path) -> Iterator[CloudRuntimesClient]:
    """A client on the home, closed afterwards."""
    instance = CloudRuntimesClient(app_id="test")
    yield instance
    instance.close()


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Have processes started from here on see a wall clock that the result sets off, live; monotonic clocks stay true."""
    if not FAKETIME:
        pytest.skip("libfaketime is not installed")
    offset = tmp_path / "offset"

    def step(seconds: float) -> None:
        fresh = tmp_path / "offset.new"
        fresh.write_text(f"{seconds:+.0f}\n")
        fresh.rename(offset)

    step(0)
    monkeypatch.setenv("LD_PRELOAD", str(FAKETIME[0]))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(offset))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    return step
