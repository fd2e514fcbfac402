"""What many waiters cost: one thread looks for all, and readers are let go."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.components.sqlite.lookout import EVERY, Lookout


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def engine_of(client: CloudRuntimesClient) -> Any:
    runtime: Any = client._context.runtime()
    return runtime.driver("state", "store")._engine


def test_idle_subscriptions_do_not_ask_the_tables(client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(client)
    subscriptions = [client.pubsub.subscribe("bus", f"t{number}") for number in range(50)]
    subscriptions += [client.configuration.subscribe_configuration("app", [f"k{number}"]) for number in range(50)]  # type: ignore[misc]
    asked: list[str] = []
    looks: list[bool] = []
    query, wrote = engine.query, engine._rounds.others_wrote
    # who has joined looks once more before it waits
    until(lambda: sum(map(len, engine.bells._local.values())) == len(subscriptions))
    until(lambda: engine._rounds._jobs.empty())
    time.sleep(2 * EVERY)
    monkeypatch.setattr(engine, "query", lambda op, sql, parameters=(): asked.append(sql) or query(op, sql, parameters))
    monkeypatch.setattr(engine._rounds, "others_wrote", lambda: looks.append(True) or wrote())
    until(lambda: len(looks) >= 6)
    # each looks by itself once in 2 s: without the lookout it would be six times in this time
    assert len(asked) < 3 * len(subscriptions)
    for each in subscriptions:
        each.close()


def test_readers_that_many_calls_left_are_let_go(client: CloudRuntimesClient) -> None:
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
    while len(engine._readers) > 4:
        engine._sweep()  # the writer thread does, every half minute
    assert client.state.get("store", "k1") == 1


def test_more_readers_than_that_are_made_for_long_queries(client: CloudRuntimesClient) -> None:
    client.state.save("store", "k", 1)
    engine = engine_of(client)
    assert engine.query(None, "SELECT 1")
    taken = [engine._readers.pop()]
    taken += [engine._reader() for _ in range(15)]
    assert client.state.get("store", "k") == 1
    engine._readers.extend(taken)
    assert client.state.get("store", "k") == 1


def test_other_processes_are_noticed_without_a_bell(home: Path, client: CloudRuntimesClient) -> None:
    client.state.save("store", "k", 1)
    rounds = engine_of(client)._rounds
    rounds.others_wrote()
    client.state.save("store", "k", 2)
    assert not rounds.others_wrote(), "our own bells ring for that"
    other = sqlite3.connect(home / "cloud_runtimes.db")
    with other:
        other.execute("UPDATE stores SET name = name")
    other.close()
    assert rounds.others_wrote()
    assert not rounds.others_wrote()


@pytest.mark.process
def test_a_bell_that_was_removed_is_hung_up_again(
    home: Path, client: CloudRuntimesClient, start: Callable[..., Any]
) -> None:
    client.configuration.save_configuration("app", {"k": "1"})
    with client.configuration.subscribe_configuration("app", ["k"]) as sub:
        assert sub.receive(10)
        until(lambda: (home / "wake").is_dir() and any((home / "wake").iterdir()))
        for each in (home / "wake").iterdir():
            each.unlink()  # nobody can ring
        child = start("configure", 1).ready()
        child.go()
        changed = sub.receive(30)
        assert changed is not None
        assert changed["k"].value == "0"
        until(lambda: any((home / "wake").iterdir()))  # it can be rung again


class JumpingClocks(Clocks):
    """Clocks of a machine that was suspended, or whose wall clock was set."""

    __slots__ = ("boot", "wall")

    def __init__(self) -> None:
        self.boot = self.wall = 0

    def boot_ms(self) -> int:
        return super().boot_ms() + self.boot

    def wall_ms(self) -> int:
        return super().wall_ms() + self.wall


@pytest.mark.parametrize("clock", ["boot", "wall"])
@pytest.mark.parametrize("by", [-5000, 5000])
def test_a_clock_that_jumps_wakes_all(clock: str, by: int) -> None:
    clocks = JumpingClocks()
    looks: list[bool] = []

    def ring(news: bool) -> bool:
        looks.append(news)
        return True

    lookout = Lookout(clocks, lambda: False, ring)
    lookout.start()
    until(lambda: len(looks) >= 2)
    setattr(clocks, clock, by)
    until(lambda: True in looks)
    seen = len(looks)
    until(lambda: len(looks) >= seen + 2)
    assert looks.count(True) == 1
    lookout.close()


def test_it_rests_while_nobody_waits() -> None:
    waiting = [False]
    looks: list[bool] = []
    looked = threading.Event()

    def ring(news: bool) -> bool:
        looks.append(news)
        looked.set()
        return waiting[0]

    lookout = Lookout(Clocks(), lambda: True, ring)
    lookout.start()
    assert looked.wait(10)
    until(lambda: lookout._rests and bool(lookout._changes._tickets))
    seen = len(looks)
    waiting[0] = True
    lookout.start()
    until(lambda: len(looks) >= seen + 3)
    lookout.close()
    assert lookout._thread.join(10)
