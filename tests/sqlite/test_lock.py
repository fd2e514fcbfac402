"""The rules of locks that no suite can see from outside, on a clock that the test sets: the line, tokens, boots, what is left behind."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, registry
from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.components.sqlite import SqliteComponent, SqliteSettings, group_commit
from cloud_runtimes.components.sqlite import lock as locks
from cloud_runtimes.components.sqlite.lock import SqliteLock
from cloud_runtimes.components.sqlite.sweep import LOCK_MS, LOCKS, sweep
from cloud_runtimes.components.sqlite.writes import WriteTask
from cloud_runtimes.errors import ConflictError, DeadlineExceededError, LeaseLostError, UnavailableError
from cloud_runtimes.lock import UnlockStatus
from cloud_runtimes.spi.lock import LockRequest
from cloud_runtimes.spi.operation import Method, Operation
from tests.support.waiting import until

_ANY = Method("lock", "test", repeatable=False)


class SetClocks(Clocks):
    """Clocks that a test moves."""

    __slots__ = ("boot", "boot_name", "wall_offset")

    def __init__(self) -> None:
        self.boot = 1_000_000
        self.wall_offset = 0
        self.boot_name = "boot-1"

    def boot_ms(self) -> int:
        return self.boot

    def wall_ms(self) -> int:
        return super().wall_ms() + self.wall_offset

    def boot_id(self) -> str:
        return self.boot_name


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> SetClocks:
    clocks = SetClocks()
    clocked = type("ClockedSqlite", (SqliteComponent,), {"clocks": clocks})
    monkeypatch.setitem(registry.loaded, (registry.COMPONENTS, "sqlite"), clocked)
    return clocks


@pytest.fixture
def client(clocks: SetClocks, home: Path) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(app_id="test") as instance:
        yield instance


@pytest.fixture
def driver(client: CloudRuntimesClient) -> SqliteLock:
    driver: SqliteLock = client.lock._frame.driver("locks")
    return driver


def operation(timeout: float | None = 10.0) -> Operation:
    return Operation(_ANY, "locks", timeout)


def request(claim: str, expiry_ms: int = 1000) -> LockRequest:
    return LockRequest("r", f"owner of {claim}", claim, expiry_ms, time.monotonic)


def rows(driver: SqliteLock, table: str) -> list[Any]:
    return driver._engine.query(None, f"SELECT * FROM {table}")


def stand(driver: SqliteLock, claim: str) -> int:
    """Enter the line, as a waiter that then says no more."""
    return int(driver._engine.run(driver._queueing(request(claim), None), operation()))


def take(driver: SqliteLock, claim: str, ticket: int | None = None) -> int | None:
    token: int | None
    token, _ = driver._engine.run(driver._taking(request(claim), ticket, False), operation())
    return token


# -- expiry and tokens --------------------------------------------------------


def test_a_lease_lasts_to_the_millisecond(driver: SqliteLock, clocks: SetClocks) -> None:
    assert driver.acquire(operation(), request("a"), False) is not None
    clocks.boot += 1000  # the clock is cut to milliseconds, so a whole one more
    assert driver.acquire(operation(), request("b"), False) is None
    assert driver.renew(operation(), request("a"))
    clocks.boot += 1001
    assert not driver.renew(operation(), request("a"))
    assert not driver.release(operation(), request("a"))
    assert driver.acquire(operation(), request("b"), False) is not None


def test_a_renewal_never_shortens(driver: SqliteLock, clocks: SetClocks) -> None:
    assert driver.acquire(operation(), request("a", 5000), False) is not None
    assert driver.renew(operation(), request("a", 10))
    clocks.boot += 4000
    assert driver.acquire(operation(), request("b"), False) is None


def test_another_boot_ends_all_leases(driver: SqliteLock, clocks: SetClocks) -> None:
    first = driver.acquire(operation(), request("a", 3_600_000), False)
    stand(driver, "waiter")
    clocks.boot_name, clocks.boot = "boot-2", 5
    assert driver.unlock(operation(), "r", "owner of a") is UnlockStatus.NOT_FOUND
    assert not driver.renew(operation(), request("a"))
    second = driver.acquire(operation(), request("b"), False)  # nobody of that boot waits any more
    assert first is not None
    assert second is not None
    assert first.token is not None
    assert second.token is not None
    assert second.token > first.token


def test_tokens_outlive_rows_and_processes(clocks: SetClocks, home: Path) -> None:
    tokens = []
    for _ in range(3):
        with CloudRuntimesClient() as client:
            for resource in ("a", "b"):
                lease = client.lock.try_lock("locks", resource, expiry=1)
                assert lease is not None
                tokens.append(lease.token)
                lease.release()
            assert rows(client.lock._frame.driver("locks"), "locks") == []
    assert all(earlier < later for earlier, later in itertools.pairwise(tokens))


def test_tokens_outlive_the_file_and_a_clock_that_goes_back(clocks: SetClocks, home: Path) -> None:
    def token() -> int:
        with CloudRuntimesClient() as client:
            lease = client.lock.try_lock("locks", "it", expiry=1)
            assert lease is not None
            lease.release()
            assert lease.token is not None
            return lease.token

    first = token()
    copy = (home / "cloud_runtimes.db").read_bytes()
    second = token()
    (home / "cloud_runtimes.db").write_bytes(copy)
    third = token()
    shutil.rmtree(home)
    fourth = token()
    clocks.wall_offset -= 3600_000
    assert first < second < third < fourth < token()


def test_a_grant_is_synced_though_the_store_is_relaxed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_RUNTIMES_DURABILITY", "relaxed")
    with CloudRuntimesClient() as client:
        client.state.save("s", "k", 1)
        commits = client.state._frame.driver("s")._engine._group_commit._batches
        assert commits._synchronous is False
        lease = client.lock.try_lock("locks", "r")
        assert lease is not None
        assert commits._synchronous is True
        lease.release()
        assert commits._synchronous is False


# -- the line -----------------------------------------------------------------


def test_who_waits_goes_before_who_tries(driver: SqliteLock, clocks: SetClocks) -> None:
    assert driver.acquire(operation(), request("a"), False) is not None
    first, second = stand(driver, "first"), stand(driver, "second")
    assert driver.release(operation(), request("a"))
    assert driver.acquire(operation(), request("passer-by"), False) is None
    assert take(driver, "second", second) is None
    assert take(driver, "first", first) is not None
    assert [row[0] for row in rows(driver, "lock_line")] == [second]


def test_who_comes_too_late_is_in_line_at_once(driver: SqliteLock, clocks: SetClocks) -> None:
    """Between the look and the write others may have taken it; the place is that of the write."""
    assert driver.acquire(operation(), request("a"), False) is not None
    job = driver._taking(request("late"), None, True)
    token, ticket = driver._engine.run(job, operation())
    assert token is None
    assert [row[0] for row in rows(driver, "lock_line")] == [ticket]
    assert stand(driver, "later") > ticket


def test_tasks_are_served_in_the_order_of_coming(home: Path) -> None:
    async def run() -> None:
        got: list[int] = []

        async def hold(client: CloudRuntimesClient, number: int) -> None:
            async with client.lock.hold("locks", "r", wait=60):
                got.append(number)

        async with CloudRuntimesClient() as client:
            await client.lock.unlock_async("locks", "r", "nobody")  # open: the first calls go through threads
            await asyncio.gather(*(hold(client, number) for number in range(100)))
        assert got == list(range(100))

    asyncio.run(run())


def test_nothing_overtakes_what_the_writer_thread_has_fetched(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that gives up leaves the queue in the background; the next write of its thread follows that."""

    class Slow(SimpleQueue[Any]):
        def get(self, *arguments: Any, **options: Any) -> Any:
            task = super().get(*arguments, **options)
            time.sleep(0.1)
            return task

    monkeypatch.setattr(group_commit, "SimpleQueue", Slow)
    order: list[str] = []
    with CloudRuntimesClient() as client:
        client.state.save("store", "k", 1)
        engine = client.state._frame.drivers["store"]._engine
        for number in range(3):
            engine.submit(WriteTask(lambda connection: order.append("left"), durable=False))
            time.sleep(0.05 * number)
            engine.run(WriteTask(lambda connection: order.append("own"), durable=False), operation())
    assert order == ["left", "own"] * 3


