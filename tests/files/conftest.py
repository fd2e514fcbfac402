"""Stores in a folder of the test's own, and child processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient

CHILDREN = Path(__file__).parent / "children.py"


class Child:
    """A process that runs a body of ``children.py``."""

    def __init__(self, body: str, *arguments: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CHILDREN), body, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> dict[str, Any]:
        """Read what it says next."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, f"the child ended with {self.process.wait()}"
        found: dict[str, Any] = json.loads(text)
        return found

    def ready(self) -> Child:
        """Wait until it is ready."""
        assert self.line() == {"ready": True}
        return self

    def go(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL it."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    """Start children; all are ended afterwards."""
    children: list[Child] = []

    def start(body: str, *arguments: Any) -> Child:
        child = Child(body, *arguments)
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
    with client_at(root) as made:
        yield made


@pytest.fixture
def at() -> Callable[..., CloudRuntimesClient]:
    """Make more of them."""
    return client_at
