"""Sidecars on free ports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar
from tests.sidecar.official import Sdk, aio_sdk, sync_sdk
from tests.support import running
from tests.support.apps import App, Got, Reply
from tests.support.running import BINDINGS, SECRET, SIDECARS, declared, serving


def _answer(got: Got) -> Reply | None:
    return Reply(404) if got.path == "/missing" else None


@pytest.fixture(scope="session")
def sidecars(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Sidecar]]:
    """Return the one of `SIDECARS` with that name; each is started once, over a home of its own."""
    by_name: dict[str, Sidecar] = {}
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET, "a value")

        def find(name: str) -> Sidecar:
            if name not in by_name:
                configure, settings = SIDECARS[name]
                if name == "application":
                    settings = {**settings, "app_port": stack.enter_context(App(answer=_answer)).port}
                home = str(tmp_path_factory.mktemp("sidecar"))
                by_name[name] = stack.enter_context(serving(configure(home), **settings))
            return by_name[name]

        yield find


@pytest.fixture(params=["memory", "file"])
def sidecar(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sidecar]:
    """A sidecar of the test's own, its home in memory and in files."""
    home = f":memory:{request.node.name[:100]}" if request.param == "memory" else str(tmp_path / "home")
    with serving(declared(home)) as running_sidecar:
        yield running_sidecar


@pytest.fixture(scope="session")
def sidecar_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, CloudRuntimesClient]]:
    """The addresses of ``"declared"`` in a process of its own, and a client over the same home.

    Two loops with grpc.aio in one process disturb each other: their wake-ups share one pipe.
    """
    home = str(tmp_path_factory.mktemp("sidecar-process"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET, "a value")
        with running.sidecar_process(home, bindings=BINDINGS) as at:
            with CloudRuntimesClient(config=declared(home), app_id="app") as ours:
                yield at.http, at.grpc, ours


@pytest.fixture(params=["sync", pytest.param("aio", marks=pytest.mark.process)])
def sdk(request: pytest.FixtureRequest) -> Iterator[Sdk]:
    """The official SDK, both of its APIs, beside a sidecar with a store of every kind."""
    if request.param == "sync":
        one: Sidecar = request.getfixturevalue("sidecars")("declared")
        with sync_sdk(one.http_address, one.grpc_address, one.context.client) as dapr_sdk:
            yield dapr_sdk
    else:
        with aio_sdk(*request.getfixturevalue("sidecar_process")) as dapr_sdk:
            yield dapr_sdk
