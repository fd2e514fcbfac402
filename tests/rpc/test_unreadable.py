"""Entries of a registry that cannot be read: the other servers are called."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.testing import Api
from tests.support.entries import ENGINES, Entries, make_entries


@pytest.fixture(params=[engine for engine in ENGINES if engine != "nats"])  # which needs no registry
def entries(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Entries]:
    made = make_entries(request, request.param, tmp_path)
    yield made
    made.harness.close()


class Asked:
    """A registry that is asked for the servers of an application."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self._asked = Operation(Method("rpc", "invoke_method", repeatable=True), "orders", 5.0), "orders"

    def find(self) -> Any:
        return self._registry.find(*self._asked)

    async def find_async(self) -> Any:
        return await self._registry.find_async(*self._asked)


@pytest.mark.parametrize("address", ["", "localhost", "http://host:port", "http://a b c", "http://user:canary@host"])
def test_an_entry_that_cannot_be_read(
    entries: Entries, api: Api, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    caplog.set_level(logging.WARNING, "cloud_runtimes")
    server = entries.harness.client(app_id="orders")
    server.rpc.register_method("echo", lambda data: data)
    driver = entries.driver("rpc", "orders")._runtime.embedded_rpc(
        "orders"
    )  # a client in this process asks no registry
    with server.rpc.serving(port=0) as serving:
        entries.server("orders", address)
        for _ in range(3):
            driver._found(api.call(Asked(driver._registry), "find"), b"secret")
            assert [f"http://{known.endpoint.host}:{known.endpoint.port}" for known in driver._known] == [
                serving.address
            ]
    (record,) = caplog.records
    assert "odd" in record.getMessage()
    assert "canary" not in record.getMessage()
