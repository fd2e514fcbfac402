"""Ctrl-C at any moment of a call: what is said is true, nothing stays held, the next call works, and so does closing."""

from __future__ import annotations

import gc
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support import Rounds

# an interrupt in the callback of a weak reference is swallowed by the interpreter, with a word about it
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("short_collections"),
]

KINDS = ["sqlite", ":memory:", "postgresql", "postgresql+asyncpg"]


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CloudRuntimesClient]:
    """A client with two connections and an empty table ``t``."""
    settings: dict[str, Any] = {"component": "sqlalchemy", "pool_size": 2}
    if request.param.startswith("postgresql"):
        pytest.importorskip("asyncpg")
        settings["url"] = request.getfixturevalue("postgres_url").replace("postgresql", request.param, 1)
    else:
        settings["home"] = request.param if request.param == ":memory:" else str(tmp_path)
    with CloudRuntimesClient(config={"database": {"main": settings}}, timeout=10) as instance:
        instance.database.drop_table("main", "t")
        instance.database.create_table("main", "t", {"n": int})
        yield instance
        instance.database.drop_table("main", "t")
    gc.collect()


def assert_nothing_is_held(client: CloudRuntimesClient) -> None:
    """All connections and the lock of the writer can be had, and soon none is in use."""
    pool = client._context.runtime().driver("database", "main")._pool_of()
    if pool.busy:
        gc.collect(1)  # those are young
    with client.database.transaction("main", timeout=5) as tx:
        tx.insert("t", {"n": 0})
        tx.rollback()
    end = time.monotonic() + 5
    while pool.busy:
        gc.collect()  # a handle that its own opening or closing did not get to is left to it
        assert time.monotonic() < end
        time.sleep(0.0005)
    if hasattr(pool.engine.pool, "checkedout"):
        assert pool.engine.pool.checkedout() == 0


def several(client: CloudRuntimesClient, n: int) -> None:
    client.database.execute_many("main", "INSERT INTO t (n) VALUES (:n)", [{"n": n}] * 3)


def transacted(client: CloudRuntimesClient, n: int) -> None:
    with client.database.transaction("main") as tx:
        tx.insert("t", {"n": n})
        with tx.stream("SELECT n FROM t WHERE n = :n", {"n": n}, type=int) as rows:
            assert list(rows) == [n]


def returned(client: CloudRuntimesClient, n: int) -> None:
    sql = "INSERT INTO t (n) VALUES (:n) RETURNING n"
    assert list(client.database.stream("main", sql, {"n": n}, type=int)) == [n]


WRITES: dict[str, tuple[int, Callable[[CloudRuntimesClient, int], Any]]] = {
    "insert": (1, lambda client, n: client.database.insert("main", "t", {"n": n})),
    "several": (3, several),
    "transacted": (1, transacted),
    "returned": (1, returned),
}


def interrupted(seconds: float, call: Callable[[], Any]) -> KeyboardInterrupt | None:
    """Make a call that Ctrl-C comes into after so many seconds; none: it was done by then."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        call()
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        return None
    except KeyboardInterrupt as error:
        return error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", WRITES)
def test_writes(client: CloudRuntimesClient, name: str, rounds: Rounds) -> None:
    size, call = WRITES[name]
    durations = []
    for number in range(5):
        begin = time.monotonic()
        call(client, -number - 1)
        durations.append(time.monotonic() - begin)
    outcomes = set()
    for number in range(1, rounds(40, 3000)):
        error = interrupted(random.uniform(1e-5, min(durations) * 1.2), partial(call, client, number))
        # one that comes between two calls says nothing
        said = None if error is None else getattr(error, "maybe_applied", "nothing")
        del error  # and with it the frames that hold what was made
        assert_nothing_is_held(client)
        rows = client.database.query("main", "SELECT count(*) FROM t WHERE n = :n", {"n": number}, type=int)[0]
        assert rows in {None: (size,), False: (0,)}.get(said, (0, size)), f"said {said}, and {rows} are there"
        outcomes.add(said)
    assert outcomes - {None, "nothing"}


def test_a_loose_transaction_can_be_ended(client: CloudRuntimesClient) -> None:
    """Its handle lives on, wherever the interrupt came."""
    for _ in range(30):
        tx = client.database.transaction("main")
        interrupted(random.uniform(1e-5, 1e-3), partial(tx.insert, "t", {"n": 1}))
        tx.rollback()
        assert_nothing_is_held(client)
        assert client.database.query("main", "SELECT n FROM t", type=int) == []
