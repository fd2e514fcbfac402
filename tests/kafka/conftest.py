"""Topics with a prefix of their own on the run's broker, and three brokers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.harnesses.kafka import KafkaHome
from tests.support.kafka import Missing, serve_cluster


@pytest.fixture
def home(kafka_servers: str) -> Iterator[KafkaHome]:
    made = KafkaHome(kafka_servers)
    yield made
    made.close()


@pytest.fixture(scope="session")
def kafka_cluster() -> Iterator[str]:
    """The addresses of three brokers."""
    with ExitStack() as resources:
        try:
            servers = resources.enter_context(serve_cluster())
        except Missing as error:
            pytest.skip(str(error))
        yield ",".join(server.url for server in servers)
