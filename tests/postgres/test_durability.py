"""``durability``: which transactions wait for the server's disk."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.schedule import RpcTarget
from tests.support.harnesses.postgres import PostgresHome

RECORD = """
CREATE TABLE {schema}.seen (what text, synchronous text);
CREATE FUNCTION {schema}.see() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN INSERT INTO {schema}.seen VALUES (TG_TABLE_NAME, current_setting('synchronous_commit')); RETURN NULL; END$$;
"""
TABLES = ("state", "configuration", "files", "schedule_jobs", "locks", "frames")


@pytest.fixture
def seen(home: PostgresHome) -> Iterator[Any]:
    """How the transactions that wrote each table were committed."""
    home.client().state.get("s", "k")
    with psycopg.connect(home.url, autocommit=True) as connection:
        connection.execute(RECORD.replace("{schema}", home.schema).encode())
        for table in TABLES:
            connection.execute(
                f"CREATE TRIGGER see AFTER INSERT OR UPDATE ON {home.schema}.{table} FOR EACH STATEMENT EXECUTE FUNCTION {home.schema}.see()"
            )

        def commit_modes() -> dict[str, str]:
            rows = connection.execute(
                f"SELECT what, string_agg(DISTINCT synchronous, ' ') FROM {home.schema}.seen GROUP BY what"
            )
            return dict(rows.fetchall())

        yield commit_modes


def use(client: CloudRuntimesClient) -> None:
    """Write into each table, by the sync and the async API."""

    async def write() -> None:
        await asyncio.gather(*[client.state.save_async("s", f"async{i}", 1) for i in range(5)])
        await client.configuration.save_configuration_async("c", {"a": "1"})
        await client.file.put_file_async("f", "a", b"1")
        await client.schedule.schedule_job_async("a", schedule="@every 1h", target=RpcTarget("app", "m"))
        await client.pubsub.publish_async("bus", "t", 1)

    client.state.save("s", "sync", 1)
    client.configuration.save_configuration("c", {"b": "1"})
    client.file.put_file("f", "b", b"1")
    client.schedule.schedule_job("b", schedule="@every 1h", target=RpcTarget("app", "m"))
    client.pubsub.publish("bus", "t", 1)
    with client.lock.hold("l", "r"):
        pass
    asyncio.run(write())


@pytest.mark.parametrize("setting", ["setting", "environment", "pooler", "full"])
def test_relaxed_holds_for_all_but_grants(
    home: PostgresHome, seen: Any, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table: dict[str, Any] = {"url": home.url, "schema": home.schema}
    if setting == "environment":
        monkeypatch.setenv("CLOUD_RUNTIMES_DURABILITY", "relaxed")
        monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=12345")
    elif setting != "full":
        table |= {"durability": "relaxed", "url": f"{home.url}?options=-c%20statement_timeout%3D12345"}
    if setting == "pooler":
        table |= {"listen_url": home.url}
    with CloudRuntimesClient(app_id="suite", config={"capa": {"home": table}}, timeout=5) as client:
        use(client)
        modes = seen()
    others = "off" if setting in ("setting", "environment") else "on"
    events = "on" if setting == "full" else "off"
    grants = "off on"  # renewals and releases are not synced
    assert modes == dict.fromkeys(TABLES, others) | {"frames": events, "locks": grants}
