"""A home on NATS with a prefix of its own, and servers that a test may break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.harnesses.nats import NatsHome
from tests.support.homes import clients  # noqa: F401
from tests.support.leased_jobs import members  # noqa: F401
from tests.support.nats import Missing, NatsServer, serve
from tests.support.nats_other import Other, beside


@pytest.fixture
def home(nats_server: NatsServer) -> Iterator[NatsHome]:
    made = NatsHome(nats_server)
    yield made
    made.close()


@pytest.fixture
def served() -> Iterator[Callable[..., NatsServer]]:
    """Start a server of the test's own."""
    with ExitStack() as resources:

        def start(**options: Any) -> NatsServer:
            try:
                return resources.enter_context(serve(**options))
            except Missing as error:
                pytest.skip(str(error))

        yield start


@pytest.fixture
def other(home: NatsHome) -> Iterator[Other]:
    with beside(home.server.port, home.prefix) as made:
        yield made