def test_the_dead_cost_a_turn_each(driver: SqliteLock, clocks: SetClocks) -> None:
    assert driver.acquire(operation(), request("a"), False) is not None
    tickets = [stand(driver, f"dead {n}") for n in range(2)]
    tickets.append(stand(driver, "living"))
    assert driver.release(operation(), request("a"))
    clocks.boot += 2 * locks.TURN - 1
    assert take(driver, "living", tickets[2]) is None
    clocks.boot += 1
    assert take(driver, "living", tickets[2]) is not None
    assert rows(driver, "lock_line") == []


def test_the_turn_is_counted_from_the_expiry_of_a_dead_holder(driver: SqliteLock, clocks: SetClocks) -> None:
    assert driver.acquire(operation(), request("a", 1000), False) is not None
    first, second = stand(driver, "first"), stand(driver, "second")
    clocks.boot += 1001
    assert take(driver, "second", second) is None
    assert driver.acquire(operation(), request("passer-by"), False) is None
    clocks.boot += 2 * locks.TURN
    assert driver.acquire(operation(), request("passer-by"), False) is not None
    assert rows(driver, "lock_line") == []
    # one that was skipped alive comes back with its old number
    for ticket, claim in ((first, "first"), (second, "second")):
        assert driver._engine.run(driver._queueing(request(claim), ticket), operation()) == ticket
    third = stand(driver, "third")
    assert third > second
    assert driver.release(operation(), request("passer-by"))
    assert take(driver, "second", second) is None
    assert take(driver, "first", first) is not None


