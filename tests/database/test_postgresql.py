"""Behaviour that only a PostgreSQL server shows: it stops, answers no more, refuses a password, or changes a column."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    CloudRuntimesError,
    ConflictError,
    DeadlineExceededError,
    UnauthenticatedError,
    UnavailableError,
)
from cloud_runtimes.testing import Api
from tests.support.ports import reserved_port
from tests.support.waiting import until


def configured(url: str, **settings: Any) -> CloudRuntimesClient:
    return CloudRuntimesClient(config={"database": {"main": {"component": "sqlalchemy", "url": url, **settings}}})


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
    """The watch on its last call does not keep the transaction alive."""
    tx = postgres.database.transaction("main")
    assert tx.query("SELECT 1 AS a FROM pg_sleep(0.2)", type=int) == [1]
    del tx
    gc.collect()
    pool = postgres._context.runtime().driver("database", "main")._pool_of().engine.pool
    until(lambda: not pool.checkedout(), seconds=10)


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


LONG = (
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 1000000000) SELECT count(*) AS a FROM t"
)


def wait_until_none_runs(postgres: CloudRuntimesClient, within: float) -> None:
    end = time.monotonic() + within
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE :q"
    while postgres.database.query("main", running, {"q": "WITH RECURSIVE t(x)%"}, type=int) != [0]:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_server_that_cannot_be_asked_ends_too(postgres: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """It notices that its client is gone; by itself it would go on for minutes, with all its locks."""
    psycopg = pytest.importorskip("psycopg")

    def refused(self: Any, *, timeout: float) -> None:
        raise psycopg.OperationalError("as if no further connection could be made")

    monkeypatch.setattr(psycopg.Connection, "cancel_safe", refused)
    with pytest.raises(DeadlineExceededError):
        postgres.database.query("main", LONG, timeout=0.3)
    wait_until_none_runs(postgres, 10)


def test_a_stream_that_is_cut_leaves_no_cursor_open(
    postgres: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    psycopg = pytest.importorskip("psycopg")

    def refused(self: Any, *, timeout: float) -> None:
        raise psycopg.OperationalError("as if no further connection could be made")

    opened: list[Any] = []
    begin = psycopg.ServerCursor.__init__

    def recorded(self: Any, *args: Any, **kwargs: Any) -> None:
        opened.append(self)
        begin(self, *args, **kwargs)

    monkeypatch.setattr(psycopg.Connection, "cancel_safe", refused)
    monkeypatch.setattr(psycopg.ServerCursor, "__init__", recorded)
    assert postgres.database.query("main", "SELECT 1 AS a", type=int) == [1]  # connected before the time counts
    with pytest.raises(DeadlineExceededError):
        list(postgres.database.stream("main", "SELECT 1 AS a FROM pg_sleep(60)", timeout=0.3))
    until(lambda: opened and all(each.closed for each in opened), seconds=10)  # its thread ends a moment later


def test_a_server_is_asked_until_it_listens(postgres: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has not begun the statement ignores a cancel request."""
    psycopg = pytest.importorskip("psycopg")
    cancel, asked = psycopg.Connection.cancel_safe, []
    postgres.database.query("main", "SELECT 1")  # it is connected

    def late(self: Any, *, timeout: float) -> None:
        asked.append(timeout)
        if len(asked) > 2:
            cancel(self, timeout=timeout)

    monkeypatch.setattr(psycopg.Connection, "cancel_safe", late)
    with pytest.raises(DeadlineExceededError):
        postgres.database.query("main", LONG, timeout=0.3)
    wait_until_none_runs(postgres, 10)
    assert len(asked) >= 3
    assert asked == sorted(asked, reverse=True)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_server_that_answers_no_more(postgres: CloudRuntimesClient, postgres_url: str, asynchronous: bool) -> None:
    """It cannot cancel either, so its connection is cut."""
    psycopg = pytest.importorskip("psycopg")
    database = postgres.database
    with psycopg.connect(postgres_url, autocommit=True) as other:

        def backend() -> int:
            sql = "SELECT pid FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()"
            while not (rows := other.execute(sql, ["%pg_sleep(3)%"]).fetchall()):
                time.sleep(0.01)
            return int(rows[0][0])

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
                    asyncio.run(database.query_async("main", "SELECT 1 AS a FROM pg_sleep(3)", timeout=3.5))
                else:
                    database.query("main", "SELECT 1 AS a FROM pg_sleep(3)", timeout=3.5)
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
            "$$ BEGIN PERFORM pg_sleep(5); RETURN NULL; END $$"
        )
        other.execute(
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION slowly()"
        )
    with pytest.raises(DeadlineExceededError) as caught:
        database.execute("main", "INSERT INTO late VALUES (1)", timeout=1.5)
    assert caught.value.maybe_applied is True

    async def main() -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await database.execute_async("main", "INSERT INTO late VALUES (2)", timeout=1.5)
        assert caught.value.maybe_applied is True
        task = asyncio.create_task(database.execute_async("main", "INSERT INTO late VALUES (3)", timeout=20))
        await asyncio.sleep(1.5)
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
            assert "canary" not in repr(client._context.runtime().driver("database", "main"))


