"""Topics with a prefix of their own on the run's broker, and three brokers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support.harnesses.kafka import KafkaHome
from tests.support.kafka import serve_cluster
from tests.support.needs import present


@pytest.fixture
def home(kafka_servers: str) -> Iterator[KafkaHome]:
    instance = KafkaHome(kafka_servers)
    yield instance
    instance.close()


@pytest.fixture
def on(home: KafkaHome) -> Iterator[Callable[..., CloudRuntimesClient]]:
    """Make a client with other settings."""
    clients: list[CloudRuntimesClient] = []

    def make(**settings: Any) -> CloudRuntimesClient:
        client = CloudRuntimesClient(
            app_id="suite", config={"pubsub": {"bus": home.table("bus", **settings)}}, timeout=15
        )
        clients.append(client)
        return client

    yield make
    for each in clients:
        each.close()


@pytest.fixture(scope="session")
def kafka_cluster() -> Iterator[str]:
    """The addresses of three brokers."""
    with present(serve_cluster()) as servers:
        yield ",".join(server.url for server in servers)
