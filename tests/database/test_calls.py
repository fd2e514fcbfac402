"""Cancelled tasks, servers that fail, connections that come back clean."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    CloudRuntimesError,
    ConflictError,
    DeadlineExceededError,
    InvalidArgumentError,
    UnauthenticatedError,
    UnavailableError,
)

SLOW = (
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 1000000000) SELECT count(*) AS n FROM t"
)
KINDS = ["sqlite", ":memory:", "sqlite+aiosqlite", "postgresql", "postgresql+asyncpg"]


def configured(url: str, **settings: Any) -> CloudRuntimesClient:
    return CloudRuntimesClient(config={"database": {"main": {"component": "sqlalchemy", "url": url, **settings}}})


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CloudRuntimesClient]:
    """A client with an empty table ``t`` in the store ``main``."""
    kind: str = request.param
    if kind.startswith("postgresql"):
        pytest.importorskip("asyncpg")
        made = configured(request.getfixturevalue("postgres_url").replace("postgresql", kind, 1))
    elif "aiosqlite" in kind:
        pytest.importorskip("aiosqlite")
        made = configured(f"{kind}:///{tmp_path / 'a.db'}")
    else:
        made = CloudRuntimesClient(config={"capa": {"home": kind if kind == ":memory:" else str(tmp_path)}})
    with made:
        made.database.drop_table("main", "t")
        made.database.create_table("main", "t", {"n": int})
        yield made
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


@pytest.mark.parametrize("kind", ["sqlite+aiosqlite", "postgresql", "postgresql+asyncpg"])
def test_a_client_closed_behind_a_cancelled_call(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """Whatever the call was at, its connection is closed by its driver: a connection that is only dropped warns."""
    if kind.startswith("postgresql"):
        pytest.importorskip("asyncpg")
        url = request.getfixturevalue("postgres_url").replace("postgresql", kind, 1)
    else:
        pytest.importorskip("aiosqlite")
        url = f"{kind}:///{tmp_path / 'a.db'}"

    async def main(client: CloudRuntimesClient, hops: int, seconds: float) -> None:
        task = asyncio.create_task(client.database.execute_async("main", f"CREATE TABLE made AS {SLOW}"))
        for _ in range(hops):
            await asyncio.sleep(0)
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for hops, seconds in [(0, 0.0), (1, 0.0), (2, 0.0), *((0, 0.002 * 4**step) for step in range(4))]:
        with configured(url) as client:
            asyncio.run(main(client, hops, seconds))
        gc.collect()


def test_more_transactions_than_connections_and_threads(client: CloudRuntimesClient) -> None:
    """Those that wait hold nothing that the others need."""

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


# -- PostgreSQL ---------------------------------------------------------------


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[CloudRuntimesClient]:
    """A client, with one connection at a time."""
    pytest.importorskip("psycopg")
    with configured(postgres_url, pool_size=1) as client:
        yield client


def test_what_a_statement_changed_of_its_connection_is_gone(postgres: CloudRuntimesClient) -> None:
    postgres.database.execute("main", "SET application_name = 'changed'")
    shown = postgres.database.query("main", "SELECT current_setting('application_name') AS a", type=str)
    assert shown != ["changed"]
    with postgres.database.transaction("main", "serializable") as tx:
        assert tx.query("SHOW transaction_isolation", type=str) == ["serializable"]
    assert postgres.database.query("main", "SHOW transaction_isolation", type=str) == ["read committed"]


def test_a_forgotten_transaction_ends_without_another_call(postgres: CloudRuntimesClient) -> None:
    """What watched its last call does not keep it."""
    tx = postgres.database.transaction("main")
    assert tx.query("SELECT 1 AS a FROM pg_sleep(0.2)", type=int) == [1]
    del tx
    gc.collect()
    store = postgres._runtime_for().driver("database", "main")._store_of()
    end = time.monotonic() + 10
    while store.links or store.places._inside:
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_server_stops_too(postgres: CloudRuntimesClient, postgres_url: str, asynchronous: bool) -> None:
    database = postgres.database
    begin = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        if asynchronous:
            asyncio.run(database.query_async("main", "SELECT 1 AS a FROM pg_sleep(60) /* marked */", timeout=0.3))
        else:
            database.query("main", "SELECT 1 AS a FROM pg_sleep(60) /* marked */", timeout=0.3)
    running = (
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE :q AND pid <> pg_backend_pid()"
    )
    while database.query("main", running, {"q": "%/* mar" + "ked */%"}, type=int) != [0]:
        assert time.monotonic() < begin + 20
        time.sleep(0.02)
    assert time.monotonic() < begin + 20


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_server_that_answers_no_more(postgres: CloudRuntimesClient, postgres_url: str, asynchronous: bool) -> None:
    """It cannot cancel either, so its connection is cut."""
    psycopg = pytest.importorskip("psycopg")
    database = postgres.database
    with psycopg.connect(postgres_url, autocommit=True) as other:

        def backend() -> int:
            sql = "SELECT pid FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()"
            while not (found := other.execute(sql, ["%pg_sleep(0.7)%"]).fetchall()):
                time.sleep(0.01)
            return int(found[0][0])

        stopped: list[int] = []

        def stop() -> None:
            stopped.append(backend())
            os.kill(stopped[0], signal.SIGSTOP)

        thread = threading.Thread(target=stop)
        thread.start()
        begin = time.monotonic()
        try:
            with pytest.raises(DeadlineExceededError):
                if asynchronous:
                    asyncio.run(database.query_async("main", "SELECT 1 AS a FROM pg_sleep(0.7)", timeout=1.0))
                else:
                    database.query("main", "SELECT 1 AS a FROM pg_sleep(0.7)", timeout=1.0)
            assert time.monotonic() < begin + 15
            thread.join()
            # the one place is free again
            assert database.query("main", "SELECT 1 AS a", type=int, timeout=20) == [1]
        finally:
            thread.join()
            os.kill(stopped[0], signal.SIGCONT)


def test_a_commit_whose_answer_does_not_come(postgres: CloudRuntimesClient, postgres_url: str) -> None:
    psycopg = pytest.importorskip("psycopg")
    database = postgres.database
    # the constraint is looked at by the commit, which takes its time
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("DROP TABLE IF EXISTS late")
        other.execute("CREATE TABLE late (n integer)")
        other.execute(
            "CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(3); RETURN NULL; END $$"
        )
        other.execute(
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION slowly()"
        )
    with pytest.raises(DeadlineExceededError) as caught:
        database.execute("main", "INSERT INTO late VALUES (1)", timeout=0.5)
    assert caught.value.maybe_applied is True

    async def main() -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await database.execute_async("main", "INSERT INTO late VALUES (2)", timeout=0.5)
        assert caught.value.maybe_applied is True
        task = asyncio.create_task(database.execute_async("main", "INSERT INTO late VALUES (3)", timeout=20))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
        assert cancelled.value.maybe_applied is True  # type: ignore[attr-defined]

    asyncio.run(main())
    assert database.query("main", "SELECT 1 AS a", type=int, timeout=20) == [1]


def test_a_lost_connection(postgres: CloudRuntimesClient, postgres_url: str) -> None:
    psycopg = pytest.importorskip("psycopg")
    me = postgres.database.query("main", "SELECT pg_backend_pid()", type=int)[0]
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [me])
    # noticed before anything is sent, or repeated: a read
    assert postgres.database.query("main", "SELECT pg_backend_pid()", type=int) != [me]
    with pytest.raises(UnavailableError) as caught:
        with postgres.database.transaction("main") as tx:
            me = tx.query("SELECT pg_backend_pid()", type=int)[0]
            with psycopg.connect(postgres_url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [me])
            tx.execute("CREATE TABLE not_there (a integer)")
    assert (caught.value.retryable, caught.value.maybe_applied) == (True, False)
    assert "not_there" not in postgres.database.tables("main")


def test_a_serialization_failure(postgres_url: str) -> None:
    with configured(postgres_url) as client:
        database = client.database
        database.drop_table("main", "counter")
        database.create_table("main", "counter", {"n": int})
        database.insert("main", "counter", {"n": 0})
        with pytest.raises(ConflictError) as caught:
            with database.transaction("main", "repeatable-read") as tx:
                tx.query("SELECT n FROM counter")
                database.execute("main", "UPDATE counter SET n = n + 1")
                tx.execute("UPDATE counter SET n = n + 1")
        assert caught.value.retryable
        assert database.query("main", "SELECT n FROM counter", type=int) == [1]


def test_no_password_is_told(postgres_url: str, unused: int) -> None:
    secret = "canary%2Fword"
    for url in (
        f"postgresql://user:{secret}@127.0.0.1:{unused}/x",
        f"{postgres_url.replace('postgres@', f'nobody:{secret}@')}",
        f"postgresql+nonsense://user:{secret}@host/x",
        f"nonsense://user:{secret}@host/x",
    ):
        with configured(url) as client:
            with pytest.raises(CloudRuntimesError) as caught:
                client.database.query("main", "SELECT 1 AS a", timeout=5)
            chain: BaseException | None = caught.value
            while chain is not None:
                assert "canary" not in f"{chain!r} {chain}"
                chain = chain.__cause__
            assert "canary" not in repr(client._runtime_for().driver("database", "main"))


@pytest.fixture(params=["postgresql", "postgresql+asyncpg"])
def guarded(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[Callable[[str], CloudRuntimesClient]]:
    """Makes a client of a user whose password is ``right canary``, with any password."""
    psycopg, _ = pytest.importorskip("psycopg"), pytest.importorskip("asyncpg")
    from postgres import GUARDED

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {GUARDED} LOGIN PASSWORD 'right canary'")
    url = postgres_url.replace("postgresql", request.param, 1)
    yield lambda password: configured(url.replace("postgres@", f"{GUARDED}:{quote(password)}@"))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP ROLE {GUARDED}")


def told(error: BaseException | None) -> Iterator[str]:
    """Give all texts of an error, of those behind it, and of their tracebacks."""
    if error is not None:
        yield f"{error!r} {error} {error.args!r} {vars(error)!r} {getattr(error, '__notes__', '')}"
        yield "".join(traceback.format_exception(error))
        yield from told(error.__cause__)
        yield from told(error.__context__)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_password_that_the_server_refuses(
    guarded: Callable[[str], CloudRuntimesClient],
    asynchronous: bool,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The right one is accepted, so the wrong one was asked for; neither is told."""
    caplog.set_level(logging.DEBUG)

    def ask(client: CloudRuntimesClient) -> Any:
        if asynchronous:
            return asyncio.run(client.database.query_async("main", "SELECT current_user AS a", type=str, timeout=20))
        return client.database.query("main", "SELECT current_user AS a", type=str, timeout=20)

    with guarded("right canary") as client:
        assert ask(client) == ["guarded"]
        store = client._runtime_for().driver("database", "main")._store_of()
        texts = [repr(client), repr(client.database), repr(store), repr(store.engine(store.loops and asynchronous))]
    with guarded("wrong/canary") as client:
        with pytest.raises(
            UnauthenticatedError, match="does not accept the user or the password: check the url"
        ) as caught:
            ask(client)
        with pytest.raises(UnauthenticatedError):
            client.wait_ready(timeout=5)
        texts += told(caught.value)
    assert (caught.value.component, caught.value.retryable, caught.value.maybe_applied) == ("main", False, False)
    texts += [caplog.text, *capfd.readouterr()]
    for text in texts:
        assert "canary" not in text
        assert "SCRAM" not in text


@pytest.fixture
def unused() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_server_that_is_not_there(unused: int, asynchronous: bool) -> None:
    pytest.importorskip("psycopg")
    with configured(f"postgresql://x@127.0.0.1:{unused}/x") as client:
        with pytest.raises(UnavailableError) as caught:
            if asynchronous:
                asyncio.run(client.database.execute_async("main", "DELETE FROM t"))
            else:
                client.database.execute("main", "DELETE FROM t")
        assert caught.value.maybe_applied is False


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
