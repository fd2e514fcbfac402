"""Cancelled tasks, what only SQLite shows, wrong settings."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    ClosedError,
    CloudRuntimesError,
    DeadlineExceededError,
    InvalidArgumentError,
    UnsupportedError,
)

pytestmark = pytest.mark.usefixtures("short_collections")

SLOW = (
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 1000000000) SELECT count(*) AS n FROM t"
)
KINDS = ["sqlite", ":memory:", "postgresql", "postgresql+asyncpg"]


def configured(url: str, **settings: Any) -> CloudRuntimesClient:
    return CloudRuntimesClient(config={"database": {"main": {"component": "sqlalchemy", "url": url, **settings}}})


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CloudRuntimesClient]:
    """A client with an empty table ``t`` in the store ``main``."""
    kind: str = request.param
    if kind.startswith("postgresql"):
        pytest.importorskip("asyncpg")
        instance = configured(request.getfixturevalue("postgres_url").replace("postgresql", kind, 1))
    else:
        instance = CloudRuntimesClient(config={"capa": {"home": kind if kind == ":memory:" else str(tmp_path)}})
    with instance:
        instance.database.drop_table("main", "t")
        instance.database.create_table("main", "t", {"n": int})
        yield instance
    gc.collect()


async def block(client: CloudRuntimesClient) -> None:
    database = client.database
    async with database.transaction("main") as tx:
        await tx.execute_async("INSERT INTO t VALUES (1)")
        async with tx.stream("SELECT n FROM t", type=int) as rows:
            async for _ in rows:
                await tx.execute_async("INSERT INTO t VALUES (2)")
        await tx.query_async(SLOW)


def test_a_task_cancelled_at_any_time(client: CloudRuntimesClient) -> None:
    """Whenever it comes: nothing is applied, and the connection and the turn are free."""

    async def main() -> None:
        for step in range(25):
            task = asyncio.create_task(block(client))
            for _ in range(step):
                await asyncio.sleep(0.0007 if step % 2 else 0)
            if step > 20:
                await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.database.execute_async("main", "UPDATE t SET n = 3", timeout=10)).rows_affected == 0
        assert await client.database.query_async("main", "SELECT count(*) FROM t", type=int) == [0]

    asyncio.run(main())


def test_a_cancelled_statement_says_that_it_was_not_applied(client: CloudRuntimesClient) -> None:
    async def main() -> None:
        sql = f"INSERT INTO t {SLOW}"
        task = asyncio.create_task(client.database.execute_async("main", sql))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.maybe_applied is False  # type: ignore[attr-defined]
        assert await client.database.query_async("main", "SELECT count(*) FROM t", type=int, timeout=10) == [0]

    asyncio.run(main())


@pytest.fixture(params=["sqlite", "postgresql", "postgresql+asyncpg"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database."""
    kind: str = request.param
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'a.db'}"
    pytest.importorskip("asyncpg")
    value: str = request.getfixturevalue("postgres_url")
    return value.replace("postgresql", kind, 1)


def assert_nothing_runs(url: str) -> None:
    """The server soon works at no statement that nobody waits for any longer; it would for minutes, with its locks."""
    if not url.startswith("postgresql"):
        return
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE :q AND state = 'active'"
    with configured(url.replace("+asyncpg", "")) as client:
        end = time.monotonic() + 20
        while client.database.query("main", running, {"q": "CREATE TABLE made%"}, type=int) != [0]:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_a_client_closed_behind_a_cancelled_call(url: str) -> None:
    """Whatever the call was at, its connection is closed by its driver: a connection that is only dropped warns. The server soon notices."""

    async def main(client: CloudRuntimesClient, hops: int, seconds: float) -> None:
        task = asyncio.create_task(client.database.execute_async("main", f"CREATE TABLE made AS {SLOW}"))
        for _ in range(hops):
            await asyncio.sleep(0)
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for hops, seconds in [(0, 0.0), (1, 0.0), (2, 0.0), *((0, 0.002 * 2**step) for step in range(7))]:
        with configured(url) as client:
            asyncio.run(main(client, hops, seconds))
        gc.collect()
    assert_nothing_runs(url)


