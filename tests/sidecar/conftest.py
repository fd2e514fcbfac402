"""Sidecars on free ports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.sidecar import Sidecar, SidecarSettings

KINDS = ("state", "pubsub", "configuration", "lock", "file", "database", "schedule")


def declared(home: str) -> dict[str, Any]:
    """Return a configuration that declares a component ``store`` of every kind."""
    return {"capa": {"home": home}, **{kind: {"store": {"component": "sqlite"}} for kind in KINDS}}


SIDECARS: dict[str, tuple[Callable[[str], dict[str, Any]], dict[str, Any]]] = {
    "declared": (declared, {}),
    "other": (lambda home: {"capa": {"home": home}, "schedule": {"other": {"component": "sqlite"}}}, {}),
    "free": (lambda home: {"capa": {"home": home}}, {}),
}
"""Name → how to make the configuration of a home, and more settings of the sidecar."""


@contextmanager
def serving(config: dict[str, Any], **settings: Any) -> Iterator[Sidecar]:
    """Serve a client of that configuration."""
    options = {"app_id": "app", "http_port": 0, "grpc_port": 0, "grace": 1.0, **settings}
    with CloudRuntimesClient(config=config, app_id="app") as client:
        with Sidecar(client, SidecarSettings(**options)) as sidecar:
            yield sidecar


@pytest.fixture(scope="session")
def sidecars(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Sidecar]]:
    """Return the one of `SIDECARS` with that name; each is started once, over a home of its own in memory."""
    made: dict[str, Sidecar] = {}
    with ExitStack() as stack:

        def find(name: str) -> Sidecar:
            if name not in made:
                configure, settings = SIDECARS[name]
                made[name] = stack.enter_context(serving(configure(f":memory:sidecar-{name}"), **settings))
            return made[name]

        yield find


@pytest.fixture(params=["memory", "file"])
def sidecar(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sidecar]:
    """A sidecar of the test's own, its home in memory and in files."""
    home = f":memory:{request.node.name[:100]}" if request.param == "memory" else str(tmp_path / "home")
    with serving(declared(home)) as made:
        yield made
