"""SQLite, in a file and in memory, with a clock that a test sets forward."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, registry
from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.components.sqlite import SqliteComponent
from cloud_runtimes.testing import Harness

_numbers = itertools.count()


class ShiftedClocks(Clocks):
    """The real clocks, some time ahead."""

    __slots__ = ("ahead_ms",)

    def __init__(self) -> None:
        self.ahead_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.ahead_ms

    def boot_ms(self) -> int:
        return super().boot_ms() + self.ahead_ms


class SqliteHarness(Harness):
    """SQLite in a file."""

    name = "sqlite"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.home = self._home(folder)
        self.clocks = ShiftedClocks()
        self._clients: list[CloudRuntimesClient] = []
        # the real component, with a clock that can be set forward
        clocked = type("ClockedSqlite", (SqliteComponent,), {"clocks": self.clocks})
        monkeypatch.setitem(registry._found, (registry.COMPONENTS, "sqlite"), clocked)

    def _home(self, folder: Path) -> str:
        return str(folder / "home")

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        client = CloudRuntimesClient(config={"capa": {"home": self.home}}, **arguments)
        self._clients.append(client)
        return client

    def advance(self, seconds: float) -> None:
        self.clocks.ahead_ms += round(seconds * 1000)

    def close(self) -> None:
        for client in self._clients:
            client.close()


class MemoryHarness(SqliteHarness):
    """SQLite in the process."""

    name = "sqlite :memory:"

    def _home(self, folder: Path) -> str:
        return f":memory:suite-{next(_numbers)}"


HARNESSES = {harness.name: harness for harness in (SqliteHarness, MemoryHarness)}
