"""Fixture that runs each harness of the table in turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_runtimes.testing import Harness
from tests.support.daprd import Beneath, daprd_process, databases
from tests.support.harnesses.dapr import Beside
from tests.support.harnesses.dapr_bindings import Bindings
from tests.support.harnesses.embedded import HARNESSES
from tests.support.harnesses.layotto import BesideLayotto


@pytest.fixture(params=sorted(HARNESSES))
def any_harness(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Harness]:
    """A harness, closed afterwards."""
    harness: Harness = HARNESSES[request.param](monkeypatch, tmp_path)
    yield harness
    harness.close()


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    """A sidecar of ours for all tests of a module."""
    harness = Beside(tmp_path_factory.mktemp("beside"))
    yield harness
    harness.close()


@pytest.fixture(scope="module")
def bindings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bindings]:
    """A sidecar of ours with bindings to files and databases, for all tests of a module."""
    harness = Bindings(tmp_path_factory.mktemp("bindings"))
    yield harness
    harness.close()


@pytest.fixture(scope="module")
def beside_layotto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BesideLayotto]:
    """A fake Layotto for all tests of a module."""
    harness = BesideLayotto(tmp_path_factory.mktemp("layotto"))
    yield harness
    harness.close()


@pytest.fixture(scope="module")
def daprd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beneath]:
    """A real daprd for all tests of a module."""
    with daprd_process(tmp_path_factory.mktemp("daprd"), databases(request)) as process:
        yield process
