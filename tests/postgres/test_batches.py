"""Calls of one event loop that share a batch: one transaction, a result each, and no harm from the others."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psycopg
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.postgres import PostgresSettings
from cloud_runtimes.components.postgres.database import PostgresDatabase
from cloud_runtimes.errors import CloudRuntimesError, ConflictError, DeadlineExceededError, UnavailableError
from cloud_runtimes.spi import Method, Operation
from tests.support import Rounds
from tests.support.forked import in_child
from tests.support.harnesses.postgres import PostgresHome

COUNT = 40
both = pytest.mark.parametrize("client", [True, False], ids=["prepared", "unprepared"], indirect=True)
_OPEN = Method("postgres", "open", repeatable=True)


@pytest.fixture
def client(home: PostgresHome, request: pytest.FixtureRequest) -> Iterator[CloudRuntimesClient]:
    table = {"url": home.url, "schema": home.schema, "prepare": getattr(request, "param", True)}
    with CloudRuntimesClient(app_id="suite", config={"capa": {"home": table}}, timeout=10) as app_client:
        for key in (*map(name, range(COUNT)), "slow"):
            app_client.state.save("s", key, 0, ttl=3600 if key == "slow" else None)
        yield app_client


def name(number: int) -> str:
    return f"k{number:02}"


def ask(home: PostgresHome, query: str) -> Any:
    with psycopg.connect(home.url, autocommit=True) as connection:
        row = connection.execute(query.replace("{schema}", home.schema).encode()).fetchone()
    return None if row is None else row[0]


def slow_down(home: PostgresHome, seconds: float) -> None:
    """Let whatever has a time to live take so long."""
    with psycopg.connect(home.url, autocommit=True) as connection:
        connection.execute(
            f"CREATE OR REPLACE FUNCTION {home.schema}.now_ms() RETURNS int8 LANGUAGE sql AS "
            f"'SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8 FROM pg_sleep({seconds})'"
        )


async def until(condition: Callable[[], Any]) -> None:
    for _ in range(3000):
        if await asyncio.to_thread(condition):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


async def outcomes(*calls: Awaitable[Any]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def failing(call: Awaitable[Any]) -> BaseException:
    """Return what a call raises, as its own task sees it."""
    try:
        await call
    except BaseException as error:
        return error
    raise AssertionError("it did not fail")


@both
def test_writes_that_wait_are_one_transaction(home: PostgresHome, client: CloudRuntimesClient) -> None:
    async def main() -> list[Any]:
        await asyncio.gather(*[client.state.save_async("s", name(i), i) for i in range(COUNT)])
        return list(await asyncio.gather(*[client.state.get_async("s", name(i)) for i in range(COUNT)]))

    assert asyncio.run(main()) == list(range(COUNT))
    # the first ran apart
    assert ask(home, "SELECT count(DISTINCT xmin::text) FROM {schema}.state WHERE key LIKE 'k%'") == 2


@both
def test_each_has_its_own_result(client: CloudRuntimesClient) -> None:
    async def main() -> list[Any]:
        return await outcomes(
            client.state.save_async("s", "first", 1),
            client.state.save_async("s", name(1), 1, concurrency="first-write"),
            client.state.save_async("s", "new", 1, concurrency="first-write"),
            client.state.save_async("s", "new", 2, concurrency="first-write"),
            client.state.save_async("s", name(2), 1, etag="0123456789abcdef"),
            client.state.delete_async("s", name(3)),
            client.state.save_async("s", name(4), "x" * 2_000_000),
        )

    results = asyncio.run(main())
    assert [type(each) for each in results] == [
        type(None),
        ConflictError,
        *[type(None)],
        ConflictError,
        ConflictError,
        *[type(None)] * 2,
    ]
    assert [client.state.get("s", key) for key in ("first", "new", name(1), name(3))] == [1, 1, 0, None]
    assert len(client.state.get("s", name(4))) == 2_000_000


@both
def test_one_that_the_server_refuses_is_refused_alone(home: PostgresHome, client: CloudRuntimesClient) -> None:
    with psycopg.connect(home.url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {home.schema}.state ADD CHECK (key <> 'bad')")

    async def main() -> list[Any]:
        keys = ["first", *map(name, range(COUNT)), "bad"]
        return await outcomes(*[client.state.save_async("s", key, 7) for key in keys])

    *good, bad = asyncio.run(main())
    assert good == [None] * (COUNT + 1)
    assert isinstance(bad, CloudRuntimesError)
    assert not bad.maybe_applied
    assert [client.state.get("s", name(i)) for i in range(COUNT)] == [7] * COUNT


def test_a_locked_row_delays_its_own_call(home: PostgresHome, client: CloudRuntimesClient) -> None:
    async def main() -> list[Any]:
        with psycopg.connect(home.url) as blocker:
            blocker.execute(f"SELECT 1 FROM {home.schema}.state WHERE key = '{name(5)}' FOR UPDATE")
            first = asyncio.create_task(client.state.save_async("s", "first", 1))
            blocked = asyncio.create_task(client.state.save_async("s", name(5), 1))
            others = await asyncio.gather(
                first,
                *[client.state.save_async("s", name(i), 1) for i in range(COUNT) if i != 5],
                *[client.state.get_async("s", name(i)) for i in range(COUNT)],
            )
            assert not blocked.done()
        await blocked
        return others

    assert asyncio.run(main())[:COUNT] == [None] * COUNT
    assert [client.state.get("s", name(i)) for i in range(COUNT)] == [1] * COUNT


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_a_call_that_ends_early_leaves_the_others_alone(
    home: PostgresHome, client: CloudRuntimesClient, how: str
) -> None:
    async def main() -> list[Any]:
        first = asyncio.create_task(client.state.get_async("s", name(0)))
        slow = asyncio.create_task(client.state.get_async("s", "slow", timeout=0.1 if how == "late" else 10))
        others = [asyncio.create_task(client.state.get_async("s", name(i))) for i in range(1, COUNT)]
        await first
        if how == "cancelled":
            await asyncio.sleep(0.1)
            slow.cancel()
        ended, *rest = await outcomes(slow, *others)
        assert isinstance(ended, asyncio.CancelledError if how == "cancelled" else DeadlineExceededError)
        return rest

    slow_down(home, 0.5)
    assert asyncio.run(main()) == [0] * (COUNT - 1)


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_a_batch_that_nobody_waits_for_ends_on_the_server(
    home: PostgresHome, client: CloudRuntimesClient, how: str
) -> None:
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{schema}.state%' AND pid <> pg_backend_pid()"

    async def main() -> None:
        first = asyncio.create_task(client.state.save_async("s", "first", 1))
        timeout = 1.5 if how == "late" else 60  # enough to see it run
        calls = [
            asyncio.create_task(failing(client.state.save_async("s", name(i), 9, ttl=60, timeout=timeout)))
            for i in range(3)
        ]
        await first
        await until(lambda: ask(home, running))
        if how == "cancelled":
            for call in calls:
                call.cancel()
        for failure in await outcomes(*calls):
            assert isinstance(failure, asyncio.CancelledError if how == "cancelled" else DeadlineExceededError)
            assert failure.maybe_applied  # type: ignore[union-attr]
        await until(lambda: not ask(home, running))

    slow_down(home, 30.0)
    asyncio.run(main())
    slow_down(home, 0.0)
    assert client.state.get("s", name(1)) == 0


def test_a_batch_whose_connection_is_cut_may_have_been_applied(home: PostgresHome, client: CloudRuntimesClient) -> None:
    cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{schema}.state%' AND pid <> pg_backend_pid()"
    etags = {name(i): client.state.get_item("s", name(i)).etag for i in range(3)}  # type: ignore[union-attr]

    async def main() -> list[Any]:
        first = asyncio.create_task(client.state.save_async("s", "first", 1))
        calls = [client.state.save_async("s", key, 9, ttl=60, etag=etag) for key, etag in etags.items()]
        tasks = [asyncio.create_task(call) for call in calls]
        await first
        await until(lambda: ask(home, cut))
        return await outcomes(*tasks)

    slow_down(home, 1.0)
    for failure in asyncio.run(main()):
        assert isinstance(failure, UnavailableError)
        assert failure.maybe_applied
    slow_down(home, 0.0)
    assert [client.state.get("s", name(i)) for i in range(3)] == [0] * 3


def test_no_server(home: PostgresHome, client: CloudRuntimesClient) -> None:
    """Each call says by itself what is wrong, and that nothing was applied."""
    with psycopg.connect(home.url, autocommit=True) as connection:
        role = f"gone_{os.getpid()}"
        connection.execute(f"DROP ROLE IF EXISTS {role}")
        connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
        table = {"url": home.url.replace("postgres@", f"{role}@"), "schema": home.schema}
        with CloudRuntimesClient(app_id="suite", config={"capa": {"home": table}}, timeout=5) as refused:
            database = PostgresDatabase.acquire(PostgresSettings(**table))
            database.ready(Operation(_OPEN, "s", 5.0))  # no connection of its pool yet
            connection.execute(f"ALTER ROLE {role} NOLOGIN")

            async def main() -> list[Any]:
                return await outcomes(*[refused.state.save_async("s", name(i), 1) for i in range(8)])

            for failure in asyncio.run(main()):
                assert isinstance(failure, CloudRuntimesError)
                assert not failure.maybe_applied
            database.release()
        connection.execute(f"DROP ROLE {role}")


def test_loops_that_come_and_go(client: CloudRuntimesClient) -> None:
    async def main() -> None:
        await asyncio.gather(*[client.state.save_async("s", name(i), 2) for i in range(COUNT)])

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        asyncio.run(main())
    for thread in threads:
        thread.join()
    assert client.state.get("s", name(COUNT - 1)) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning")
def test_a_loop_that_is_closed_in_the_middle(home: PostgresHome, client: CloudRuntimesClient) -> None:
    """Its calls are lost, and the connections come back."""

    def begin_and_leave() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)  # that tasks are destroyed is what this is about
        tasks = [loop.create_task(client.state.get_async("s", "slow")) for _ in range(5)]
        loop.run_until_complete(asyncio.sleep(0.02))
        loop.close()
        assert not any(task.done() for task in tasks)

    slow_down(home, 0.5)
    for _ in range(6):
        begin_and_leave()
        gc.collect()
    slow_down(home, 0.0)
    assert client.state.get("s", name(1), timeout=5) == 0
    assert asyncio.run(client.state.get_async("s", name(1), timeout=5)) == 0
    gc.collect()  # the last loop is forgotten, too


def test_a_child_has_batches_of_its_own(client: CloudRuntimesClient) -> None:
    async def main() -> list[Any]:
        return list(await asyncio.gather(*[client.state.get_async("s", name(i)) for i in range(COUNT)]))

    assert asyncio.run(main()) == [0] * COUNT
    assert in_child(lambda: asyncio.run(main())) == [0] * COUNT
    assert asyncio.run(main()) == [0] * COUNT


def test_nothing_acknowledged_is_lost(home: PostgresHome, client: CloudRuntimesClient, rounds: Rounds) -> None:
    """Calls are cancelled, run out of time and lose their connections. What was acknowledged is there; what is said not to be applied is not."""
    acknowledged: set[str] = set()
    refused: set[str] = set()
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%{schema}.state%' AND pid <> pg_backend_pid() LIMIT 1"
    end = rounds(30, 3000)

    async def save(key: str) -> None:
        try:
            await client.state.save_async("s", key, 1, timeout=random.choice([0.001, 0.01, 5]))
        except (CloudRuntimesError, asyncio.CancelledError) as error:
            if not error.maybe_applied:  # type: ignore[union-attr]
                refused.add(key)
        else:
            acknowledged.add(key)

    async def write(number: int) -> None:
        for turn in range(end):
            task = asyncio.create_task(save(f"new-{number}-{turn}"))
            if random.random() < 0.2:
                await asyncio.sleep(random.random() / 200)
                task.cancel()
            await asyncio.wait([task])

    async def harm() -> None:
        while True:
            await asyncio.sleep(0.02)
            await asyncio.to_thread(ask, home, cut)

    async def main() -> None:
        harmful = asyncio.create_task(harm())
        await asyncio.gather(*map(write, range(COUNT)))
        harmful.cancel()

    asyncio.run(main())
    stored = set(client.state.list_keys("s", prefix="new-"))
    assert acknowledged
    assert refused
    assert acknowledged <= stored
    assert not refused & stored
