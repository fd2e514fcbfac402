"""Columns of PostgreSQL whose type somebody changes while connections hold plans of statements."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ConflictError
from cloud_runtimes.testing import Api

QUERY = "SELECT a FROM altered WHERE a = :a"
UPDATE = "UPDATE altered SET a = a WHERE a = :a RETURNING a"
USED = 8
"""How often a statement runs before the driver surely holds its plan."""


@pytest.fixture(params=["postgresql+psycopg", "postgresql+asyncpg"])
def client(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[CloudRuntimesClient]:
    pytest.importorskip(request.param.partition("+")[2])
    url = postgres_url.replace("postgresql", request.param, 1)
    config = {"database": {"main": {"component": "sqlalchemy", "url": url, "pool_size": 3}}}
    with CloudRuntimesClient(app_id="altered", config=config) as made:
        made.database.execute("main", "DROP TABLE IF EXISTS altered")
        made.database.execute("main", "CREATE TABLE altered (a INTEGER)")
        made.database.insert("main", "altered", {"a": 1})
        yield made
        made.database.execute("main", "DROP TABLE altered")


def used(client: CloudRuntimesClient) -> None:
    """Have all connections hold the plans."""

    def use(number: int) -> None:
        with client.database.transaction("main") as tx:
            tx.query("SELECT 1 AS a FROM pg_sleep(0.2)")
            for _ in range(USED):
                tx.query(QUERY, {"a": 1})
                tx.query(UPDATE, {"a": 1})

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(use, range(3)))


def test_statements_are_repeated(client: CloudRuntimesClient, api: Api) -> None:
    for kind in ("BIGINT", "NUMERIC"):
        used(client)
        client.database.execute("main", f"ALTER TABLE altered ALTER COLUMN a TYPE {kind}")
        for _ in range(5):
            assert api.call(client.database, "query", "main", QUERY, {"a": 1}, type=dict) == [{"a": 1}]
        used(client)
        client.database.execute("main", "ALTER TABLE altered ALTER COLUMN a TYPE INTEGER")
        assert api.call(client.database, "execute", "main", UPDATE, {"a": 1}).rows_affected == 1


def test_a_transaction_is_to_be_repeated(client: CloudRuntimesClient, api: Api) -> None:
    used(client)
    client.database.execute("main", "ALTER TABLE altered ALTER COLUMN a TYPE BIGINT")

    def once() -> list[int]:
        with client.database.transaction("main") as tx:
            return tx.query(QUERY, {"a": 1}, type=int)

    refused: list[ConflictError] = []
    while len(refused) <= 3:  # each connection once at most
        try:
            assert once() == [1]
            break
        except ConflictError as error:
            refused.append(error)
    assert 0 < len(refused) <= 3
    for each in refused:
        assert each.retryable
        assert "run the transaction again" in str(each)
