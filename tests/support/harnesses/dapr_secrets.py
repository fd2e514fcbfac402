"""Secrets over a sidecar of ours, which has them in files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.testing import SecretHarness
from tests.support.harnesses.clients import Clients
from tests.support.harnesses.dapr import client_of
from tests.support.harnesses.secrets import MultipleHarness


class SecretsBeside:
    """A sidecar for all tests of a module, with two stores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._patched = pytest.MonkeyPatch()
        self.harness = MultipleHarness(self._patched, folder)
        self.sidecar = Sidecar(self.harness.client(), SidecarSettings(app_id="suite", http_port=0, grpc_port=0))
        self.sidecar.__enter__()

    def close(self) -> None:
        self.sidecar.close()
        self.harness.close()
        self._patched.undo()


class DaprSecrets(Clients, SecretHarness):
    """Clients of that sidecar over HTTP."""

    name = "dapr"
    multiple = True
    keys = MultipleHarness.keys
    grpc: ClassVar[bool] = False

    def __init__(self, beside: SecretsBeside) -> None:
        self._sidecar = beside
        self._inner = beside.harness
        self._inner._stores.clear()
        for _ in range(2):  # both are empty
            self._inner.store("secret")
        self._free = ["secret-1", "secret-2"]

    def store(self, kind: str = "store") -> str:
        return self._free.pop(0)

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        return client_of(self._sidecar.sidecar, self.grpc, arguments)

    def put(self, store: str, key: str, value: str) -> None:
        self._inner.put(store, key, value)

    def put_entries(self, store: str, key: str, entries: Mapping[str, str]) -> None:
        self._inner.put_entries(store, key, entries)

    def remove(self, store: str, key: str) -> None:
        self._inner.remove(store, key)


class DaprSecretsGrpc(DaprSecrets):
    """Over gRPC."""

    name = "dapr over gRPC"
    grpc = True


DAPR_SECRETS: dict[str, type[DaprSecrets]] = {harness.name: harness for harness in (DaprSecrets, DaprSecretsGrpc)}
