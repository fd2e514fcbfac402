"""Sidecars in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.sidecar import Sidecar, SidecarSettings

VENDORS = {"file": "local", "database": "sqlalchemy", "secret": "env"}
KINDS = ("state", "pubsub", "secret", "configuration", "lock", "file", "database", "schedule")


def declared(home: str) -> dict[str, Any]:
    """Return a configuration that declares a component ``store`` of every kind."""
    return {
        "capa": {"home": home},
        **{kind: {"store": {"component": VENDORS.get(kind, "sqlite")}} for kind in KINDS},
    }


@contextmanager
def serving(config: dict[str, Any], **settings: Any) -> Iterator[Sidecar]:
    """Serve a client of that configuration."""
    options = {"app_id": "app", "http_port": 0, "grpc_port": 0, "grace": 1.0, **settings}
    with CloudRuntimesClient(config=config, app_id="app") as client:
        with Sidecar(client, SidecarSettings(**options)) as sidecar:
            yield sidecar
