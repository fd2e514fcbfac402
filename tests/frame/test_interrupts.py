"""A cancelled task and a KeyboardInterrupt, at any moment: what was said about the write is true, nothing stays locked.

``maybe_applied`` on the exception is the promise: ``False`` means that nothing was written and nothing will be.
"""

from __future__ import annotations

import _weakrefset
import asyncio
import gc
import random
import signal
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.sqlite.files import WriteLock
from cloud_runtimes.errors import ClosedError, UnavailableError
from cloud_runtimes.pubsub.sender import Sender
from tests.frame.test_every_point import assert_free, stored
from tests.support import Figure, Rounds
from tests.support.alarms import alarms, silence
from tests.support.waiting import until


@pytest.fixture
def client(home: Path) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(config={"capa": {"home": str(home)}}, app_id="test") as instance:
        instance.state.save("store", "there", 0)
        instance.pubsub.publish("bus", "other", "warm")
        yield instance


Call = Callable[[CloudRuntimesClient, int], Coroutine[Any, Any, Any]]


async def _save(client: CloudRuntimesClient, number: int) -> None:
    await client.state.save_async("store", f"k{number}", number)


async def _transaction(client: CloudRuntimesClient, number: int) -> None:
    async with client.state.transaction("store") as tx:
        tx.save(f"k{number}", number)
        tx.save(f"second{number}", number)


async def _bulk(client: CloudRuntimesClient, number: int) -> None:
    await client.state.save_bulk_async("store", {f"k{number}": number, f"second{number}": number})


async def _publish(client: CloudRuntimesClient, number: int) -> None:
    await client.pubsub.publish_async("bus", "t", number)


async def _configure(client: CloudRuntimesClient, number: int) -> None:
    await client.configuration.save_configuration_async(
        "app", {f"k{number}": str(number), f"second{number}": str(number)}
    )


CALLS: dict[str, Call] = {
    "save": _save,
    "transaction": _transaction,
    "bulk": _bulk,
    "publish": _publish,
    "configure": _configure,
}


def applied(client: CloudRuntimesClient, home: Path, name: str, number: int) -> bool:
    if name == "publish":
        return number in stored(home)
    if name == "configure":
        there = client.configuration.get_configuration("app", [f"k{number}", f"second{number}"])
        assert len(there) in (0, 2), "half a save"
        return bool(there)
    first = client.state.get("store", f"k{number}")
    if name != "save":
        assert client.state.get("store", f"second{number}") == first, "half a transaction"
    return first is not None


@pytest.mark.promise("E6", figure="KeyboardInterrupt in")
@pytest.mark.parametrize("held", [False, True], ids=["free", "lock-held"])
@pytest.mark.parametrize("name", CALLS)
def test_cancelled_at_every_step(client: CloudRuntimesClient, home: Path, name: str, held: bool) -> None:
    call = CALLS[name]
    said: list[tuple[int, bool | None]] = []  # number, maybe_applied; None: it completed

    async def cancel_after(number: int, steps: int) -> bool:
        """Cancel after so many turns of the loop; returns whether the call was done before."""
        task = asyncio.create_task(call(client, number))
        for _ in range(steps):
            await asyncio.sleep(0)
        if task.done():
            await task
            said.append((number, None))
            return True
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            said.append((number, getattr(error, "maybe_applied", False)))
        else:
            said.append((number, None))
        return False

    async def run() -> None:
        number = 0
        for steps in (*range(12), *range(20, 400, 20)):
            for _ in range(3):
                done = await cancel_after(number, steps)
                number += 1
                if held and steps > 40:
                    return
            if done:
                return
        # time is what is left to vary: cancel while the commit is under way
        for _ in range(60):
            task = asyncio.create_task(call(client, number))
            await asyncio.sleep(random.uniform(0, 0.001))
            task.cancel()
            try:
                await task
            except asyncio.CancelledError as error:
                said.append((number, getattr(error, "maybe_applied", False)))
            else:
                said.append((number, None))
            number += 1
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    write_lock = WriteLock(str(home / "cloud_runtimes.db"))
    if held:
        write_lock.acquire()
    try:
        asyncio.run(run())
    finally:
        if held:
            write_lock.release()
        write_lock.close()
    client.state.save("store", "later", 1)  # whatever was left to the writer thread came before this
    time.sleep(0.05)
    for number, maybe in said:
        there = applied(client, home, name, number)
        if maybe is None:
            assert there, f"{name} {number} completed and is not there"
        elif not maybe:
            assert not there, f"{name} {number} said not applied and is there"
    assert any(maybe is False for _, maybe in said)
    if not held:
        assert any(maybe is not False for _, maybe in said)


