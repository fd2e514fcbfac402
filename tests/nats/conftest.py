"""A home on NATS with a prefix of its own, and servers that a test may break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.harnesses.nats import NatsHome
from tests.support.homes import clients  # noqa: F401
from tests.support.leased_jobs import members  # noqa: F401
from tests.support.nats import NatsServer, serve
from tests.support.nats_other import Other, beside
from tests.support.needs import served_by
from tests.support.servers import own_server

# what the server says of itself is looked at
nats_server = own_server("nats:serve")


@pytest.fixture
def home(nats_server: NatsServer) -> Iterator[NatsHome]:
    harness = NatsHome(nats_server)
    yield harness
    harness.close()


served = served_by(serve)


@pytest.fixture
def other(home: NatsHome) -> Iterator[Other]:
    with beside(home.server.port, home.prefix) as program:
        yield program