@pytest.fixture(params=["postgresql", "postgresql+asyncpg"])
def guarded(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[Callable[[str], CloudRuntimesClient]]:
    """Makes a client of a user whose password is ``right canary``, with any password."""
    psycopg, _ = pytest.importorskip("psycopg"), pytest.importorskip("asyncpg")
    from tests.support.postgres import GUARDED

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {GUARDED} LOGIN PASSWORD 'right canary'")
    url = postgres_url.replace("postgresql", request.param, 1)
    yield lambda password: configured(url.replace("postgres@", f"{GUARDED}:{quote(password)}@"))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP ROLE {GUARDED}")


def messages_of(error: BaseException | None) -> Iterator[str]:
    """Give all texts of an error, of those behind it, and of their tracebacks."""
    if error is not None:
        yield f"{error!r} {error} {error.args!r} {vars(error)!r} {getattr(error, '__notes__', '')}"
        yield "".join(traceback.format_exception(error))
        yield from messages_of(error.__cause__)
        yield from messages_of(error.__context__)


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
        pool = client._context.runtime().driver("database", "main")._pool_of()
        texts = [repr(client), repr(client.database), repr(pool), repr(pool.engine)]
    with guarded("wrong/canary") as client:
        with pytest.raises(
            UnauthenticatedError, match="does not accept the user or the password: check the url"
        ) as caught:
            ask(client)
        with pytest.raises(UnauthenticatedError):
            client.wait_ready(timeout=5)
        texts += messages_of(caught.value)
    assert (caught.value.component, caught.value.retryable, caught.value.maybe_applied) == ("main", False, False)
    texts += [caplog.text, *capfd.readouterr()]
    for text in texts:
        assert "canary" not in text
        assert "SCRAM" not in text


@pytest.fixture
def unused() -> Iterator[int]:
    with reserved_port() as port:
        yield port


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


# -- columns of PostgreSQL whose type somebody changes while connections hold plans of statements

QUERY = "SELECT a FROM altered WHERE a = :a"
UPDATE = "UPDATE altered SET a = a WHERE a = :a RETURNING a"
USED = 8
"""How often a statement runs before the driver surely holds its plan."""


@pytest.fixture(params=["postgresql+psycopg", "postgresql+asyncpg"])
def client(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[CloudRuntimesClient]:
    pytest.importorskip(request.param.partition("+")[2])
    url = postgres_url.replace("postgresql", request.param, 1)
    config = {"database": {"main": {"component": "sqlalchemy", "url": url, "pool_size": 3}}}
    with CloudRuntimesClient(app_id="altered", config=config) as instance:
        instance.database.execute("main", "DROP TABLE IF EXISTS altered")
        instance.database.execute("main", "CREATE TABLE altered (a INTEGER)")
        instance.database.insert("main", "altered", {"a": 1})
        yield instance
        instance.database.execute("main", "DROP TABLE altered")


def used(client: CloudRuntimesClient) -> None:
    """Have all connections hold the plans."""

    def use(number: int) -> None:
        with client.database.transaction("main") as tx:
            tx.query("SELECT 1 AS a FROM pg_sleep(0.2)")
            for _ in range(USED):
                tx.query(QUERY, {"a": 1})
                tx.query(UPDATE, {"a": 1})

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(use, range(3)))


def test_statements_are_repeated(client: CloudRuntimesClient, api: Api) -> None:
    for kind in ("BIGINT", "NUMERIC"):
        used(client)
        client.database.execute("main", f"ALTER TABLE altered ALTER COLUMN a TYPE {kind}")
        for _ in range(5):
            assert api.call(client.database, "query", "main", QUERY, {"a": 1}, type=dict) == [{"a": 1}]
        used(client)
        client.database.execute("main", "ALTER TABLE altered ALTER COLUMN a TYPE INTEGER")
        assert api.call(client.database, "execute", "main", UPDATE, {"a": 1}).rows_affected == 1


def test_a_transaction_is_to_be_repeated(client: CloudRuntimesClient, api: Api) -> None:
    used(client)
    client.database.execute("main", "ALTER TABLE altered ALTER COLUMN a TYPE BIGINT")

    def once() -> list[int]:
        with client.database.transaction("main") as tx:
            return tx.query(QUERY, {"a": 1}, type=int)

    refused: list[ConflictError] = []
    while len(refused) <= 3:  # each connection once at most
        try:
            assert once() == [1]
            break
        except ConflictError as error:
            refused.append(error)
    assert 0 < len(refused) <= 3
    for each in refused:
        assert each.retryable
        assert "run the transaction again" in str(each)