async def cancelled(call: Coroutine[Any, Any, Any], steps: int) -> Any:
    """Cancel a call after so many turns of the loop; return what came of it."""
    task = asyncio.create_task(call)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    return result


def test_cancelled_reads_and_waits(client: CloudRuntimesClient) -> None:
    async def run() -> None:
        for steps in range(6):
            for call in (
                client.state.get_async("store", "there"),
                client.state.get_bulk_async("store", [f"k{n}" for n in range(50)]),
                client.state.list_keys_async("store"),
            ):
                await cancelled(call, steps)
        async with await client.pubsub.subscribe_async("bus", "t") as sub:
            for steps in range(6):
                await cancelled(sub.receive_async(5), steps)
            await client.pubsub.publish_async("bus", "t", "for the one that is left")
            event = await sub.receive_async(5)
            assert event is not None
            assert event.data == "for the one that is left"
            event.ack()
        publisher = client.pubsub.publisher("bus", "t", linger=60)
        publisher.send(1)
        await cancelled(publisher.flush_async(), 1)
        await publisher.flush_async(5)
        await publisher.close_async()
        assert publisher.stats().delivered == 1

    asyncio.run(run())
    assert client.state.get("store", "there") == 0


def _is_in_callback(frame: FrameType | None) -> bool:
    """Whether this is a callback of a weak reference or of the garbage collector, or a finalizer: CPython throws away what is raised there."""
    collecting = [getattr(callback, "__code__", None) for callback in gc.callbacks]
    while frame is not None:
        if frame.f_code.co_filename in (weakref.__file__, _weakrefset.__file__) or frame.f_code.co_name == "__del__":
            return True
        if frame.f_code in collecting:
            return True
        frame = frame.f_back
    return False


class Interrupts:
    """KeyboardInterrupt in the main thread, at a random moment of a call."""

    def __init__(self) -> None:
        self.armed = False
        self._before = signal.signal(signal.SIGALRM, self._ring)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if not self.armed:
            return
        if _is_in_callback(frame):
            signal.setitimer(signal.ITIMER_REAL, 1e-5)
            return
        self.armed = False
        raise KeyboardInterrupt

    def within(self, seconds: float) -> None:
        self.armed = True
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, random.uniform(0, seconds)))

    def disarm(self) -> None:
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def close(self) -> None:
        self.armed = False
        silence(self._before)


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    instance = Interrupts()
    yield instance
    instance.close()


def _sync_transaction(client: CloudRuntimesClient, number: int) -> None:
    with client.state.transaction("store") as tx:
        tx.save(f"k{number}", number)
        tx.save(f"second{number}", number)


SYNC: dict[str, Callable[[CloudRuntimesClient, int], object]] = {
    "save": lambda client, n: client.state.save("store", f"k{n}", n),
    "transaction": _sync_transaction,
    "publish": lambda client, n: client.pubsub.publish("bus", "t", n),
    "configure": lambda client, n: client.configuration.save_configuration(
        "app", {f"k{n}": str(n), f"second{n}": str(n)}
    ),
}


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside-a-writer"])
@pytest.mark.parametrize("name", SYNC)
def test_interrupted_writes(
    client: CloudRuntimesClient,
    home: Path,
    interrupts: Interrupts,
    rounds: Rounds,
    figure: Figure,
    name: str,
    beside: bool,
) -> None:
    call = SYNC[name]
    said: list[tuple[int, bool | None]] = []
    stop = threading.Event()
    for service in (client.configuration, client.pubsub, client.state):
        service._frame.driver("store")  # an import that is interrupted is the interpreter's

    def write_beside() -> None:
        while not stop.is_set():
            client.state.save("store", "beside", 1)

    writer = threading.Thread(target=write_beside)
    if beside:
        writer.start()
    usual = 0.0005
    try:
        for number in range(rounds(300, 5000)):
            over = False
            try:
                try:
                    began = time.perf_counter()
                    interrupts.within(usual * 1.5)
                    call(client, number)
                    over = True
                    usual = 0.9 * usual + 0.1 * (time.perf_counter() - began)
                finally:
                    interrupts.disarm()
            except KeyboardInterrupt as error:
                # without the attribute the call had not begun, or was over; coming out of a block is a point of its own
                unsaid = name == "transaction"
                said.append((number, None if over else getattr(error, "maybe_applied", unsaid)))
            else:
                said.append((number, None))
    finally:
        stop.set()
        if beside:
            writer.join(30)
            assert not writer.is_alive(), "the other writer hangs"
    assert_free(home)
    client.state.save("store", "later", 1)
    interrupted = [each for each in said if each[1] is not None]
    for number, maybe in said:
        there = applied(client, home, name, number)
        if maybe is None:
            assert there, f"{name} {number} completed and is not there"
        elif not maybe:
            assert not there, f"{name} {number} said not applied and is there"
    assert len(interrupted) > 20
    figure(
        f"KeyboardInterrupt in {name}, {'beside a writer' if beside else 'alone'}",
        f"{len(interrupted)} of {len(said)} calls interrupted, all told truly",
    )


