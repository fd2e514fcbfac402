"""``client.admin`` on PostgreSQL: a role that may only read looks at everything, and looking changes no row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from cloud_runtimes.errors import CloudRuntimesError
from cloud_runtimes.testing import Api, AsyncApi, SyncApi
from tests.postgres.test_operation import home_client
from tests.support.harnesses.postgres import PostgresHome
from tests.support.waiting import until

_TABLES = ("topics", "frames", "delayed", "groups", "claims", "group_parts", "group_members", "counters")


@pytest.fixture(params=["sync", "async"])
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    instance: Api = SyncApi() if request.param == "sync" else AsyncApi()
    yield instance
    instance.close()


def fill(client: Any) -> None:
    """Fill a bus with two groups, one of which has an order."""
    client.pubsub.publish_bulk("bus", "t", list(range(6)))
    with client.pubsub.subscribe("bus", "t", group="g", dead_letter_topic="dead") as events:
        taken = [events.receive(timeout=10) for _ in range(6)]
        taken[0].drop()
        taken[1].retry(delay=60)
        taken[2].ack()
        assert until(lambda: client.pubsub.lag("bus", "t", group="g") == 4)
    with client.pubsub.subscribe("bus", "t", group="ordered", order="key"):
        pass


def look(client: Any, api: Api) -> None:
    """Look at all of it."""
    assert [topic.name for topic in api.call(client.admin, "topics", "bus")] == ["dead", "t"]
    assert [(each.name, each.lag) for each in api.call(client.admin, "groups", "bus", "t")] == [
        ("g", 4),
        ("ordered", 6),
    ]
    assert [event.data for event in api.call(client.admin, "peek", "bus", "t", group="g")] == [1, 3, 4, 5]
    assert len(api.call(client.admin, "peek", "bus", "t", group="ordered")) == 6
    assert [event.data for event in api.call(client.admin, "peek", "bus", "t", start="latest", limit=2)] == [4, 5]
    assert [each.count for each in api.call(client.admin, "dead_letters", "bus", "dead")] == [1]


def test_a_role_that_may_only_read_and_leaves_no_trace(home: PostgresHome, api: Api) -> None:
    fill(home.client())
    role = f"looker_{os.getpid()}"
    with psycopg.connect(home.url, autocommit=True) as connection:

        def rows() -> list[Any]:
            return [
                connection.execute(f"SELECT * FROM {home.schema}.{name} ORDER BY 1, 2").fetchall() for name in _TABLES
            ]

        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA {home.schema} TO {role}")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {home.schema} TO {role}")
        try:
            before = rows()
            with home_client(home.url.replace("postgres@", f"{role}@"), schema=home.schema, ensure="check") as client:
                look(client, api)
                api.fails(CloudRuntimesError)(client.pubsub, "publish", "bus", "t", 1)
            assert rows() == before
        finally:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")
