"""Homes and child processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient

FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
CHILDREN = Path(__file__).parent / "children.py"


class Child:
    """A process that runs a body of ``children.py``."""

    def __init__(self, home: Path, body: str, *arguments: Any, prefix: tuple[str, ...] = ()) -> None:
        environment = {**os.environ, "CLOUD_RUNTIMES_HOME": str(home)}
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(CHILDREN), body, *map(str, arguments)],
            env=environment,
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
        """Let it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> list[dict[str, Any]]:
        """SIGKILL it; returns all that it still said. A line cut by the kill was not said."""
        self.process.send_signal(signal.SIGKILL)
        return self.rest()

    def rest(self) -> list[dict[str, Any]]:
        """Wait for its end; returns what it said and was not read."""
        assert self.process.stdout is not None
        lines = self.process.stdout.read().split("\n")
        self.process.wait()
        return [json.loads(line) for line in lines[:-1]]

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, also in the environment."""
    folder = tmp_path / "home"
    monkeypatch.setenv("CLOUD_RUNTIMES_HOME", str(folder))
    return folder


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Child]]:
    """Start children; all are ended afterwards."""
    children: list[Child] = []

    def start(body: str, *arguments: Any, **options: Any) -> Child:
        child = Child(home, body, *arguments, **options)
        children.append(child)
        return child

    yield start
    for child in children:
        child.close()


@pytest.fixture
def client(home: Path) -> Iterator[CloudRuntimesClient]:
    """A client on the home, closed afterwards."""
    made = CloudRuntimesClient(app_id="test")
    yield made
    made.close()


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