def test_a_waiter_that_was_skipped_waits_on(client: CloudRuntimesClient, driver: SqliteLock) -> None:
    lease = client.lock.try_lock("locks", "r")
    assert lease is not None
    got = threading.Event()

    def wait() -> None:
        with client.lock.hold("locks", "r", wait=30):
            got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: len(rows(driver, "lock_line")) == 1, seconds=20)
    (before,) = rows(driver, "lock_line")
    driver._engine.run(
        locks.WriteTask(lambda connection: connection.execute("DELETE FROM lock_line"), durable=False), operation()
    )
    until(lambda: rows(driver, "lock_line") == [before], seconds=20)  # it sees that when it looks by itself
    lease.release()
    thread.join(20)
    assert got.is_set()


def test_who_gives_up_makes_room(client: CloudRuntimesClient, driver: SqliteLock, clocks: SetClocks) -> None:
    lease = client.lock.try_lock("locks", "r")
    assert lease is not None
    with pytest.raises(DeadlineExceededError):
        client.lock.hold("locks", "r", wait=0.1).__enter__()
    until(lambda: not rows(driver, "lock_line"), seconds=20)
    lease.release()
    assert rows(driver, "locks") == []


def test_giving_up_wakes_the_next(client: CloudRuntimesClient, driver: SqliteLock, clocks: SetClocks) -> None:
    """A waiter that leaves the queue while the lock is free passes its turn on."""
    assert driver.acquire(operation(), request("a"), False) is not None
    stand(driver, "head")
    second = stand(driver, "second")
    assert driver.release(operation(), request("a"))
    task = driver._releasing(request("head"), queued=True)
    driver._engine.run(task, operation())
    assert task.channels == (f"lock-{second}",)
    assert take(driver, "second", second) is not None
    task = driver._releasing(request("third"), queued=True)
    driver._engine.run(task, operation())
    assert task.channels == ()  # it is held


def test_what_is_left_behind_is_swept(client: CloudRuntimesClient, driver: SqliteLock, clocks: SetClocks) -> None:
    assert driver.acquire(operation(), request("a"), False) is not None
    stand(driver, "dead")
    clocks.boot += 1001
    sweep(driver._engine, LOCKS, SqliteSettings())
    client.state.save("s", "k", 1)
    assert len(rows(driver, "locks")) == 1
    clocks.boot += LOCK_MS
    sweep(driver._engine, LOCKS, SqliteSettings())
    until(lambda: not rows(driver, "locks") and not rows(driver, "lock_line"), seconds=20)
    assert driver.acquire(operation(), request("b"), False) is not None
    clocks.boot_name = "boot-2"
    sweep(driver._engine, LOCKS, SqliteSettings())
    until(lambda: not rows(driver, "locks"), seconds=20)


def test_waiters_leave_no_sockets(client: CloudRuntimesClient, home: Path) -> None:
    lease = client.lock.try_lock("locks", "r")
    assert lease is not None
    for _ in range(3):
        with pytest.raises(DeadlineExceededError):
            client.lock.hold("locks", "r", wait=0.05).__enter__()
    assert list((home / "wake").iterdir()) == []


def test_a_look_writes_nothing(client: CloudRuntimesClient, driver: SqliteLock) -> None:
    lease = client.lock.try_lock("locks", "r")
    assert lease is not None
    before = driver._engine.query(None, "PRAGMA data_version")
    changes = driver._engine._group_commit.connection.total_changes  # type: ignore[union-attr]
    for _ in range(100):
        assert client.lock.try_lock("locks", "r") is None
    assert driver._engine.query(None, "PRAGMA data_version") == before
    assert driver._engine._group_commit.connection.total_changes == changes  # type: ignore[union-attr]


# -- renewing -----------------------------------------------------------------


