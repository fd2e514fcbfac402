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
    made = PostgresHome(postgres_url)
    yield made
    made.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the suites through a pooler every eighth test runs, with ``--soak`` all."""
    if config.getoption("--soak"):
        return
    pooled = [item for item in items if "[pgbouncer-" in item.name]
    left = {id(item) for place, item in enumerate(pooled) if place % 8}
    config.hook.pytest_deselected(items=[item for item in items if id(item) in left])
    items[:] = [item for item in items if id(item) not in left]
