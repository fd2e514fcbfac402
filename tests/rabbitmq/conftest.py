"""A home on RabbitMQ with a prefix of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support.harnesses.rabbitmq import RabbitHome


@pytest.fixture
def home(rabbitmq_url: str) -> Iterator[RabbitHome]:
    harness = RabbitHome(rabbitmq_url)
    yield harness
    harness.close()


@pytest.fixture
def port(rabbitmq_url: str) -> int:
    """The port of the run's server."""
    number = urlsplit(rabbitmq_url).port
    assert number is not None
    return number


@pytest.fixture
def client() -> Iterator[Callable[..., CloudRuntimesClient]]:
    """Make a client whose home is a URL."""
    with ExitStack() as resources:

        def make(url: str, **settings: Any) -> CloudRuntimesClient:
            config = {"capa": {"home": {"url": url, "groups": ["suite"], **settings}}}
            return resources.enter_context(CloudRuntimesClient(app_id="suite", config=config, timeout=10))

        yield make
