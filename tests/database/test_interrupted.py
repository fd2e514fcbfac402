"""A KeyboardInterrupt at every point of a call: what is said is true, no connection, place or turn is lost, the next call works."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from points import every_point

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError

# an interrupt in the callback of a weak reference is swallowed by the interpreter, with a word about it
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

NUMBERS = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 3) SELECT x FROM t"


@pytest.fixture(params=["sqlite", ":memory:", "postgresql"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CloudRuntimesClient]:
    """A client with two connections and an empty table ``t``."""
    settings: dict[str, Any] = {"component": "sqlalchemy", "pool_size": 2}
    if request.param == "postgresql":
        pytest.importorskip("psycopg")
        settings["url"] = request.getfixturevalue("postgres_url")
    else:
        settings["home"] = request.param if request.param == ":memory:" else str(tmp_path)
    with CloudRuntimesClient(config={"database": {"main": settings}}, timeout=10) as made:
        made.database.drop_table("main", "t")
        made.database.create_table("main", "t", {"n": int})
        yield made
        made.database.drop_table("main", "t")
    gc.collect()


def assert_whole(client: CloudRuntimesClient, where: str) -> None:
    """The turn to write and all connections can be had, and none is left in use."""
    store = client._context.runtime().driver("database", "main")._store_of()
    if store.links:
        gc.collect()  # a handle that its own opening or closing did not get to is left to it
    begin = time.monotonic()
    with client.database.transaction("main", timeout=5) as tx:
        tx.query("SELECT 1 AS a")
    while store.links or store.places._inside or store.places._queue:
        assert time.monotonic() < begin + 5, f"still in use after {where}: {store.links}, {store.places._inside}"
        time.sleep(0.0005)
    pool = store.engine(False).pool
    if hasattr(pool, "checkedout"):
        while pool.checkedout():
            assert time.monotonic() < begin + 5, f"{pool.status()} after {where}"
            time.sleep(0.0005)


def several(client: CloudRuntimesClient, n: int) -> None:
    rows = [{"n": n}] * 3
    client.database.execute_many("main", "INSERT INTO t (n) VALUES (:n)", rows)


def changed(client: CloudRuntimesClient, n: int) -> None:
    client.database.update("main", "t", {"n": n}, {"n": -n})


def transacted(client: CloudRuntimesClient, n: int) -> None:
    with client.database.transaction("main") as tx:
        tx.insert("t", {"n": n})
        with tx.stream("SELECT n FROM t WHERE n = :n", {"n": n}, type=int) as rows:
            assert list(rows) == [n]


WRITES: dict[str, tuple[int, Callable[[CloudRuntimesClient, int], Any]]] = {
    "execute": (1, lambda client, n: client.database.execute("main", "INSERT INTO t (n) VALUES (:n)", {"n": n})),
    "insert": (1, lambda client, n: client.database.insert("main", "t", {"n": n})),
    "execute_many": (3, several),
    "update": (1, changed),
    "transaction": (1, transacted),
    "returning": (
        1,
        lambda client, n: list(
            client.database.stream("main", "INSERT INTO t (n) VALUES (:n) RETURNING n", {"n": n}, type=int)
        ),
    ),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes(client: CloudRuntimesClient, name: str, rounds: Callable[[int, int], int]) -> None:
    size, call = WRITES[name]
    database = client.database
    told: dict[int, bool | None] = {}

    def write(number: int) -> None:
        call(client, len(told) + 1)

    number = 1
    prepare = name == "update"
    if prepare:
        database.insert("main", "t", {"n": -1})
    step = rounds(5, 1) if name in ("returning", "transaction") else 1  # which have many points
    for run in every_point(write, step):
        where = run.where
        told[number] = None if run.error is None else getattr(run.error, "maybe_applied", False)
        run.error = None  # and with it the frames that hold what was made
        assert_whole(client, where)
        found = database.query("main", "SELECT count(*) FROM t WHERE n = :n", {"n": number}, type=int)[0]
        if told[number] is None:
            assert found == size, f"completed, and not there: {where}"
        else:
            assert found in ((0, size) if told[number] else (0,)), f"said {told[number]}, and {found} there: {where}"
        number += 1
        if prepare:
            database.insert("main", "t", {"n": -number})
    assert None in told.values()
    if step == 1:
        assert {True, False} <= set(told.values())


def test_reads(client: CloudRuntimesClient, rounds: Callable[[int, int], int]) -> None:
    database = client.database
    database.insert("main", "t", {"n": 7})
    calls: tuple[Callable[[], Any], ...] = (
        lambda: database.query("main", "SELECT n FROM t", type=int),
        lambda: database.tables("main"),
        lambda: list(database.stream("main", NUMBERS, type=int)),
    )
    for call in calls:
        for run in every_point(lambda n: call(), rounds(6, 1)):  # noqa: B023
            where = run.where
            assert run.error is None or not getattr(run.error, "maybe_applied", False), where
            run.error = None
            assert_whole(client, where)
            assert database.query("main", "SELECT n FROM t", type=int) == [7]


def test_tables(client: CloudRuntimesClient, rounds: Callable[[int, int], int]) -> None:
    for run in every_point(lambda n: client.database.create_table("main", "made", {"n": int}), rounds(5, 1)):
        where, error = run.where, run.error
        maybe = None if error is None else getattr(error, "maybe_applied", False)
        run.error = error = None
        assert_whole(client, where)
        there = "made" in client.database.tables("main")
        assert there if maybe is None else (maybe or not there), where
        client.database.drop_table("main", "made")


def test_a_loose_transaction_ends(client: CloudRuntimesClient, rounds: Callable[[int, int], int]) -> None:
    """Without a block an interrupted call ends it too, though the handle lives on."""
    loose: list[Any] = []
    count = 0

    def call(number: int) -> None:
        nonlocal count
        count += 1
        loose.append(client.database.transaction("main"))
        loose[-1].insert("t", {"n": number})

    for run in every_point(call, rounds(4, 1)):
        where, interrupted = run.where, run.error is not None
        run.error = None
        if not loose:
            continue
        tx = loose.pop()
        if interrupted:
            try:
                tx.commit(timeout=5)
            except CloudRuntimesError:
                pass
        else:
            tx.rollback()
        assert_whole(client, where)
    assert count > 10
