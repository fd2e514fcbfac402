"""A bucket of the test's own, and clients on it, straight or through a proxy that breaks connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support import Make
from tests.support.fault_proxy import FaultProxy
from tests.support.objectstore import buckets, table


@pytest.fixture
def bucket(objectstore_url: str) -> str:
    return buckets(objectstore_url)[0]


@pytest.fixture
def make(objectstore_url: str, bucket: str) -> Iterator[Make]:
    """Make a client whose file store ``s`` and state store ``s`` are the bucket; ``below`` is a prefix in it."""
    with ExitStack() as resources:

        def client(
            below: str = "", url: str = objectstore_url, timeout: float = 30, **settings: Any
        ) -> CloudRuntimesClient:
            described = table(url, bucket + below, **settings)
            config = {"file": {"s": described}, "state": {"s": described}}
            return resources.enter_context(CloudRuntimesClient(app_id="suite", config=config, timeout=timeout))

        yield client


@pytest.fixture
def proxy(objectstore_url: str) -> Iterator[FaultProxy]:
    """A proxy before the server."""
    port = urlsplit(objectstore_url).port
    assert port is not None
    with FaultProxy(port) as fault_proxy:
        yield fault_proxy


@pytest.fixture
def proxied(objectstore_url: str, proxy: FaultProxy) -> str:
    """The server's URL through the proxy."""
    port = urlsplit(objectstore_url).port
    return objectstore_url.replace(f":{port}", f":{proxy.port}")
