"""A home on etcd with a prefix of its own, and servers that a test may break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.etcd import EtcdServer, serve
from tests.support.harnesses.etcd import EtcdHome
from tests.support.homes import clients  # noqa: F401
from tests.support.leased_jobs import members  # noqa: F401
from tests.support.needs import served_by
from tests.support.servers import own_server

# leases are counted, and revisions compacted
etcd_server = own_server("etcd:serve")


@pytest.fixture
def home(etcd_server: EtcdServer) -> Iterator[EtcdHome]:
    instance = EtcdHome(etcd_server)
    yield instance
    instance.close()


served = served_by(serve)
