"""A KeyboardInterrupt at every point of a call at which the interpreter can raise one: what is said is true, nothing stays locked, nobody else is harmed.

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
from pathlib import Path
from typing import Any

import pytest
from points import every_point

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._native import events
from cloud_runtimes.components.sqlite.write_lock import WriteLock
from cloud_runtimes.components.sqlite.write_task import WriteTask
from cloud_runtimes.errors import DeadlineExceededError
from cloud_runtimes.spi.lock import LockRequest
from cloud_runtimes.spi.operation import Method, Operation

# an object that is interrupted while it is made is left to the garbage collector, which complains of its socket;
# an interrupt in the callback of a weak reference is swallowed by the interpreter, with a word about it
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def make(home: Path, **more: Any) -> CloudRuntimesClient:
    return CloudRuntimesClient(config={"capa": {"home": str(home)}}, app_id="test", timeout=10, **more)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[CloudRuntimesClient]:
    with make(tmp_path / "home") as made:
        made.state.save("store", "there", 0)
        made.pubsub.publish("bus", "other", "warm")
        yield made


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
    end = time.monotonic() + 2
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
}


@pytest.mark.parametrize("queued", [False, True], ids=["on-the-caller", "on-the-writer"])
@pytest.mark.parametrize("name", WRITES)
def test_writes(client: CloudRuntimesClient, tmp_path: Path, name: str, queued: bool) -> None:
    home = tmp_path / "home"
    call = WRITES[name]
    call(client, 0)
    told: dict[int, bool | None] = {}
    commits = client.state._drivers["store"]._engine._group_commit

    def write(number: int) -> None:
        if queued:
            commits._busy = True  # as if the writer thread had jobs in hand
        call(client, number)

    for run in every_point(write):
        told[len(told) + 1] = None if run.error is None else getattr(run.error, "maybe_applied", False)
        assert not commits.mutex._is_owned(), run.where
        assert_free(home)
    client.state.save("store", "later", 1)  # what was left to the writer thread came before this
    data = stored(home) if name == "publish" else []
    for number, maybe in told.items():
        there = number in data if name == "publish" else client.state.get("store", f"k{number}") is not None
        if maybe is None:
            assert there, f"{name} {number} completed and is not there"
        elif not maybe:
            assert not there, f"{name}, point {number}: said not applied, and is there"
    assert False in told.values()
    assert True in told.values()


def test_others_are_told(client: CloudRuntimesClient) -> None:
    """Whom the writer thread serves meanwhile is told, wherever the interrupt comes."""
    done = [0, 0]
    stop = threading.Event()

    def beside(which: int) -> None:
        while not stop.is_set():
            client.state.save("store", f"beside{which}", 1, timeout=5)
            done[which] += 1

    threads = [threading.Thread(target=beside, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    try:
        for run in every_point(lambda n: client.state.save("store", f"k{n}", n)):
            before = list(done)
            end = time.monotonic() + 5
            while any(now <= then for now, then in zip(done, before, strict=True)):
                assert time.monotonic() < end, f"another thread waits after {run.where}"
                time.sleep(0.0001)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_first_calls(tmp_path: Path, rounds: Callable[[int, int], int]) -> None:
    """Opening the store, and everything that is made on first use."""
    for folder, call in (
        ("state", lambda client: client.state.save("store", "k", 1)),
        ("read", lambda client: client.state.get("store", "k")),
        ("pubsub", lambda client: client.pubsub.publish("bus", "t", 1)),
        ("lock", lambda client: client.lock.hold("locks", "r", expiry=0.5, wait=2).__enter__().release()),
    ):
        count = 0

        def first(number: int) -> None:
            made[-1] = make(tmp_path / folder / str(number))  # noqa: B023
            call(made[-1])  # noqa: B023

        made: list[Any] = [None]
        step = rounds(25, 1)
        for run in every_point(first, step):
            count += step
            run.error = None  # and with it the frames that may have a lease, which would be renewed
            client = made[-1]
            if client is None:
                continue
            before = time.monotonic()
            call(client)  # it works afterwards
            client.close(timeout=5)
            assert time.monotonic() - before < 2.5, f"{folder}: something stayed locked after {run.where}"
            made[-1] = None
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
        assert count > 50


def test_taking_and_settling(client: CloudRuntimesClient) -> None:
    """An event whose taking or answering was interrupted comes again, or is done; never neither."""
    events = list(range(400))
    client.pubsub.publish_bulk("bus", "t", events)
    done: set[int] = set()
    with client.pubsub.subscribe("bus", "t", ack_wait=0.3) as sub:

        def one(number: int) -> Any:
            event = sub.receive(5)
            assert event is not None
            event.ack()
            return event.data

        for run in every_point(one):
            if run.error is None:
                done.add(run.result)
        while (event := sub.receive(1.0)) is not None:
            done.add(event.data)
            event.ack()
        # acknowledged by an interrupted run that then did not return its data: those are not missing
        assert len(done) > 300
        assert not sub._fetcher._handed
        assert sub._fetcher._open == 0
    # nothing is left to anybody else
    with client.pubsub.subscribe("bus", "t") as sub:
        assert sub.receive(0.3) is None


def test_subscribing_and_closing(client: CloudRuntimesClient) -> None:
    """An interrupted subscribe leaves no member that holds events; an interrupted close can be repeated."""
    client.pubsub.publish_bulk("bus", "t", list(range(10)))
    subs: list[Any] = []

    def subscribe(number: int) -> None:
        subs.append(client.pubsub.subscribe("bus", "t", ack_wait=60))

    def close(number: int) -> None:
        subs[-1].close(timeout=5)

    for run in every_point(subscribe):
        if run.error is not None:
            assert not subs, run.where
            run.error = None  # and with it the frames that hold what was made
        for sub in subs:
            sub.close()
        subs.clear()
        assert_all_there(client, run.where)
    subs.append(client.pubsub.subscribe("bus", "t", ack_wait=60))
    for run in every_point(close):
        where = run.where
        run.error = None
        subs[-1].close(timeout=5)
        assert_all_there(client, where)
        subs.append(client.pubsub.subscribe("bus", "t", ack_wait=60))
    subs[-1].close()


def assert_all_there(client: CloudRuntimesClient, where: str) -> None:
    """All ten events can be had by somebody else, well before the ack_wait of a member that should be gone."""
    got: list[Any] = []
    with client.pubsub.subscribe("bus", "t", ack_wait=60, batch=100) as other:
        end = time.monotonic() + 5
        while sum(map(len, got)) < 10:
            batch = other.receive(max(0.001, end - time.monotonic()))
            assert batch is not None, f"only {sum(map(len, got))} of 10 events after {where}"
            got.append(batch)
        for batch in got:
            batch.retry(0)


def test_publisher(client: CloudRuntimesClient, tmp_path: Path) -> None:
    """A send that was interrupted was taken or not, counted truly; flush and close end."""
    told: dict[int, bool] = {}
    publisher = client.pubsub.publisher("bus", "sent")
    for run in every_point(lambda n: publisher.send({"n": n})):
        told[len(told) + 1] = run.error is None or getattr(run.error, "maybe_applied", False)
    for _ in every_point(lambda n: publisher.flush(5)):
        pass
    publisher.close()
    stats = publisher.stats()
    assert stats.accepted == stats.delivered
    there = {each["n"] for each in stored(tmp_path / "home") if isinstance(each, dict)}
    assert there <= {number for number, maybe in told.items() if maybe}
    assert there
    for _ in every_point(lambda n: _send_and_close(client)):
        pass


def _send_and_close(client: CloudRuntimesClient) -> None:
    publisher = client.pubsub.publisher("bus", "closed")
    publisher.send(1)
    publisher.close(timeout=5)


def test_reads(client: CloudRuntimesClient) -> None:
    calls: tuple[Callable[[], Any], ...] = (
        lambda: client.state.get("store", "there"),
        lambda: client.state.get_bulk("store", ["there", "absent"]),
        lambda: client.state.list_keys("store"),
    )
    for call in calls:
        for run in every_point(lambda n: call()):  # noqa: B023
            if run.error is not None:
                assert getattr(run.error, "maybe_applied", False) is False, run.where
            assert client.state.get("store", "there") == 0


def test_a_lost_reader_does_not_hold_a_fork_up(client: CloudRuntimesClient) -> None:
    """An interrupt between taking a reader from the pool and holding it drops the reader."""
    assert client.state.get("store", "there") == 0
    engine = client.state._drivers["store"]._engine
    engine._readers.pop()  # it keeps itself alive, until the collector comes
    engine.before_fork()
    engine.after_fork()
    assert not list(engine._all_readers), "it was waited for in vain"
    assert client.state.get("store", "there") == 0


# -- locks --------------------------------------------------------------------


def assert_unlocked(client: CloudRuntimesClient, where: str, maybe: bool = True) -> None:
    """The lock is free at once (what an interrupted acquire wrote is undone), and nobody is in line for it."""
    end = time.monotonic() + (5 if maybe else 0)
    while (lease := client.lock.try_lock("locks", "r", "next")) is None:
        assert time.monotonic() < end, f"the lock stays held after {where}"
        time.sleep(0.001)
    lease.release()
    engine = client.lock._driver("locks")._engine
    while engine.query(None, "SELECT 1 FROM lock_line"):
        assert time.monotonic() < end + 5, f"somebody stays in line after {where}"
        time.sleep(0.001)


@pytest.mark.parametrize("queued", [False, True], ids=["on-the-caller", "on-the-writer"])
@pytest.mark.parametrize("name", ["try_lock", "hold"])
def test_acquiring(client: CloudRuntimesClient, name: str, queued: bool) -> None:
    had: list[Any] = []
    said: set[Any] = set()
    warm = client.lock.try_lock("locks", "r")
    assert warm is not None
    warm.release()
    commits = client.lock._drivers["locks"]._engine._group_commit

    def acquire(number: int) -> None:
        if queued:
            commits._busy = True  # as if the writer thread had jobs in hand
        if name == "hold":
            had.append(client.lock.hold("locks", "r", expiry=3600, wait=30).__enter__())
        else:
            had.append(client.lock.try_lock("locks", "r", "me", expiry=3600))

    for run in every_point(acquire):
        if run.error is None:
            (lease,) = had
            assert lease is not None
            lease.release()
        elif not had:
            maybe = getattr(run.error, "maybe_applied", False)  # without it: outside of the call
            said.add(maybe)
            run.error = None
            assert_unlocked(client, run.where, maybe)
        else:
            had[0].release()  # the interrupt came after it was had
        had.clear()
        commits._busy = False
        assert not commits.mutex._is_owned(), run.where
    assert said == {False, True}
    assert_unlocked(client, "the last")
    assert client.lock._keeper._look() is None  # nothing is renewed that nobody has


def test_waiting_for_a_lock(client: CloudRuntimesClient) -> None:
    """An interrupted wait leaves the line, and says that nothing was applied while it only waited."""
    said: list[bool] = []
    for run in every_point(lambda n: _wait_in_vain(client)):
        if isinstance(run.error, KeyboardInterrupt):
            said.append(getattr(run.error, "maybe_applied", False))
            run.error = None
        assert_unlocked(client, run.where)
    assert said.count(False) > 100


def _wait_in_vain(client: CloudRuntimesClient) -> None:
    driver = client.lock._driver("locks")
    request = LockRequest("r", "holder", "holder", 3_600_000, time.monotonic)
    profile = sys.getprofile()
    sys.setprofile(None)  # the holder is not interrupted
    held = driver.acquire(Operation(Method("lock", "test", repeatable=False), "locks", 5.0), request, False)
    assert held is not None
    sys.setprofile(profile)
    try:
        client.lock.hold("locks", "r", wait=0.02).__enter__()
    except DeadlineExceededError:
        pass
    finally:
        profile = sys.getprofile()
        sys.setprofile(None)
        driver.release(Operation(Method("lock", "test", repeatable=False), "locks", 5.0), request)
        sys.setprofile(profile)


def test_renewing_and_releasing(client: CloudRuntimesClient) -> None:
    """An interrupted release is carried out in the background, or can be repeated; so can a renewal."""
    lease = client.lock.try_lock("locks", "r", expiry=3600)
    assert lease is not None
    for run in every_point(lambda n: lease.renew()):
        run.error = None
        lease.check()
    lease.release()
    leases: list[Any] = [None]

    def make_one() -> None:
        while leases[0] is None:
            leases[0] = client.lock.try_lock("locks", "r", expiry=3600)

    make_one()
    for run in every_point(lambda n: leases[0].release()):
        where, run.error = run.where, None
        leases[0].release()  # never says that it was lost
        assert not leases[0].lost, where
        assert_unlocked(client, where)
        leases[0] = None
        make_one()
    leases[0].release()


# -- jobs ---------------------------------------------------------------------


@pytest.mark.parametrize("queued", [False, True], ids=["on-the-caller", "on-the-writer"])
@pytest.mark.parametrize("name", ["schedule_job", "delete_job", "run_now"])
def test_jobs(client: CloudRuntimesClient, name: str, queued: bool) -> None:
    """Whether it may be applied is said, and nothing half: a job with all of it, or none; a run of it, or none."""
    service = client.schedule
    service.schedule_job("there", schedule="@yearly")
    engine = service._driver("default")._engine
    said: set[Any] = set()

    def call(number: int) -> None:
        profile = sys.getprofile()
        sys.setprofile(None)
        if name == "delete_job":
            service.schedule_job("j", schedule="@yearly")
        engine._group_commit._busy = queued  # as if the writer thread had jobs in hand
        sys.setprofile(profile)
        if name == "schedule_job":
            service.schedule_job("j", schedule="@every 1h", data={"n": number})
        elif name == "delete_job":
            service.delete_job("j")
        else:
            service.run_now("there")

    for run in every_point(call):
        engine._group_commit._busy = False
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
