"""SQLite, in a file and in memory, with a clock that a test sets forward."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import registry
from cloud_runtimes.testing import Clock
from tests.support.harnesses.clients import Clients

_numbers = itertools.count()


class SqliteHarness(Clients):
    """SQLite in a file."""

    name = "sqlite"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.home = self._home(folder)
        self.clocks = Clock()
        monkeypatch.setitem(registry.loaded, (registry.COMPONENTS, "sqlite"), self.clocks.component)

    def _home(self, folder: Path) -> str:
        return str(folder / "home")

    def config(self) -> dict[str, Any]:
        return {"capa": {"home": self.home}}

    def advance(self, seconds: float) -> None:
        self.clocks.advance(seconds)


class MemoryHarness(SqliteHarness):
    """SQLite in the process."""

    name = "sqlite :memory:"

    def _home(self, folder: Path) -> str:
        return f":memory:suite-{next(_numbers)}"


HARNESSES = {harness.name: harness for harness in (SqliteHarness, MemoryHarness)}
