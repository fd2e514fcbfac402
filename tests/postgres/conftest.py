"""A home on PostgreSQL with a schema of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.harnesses.postgres import PostgresHome


@pytest.fixture
def home(postgres_url: str) -> Iterator[PostgresHome]:
    made = PostgresHome(postgres_url)
    yield made
    made.close()
