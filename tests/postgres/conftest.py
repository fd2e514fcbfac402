"""A home on PostgreSQL with a schema of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.harnesses.postgres import PostgresHome
from tests.support.servers import shared_server

# sessions are counted and ended, and settings changed
postgres_url = shared_server("postgres:PostgresServer", workers=False)


@pytest.fixture
def home(postgres_url: str) -> Iterator[PostgresHome]:
    harness = PostgresHome(postgres_url)
    yield harness
    harness.close()
