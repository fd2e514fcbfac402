"""SQLite, in a file and in memory, with a clock that a test sets forward."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, registry
from cloud_runtimes.testing import Clock, Harness

_numbers = itertools.count()


class SqliteHarness(Harness):
    """SQLite in a file."""

    name = "sqlite"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.home = self._home(folder)
        self.clocks = Clock()
        self._clients: list[CloudRuntimesClient] = []
        monkeypatch.setitem(registry._found, (registry.COMPONENTS, "sqlite"), self.clocks.component)

    def _home(self, folder: Path) -> str:
        return str(folder / "home")

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        client = CloudRuntimesClient(config={"capa": {"home": self.home}}, **arguments)
        self._clients.append(client)
        return client

    def advance(self, seconds: float) -> None:
        self.clocks.advance(seconds)

    def close(self) -> None:
        for client in self._clients:
            client.close()


class MemoryHarness(SqliteHarness):
    """SQLite in the process."""

    name = "sqlite :memory:"

    def _home(self, folder: Path) -> str:
        return f":memory:suite-{next(_numbers)}"


HARNESSES = {harness.name: harness for harness in (SqliteHarness, MemoryHarness)}
