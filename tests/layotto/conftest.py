"""A fake Layotto and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support import Make
from tests.support.fake_layotto import FakeLayotto, Quirks


@pytest.fixture
def beneath() -> Iterator[CloudRuntimesClient]:
    """Client that serves the requests of a fake."""
    with CloudRuntimesClient(app_id="suite", runtime="capa", config={"capa": {"home": ":memory:layotto"}}) as client:
        yield client


@pytest.fixture
def quirks() -> Quirks:
    """All of them."""
    return Quirks()


@pytest.fixture
def fake(beneath: CloudRuntimesClient, quirks: Quirks) -> Iterator[FakeLayotto]:
    """Fake Layotto for a test."""
    with FakeLayotto(beneath, quirks) as layotto:
        yield layotto


@pytest.fixture
def clients(fake: FakeLayotto) -> Iterator[Make]:
    """Makes clients of the fake."""
    opened: list[CloudRuntimesClient] = []

    def make(**table: Any) -> CloudRuntimesClient:
        top = {key: table.pop(key) for key in ("fallback", "capa", "database", "state") if key in table}
        config = {"layotto": {"configuration_refresh": 0.3, **table}, **top}
        opened.append(CloudRuntimesClient(fake.endpoint, runtime="layotto", app_id="suite", config=config))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def client(clients: Make) -> CloudRuntimesClient:
    """Client of the fake."""
    return clients()


@pytest.fixture
def socket_path(tmp_path: Path) -> str:
    """Where a sidecar can listen, as gRPC names it; short enough for the kernel."""
    return f"unix:{tmp_path}/s"
