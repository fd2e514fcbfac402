"""A sidecar in the process of a test."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from .._core import extras
from ..client import CloudRuntimesClient


@dataclass(frozen=True, slots=True)
class RunningSidecar:
    """Where a sidecar listens.

    Attributes:
        http_endpoint: e.g. ``"http://127.0.0.1:41231"``.
        grpc_address: e.g. ``"127.0.0.1:41232"``; ``""``: gRPC is not served, as its extra is not installed.
        client: what it stands on; what an application saves is to be seen here.
    """

    http_endpoint: str
    grpc_address: str
    client: CloudRuntimesClient

    @property
    def http_port(self) -> int:
        """Of HTTP."""
        return int(self.http_endpoint.rpartition(":")[2])

    @property
    def grpc_port(self) -> int:
        """Of gRPC.

        Raises:
            UnsupportedError: it is not served.
        """
        if not self.grpc_address:
            raise extras.missing("gRPC", "dapr")
        return int(self.grpc_address.rpartition(":")[2])

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for an application, for its process or for ``monkeypatch``; none is set here."""
        variables = {"DAPR_HTTP_PORT": str(self.http_port), "DAPR_HTTP_ENDPOINT": self.http_endpoint}
        if self.grpc_address:
            variables |= {"DAPR_GRPC_PORT": str(self.grpc_port), "DAPR_GRPC_ENDPOINT": f"http://{self.grpc_address}"}
        return variables


def memory_client(config: Mapping[str, Any] | None = None, app_id: str = "test") -> CloudRuntimesClient:
    """Return a client in the process whose data is in memory and its own, save that of components that ``config`` places elsewhere."""
    tables = dict(config or {})
    tables["capa"] = {"home": f":memory:test-{secrets.token_hex(8)}", **tables.get("capa", {})}
    return CloudRuntimesClient(runtime="capa", app_id=app_id, config=tables)


@contextmanager
def serve(
    *,
    app_id: str = "test",
    app_port: int | None = None,
    app_protocol: str = "http",
    resources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    client: CloudRuntimesClient | None = None,
    **settings: Any,
) -> Iterator[RunningSidecar]:
    """Run a sidecar on free ports of this machine.

    Args:
        app_id: the application beside it.
        app_port, app_protocol: where the application listens and what it speaks; without a port there are no callbacks.
        resources: folders or files of Dapr's resources.
        client: what it stands on, instead; else one in memory.
        settings: more of `SidecarSettings`.

    Raises:
        InvalidArgumentError: what is wrong in resource files.
        UnsupportedError: the extra for serving is missing.
    """
    from ..dapr_server import Sidecar, SidecarSettings

    settings.setdefault("grpc_port", 0 if extras.installed("grpc", "google.protobuf") else None)
    with ExitStack() as stack:
        if resources is not None:
            from ..dapr_server.resources import load

            if client is not None:
                raise ValueError("give resources or a client")
            resource_config = load([resources] if isinstance(resources, (str, os.PathLike)) else resources, app_id)
            client = stack.enter_context(memory_client(resource_config.config, app_id))
            settings = {**resource_config.settings, **settings}
        elif client is None:
            client = stack.enter_context(memory_client(app_id=app_id))
        sidecar = stack.enter_context(
            Sidecar(
                client,
                SidecarSettings(
                    app_id=app_id, app_port=app_port, app_protocol=app_protocol, **{"http_port": 0, **settings}
                ),
            )
        )
        yield RunningSidecar(sidecar.http_address, sidecar.grpc_address, client)
