"""A KeyboardInterrupt at every point of a write or of the publisher: what is said is true, nothing stays locked, nobody else is harmed.

`test_interrupts` does the same at random with real signals.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._native import events
from cloud_runtimes.components.sqlite.files import WriteLock
from cloud_runtimes.components.sqlite.writes import WriteTask
from cloud_runtimes.errors import CloudRuntimesError
from cloud_runtimes.spi.operation import Method, Operation
from tests.support import Rounds
from tests.support.points import Interrupted, every_point

# an object that is interrupted while it is made is left to the garbage collector, which complains of its socket;
# an interrupt in the callback of a weak reference is swallowed by the interpreter, with a word about it
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def make(home: Path, timeout: float = 10, **more: Any) -> CloudRuntimesClient:
    return CloudRuntimesClient(config={"capa": {"home": str(home)}}, app_id="test", timeout=timeout, **more)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[CloudRuntimesClient]:
    with make(tmp_path / "home") as instance:
        instance.state.save("store", "there", 0)
        instance.pubsub.publish("bus", "other", "warm")
        yield instance


def stored(home: Path) -> list[Any]:
    connection = sqlite3.connect(home / "cloud_runtimes.db")
    try:
        frames = [events.Frame(row[0]) for row in connection.execute("SELECT body FROM frames")]
    finally:
        connection.close()
    return [json.loads(frame[index].payload) for frame in frames for index in range(len(frame))]


def assert_free(home: Path) -> None:
    """Nothing of ours holds the write lock: another handle gets it at once, or after the writer thread's commit batch."""
    write_lock = WriteLock(str(home / "cloud_runtimes.db"))
    end = time.monotonic() + 30
    while not (entered := write_lock.try_acquire()) and time.monotonic() < end:
        time.sleep(0.001)
    assert entered, "the write lock stays held"
    write_lock.release()
    write_lock.close()


WRITES: dict[str, Callable[[CloudRuntimesClient, int], Any]] = {
    "save": lambda client, n: client.state.save("store", f"k{n}", n),
    "conditional": lambda client, n: client.state.save("store", f"k{n}", n, concurrency="first-write"),
    "bulk": lambda client, n: client.state.save_bulk("store", {f"k{n}": n}),
    "publish": lambda client, n: client.pubsub.publish("bus", "t", n),
    "lock": lambda client, n: client.lock.try_lock("locks", f"r{n}", expiry=3600),
}


def applied(client: CloudRuntimesClient, home: Path, name: str) -> Callable[[int], bool]:
    if name == "publish":
        data = stored(home)
        return lambda number: number in data
    if name == "lock":
        rows = client.lock._frame.driver("locks")._engine.query(None, "SELECT resource FROM locks")
        return lambda number: (f"r{number}",) in rows
    return lambda number: client.state.get("store", f"k{number}") is not None


@pytest.mark.parametrize("queued", [False, True], ids=["on-the-caller", "on-the-writer"])
@pytest.mark.parametrize("name", WRITES)
def test_writes(client: CloudRuntimesClient, tmp_path: Path, name: str, queued: bool) -> None:
    home = tmp_path / "home"
    call = WRITES[name]
    call(client, 0)
    outcomes: dict[int, bool | None] = {}
    commits = client.state._frame.drivers["store"]._engine._group_commit

    def write(number: int) -> None:
        if queued:
            commits._ahead.append(None)  # as if the writer thread had jobs in hand
        call(client, number)

    for run in every_point(write):
        outcomes[len(outcomes) + 1] = None if run.error is None else getattr(run.error, "maybe_applied", False)
        assert not commits.mutex._is_owned(), run.where
        assert_free(home)
    client.state.save("store", "later", 1)  # what was left to the writer thread came before this
    is_there = applied(client, home, name)
    for number, maybe in outcomes.items():
        if maybe is None:
            assert is_there(number), f"{name} {number} completed and is not there"
        elif not maybe:
            assert not is_there(number), f"{name}, point {number}: said not applied, and is there"
    assert False in outcomes.values()
    assert True in outcomes.values()


