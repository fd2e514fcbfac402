"""Cost of many waiters: one thread polls for all of them, and unused readers are closed."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.sqlite import connections
from cloud_runtimes.components.sqlite.notifier import EVERY, Notifier
from tests.support.waiting import until


def engine_of(client: CloudRuntimesClient) -> Any:
    runtime: Any = client._context.runtime()
    return runtime.driver("state", "store")._engine


def test_idle_subscriptions_do_not_ask_the_tables(client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(client)
    subscriptions = [client.pubsub.subscribe("bus", f"t{number}") for number in range(50)]
    subscriptions += [client.configuration.subscribe_configuration("app", [f"k{number}"]) for number in range(50)]  # type: ignore[misc]
    asked: list[str] = []
    looks: list[bool] = []
    query, wrote = engine.query, engine._group_commit.others_wrote
    # who has joined looks once more before it waits
    until(lambda: sum(map(len, engine.notifier._local.values())) == len(subscriptions))
    until(lambda: engine._group_commit._tasks.empty())
    time.sleep(2 * EVERY)
    monkeypatch.setattr(engine, "query", lambda op, sql, parameters=(): asked.append(sql) or query(op, sql, parameters))
    monkeypatch.setattr(engine._group_commit, "others_wrote", lambda: looks.append(True) or wrote())
    until(lambda: len(looks) >= 6)
    # each looks by itself once in 2 s: without it it would be six times in this time
    assert len(asked) < 3 * len(subscriptions)
    for each in subscriptions:
        each.close()


@pytest.mark.timing  # threads at once
def test_readers_that_many_calls_left_are_let_go(client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_WAIT", 10.0)  # a machine that stands still does not make more
    client.state.save_bulk("store", {f"k{number}": number for number in range(100)})
    engine = engine_of(client)
    before = len(os.listdir("/proc/self/fd"))
    begin = threading.Barrier(64)

    def read(number: int) -> list[str]:
        begin.wait()
        return [client.state.list_keys("store") for _ in range(20)][-1]

    with ThreadPoolExecutor(64) as pool:
        assert all(len(keys) == 100 for keys in pool.map(read, range(64)))
    # of 64 readers there would be two each, of the database and its log
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * 32
    while len(engine._readers.idle) > 4:
        engine.sweep()  # the writer thread does, every half minute
    assert client.state.get("store", "k1") == 1


def test_more_readers_than_that_are_made_for_long_queries(client: CloudRuntimesClient) -> None:
    client.state.save("store", "k", 1)
    engine = engine_of(client)
    assert engine.query(None, "SELECT 1")
    taken = [engine._readers.idle.pop()]
    taken += [engine._readers.open() for _ in range(15)]
    assert client.state.get("store", "k") == 1
    engine._readers.idle.extend(taken)
    assert client.state.get("store", "k") == 1


def test_other_processes_are_noticed_without_a_notification(home: Path, client: CloudRuntimesClient) -> None:
    client.state.save("store", "k", 1)
    commits = engine_of(client)._group_commit
    commits.others_wrote()
    client.state.save("store", "k", 2)
    assert not commits.others_wrote(), "our own writers notify"
    other = sqlite3.connect(home / "cloud_runtimes.db")
    with other:
        other.execute("UPDATE stores SET name = name")
    other.close()
    assert commits.others_wrote()
    assert not commits.others_wrote()


def test_it_rests_while_nobody_waits(tmp_path: Path) -> None:
    looks: list[bool] = []
    notifier = Notifier(tmp_path / "wake", lambda: looks.append(True) or True)  # type: ignore[func-returns-value]
    waiter = notifier.subscribe("one")
    until(lambda: len(looks) >= 3)
    assert waiter.wait(10)
    waiter.close()
    until(lambda: notifier._idle and bool(notifier._changes._tickets))
    seen = len(looks)
    time.sleep(2 * EVERY)
    assert len(looks) == seen
    waiter = notifier.subscribe("one")
    until(lambda: len(looks) >= seen + 3)
    notifier.close()
    assert notifier._poller.join(10)
