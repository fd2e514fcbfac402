"""A home on etcd with a prefix of its own, and servers that a test may break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.etcd import EtcdServer, Missing, serve
from tests.support.harnesses.etcd import EtcdHome
from tests.support.homes import clients  # noqa: F401
from tests.support.leased_jobs import members  # noqa: F401


@pytest.fixture
def home(etcd_server: EtcdServer) -> Iterator[EtcdHome]:
    made = EtcdHome(etcd_server)
    yield made
    made.close()


@pytest.fixture
def served() -> Iterator[Callable[..., EtcdServer]]:
    """Start a server of the test's own."""
    with ExitStack() as resources:

        def start(*options: str) -> EtcdServer:
            try:
                return resources.enter_context(serve(*options))
            except Missing as error:
                pytest.skip(str(error))

        yield start
