"""Rows that are past are removed, others never."""

from __future__ import annotations

import psycopg

from tests.support.harnesses.postgres import PostgresHome
from tests.support.waiting import running, until


def test_many_values_go_at_once(home: PostgresHome) -> None:
    """More of them than one batch has: the store would grow for ever where they expire faster."""
    client = home.client()
    client.state.save_bulk("s", {f"gone-{number}": number for number in range(3500)})
    client.state.save("s", "stays", 1)
    with psycopg.connect(home.url, autocommit=True) as other:
        other.execute(f"UPDATE {home.schema}.state SET expires = 1 WHERE key <> 'stays'")
        home.sweep()
        assert other.execute(f"SELECT key FROM {home.schema}.state").fetchall() == [("stays",)]


def test_a_value_that_is_renewed_meanwhile_stays(home: PostgresHome) -> None:
    """The sweep waits for whoever changes a row, and looks at it again."""
    client = home.client()
    # as many as have PostgreSQL go to the rows by their places
    client.state.save_bulk("s", {f"gone-{number}": "x" * 100 for number in range(900)})
    client.state.save("s", "renewed", 2)
    with psycopg.connect(home.url) as other, psycopg.connect(home.url, autocommit=True) as watching:
        watching.execute(f"UPDATE {home.schema}.state SET expires = 1")
        watching.execute(f"VACUUM FULL ANALYZE {home.schema}.state")
        other.execute(f"UPDATE {home.schema}.state SET expires = {2**60} WHERE key = 'renewed'")
        with running(home.sweep):
            until(
                lambda: watching.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s",
                    (f"DELETE FROM {home.schema}.state %",),
                ).fetchone()
            )
            other.commit()
        rows = watching.execute(f"SELECT key FROM {home.schema}.state").fetchall()
    assert rows == [("renewed",)]
    assert client.state.get("s", "renewed") == 2