def test_others_are_told(client: CloudRuntimesClient) -> None:
    """Whom the writer thread serves meanwhile is told, wherever the interrupt comes."""
    done = [0, 0]
    stop = threading.Event()

    def beside(which: int) -> None:
        while not stop.is_set():
            client.state.save("store", f"beside{which}", 1, timeout=30)
            done[which] += 1

    threads = [threading.Thread(target=beside, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    try:
        for run in every_point(lambda n: client.state.save("store", f"k{n}", n)):
            before = list(done)
            end = time.monotonic() + 30
            while any(now <= then for now, then in zip(done, before, strict=True)):
                assert time.monotonic() < end, f"another thread waits after {run.where}"
                time.sleep(0.0001)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_first_calls(tmp_path: Path, rounds: Rounds) -> None:
    """Opening the store, and everything that is made on first use."""
    for folder, call in (
        ("state", lambda client: client.state.save("store", "k", 1)),
        ("pubsub", lambda client: client.pubsub.publish("bus", "t", 1)),
    ):
        count = 0

        def first(number: int) -> None:
            clients[-1] = make(tmp_path / folder / str(number))  # noqa: B023
            call(clients[-1])  # noqa: B023

        clients: list[Any] = [None]
        step = rounds(25, 1)
        for run in every_point(first, step):
            count += step
            run.error = None
            client = clients[-1]
            if client is None:
                continue
            before = time.monotonic()
            call(client)  # it works afterwards
            client.close(timeout=9)
            assert time.monotonic() - before < 8, f"{folder}: something stayed locked after {run.where}"
            clients[-1] = None
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
        assert count > 50


def test_publisher(client: CloudRuntimesClient, tmp_path: Path) -> None:
    """A send that was interrupted was taken or not, counted truly; flush and close end, and what is left of them ends with the client."""
    before = set(threading.enumerate())
    outcomes: dict[int, bool] = {}
    publisher = client.pubsub.publisher("bus", "sent")
    for run in every_point(lambda n: publisher.send({"n": n})):
        outcomes[len(outcomes) + 1] = run.error is None or getattr(run.error, "maybe_applied", False)
    for _ in every_point(lambda n: publisher.flush(5)):
        pass
    publisher.close()
    stats = publisher.stats()
    assert stats.accepted == stats.delivered
    there = {each["n"] for each in stored(tmp_path / "home") if isinstance(each, dict)}
    assert there <= {number for number, maybe in outcomes.items() if maybe}
    assert there
    for _ in every_point(lambda n: _send_and_close(client)):
        pass
    client.close()
    # not all that are counted are: the interpreter forgets none that was interrupted while it started
    senders = [each for each in set(threading.enumerate()) - before if each.name == "cloud-runtimes-publisher"]
    assert not [each for each in senders if each.is_alive()]


def _send_and_close(client: CloudRuntimesClient) -> None:
    publisher = client.pubsub.publisher("bus", "closed")
    publisher.send(1)
    publisher.close(timeout=5)


# -- jobs ---------------------------------------------------------------------


@pytest.mark.parametrize("queued", [False, True], ids=["on-the-caller", "on-the-writer"])
@pytest.mark.parametrize("name", ["schedule_job", "delete_job", "run_now"])
def test_jobs(client: CloudRuntimesClient, name: str, queued: bool) -> None:
    """Whether it may be applied is said, and nothing half: a job with all of it, or none; a run of it, or none."""
    service = client.schedule
    service.schedule_job("there", schedule="@yearly")
    engine = service._frame.driver("default")._engine
    said: set[Any] = set()

    def call(number: int) -> None:
        profile = sys.getprofile()
        sys.setprofile(None)
        if name == "delete_job":
            service.schedule_job("j", schedule="@yearly")
        if queued:
            engine._group_commit._ahead.append(None)  # as if the writer thread had jobs in hand
        sys.setprofile(profile)
        if name == "schedule_job":
            service.schedule_job("j", schedule="@every 1h", data={"n": number})
        elif name == "delete_job":
            service.delete_job("j")
        else:
            service.run_now("there")

    for run in every_point(call):
        engine._group_commit._ahead.clear()
        maybe = getattr(run.error, "maybe_applied", False) if run.error is not None else True
        if run.error is not None:
            said.add(maybe)
        run.error = None
        assert not engine._group_commit.mutex._is_owned(), run.where
        # what is still in hand of the writer lands before this
        service.schedule_job("after", schedule="@yearly", overwrite=True)
        jobs = {job.name for job in service.list_jobs()}
        runs = len(service.list_runs("there"))
        assert jobs >= {"there", "after"}
        if name == "run_now":
            assert runs <= 1
            applied = runs == 1
        else:
            applied = ("j" in jobs) is (name == "schedule_job")
        assert maybe or not applied, run.where
        service.delete_job("j")
        engine.run(
            WriteTask(lambda connection: connection.execute("DELETE FROM schedule_runs"), durable=False),
            Operation(Method("schedule", "test", repeatable=False), "default", 5.0),
        )
    assert said == {False, True}


@pytest.mark.parametrize("name", ["publish", "receive"])
def test_a_signal_handler_closes_the_client(tmp_path: Path, name: str) -> None:
    """It waits for nothing that its own thread holds, wherever that is."""
    slow: list[str] = []
    number = missed = 0
    while missed < 5:  # a write that others are before has fewer points
        number += 1
        instance = make(tmp_path / "home", timeout=30)
        sub = instance.pubsub.subscribe("bus", "t")
        instance.pubsub.subscribe("bus", "other", lambda event: None)
        calls = {
            "publish": lambda: instance.pubsub.publish("bus", "t", 1),  # noqa: B023
            "receive": lambda: sub.receive(0.01),  # noqa: B023
        }
        call = calls[name]
        call()

        def close() -> None:
            began = time.monotonic()
            instance.close()  # noqa: B023
            if time.monotonic() - began > 10:
                slow.append(f"{time.monotonic() - began:.1f} s in {run.where}")  # noqa: B023

        def closed() -> None:
            with suppress(CloudRuntimesError):
                call()  # noqa: B023

        run = Interrupted(number, close)
        run.run(closed)
        missed = missed + 1 if run.points < number else 0
        instance.close()
    assert number > missed + 10
    assert not slow