def test_a_client_closed_in_a_call(url: str) -> None:
    """The call is stopped in the database, and says that it was not applied."""

    async def main(client: CloudRuntimesClient) -> None:
        await client.database.query_async("main", "SELECT 1 AS a")
        task = asyncio.create_task(client.database.execute_async("main", f"CREATE TABLE made AS {SLOW}"))
        await asyncio.sleep(0.3)
        await client.close_async()
        with pytest.raises(ClosedError, match="closed while this call was under way") as caught:
            await task
        assert caught.value.maybe_applied is False

    client = configured(url)
    begin = time.monotonic()
    asyncio.run(main(client))
    assert time.monotonic() < begin + 15  # and not the minutes of the statement
    gc.collect()
    assert_nothing_runs(url)
    with configured(url) as client:
        assert "made" not in client.database.tables("main")


def test_more_transactions_than_connections_and_threads(client: CloudRuntimesClient) -> None:
    """Waiting transactions hold nothing that the others need."""

    async def one(number: int) -> None:
        async with client.database.transaction("main") as tx:
            await tx.execute_async("INSERT INTO t VALUES (:n)", {"n": number})
            await asyncio.sleep(0)
            await tx.execute_async("INSERT INTO t VALUES (:n)", {"n": number})

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(80)))
        assert await client.database.query_async("main", "SELECT count(*) FROM t", type=int) == [160]

    asyncio.run(main())


def test_sync_calls_in_a_running_loop(client: CloudRuntimesClient) -> None:
    async def main() -> None:
        with client.database.transaction("main") as tx:
            tx.insert("t", {"n": 5})
        assert client.database.query("main", "SELECT n FROM t", type=int) == [5]

    asyncio.run(main())


def test_two_loops(client: CloudRuntimesClient) -> None:
    for number in (1, 2):
        asyncio.run(client.database.insert_async("main", "t", {"n": number}))
    assert client.database.query("main", "SELECT n FROM t ORDER BY n", type=int) == [1, 2]


# -- SQLite -------------------------------------------------------------------


def test_a_shell_that_takes_no_turns(tmp_path: Path) -> None:
    """Somebody else has the write lock: waited for to the deadline, and no longer."""
    import sqlite3

    with configured(f"sqlite:///{tmp_path / 'a.db'}") as client:
        client.database.create_table("main", "t", {"n": int})
        shell = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(CloudRuntimesError) as caught:
            client.database.insert("main", "t", {"n": 1}, timeout=0.4)
        assert caught.value.code in ("DEADLINE_EXCEEDED", "UNAVAILABLE")
        assert client.database.query("main", "SELECT n FROM t") == []
        shell.execute("COMMIT")
        shell.close()
        assert client.database.insert("main", "t", {"n": 1}).rows_affected == 1


def test_a_file_that_nobody_may_open_yet(tmp_path: Path) -> None:
    """As behind a program that died in a write, until another has made the file whole: a transaction, which is not tried again, waits."""
    import sqlite3

    url = f"sqlite:///{tmp_path / 'a.db'}"
    with configured(url) as client:
        client.database.create_table("main", "t", {"n": int})
    alone = sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)
    alone.execute("PRAGMA locking_mode=EXCLUSIVE")
    alone.execute("INSERT INTO t VALUES (0)")
    with configured(url) as client:
        with pytest.raises(DeadlineExceededError):
            client.database.query("main", "SELECT n FROM t", timeout=0.2)
        closing = threading.Timer(0.3, alone.close)
        closing.start()
        with client.database.transaction("main") as tx:
            tx.execute("INSERT INTO t VALUES (1)")
        closing.join()
        assert client.database.query("main", "SELECT n FROM t", type=int) == [0, 1]


def test_names_of_stores_are_names_of_files(tmp_path: Path) -> None:
    names = ["a", "A/b", "../up", ".hidden", "x" * 255, "100%", "ü", "a b", "C:\\x"]
    with CloudRuntimesClient(config={"capa": {"home": str(tmp_path / "home")}}) as client:
        for number, name in enumerate(names):
            client.database.create_table(name, "t", {"n": int})
            client.database.insert(name, "t", {"n": number})
        assert [client.database.query(name, "SELECT n FROM t", type=int) for name in names] == [
            [number] for number in range(len(names))
        ]
    files = list(tmp_path.rglob("*.db"))
    assert len(files) == len(names)
    assert {path.parent for path in files} == {tmp_path / "home" / "databases"}


