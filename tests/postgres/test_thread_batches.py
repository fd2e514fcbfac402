"""Calls of many threads that share a batch: a result each, and no harm from the others."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.postgres import database, thread_batches
from cloud_runtimes.errors import CloudRuntimesError, ConflictError, DeadlineExceededError, UnavailableError
from tests.postgres.test_batches import COUNT, ask, client, name, slow_down
from tests.support import Rounds
from tests.support.forked import in_child
from tests.support.harnesses.postgres import PostgresHome
from tests.support.waiting import until

__all__ = ["client"]
_CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{schema}.state%' AND pid <> pg_backend_pid()"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a single statement run apart, and a single batch beside it."""
    monkeypatch.setattr(database, "_APART", 1)
    monkeypatch.setattr(thread_batches, "_BATCHES", 1)


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Make calls in a thread each, and return their results or errors."""

    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except CloudRuntimesError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(outcome, calls))


def saves(client: CloudRuntimesClient, keys: list[str], value: Any, **options: Any) -> list[Callable[[], Any]]:
    return [lambda key=key: client.state.save("s", key, value, **options) for key in keys]  # type: ignore[misc]


@pytest.mark.parametrize("client", [True, False], ids=["prepared", "unprepared"], indirect=True)
def test_each_has_its_own_result(home: PostgresHome, client: CloudRuntimesClient) -> None:
    slow_down(home, 0.2)  # what has a time to live keeps the others waiting, so that they share
    results = together(
        *saves(client, ["slow", "slower"], 1, ttl=60),
        *saves(client, [name(1)], 1, concurrency="first-write"),
        *saves(client, [name(2)], 1, etag="0123456789abcdef"),
        *saves(client, [name(4)], "x" * 2_000_000),
        *saves(client, list(map(name, range(10, COUNT))), 7),
        lambda: client.state.delete("s", name(3)),
    )
    assert [type(each) for each in results[2:4]] == [ConflictError] * 2
    assert {*results[:2], *results[4:]} == {None}
    values = together(*[lambda i=i: client.state.get("s", name(i)) for i in range(COUNT)])  # type: ignore[misc]
    assert (values[1], values[2], values[3], len(values[4])) == (0, 0, None, 2_000_000)
    assert values[10:] == [7] * (COUNT - 10)


def test_writes_that_wait_are_one_transaction(home: PostgresHome, client: CloudRuntimesClient) -> None:
    active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{schema}.state%' AND pid <> pg_backend_pid()"
    slow_down(home, 1.5)
    with ThreadPoolExecutor(2) as threads:
        slow = []
        for call in saves(client, ["slow", "slower"], 1, ttl=60):  # one runs apart, one in a batch
            slow.append(threads.submit(call))
            until(lambda: ask(home, active) == len(slow))
        assert together(*saves(client, list(map(name, range(COUNT))), 3)) == [None] * COUNT
        assert [each.result() for each in slow] == [None] * 2
    assert ask(home, "SELECT count(DISTINCT xmin::text) FROM {schema}.state WHERE key LIKE 'k%'") < COUNT / 2


def test_one_that_the_server_refuses_is_refused_alone(home: PostgresHome, client: CloudRuntimesClient) -> None:
    with psycopg.connect(home.url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {home.schema}.state ADD CHECK (key <> 'bad')")
    *good, bad = together(*saves(client, [*map(name, range(COUNT)), "bad"], 7))
    assert good == [None] * COUNT
    assert isinstance(bad, CloudRuntimesError)
    assert not bad.maybe_applied
    assert [client.state.get("s", name(i)) for i in range(COUNT)] == [7] * COUNT


def test_locked_rows_delay_their_own_calls(home: PostgresHome, client: CloudRuntimesClient) -> None:
    with ThreadPoolExecutor(3) as threads:
        with psycopg.connect(home.url) as blocker:
            blocker.execute(
                f"SELECT 1 FROM {home.schema}.state WHERE key IN ('{name(1)}', '{name(2)}', '{name(3)}') FOR UPDATE"
            )
            blocked = [threads.submit(call) for call in saves(client, [name(1), name(2), name(3)], 1)]
            time.sleep(0.05)
            assert together(*saves(client, list(map(name, range(4, COUNT))), 1)) == [None] * (COUNT - 4)
            assert not any(each.done() for each in blocked)
        assert [each.result(10) for each in blocked] == [None] * 3


def test_a_call_of_little_time_leaves_the_others_alone(home: PostgresHome, client: CloudRuntimesClient) -> None:
    slow_down(home, 0.5)
    late, *others = together(
        lambda: client.state.get("s", "slow", timeout=0.1),
        *[lambda i=i: client.state.get("s", name(i)) for i in range(1, COUNT)],  # type: ignore[misc]
    )
    assert isinstance(late, DeadlineExceededError)
    assert others == [0] * (COUNT - 1)
    assert client.state.get("s", "slow") == 0


def test_a_batch_whose_connection_is_cut_may_have_been_applied(home: PostgresHome, client: CloudRuntimesClient) -> None:
    etags = {name(i): client.state.get_item("s", name(i)).etag for i in range(6)}  # type: ignore[union-attr]
    slow_down(home, 1.0)
    calls = [
        lambda key=key, etag=etag: client.state.save("s", key, 9, ttl=60, etag=etag)  # type: ignore[misc]
        for key, etag in etags.items()
    ]
    over = threading.Event()

    def cut() -> None:
        while not over.wait(0.05):
            ask(home, _CUT)

    cutting = threading.Thread(target=cut)
    cutting.start()
    failures = together(*calls)
    over.set()
    cutting.join()
    for failure in failures:
        assert isinstance(failure, UnavailableError)
        assert failure.maybe_applied
    slow_down(home, 0.0)
    assert [client.state.get("s", name(i)) for i in range(6)] == [0] * 6


def test_a_child_has_batches_of_its_own(client: CloudRuntimesClient) -> None:
    def work() -> list[Any]:
        return together(*[lambda i=i: client.state.get("s", name(i)) for i in range(COUNT)])  # type: ignore[misc]

    assert work() == [0] * COUNT
    assert in_child(work) == [0] * COUNT
    assert work() == [0] * COUNT


def test_nothing_acknowledged_is_lost(home: PostgresHome, client: CloudRuntimesClient, rounds: Rounds) -> None:
    """Calls run out of time and lose their connections. What was acknowledged is there; what is said not to be applied is not."""
    acknowledged: set[str] = set()
    refused: set[str] = set()
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%{schema}.state%' AND pid <> pg_backend_pid() LIMIT 1"
    over = threading.Event()

    def write(number: int) -> None:
        for turn in range(rounds(30, 3000)):
            key = f"new-{number}-{turn}"
            try:
                client.state.save("s", key, 1, timeout=random.choice([0.001, 0.01, 5]))
            except CloudRuntimesError as error:
                if not error.maybe_applied:
                    refused.add(key)
            else:
                acknowledged.add(key)

    def harm() -> None:
        while not over.wait(0.02):
            ask(home, cut)

    harmful = threading.Thread(target=harm)
    harmful.start()
    with ThreadPoolExecutor(COUNT) as threads:
        list(threads.map(write, range(COUNT)))
    over.set()
    harmful.join()
    stored = set(client.state.list_keys("s", prefix="new-"))
    assert acknowledged
    assert refused
    assert acknowledged <= stored
    assert not refused & stored
