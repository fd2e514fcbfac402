"""Topics with a prefix of their own on the run's broker, and brokers that a test may break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.harnesses.kafka import KafkaHome
from tests.support.kafka import KafkaServer, Missing, serve


@pytest.fixture
def home(kafka_servers: str) -> Iterator[KafkaHome]:
    made = KafkaHome(kafka_servers)
    yield made
    made.close()


@pytest.fixture
def served() -> Iterator[Callable[..., KafkaServer]]:
    """Start a broker of the test's own."""
    with ExitStack() as resources:

        def start(**options: Any) -> KafkaServer:
            try:
                return resources.enter_context(serve(**options))
            except Missing as error:
                pytest.skip(str(error))

        yield start