# an interrupt in the callback of a weak reference is swallowed by the interpreter, with a word about it
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupted_reads_and_waits(client: CloudRuntimesClient, interrupts: Interrupts, rounds: Rounds) -> None:
    sub = client.pubsub.subscribe("bus", "t")
    publisher = client.pubsub.publisher("bus", "t")
    calls: tuple[Callable[[], Any], ...] = (
        lambda: client.state.get("store", "there"),
        lambda: client.state.list_keys("store"),
        lambda: sub.receive(0.001),
        lambda: publisher.send("x"),
        lambda: publisher.flush(5),
    )
    count = 0
    for _ in range(rounds(60, 500)):
        for call in calls:
            try:
                try:
                    interrupts.within(0.002)
                    call()
                finally:
                    interrupts.disarm()
            except KeyboardInterrupt:
                count += 1
    assert count > 5
    assert client.state.get("store", "there") == 0
    publisher.flush(10)
    publisher.close()
    stats = publisher.stats()
    assert stats.accepted == stats.delivered
    sub.close()
    client.state.save("store", "later", 1)


def test_cancelled_waits_for_configuration(client: CloudRuntimesClient) -> None:
    async def run() -> None:
        for steps in range(6):
            for call in (
                client.configuration.get_configuration_async("app"),
                client.configuration.subscribe_configuration_async("app"),
            ):
                result = await cancelled(call, steps)
                if hasattr(result, "close_async"):
                    await result.close_async()
        async with await client.configuration.subscribe_configuration_async("app") as sub:
            assert await sub.receive_async(5) == {}
            for steps in range(6):
                await cancelled(sub.receive_async(5), steps)
            # beside an arrival: whatever a cancelled task did not give comes to the next
            for number in range(100):
                task = asyncio.create_task(sub.receive_async(5))
                await asyncio.sleep(0)
                await client.configuration.save_configuration_async("app", {"k": str(number)})
                await asyncio.sleep(random.uniform(0, 0.0005))
                task.cancel()
                (items,) = await asyncio.gather(task, return_exceptions=True)
                if not isinstance(items, dict):
                    items = await sub.receive_async(5)
                assert items is not None
                assert items["k"].value == str(number)

    asyncio.run(run())


def test_a_signal_handler_may_look_at_configuration(client: CloudRuntimesClient) -> None:
    """While its own thread is in the middle of taking."""
    client.configuration.save_configuration("app", {f"k{number}": "0" for number in range(200)})
    looked = 0
    with client.configuration.subscribe_configuration("app") as sub:

        def handler() -> None:
            nonlocal looked
            looked += len(sub.current()) == 200

        with alarms(handler, 0.0005):
            for number in range(100):
                client.configuration.save_configuration("app", {f"k{each}": str(number) for each in range(200)})
                sub.receive(5)
    assert looked > 3


def test_a_signal_handler_may_send(client: CloudRuntimesClient) -> None:
    publisher = client.pubsub.publisher("bus", "t")
    sent = 0

    def handler() -> None:
        nonlocal sent
        publisher.send("from the handler")
        sent += 1

    with alarms(handler, 0.0005):
        for number in range(30_000):
            publisher.send(number)
    publisher.close()
    assert sent > 3
    assert publisher.stats().delivered == 30_000 + sent


