"""Frames that commit after a frame with a higher number, and the log's upkeep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import sleep
from typing import Any

import psycopg
import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support.harnesses.postgres import PostgresHome
from tests.support.waiting import until

SOON = 5.0


@contextmanager
def open_transaction(home: PostgresHome) -> Iterator[psycopg.Connection[Any]]:
    """A transaction of somebody else that has written and stays open."""
    with psycopg.connect(home.url) as connection:
        connection.execute("SELECT pg_current_xact_id()")
        yield connection


def received(sub: Any, count: int) -> list[Any]:
    events = []
    while len(events) < count:
        event = sub.receive(SOON)
        assert event is not None, f"only {len(events)} of {count} came"
        event.ack()
        events.append(event.data)
    assert sub.receive(0.05) is None
    return events


def copy_of(home: PostgresHome, client: CloudRuntimesClient, data: Any) -> bytes:
    """The frame of an event, as it is stored."""
    client.pubsub.publish("bus", "scratch", data)
    with psycopg.connect(home.url) as connection:
        row = connection.execute(f"SELECT body FROM {home.schema}.frames ORDER BY id DESC LIMIT 1").fetchone()
    assert row is not None
    body: bytes = row[0]
    return body


def test_a_late_commit_is_delivered(home: PostgresHome) -> None:
    client = home.client()
    client.pubsub.publish("bus", "orders", 0)
    late = copy_of(home, client, "late")
    with client.pubsub.subscribe("bus", "orders", start="earliest") as sub:
        assert received(sub, 1) == [0]
        with psycopg.connect(home.url) as writer:
            writer.execute(
                f"INSERT INTO {home.schema}.frames (topic, count, body) "
                f"SELECT id, 1, %s FROM {home.schema}.topics WHERE name = 'orders'",
                (late,),
            )
            for number in range(1, 6):
                client.pubsub.publish("bus", "orders", number)
            # what was numbered before them is not committed: they are not held up, and it is not passed
            assert received(sub, 5) == [1, 2, 3, 4, 5]
            writer.commit()
        client.pubsub.publish("bus", "orders", 6)
        assert sorted(map(str, received(sub, 2))) == ["6", "late"]


def test_an_idle_transaction_elsewhere_holds_nothing_up(home: PostgresHome) -> None:
    client = home.client()
    with client.pubsub.subscribe("bus", "orders", start="earliest") as sub, open_transaction(home):
        for turn in range(3):
            client.pubsub.publish("bus", "orders", turn)
            assert received(sub, 1) == [turn]
    with psycopg.connect(home.url) as connection:
        row = connection.execute(f"SELECT count(*) FROM {home.schema}.claims").fetchone()
    assert row == (0,)  # what was settled leaves nothing behind
    with client.pubsub.subscribe("bus", "orders") as sub:
        client.pubsub.publish("bus", "orders", "more")
        assert received(sub, 1) == ["more"]
        client.pubsub.publish("bus", "orders", "again")
        assert received(sub, 1) == ["again"]
    with psycopg.connect(home.url) as connection:
        row = connection.execute(f"SELECT count(*) FROM {home.schema}.claims").fetchone()
    assert row is not None
    assert row[0] <= 1


def test_a_group_that_begins_with_what_comes_gets_nothing_older(home: PostgresHome) -> None:
    client = home.client()
    with open_transaction(home):
        client.pubsub.publish("bus", "orders", "old")
        with client.pubsub.subscribe("bus", "orders", group="new", start="latest") as sub:
            client.pubsub.publish("bus", "orders", "new")
            assert received(sub, 1) == ["new"]
    with client.pubsub.subscribe("bus", "orders", group="new") as sub:
        assert sub.receive(0.05) is None


def test_a_group_that_begins_at_a_time_misses_nothing_of_open_transactions(home: PostgresHome) -> None:
    client = home.client()
    client.pubsub.publish("bus", "orders", "old")
    late = copy_of(home, client, "late")
    insert = f"INSERT INTO {home.schema}.frames (topic, count, body) SELECT id, 1, %s FROM {home.schema}.topics WHERE name = 'orders'"
    with psycopg.connect(home.url) as writer, open_transaction(home) as other:
        writer.execute(insert, (late,))
        sleep(0.05)
        start = datetime.now(UTC)
        sleep(0.05)
        with client.pubsub.subscribe("bus", "orders", group="before", start=start) as sub:
            client.pubsub.publish("bus", "orders", "new")
            other.execute(insert, (late,))
            assert received(sub, 1) == ["new"]
            with client.pubsub.subscribe("bus", "orders", group="after", start=start) as after:
                writer.commit()
                other.commit()
                # what was written before the time and is committed since comes too
                assert client.pubsub.lag("bus", "orders", group="after") == 3
                assert sorted(received(after, 3)) == ["late", "late", "new"]
            assert received(sub, 2) == ["late", "late"]


def test_the_lag_counts_events_and_not_frames(home: PostgresHome) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "orders", list(range(10)))
    with client.pubsub.subscribe("bus", "orders", max_in_flight=6) as sub:
        events = [sub.receive(SOON) for _ in range(6)]
        assert client.pubsub.lag("bus", "orders") == 10
        for event in events[1:3]:
            event.ack()
        until(lambda: client.pubsub.lag("bus", "orders") == 8, seconds=5)
        client.pubsub.publish_bulk("bus", "orders", [10, 11])
        client.pubsub.publish("bus", "other", 1)
        assert client.pubsub.lag("bus", "orders") == 10


def test_a_transaction_that_stays_open_costs_nothing_for_each_frame(home: PostgresHome) -> None:
    client = home.client()
    with client.pubsub.subscribe("bus", "orders", start="earliest", group="g") as sub:
        for turn in range(2):
            client.pubsub.publish("bus", "orders", turn)
            assert received(sub, 1) == [turn]
    frame = copy_of(home, client, "more")
    claim = f"SELECT id FROM {home.schema}.claim((SELECT id FROM {home.schema}.groups WHERE name = 'g'), 'me', 1000, 1, '{{}}')"
    with open_transaction(home), psycopg.connect(home.url, autocommit=True) as connection:

        def read_by_a_claim() -> int:
            """Return how many rows of frames a claim reads, and settle it."""
            counts = []
            for _ in range(2):
                connection.execute(
                    f"INSERT INTO {home.schema}.frames (topic, count, body) SELECT id, 1, %s FROM {home.schema}.topics WHERE name = 'orders'",
                    (frame,),
                )
                with connection.transaction():
                    before = fetched(connection)
                    taken = connection.execute(claim.encode()).fetchall()
                    counts.append(fetched(connection) - before)
                assert len(taken) == 1
                connection.execute(f"DELETE FROM {home.schema}.claims".encode())
            return counts[-1]

        def fetched(connection: psycopg.Connection[Any]) -> int:
            row = connection.execute(
                "SELECT sum(pg_stat_get_xact_tuples_fetched(c.oid) + pg_stat_get_xact_tuples_returned(c.oid)) FROM pg_class c "
                "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname ~ '^frames'",
                (home.schema,),
            ).fetchone()
            assert row is not None
            return int(row[0])

        few = read_by_a_claim()
        for _ in range(100):
            read_by_a_claim()
        assert read_by_a_claim() <= few + 2


def partitions(home: PostgresHome) -> list[str]:
    with psycopg.connect(home.url) as connection:
        rows = connection.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = %s::regclass ORDER BY 1",
            (f"{home.schema}.frames",),
        )
        return [name for (name,) in rows]


def test_partitions_that_nobody_needs_are_dropped(home: PostgresHome) -> None:
    client = home.client()
    client.pubsub.publish("bus", "read", 1)
    client.pubsub.publish("bus", "unread", 2)
    with client.pubsub.subscribe("bus", "unread", start="earliest", group="slow"):
        pass
    with client.pubsub.subscribe("bus", "read", start="earliest") as sub:
        assert received(sub, 1) == [1]
    before = partitions(home)
    home.advance(3 * 86400)
    home.sweep()
    assert before[0] in partitions(home)  # one of its events is not read
    with client.pubsub.subscribe("bus", "unread", group="slow") as sub:
        assert received(sub, 1) == [2]
    home.sweep()
    assert not set(partitions(home)) & set(before)
    client.pubsub.publish("bus", "read", 3)
    with client.pubsub.subscribe("bus", "read") as sub:
        assert received(sub, 1) == [3]


def test_what_has_ended_is_swept(home: PostgresHome) -> None:
    client = home.client()
    client.state.save("s", "short", 1, ttl=10)
    client.state.save("s", "long", 2)
    client.file.put_file("f", "a", b"one")
    client.file.put_file("f", "a", b"two")
    assert client.lock.try_lock("l", "r", "me", expiry=1) is not None
    client.configuration.save_configuration("c", {"k": "v"})
    client.configuration.delete_configuration("c", ["k"])
    home.advance(2 * 3600)
    home.sweep()
    with psycopg.connect(home.url) as connection:
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {home.schema}.{table}").fetchone()
            for table in ("state", "contents", "chunks", "locks", "configuration")
        }
    assert counts == {"state": (1,), "contents": (1,), "chunks": (1,), "locks": (0,), "configuration": (0,)}
    assert client.file.get_file("f", "a") == b"two"


def test_a_member_that_holds_nothing_leaves_quietly(home: PostgresHome, caplog: pytest.LogCaptureFixture) -> None:
    client = home.client()
    client.pubsub.publish("bus", "orders", 1)
    with client.pubsub.subscribe("bus", "orders") as sub:
        assert received(sub, 1) == [1]
        assert sub.receive(0.2) is None  # by then the answer is written
    assert not caplog.records
