"""The runtime layotto, over a fake of it that stands on the embedded runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.testing.suites import rpc_methods
from tests.support.fake_layotto import FakeLayotto, Quirks
from tests.support.fake_layotto.files import BUCKET
from tests.support.harnesses.clients import Clients
from tests.support.harnesses.embedded import MemoryHarness
from tests.support.harnesses.rpc import HereRpc


class BesideLayotto:
    """A fake in this process for all tests of a module, on SQLite in memory with a clock that can be set forward."""

    def __init__(self, folder: Path, quirks: Quirks | None = None) -> None:
        with pytest.MonkeyPatch.context() as patched:
            self.harness = MemoryHarness(patched, folder)
            self.client = self.harness.client(app_id="suite")
            assert self.client.supports("state.ttl", "any")  # the component is made while the clock stands in it
        self.fake = FakeLayotto(self.client, quirks, clocks=self.harness.clocks)

    def close(self) -> None:
        self.fake.close()
        self.harness.close()


class LayottoHarness(Clients):
    """Clients of that fake."""

    name = "layotto"
    bad_etag = "999999999"
    event_metadata = False
    slashes = False
    tells_expiry = False
    prefetch = 32

    def __init__(self, beside: BesideLayotto) -> None:
        self.beside = beside
        self._roots: dict[str, str] = {}

    def store(self, kind: str = "store") -> str:
        name = super().store(kind)
        self._roots[name] = BUCKET
        return name

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        return client_of(self.beside.fake, {"file_roots": self._roots}, arguments)

    def advance(self, seconds: float) -> None:
        self.beside.harness.advance(seconds)

    def close(self) -> None:
        super().close()
        self.beside.fake.reset()
        self.beside.harness.clocks.ahead_ms = 0  # the next test has stores of its own


LAYOTTO = {LayottoHarness.name: LayottoHarness}


def client_of(fake: FakeLayotto, table: Mapping[str, Any], arguments: dict[str, Any]) -> CloudRuntimesClient:
    """Return a client of a fake."""
    arguments.setdefault("app_id", "suite")
    config = {"layotto": {"max_message": 64 << 20, "configuration_refresh": 0.2, **table}}
    return CloudRuntimesClient(fake.endpoint, runtime="layotto", config=config, **arguments)


class LayottoRpcHarness(HereRpc):
    """Methods of an application that a fake has a route to, both in this process; calls go by the fake."""

    name = "layotto"
    service = "beside"
    any_http_method = False
    knows_services = False

    def __init__(self, folder: Path) -> None:
        self._sidecar = BesideLayotto(folder)
        super().__init__(folder)

    def _start(self) -> None:
        app = self.client(app_id=self.service)
        rpc_methods.register(app)
        self._serving = app.rpc.serving()
        self._serving.__enter__()
        self._sidecar.fake.invoke.routes[self.service] = self._serving.address.removeprefix("http://")

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        return client_of(self._sidecar.fake, {}, arguments)

    def close(self) -> None:
        self._serving.__exit__(None, None, None)
        super().close()
        self._sidecar.close()


LAYOTTO_RPC = {LayottoRpcHarness.name: LayottoRpcHarness}
