"""A schema of an older version is brought forward."""

from __future__ import annotations

import psycopg
import pytest

from cloud_runtimes.components.postgres import PostgresSettings, schema
from cloud_runtimes.spi import Method, Operation
from tests.support.harnesses.postgres import PostgresHome

OPEN = Method("postgres", "wait_ready", repeatable=True, writes=False)


def test_a_group_of_version_1_goes_on_behind_its_cursor(home: PostgresHome, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = PostgresHome(home.url)
    for number in range(4):
        newer.client().pubsub.publish("bus", "orders", number)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "STEPS", schema.STEPS[:1])
        patched.setattr(schema, "adopt", lambda *_: None)  # which knows the newest version alone
        schema.ensure(PostgresSettings(url=home.url, schema=home.schema), Operation(OPEN, "postgres", 30.0), "here")
    with psycopg.connect(home.url) as connection:
        run = connection.execute
        run(f"CREATE TABLE {home.schema}.frames_0 PARTITION OF {home.schema}.frames DEFAULT".encode())
        run(f"INSERT INTO {home.schema}.topics (pubsub, name) VALUES ('bus', 'orders')".encode())
        run(
            f"INSERT INTO {home.schema}.frames (id, xid, topic, count, body) SELECT id, xid, 1, count, body FROM {newer.schema}.frames".encode()
        )
        # the first two are done and behind the cursor; the third is in hand, the fourth settled before the cursor could pass it
        for name in ("behind", "new"):
            run(
                f"INSERT INTO {home.schema}.groups (topic, name, xid, frame, seen) SELECT 1, %s, xid, id, 0 FROM {home.schema}.frames ORDER BY id OFFSET 1 LIMIT 1".encode(),
                (name,),
            )
        run(f"UPDATE {home.schema}.groups SET xid = '0', frame = 0 WHERE name = 'new'".encode())
        run(
            f"INSERT INTO {home.schema}.claims (grp, xid, frame, created, start, count, member, deadline, deliveries) "
            f"SELECT 1, xid, id, created, 0, 1, 'm', CASE WHEN row_number() OVER (ORDER BY id) = 3 THEN 9e15 END, 1 "
            f"FROM {home.schema}.frames ORDER BY id OFFSET 2".encode()
        )
    client = home.client()
    for name, expected in (("behind", [2, 3, 4]), ("new", [0, 1, 2, 3, 4])):
        if name == "behind":
            client.pubsub.publish("bus", "orders", 4)
        with client.pubsub.subscribe("bus", "orders", group=name) as sub:
            received = []
            for _ in expected:
                event = sub.receive(5)
                assert event is not None
                received.append(event.data)
                event.ack()
            assert received == expected
            assert sub.receive(0.05) is None
    newer.close()


def test_its_clock_is_never_ahead(home: PostgresHome) -> None:
    """Or a value that is read at once would have longer to live than it was saved for."""
    home.client().state.save("s", "k", 1)
    with psycopg.connect(home.url) as connection:
        cursor = connection.execute(
            f"SELECT max({home.schema}.now_ms() - extract(epoch FROM clock_timestamp()) * 1000) FROM generate_series(1, 1000)".encode()
        )
        assert cursor.fetchone() <= (0,)  # type: ignore[operator]
