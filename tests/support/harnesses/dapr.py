"""The runtime dapr, over a sidecar of ours: HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.testing.suites import rpc_methods
from tests.support.harnesses.clients import Clients
from tests.support.harnesses.embedded import MemoryHarness
from tests.support.harnesses.rpc import HereRpc
from tests.support.ports import reserved_port

MAX_BODY = 64 << 20


class Beside:
    """A sidecar in this process for all tests of a module, that stands on SQLite in memory with a clock that can be set forward."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        with pytest.MonkeyPatch.context() as patched:
            self.harness = MemoryHarness(patched, folder)
            self.client = self.harness.client(**settings.pop("client", {}))
            assert self.client.supports("state.ttl", "any")  # the component is made while the clock stands in it
        settings = {"app_id": "suite", "http_port": 0, "grpc_port": 0, "max_body": MAX_BODY, **settings}
        self.sidecar = Sidecar(self.client, SidecarSettings(**settings))
        self.sidecar.__enter__()

    def close(self) -> None:
        self.sidecar.close()
        self.harness.close()


class DaprHttp(Clients):
    """Clients of a sidecar over HTTP."""

    name = "dapr"
    grpc: ClassVar[bool] = False
    both: ClassVar[bool] = False
    empty_settings = False
    event_metadata = False
    tells_dead = False
    raw_types = False
    prefetch = 256

    def __init__(self, beside: Beside) -> None:
        self.beside = beside

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        return client_of(self.beside.sidecar, self.grpc, arguments, both=self.both)

    def configure(self, client: CloudRuntimesClient, store: str, values: Mapping[str, str | None]) -> None:
        super().configure(self.beside.client, store, values)  # Dapr has no way to write

    def advance(self, seconds: float) -> None:
        self.beside.harness.advance(seconds)

    def close(self) -> None:
        super().close()
        self.beside.harness.clocks.ahead_ms = 0  # the next test has stores of its own


class DaprGrpc(DaprHttp):
    """Clients of a sidecar over gRPC."""

    name = "dapr over gRPC"
    grpc = True


class DaprOneAtATime(DaprGrpc):
    """Clients of a sidecar whose streams have one event under way."""

    name = "dapr, one event at a time"
    at_once = 1
    prefetch = 0


class DaprBoth(DaprGrpc):
    """Clients that know both addresses, as those under ``dapr run`` do."""

    name = "dapr over both"
    both = True


DAPR: dict[str, type[DaprHttp]] = {harness.name: harness for harness in (DaprHttp, DaprGrpc)}
# what differs where both are known is where state goes
DAPR_STATE = {**DAPR, DaprBoth.name: DaprBoth}


def client_of(sidecar: Sidecar, grpc: bool, arguments: dict[str, Any], *, both: bool = False) -> CloudRuntimesClient:
    """Return a client that takes messages as large as the sidecar does."""
    if not grpc:
        return CloudRuntimesClient(sidecar.http_address, **arguments)
    settings: dict[str, Any] = {"max_message": MAX_BODY}
    if both:
        settings["http_endpoint"] = sidecar.http_address
    return CloudRuntimesClient(f"grpc://{sidecar.grpc_address}", config={"dapr": settings}, **arguments)


class DaprRpcHarness(HereRpc):
    """Methods of an application beside a sidecar, both in this process; calls go by the sidecar."""

    name = "dapr"
    service = "beside"

    def __init__(self, folder: Path) -> None:
        self._reserved = reserved_port()
        self._port = self._reserved.__enter__()
        self._beneath = CloudRuntimesClient(app_id=self.service, config={"capa": {"home": str(folder / "home")}})
        settings = SidecarSettings(
            app_id=self.service, app_port=self._port, http_port=0, grpc_port=None, max_body=MAX_BODY
        )
        self._sidecar = Sidecar(self._beneath, settings)
        self._sidecar.__enter__()
        super().__init__(folder)

    def _start(self) -> None:
        app = self.client(app_id=self.service)
        rpc_methods.register(app)
        self._serving = app.rpc.serving(port=self._port)
        self._serving.__enter__()

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        return client_of(self._sidecar, False, arguments)

    def close(self) -> None:
        self._serving.__exit__(None, None, None)
        super().close()
        self._sidecar.close()
        self._beneath.close()
        self._reserved.__exit__(None, None, None)


DAPR_RPC = {DaprRpcHarness.name: DaprRpcHarness}
