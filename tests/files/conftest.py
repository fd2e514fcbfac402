"""Stores in a folder of the test's own, and child processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support.child import Child, Start
from tests.support.mounts import small_disk  # noqa: F401

CHILDREN = Path(__file__).parent / "children.py"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start children; all are ended afterwards."""
    children: list[Child] = []

    def start(body: str, *arguments: Any) -> Child:
        child = Child(CHILDREN, body, *arguments)
        children.append(child)
        return child

    yield start
    for child in children:
        child.close()


def client_at(path: Path, **settings: Any) -> CloudRuntimesClient:
    """Return a client whose store ``store`` is a folder."""
    table = {"component": "local", "path": str(path), **settings}
    return CloudRuntimesClient(config={"file": {"store": table}}, app_id="files", timeout=20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The store's folder."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def client(root: Path) -> Iterator[CloudRuntimesClient]:
    """A client on it."""
    with client_at(root) as instance:
        yield instance


@pytest.fixture
def at() -> Callable[..., CloudRuntimesClient]:
    """Make more of them."""
    return client_at
