"""The runtime dapr, over a sidecar of ours."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from harnesses import HereRpc, SqliteHarness

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.sidecar import Sidecar, SidecarSettings
from cloud_runtimes.testing.suites import rpc_methods


class DaprHarness(SqliteHarness):
    """A sidecar in this process, over HTTP, that stands on SQLite in a file."""

    name = "dapr"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        super().__init__(monkeypatch, folder)
        self._beneath = super().client()
        settings = SidecarSettings(app_id="suite", http_port=0, grpc_port=None, max_body=64 << 20)
        self._sidecar = Sidecar(self._beneath, settings)
        self._sidecar.__enter__()

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        client = CloudRuntimesClient(self._sidecar.http_address, **arguments)
        self._clients.append(client)
        return client

    def close(self) -> None:
        self._clients.remove(self._beneath)
        super().close()
        self._sidecar.close()
        self._beneath.close()


DAPR_STATE = {DaprHarness.name: DaprHarness}


class DaprRpcHarness(HereRpc):
    """Methods of an application beside a sidecar, both in this process; calls go by the sidecar."""

    name = "dapr"
    service = "beside"

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._beneath = CloudRuntimesClient(app_id=self.service, config={"capa": {"home": str(folder / "home")}})
        settings = SidecarSettings(
            app_id=self.service, app_port=self._port, http_port=0, grpc_port=None, max_body=64 << 20
        )
        self._sidecar = Sidecar(self._beneath, settings)
        self._sidecar.__enter__()
        super().__init__(folder)

    def _start(self) -> None:
        app = self.client(app_id=self.service)
        rpc_methods.register(app)
        self._serving = app.rpc.serving(port=self._port)
        self._serving.__enter__()

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        client = CloudRuntimesClient(self._sidecar.http_address, **arguments)
        self._clients.append(client)
        return client

    def close(self) -> None:
        self._serving.__exit__(None, None, None)
        super().close()
        self._sidecar.close()
        self._beneath.close()


DAPR_RPC = {DaprRpcHarness.name: DaprRpcHarness}
