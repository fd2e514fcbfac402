"""Clients for the tests of telemetry; nothing of the environment's ``OTEL_*`` reaches them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core import logs
from cloud_runtimes._native import telemetry as kernel


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(logs, "_said", {})  # what is said once a minute is said in each test
    yield
    kernel.bridge(None)  # which a test's providers may have built


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Callable[..., CloudRuntimesClient]]:
    """Make clients with a table ``[telemetry]``, closed at the end; no signal handler unless asked for."""
    clients: list[CloudRuntimesClient] = []

    def make(**settings: Any) -> CloudRuntimesClient:
        table = {"flush_on_sigterm": False, **settings}
        home = table.pop("home", str(tmp_path / "home"))
        clients.append(CloudRuntimesClient(app_id="shop", config={"capa": {"home": home}, "telemetry": table}))
        return clients[-1]

    yield make
    for each in clients:
        each.close(timeout=0.5)
