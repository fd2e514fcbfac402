"""Files and databases over a sidecar of ours, by its bindings: databases on PostgreSQL, as with Dapr, and on SQLite."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, ClassVar

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.dapr_server.settings import ComponentInfo
from tests.support.harnesses.dapr import MAX_BODY, Beside, DaprGrpc, DaprHttp, client_of
from tests.support.harnesses.databases import PostgresHarness

STORES = 1000


class Bindings(Beside):
    """A sidecar with bindings to files and to SQLite."""

    def __init__(self, folder: Path) -> None:
        names = [f"{kind}-{number}" for kind in ("file", "database") for number in range(STORES)]
        super().__init__(folder, bindings={name: (name.partition("-")[0], name) for name in names})
        self._free = itertools.count()

    def store(self, kind: str) -> str:
        return f"{kind}-{next(self._free)}"


class DaprFiles(DaprHttp):
    """By a binding, over HTTP."""

    beside: Bindings
    refuses_rowless = True

    def store(self, kind: str = "store") -> str:
        return self.beside.store(kind)


class DaprGrpcFiles(DaprFiles, DaprGrpc):
    """By a binding, over gRPC."""

    name = DaprGrpc.name


DAPR_FILES: dict[str, type[DaprFiles]] = {harness.name: harness for harness in (DaprFiles, DaprGrpcFiles)}


class DaprPostgres(PostgresHarness):
    """A database behind a binding, over HTTP."""

    name = "dapr postgresql"
    grpc: ClassVar[bool] = False
    refuses_rowless = True

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._beneath = CloudRuntimesClient(config=self._config, app_id="suite")
        settings = SidecarSettings(
            app_id="suite",
            http_port=0,
            grpc_port=0 if self.grpc else None,
            max_body=MAX_BODY,
            grace=1.0,
            bindings={name: ("database", name) for name in self.stores},
            components=tuple(ComponentInfo(name, "bindings.postgresql") for name in self.stores),
        )
        self._sidecar = Sidecar(self._beneath, settings)
        self._sidecar.__enter__()

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        return client_of(self._sidecar, self.grpc, arguments)

    def close(self) -> None:
        super().close()
        self._sidecar.close()
        self._beneath.close()


class DaprGrpcPostgres(DaprPostgres):
    """Over gRPC."""

    name = "dapr over gRPC postgresql"
    grpc = True


DAPR_DATABASES: dict[str, type[DaprPostgres]] = {harness.name: harness for harness in (DaprPostgres, DaprGrpcPostgres)}
