"""Listing files: what a folder holds costs nothing where only the folder is listed."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import psycopg
import pytest

from cloud_runtimes.components.postgres.file import _ENTRIES
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.testing import Api
from tests.support.harnesses.postgres import PostgresHome

_LIST = Method("file", "list_files", repeatable=True, writes=False)


def fill(home: PostgresHome, *names: str, many: int = 0) -> None:
    """Make empty files, and so many in one folder."""
    with psycopg.connect(home.url, autocommit=True) as connection:
        files = f"INSERT INTO {home.schema}.files (store, name, content, size, modified) "
        connection.execute(f"INSERT INTO {home.schema}.contents DEFAULT VALUES")
        content = f"(SELECT min(id) FROM {home.schema}.contents), 0, 0"
        connection.cursor().executemany(f"{files} SELECT 's', %s, {content}", [(name,) for name in names])
        connection.execute(f"{files} SELECT 's', 'much/' || i, {content} FROM generate_series(1, %s) i", (many,))


def rows_read(plan: Any) -> int:
    """Return how many rows the scans of a plan have looked at."""
    here = 0
    if "Relation Name" in plan:
        here = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return int(here) + sum(rows_read(each) for each in plan.get("Plans", ()))


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_a_listing_skips_from_folder_to_folder(home: PostgresHome, mode: str) -> None:
    client = home.client()
    assert client.file.list_files("s") == []
    fill(home, "a", "b/1", "b/2", "z", many=10_000)
    assert [each.name for each in client.file.list_files("s", recursive=False)] == ["a", "b/", "much/", "z"]
    with psycopg.connect(home.url) as connection:
        connection.execute(f"SET plan_cache_mode = {mode}")
        sql = _ENTRIES.sql.replace("{schema}", home.schema)
        connection.execute(f"PREPARE listing (text, text, text, int8, text) AS {sql}".encode())
        row = connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE listing ('s', '', NULL, NULL, '')").fetchone()
    assert row is not None
    assert rows_read(row[0][0]["Plan"]) < 20, json.dumps(row[0])


def test_listings_hold_what_a_full_scan_holds(home: PostgresHome, api: Api) -> None:
    client = home.client()
    assert client.file.list_files("s") == []
    letters = ["a", "b", "/", "0", ".", "é", "\U0010ffff"]
    names = {"".join(random.choices(letters, k=random.randint(1, 6))).replace("//", "/") for _ in range(300)}
    names = {name for name in names if not name.startswith("/") and not name.endswith("/")}
    fill(home, *names)
    driver: Any = client.file._frame.driver("s")
    for prefix, recursive, after, limit in itertools.product(
        ["", "a", "a/", "ab/a", "é", "\U0010ffff"], [True, False], [None, "a", "a/", "a/b", "b/", "é/a"], [None, 3]
    ):
        wanted = set()
        for name in names:
            if name.startswith(prefix):
                folder, slash, _ = name[len(prefix) :].partition("/")
                wanted.add(name if recursive else prefix + folder + slash)
        expected = sorted(each for each in wanted if after is None or each > after)[:limit]
        arguments = (Operation(_LIST, "s", 10.0), prefix, recursive, limit, after)
        files = api.call(driver, "list_files", *arguments)
        assert [each.name for each in files] == expected, (prefix, recursive, after, limit)
