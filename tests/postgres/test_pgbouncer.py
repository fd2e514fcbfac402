"""PgBouncer in transaction mode before the server: the suites pass with ``prepare = false`` and ``listen_url``; without them one is told, or it polls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psycopg
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.testing import Api, LockSuite, PubSubSuite, StateSuite
from tests.support.harnesses.postgres import PostgresHome
from tests.support.harnesses.rows import rows
from tests.support.postgres import Missing, PgBouncer, PostgresServer


class Pooled(NamedTuple):
    """Where the pooler is, and the server behind it."""

    url: str
    listen_url: str


@pytest.fixture(scope="module")
def pooled() -> Iterator[Pooled]:
    """PgBouncer with two server connections, before a server of its own."""
    with PostgresServer() as server:
        try:
            pooler = PgBouncer(server, default_pool_size=2)
        except Missing as error:
            pytest.skip(str(error))
        with pooler:
            yield Pooled(pooler.url, server.url)


class PooledHome(PostgresHome):
    """A home that is reached through the pooler."""

    name = "pgbouncer"

    def __init__(self, pooled: Pooled) -> None:
        super().__init__(pooled.listen_url)
        self._home = {**pooled._asdict(), "prepare": False, "schema": self.schema}

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        app_client = CloudRuntimesClient(config={"capa": {"home": self._home}}, **arguments)
        self._clients.append(app_client)
        return app_client


def _row(*short: Callable[..., None]) -> Any:
    return rows({}, (PooledHome.name,), short, pooled={PooledHome.name: PooledHome})


class TestPooledState(StateSuite):
    harness = _row(
        StateSuite.test_keys_are_literal,
        StateSuite.test_bulk_of_many,
        StateSuite.test_etag,
        StateSuite.test_concurrent_compare_and_set,
        StateSuite.test_a_transaction_publishes,
    )


class TestPooledPubSub(PubSubSuite):
    harness = _row(
        PubSubSuite.test_members_share,
        PubSubSuite.test_retry,
        PubSubSuite.test_dead_letter,
        PubSubSuite.test_handler,
        PubSubSuite.test_publisher,
        PubSubSuite.test_an_event_and_its_writes,
    )


class TestPooledLock(LockSuite):
    harness = _row(
        LockSuite.test_tokens_grow,
        LockSuite.test_held_longer_than_its_expiry,
        LockSuite.test_in_the_order_of_coming,
        LockSuite.test_contention,
    )


def test_what_is_prepared_does_not_pass(pooled: Pooled, api: Api) -> None:
    """PgBouncer before 1.21 gives a prepared statement to whoever comes next, or to nobody."""
    home = {**pooled._asdict(), "schema": f"prepared_{api.name}"}
    with (
        CloudRuntimesClient(app_id="suite", config={"capa": {"home": home}}) as client,
        psycopg.connect(pooled.url) as one,
        psycopg.connect(pooled.url) as other,
    ):
        one.execute("SELECT 1")  # holds one of the two sessions, so that the client has the other
        for number in range(10):
            api.call(client.state, "save", "s", "k", number)
        other.execute("SELECT 1")
        one.commit()
        api.fails(InvalidArgumentError, match="prepare = false")(client.state, "save", "s", "k", 10)


def test_without_a_url_to_listen_it_polls_and_says_so(
    pooled: Pooled, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud_runtimes.components._net.notify.NET", 60.0)  # as often as one that hears of everything
    home = {"url": pooled.url, "prepare": False, "schema": "polls"}
    with (
        caplog.at_level(logging.WARNING),
        CloudRuntimesClient(app_id="suite", config={"capa": {"home": home}}) as client,
        client.pubsub.subscribe("bus", "t", start="earliest") as sub,
        CloudRuntimesClient(app_id="suite", config={"capa": {"home": {**home, "max_connections": 3}}}) as other,
    ):
        assert sub.receive(0.2) is None
        other.pubsub.publish("bus", "t", 1)
        assert sub.receive(20) is not None  # it looks twice a second
    assert "set listen_url" in caplog.text
