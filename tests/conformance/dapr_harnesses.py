"""The runtime dapr, over a sidecar of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harnesses import SqliteHarness

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.sidecar import Sidecar, SidecarSettings


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
