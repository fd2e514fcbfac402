"""The sidecar that ours and the official SDK call: ours, or with the variable ``DAPRD`` the real one that it names; before an application of uvicorn alone."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from benches.bench_rpc import served
from tests.support.ports import free_port
from tests.support.running import Addresses, sidecar_process

__all__ = ["beside_application", "bus", "kind"]

_COMPONENT = (
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\n"
    "spec: {{type: {type}, version: v1, metadata: []}}\n"
)


def bus() -> str:
    """Return the name of the component for events; daprd wants each name once."""
    return "bus" if os.environ.get("DAPRD") else "store"


def kind() -> str:
    """Return what serves, in words."""
    return "daprd, in memory" if os.environ.get("DAPRD") else "ours, on SQLite in memory"


@contextmanager
def beside_application(folder: Path) -> Iterator[Addresses]:
    """Serve, in processes of their own."""
    with served() as port:
        binary = os.environ.get("DAPRD")
        with _daprd(binary, folder, port) if binary else sidecar_process(":memory:bench", app_port=port) as addresses:
            yield addresses


@contextmanager
def _daprd(binary: str, folder: Path, app_port: int) -> Iterator[Addresses]:
    for name, type_ in (("store", "state.in-memory"), (bus(), "pubsub.in-memory")):
        (folder / f"{name}.yaml").write_text(_COMPONENT.format(name=name, type=type_), encoding="utf-8")
    http, grpc, inner = (free_port() for _ in range(3))
    command = [binary, "--app-id", "app", "--app-port", str(app_port), "--resources-path", str(folder)]
    command += ["--dapr-http-port", str(http), "--dapr-grpc-port", str(grpc), "--dapr-internal-grpc-port", str(inner)]
    command += ["--dapr-listen-addresses", "127.0.0.1", "--enable-metrics=false", "--log-level", "error"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        _wait(f"http://127.0.0.1:{http}/v1.0/healthz/outbound")
        yield Addresses(f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}", process.pid)
    finally:
        process.terminate()
        process.wait(60)


def _wait(url: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)