def test_renewal_goes_on_after_errors(
    client: CloudRuntimesClient, driver: SqliteLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    client._context.now = lambda: now[0]
    calls: list[str] = []
    renew = driver.renew

    def failing(op: Operation, given: LockRequest, /) -> bool:
        calls.append(given.claim)
        if len(calls) < 3:
            raise UnavailableError("not now")
        return renew(op, given)

    monkeypatch.setattr(driver, "renew", failing)
    with client.lock.hold("locks", "r", expiry=30, renew=False) as lease:
        renewer = client.lock._renewer
        renewer._leases[id(lease)] = weakref.ref(lease)  # without its thread, which would look too
        assert renewer._renew_due() == pytest.approx(10.0)
        assert calls == []
        now[0] += 10.5
        assert renewer._renew_due() == pytest.approx(1.0)  # tried again soon
        now[0] += 1.0
        renewer._renew_due()
        now[0] += 1.0
        assert renewer._renew_due() == pytest.approx(10.0)
        assert len(calls) == 3
        now[0] += 29.0
        lease.check()
        now[0] += 0.5
        renewer._renew_due()
        lease.check()
        now[0] += 30.0
        assert renewer._renew_due() is None  # too late: it is lost, and not renewed any more
        assert len(calls) == 4
        assert lease.lost
        with pytest.raises(LeaseLostError):
            lease.renew()
        with pytest.raises(LeaseLostError):
            lease.release()


def test_a_renewal_that_comes_late_revives_nothing(client: CloudRuntimesClient) -> None:
    now = [1000.0]
    client._context.now = lambda: now[0]
    lease = client.lock.try_lock("locks", "r", expiry=30)
    assert lease is not None
    op, driver, began = lease._renewing(None, None)
    now[0] += 31
    assert lease.lost  # and somebody acted upon it
    assert driver.renew(op, lease._request)
    with pytest.raises(LeaseLostError):
        lease._renewed(True, began)
    assert lease.lost


def test_the_deadline_counts_from_before_the_request(client: CloudRuntimesClient, driver: SqliteLock) -> None:
    now = [1000.0]
    client._context.now = lambda: now[0]
    run = driver._engine.run

    def slow(job: Any, op: Operation) -> Any:
        result = run(job, op)
        now[0] += 5.0  # the answer was on its way for so long
        return result

    driver._engine.run = slow  # type: ignore[method-assign]
    lease = client.lock.try_lock("locks", "r", expiry=30)
    assert lease is not None
    now[0] += 24.9
    assert not lease.lost
    lease.renew()
    now[0] += 24.9
    assert not lease.lost
    now[0] += 0.2
    assert lease.lost


def test_one_thread_renews_all(client: CloudRuntimesClient) -> None:
    before = set(threading.enumerate())
    holds = [client.lock.hold("locks", f"r{n}", expiry=60) for n in range(20)]
    for hold in holds:
        hold.__enter__()
    started = set(threading.enumerate()) - before
    named = [thread for thread in started if thread.name == "cloud-runtimes-renewer"]
    assert len(named) == 1
    assert len(started) <= 2  # and the writer
    for hold in holds:
        hold.__exit__(None, None, None)
    client.close()
    assert not named[0].is_alive()


def test_what_nobody_has_is_not_renewed(client: CloudRuntimesClient) -> None:
    hold = client.lock.hold("locks", "r", expiry=60)
    hold.__enter__()
    assert client.lock._renewer._renew_due() is not None
    del hold
    end = time.monotonic() + 10
    while client.lock._renewer._renew_due() is not None:  # the renewing thread may be looking at it just now
        assert time.monotonic() < end


# -- an async loop ------------------------------------------------------------


def test_waiting_does_not_block_the_loop(home: Path) -> None:
    async def run() -> None:
        async with CloudRuntimesClient() as client:
            async with client.lock.hold("locks", "r") as lease:
                waiting = asyncio.create_task(client.lock.hold("locks", "r", wait=30).__aenter__())
                turns = 0
                end = time.monotonic() + 10
                while time.monotonic() < end and turns <= 50:
                    await asyncio.sleep(0.001)
                    turns += 1
                assert turns > 50
                await lease.release_async()
                other = await waiting
                await other.release_async()

    asyncio.run(run())


def test_fences_beside_the_state(home: Path) -> None:
    """A holder that lost its lease writes once more, in each way that a write has."""
    with CloudRuntimesClient() as client:
        old = client.lock.try_lock("locks", "r", "old")
        assert old is not None
        assert client.lock.unlock("locks", "r", "old") is UnlockStatus.SUCCESS
        new = client.lock.try_lock("locks", "r", "new")
        assert new is not None
        client.state.save("s", "k", "new", fence=new.token)
        with pytest.raises(ConflictError):
            client.state.save("s", "k", "old", fence=old.token)
        with pytest.raises(ConflictError):
            client.state.delete("s", "k", fence=old.token)
        with pytest.raises(ConflictError), client.state.transaction("s") as tx:
            tx.save("other", 1)
            tx.save("k", "old", fence=old.token)
        assert client.state.get("s", "other") is None
        assert client.state.get("s", "k") == "new"


def test_the_line_is_in_the_file(client: CloudRuntimesClient, driver: SqliteLock, home: Path) -> None:
    assert driver.acquire(operation(), request("a"), False) is not None
    stand(driver, "b")
    connection = sqlite3.connect(home / "cloud_runtimes.db")
    try:
        assert connection.execute("SELECT count(*) FROM lock_line").fetchone() == (1,)
    finally:
        connection.close()
