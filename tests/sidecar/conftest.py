"""Sidecars on free ports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from running import declared, serving

from cloud_runtimes.sidecar import Sidecar
from cloud_runtimes.sidecar.app.channel import AppAnswer

SECRET = "CLOUD_RUNTIMES_SECRET_STORE_KEY"
BINDINGS = {"files": ("file", "store"), "sql": ("database", "store")}
SIDECARS: dict[str, tuple[Callable[[str], dict[str, Any]], dict[str, Any]]] = {
    "declared": (declared, {"bindings": BINDINGS}),
    "configured app": (declared, {}),
    "shutdown over HTTP": (declared, {}),
    "shutdown over gRPC": (declared, {}),
    "other": (lambda home: {"capa": {"home": home}, "schedule": {"other": {"component": "sqlite"}}}, {}),
    "free": (lambda home: {"capa": {"home": home}}, {}),
}
"""Name → how to make the configuration of a home, and more settings of the sidecar."""


class Accepting:
    """An application that takes whatever it is told."""

    async def post(
        self,
        path: str,
        body: bytes,
        content_type: str,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> AppAnswer:
        return AppAnswer(200, [], None, b"")


@pytest.fixture(scope="session")
def sidecars(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Sidecar]]:
    """Return the one of `SIDECARS` with that name; each is started once, over a home of its own."""
    made: dict[str, Sidecar] = {}
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET, "a value")

        def find(name: str) -> Sidecar:
            if name not in made:
                configure, settings = SIDECARS[name]
                home = str(tmp_path_factory.mktemp("sidecar"))
                made[name] = stack.enter_context(serving(configure(home), **settings))
                if name == "configured app":
                    made[name].context.app = Accepting()
            return made[name]

        yield find


@pytest.fixture(params=["memory", "file"])
def sidecar(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sidecar]:
    """A sidecar of the test's own, its home in memory and in files."""
    home = f":memory:{request.node.name[:100]}" if request.param == "memory" else str(tmp_path / "home")
    with serving(declared(home)) as made:
        yield made