def test_a_signal_handler_may_be_the_first_to_send(
    client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = client.pubsub.publisher("bus", "t")
    handler = iter([lambda: publisher.send("from the handler")])

    class Interrupted(Sender):
        def __init__(self, *arguments: Any) -> None:
            for send in handler:
                send()
            super().__init__(*arguments)

    monkeypatch.setattr("cloud_runtimes.pubsub.publisher.Sender", Interrupted)
    publisher.send(1)
    publisher.close()
    assert publisher.stats().delivered == 2


def test_a_signal_handler_may_receive_and_settle(client: CloudRuntimesClient, rounds: Rounds) -> None:
    count = rounds(150, 2000)
    client.pubsub.publish_bulk("bus", "t", list(range(count)))
    done: list[int] = []
    refused = 0
    sub = client.pubsub.subscribe("bus", "t")

    def handler() -> None:
        nonlocal refused
        if (event := sub.receive(0.001)) is not None:
            event.ack()
            done.append(event.data)
        try:
            client.state.save("store", "from the handler", len(done), timeout=5)
        except UnavailableError as error:  # it came in the middle of a write of its thread
            refused += "signal handler" in str(error)

    with alarms(handler, 0.003):
        while (event := sub.receive(1)) is not None:
            client.state.save("store", "last", event.data)
            event.ack()
            done.append(event.data)
    assert sorted(done) == list(range(count))
    assert refused
    sub.close()


@pytest.mark.parametrize("under_way", ["publish", "send", "receive"])
def test_a_signal_handler_may_close(home: Path, under_way: str) -> None:
    others = set(threading.enumerate())
    client = CloudRuntimesClient(config={"capa": {"home": str(home)}}, app_id="test", timeout=20)
    publisher = client.pubsub.publisher("bus", "sent")
    sub = client.pubsub.subscribe("bus", "t")
    calls: dict[str, Callable[[], Any]] = {
        "publish": lambda: client.pubsub.publish("bus", "t", 1),
        "send": lambda: publisher.send(1),
        "receive": lambda: sub.receive(0.01),
    }
    took = 0.0

    def handler(number: int, frame: Any) -> None:
        nonlocal took
        began = time.monotonic()
        client.close()
        took = time.monotonic() - began

    sent = publisher.send("buffered")
    assert sent
    calls[under_way]()
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(ClosedError):
            while not took:
                calls[under_way]()
            calls["publish"]()
    finally:
        silence(before)
    assert took < 10
    assert client._context.join(10)
    stats = publisher.stats()
    assert stats.accepted == stats.delivered
    until(lambda: not set(threading.enumerate()) - others, seconds=30)  # one that said it is over may have a step to go


@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
def test_a_cancelled_acquire_leaves_no_lock(client: CloudRuntimesClient, held: bool) -> None:
    """At every step: what was taken is given back, who waited is in line no more, and what was said is true."""
    other = client.lock.try_lock("locks", "r", expiry=3600) if held else None
    said: set[bool] = set()

    async def acquire(name: str) -> Any:
        if name == "hold":
            return await client.lock.hold("locks", "r", expiry=3600, wait=30).__aenter__()
        return await client.lock.try_lock_async("locks", "r", "me", expiry=3600)

    async def cancel_after(name: str, steps: int) -> bool:
        task = asyncio.create_task(acquire(name))
        for _ in range(steps):
            await asyncio.sleep(0 if steps < 300 else 0.0005)
        done = task.done()
        task.cancel()
        try:
            lease = await task
        except asyncio.CancelledError as error:
            said.add(getattr(error, "maybe_applied", False))
        else:
            if lease is not None:
                await lease.release_async()
        if not held:
            end = time.monotonic() + 10
            while (lease := await client.lock.try_lock_async("locks", "r", "next")) is None:
                assert time.monotonic() < end, f"{name} cancelled after {steps} steps stays held"
                await asyncio.sleep(0.001)
            await lease.release_async()
        return done

    async def run() -> None:
        for name in ("hold", "try_lock"):
            for steps in (*range(12), *range(20, 400, 20)):
                if await cancel_after(name, steps):
                    break

    asyncio.run(run())
    engine = client.lock._frame.driver("locks")._engine
    until(lambda: not engine.query(None, "SELECT 1 FROM lock_line"), seconds=10)
    assert said >= {False}
    if other is not None:
        other.check()
        other.release()
    assert client.lock.try_lock("locks", "r") is not None
