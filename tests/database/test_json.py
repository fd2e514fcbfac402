"""JSON in columns of PostgreSQL: what is a parameter of it, and what only its text is."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.testing import Api


@pytest.fixture(params=["postgresql+psycopg", "postgresql+asyncpg"])
def client(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[CloudRuntimesClient]:
    pytest.importorskip(request.param.partition("+")[2])
    url = postgres_url.replace("postgresql", request.param, 1)
    config = {"database": {"main": {"component": "sqlalchemy", "url": url}}}
    with CloudRuntimesClient(app_id="json", config=config) as instance:
        instance.database.execute("main", "CREATE TABLE documents (a JSONB)")
        yield instance
        instance.database.execute("main", "DROP TABLE documents")


def test_values(client: CloudRuntimesClient, api: Api) -> None:
    insert = "INSERT INTO documents VALUES (:a)"
    api.call(client.database, "execute", "main", insert, {"a": {"tags": ["x", 1]}})
    for value in ([1, "x"], "text", 5, None):
        sql = "INSERT INTO documents VALUES (CAST(:a AS jsonb))"
        api.call(client.database, "execute", "main", sql, {"a": json.dumps(value)})
    rows = api.call(client.database, "query", "main", "SELECT a FROM documents", type=dict)
    assert [row["a"] for row in rows] == [{"tags": ["x", 1]}, [1, "x"], "text", 5, None]
    for value in ([1, "x"], "text"):  # an array, and a text that is no JSON
        api.fails(InvalidArgumentError)(client.database, "execute", "main", insert, {"a": value})
