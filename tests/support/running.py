"""Which sidecars the tests have."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings

VENDORS = {"file": "local", "database": "sqlalchemy", "secret": "env"}
KINDS = ("state", "pubsub", "secret", "configuration", "lock", "file", "database", "schedule")
SECRET = "CLOUD_RUNTIMES_SECRET_STORE_KEY"


def declared(home: str) -> dict[str, Any]:
    """Return a configuration that declares a component ``store`` of every kind."""
    return {
        "capa": {"home": home, "strict": True},
        **{kind: {"store": {"component": VENDORS.get(kind, "sqlite")}} for kind in KINDS},
    }


BINDINGS = {"files": ("file", "store"), "sql": ("database", "store")}
SIDECARS: dict[str, tuple[Callable[[str], dict[str, Any]], dict[str, Any]]] = {
    "declared": (declared, {"bindings": BINDINGS}),
    "application": (declared, {}),
    "absent application": (declared, {"app_port": 1}),
    "shutdown over HTTP": (declared, {}),
    "shutdown over gRPC": (declared, {}),
    "other": (
        lambda home: {"capa": {"home": home, "strict": True}, "schedule": {"other": {"component": "sqlite"}}},
        {},
    ),
    "free": (lambda home: {"capa": {"home": home}}, {}),
}
"""Name → how to make the configuration of a home, and more settings of the sidecar; beside ``"application"`` there is one."""


@contextmanager
def serving(config: dict[str, Any], **settings: Any) -> Iterator[Sidecar]:
    """Serve a client of that configuration."""
    options = {"app_id": "app", "http_port": 0, "grpc_port": 0, "grace": 1.0, **settings}
    with CloudRuntimesClient(config=config, app_id="app") as client:
        with Sidecar(client, SidecarSettings(**options)) as sidecar:
            yield sidecar


class Addresses(NamedTuple):
    """Where a sidecar serves, and its process."""

    http: str
    grpc: str
    pid: int


@contextmanager
def sidecar_process(home: str, **settings: Any) -> Iterator[Addresses]:
    """Serve a sidecar in a process of its own: two loops of grpc.aio in one process disturb each other."""
    given = {"app_id": "app", "http_port": 0, "grpc_port": 0, **settings}
    command = [sys.executable, str(Path(__file__).with_name("serve_one.py")), json.dumps(declared(home))]
    with subprocess.Popen(
        [*command, json.dumps(given)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ), text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            http, rpc = json.loads(process.stdout.readline())
            yield Addresses(http, rpc, process.pid)
        finally:
            process.stdin.close()
            process.wait(60)
    assert process.returncode in (0, -signal.SIGKILL)