def test_a_trigger_with_statements_in_its_body() -> None:
    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
        client.database.create_table("main", "t", {"n": int})
        body = "CREATE TRIGGER tr AFTER INSERT ON t BEGIN UPDATE t SET n = 5; INSERT INTO t VALUES (6); END"
        client.database.execute("main", body)
        client.database.insert("main", "t", {"n": 1})
        assert client.database.query("main", "SELECT n FROM t ORDER BY n", type=int) == [5, 6]


def test_a_transaction_has_the_one_connection_of_a_database_in_memory() -> None:
    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
        with client.database.transaction("main") as tx:
            with pytest.raises(DeadlineExceededError, match="a free connection"):
                client.database.query("main", "SELECT 1 AS a", timeout=0.1)
            assert tx.query("SELECT 1 AS a") == [{"a": 1}]


def test_calls_wait_in_order_and_who_gives_up_leaves() -> None:
    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
        client.database.create_table("main", "t", {"n": int})
        waiting = client._context.runtime().driver("database", "main")._pool_of()._workers._queue

        def insert(number: int) -> None:
            if number % 2:
                asyncio.run(client.database.insert_async("main", "t", {"n": number}))
            else:
                client.database.insert("main", "t", {"n": number})

        threads = []
        with client.database.transaction("main"):
            with pytest.raises(DeadlineExceededError) as caught:
                client.database.insert("main", "t", {"n": -1}, timeout=0.05)
            assert caught.value.maybe_applied is False
            for number in range(6):
                threads.append(threading.Thread(target=insert, args=(number,)))
                threads[-1].start()
                end = time.monotonic() + 10
                while waiting.qsize() < number + 2:  # and the one that was given up
                    assert time.monotonic() < end
                    time.sleep(0.001)
        for thread in threads:
            thread.join(10)
        assert client.database.query("main", "SELECT n FROM t ORDER BY rowid", type=int) == list(range(6))


def test_how_a_file_is_opened(tmp_path: Path) -> None:
    with CloudRuntimesClient(config={"capa": {"home": str(tmp_path)}}) as client:
        for pragma, expected in (
            ("journal_mode", "wal"),
            ("foreign_keys", 1),
            ("synchronous", 2),
            ("trusted_schema", 0),
        ):
            assert client.database.query("main", f"PRAGMA {pragma}") == [{pragma: expected}]
        client.database.execute("main", "PRAGMA foreign_keys = OFF")
        assert client.database.query("main", "PRAGMA foreign_keys", type=int) == [1]
        client.database.execute("main", "VACUUM")


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_integers_that_sqlite_has_not(tmp_path: Path, value: int) -> None:
    with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
        with pytest.raises(InvalidArgumentError, match="64 bits"):
            client.database.query("main", "SELECT :a", {"a": value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "nonsense"}, "url: give one such as"),
        ({"url": "sqlite://", "home": "x"}, "url or home"),
        ({"pool_size": 0}, "pool_size"),
        ({"urll": "x"}, "did you mean 'url'"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with CloudRuntimesClient(config={"database": {"main": {"component": "sqlalchemy", **settings}}}) as client:
        with pytest.raises(InvalidArgumentError, match=message):
            client.database.query("main", "SELECT 1")


def test_a_url_that_cannot_be_split_is_left_to_the_first_call() -> None:
    table = {"component": "sqlalchemy", "url": "postgresql://[x/y"}
    with CloudRuntimesClient(config={"database": {"main": table}}) as client:
        driver: Any = client.database._frame.driver("main")
        assert driver.namespace is None


@pytest.mark.parametrize("name", ["psycopg", "psycopg2"])
def test_a_missing_driver_of_postgresql_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    table = {"component": "sqlalchemy", "url": f"postgresql+{name}://u:p@h/d"}
    with CloudRuntimesClient(config={"database": {"main": table}}) as client:
        with pytest.raises(UnsupportedError, match=r'pip install "\.\[postgres\]" in the checkout'):
            client.database.query("main", "SELECT 1")
