"""The threads of a client, beside the suites: what suspends, is late, or comes after the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.errors import ClosedError, CloudRuntimesError, DeadlineExceededError, InternalError
from cloud_runtimes.spi.executor import Executor
from cloud_runtimes.spi.flow import run_sync
from cloud_runtimes.spi.operation import Method, Operation
from cloud_runtimes.spi.state import StateWrite, StoredValue
from cloud_runtimes.testing import Api
from tests.support.harnesses.state_fakes import DictStateInThreads, DictStateRuntime, DictStore
from tests.support.waiting import longer, until

READ = Method("state", "get", repeatable=True, writes=False)
WRITE = Method("state", "save", repeatable=False)
VALUE = StoredValue(b"1", "application/json", None, None)


def operation(method: Method = READ, timeout: float | None = 5.0) -> Operation:
    return Operation(method, "store", timeout)


@pytest.fixture
def executor() -> Iterator[Executor]:
    instance = Executor()
    yield instance
    instance.close(5.0)


@pytest.fixture
def store() -> DictStore:
    return DictStore(Clocks())


@pytest.fixture
def make() -> Iterator[Callable[[type[Any]], CloudRuntimesClient]]:
    """Make clients over a fake driver; all are closed afterwards."""
    clients: list[CloudRuntimesClient] = []

    def make(kind: type[Any]) -> CloudRuntimesClient:
        client = CloudRuntimesClient(runtime=DictStateRuntime(kind, {}, Clocks()), app_id="test")
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


_others: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _know_others() -> None:
    """Threads that tests before left to end."""
    _others.clear()
    _others.update(threading.enumerate())


def threads() -> set[str]:
    return {thread.name.split("_")[0] for thread in set(threading.enumerate()) - _others} & {
        "cloud-runtimes-loop",
        "cloud-runtimes-executor",
    }


# -- flows that are written once ----------------------------------------------


def test_run_sync_returns_and_raises() -> None:
    async def inner(value: int) -> int:
        return value + 1

    async def flow() -> int:
        return await inner(await inner(1))

    async def failing() -> None:
        raise LookupError("mine")

    assert run_sync(flow()) == 3
    with pytest.raises(LookupError, match="mine"):
        run_sync(failing())


def test_a_flow_that_suspends_is_an_error_and_is_closed() -> None:
    closed: list[bool] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            closed.append(True)

    with pytest.raises(InternalError, match=r"waits.*sync API"):
        run_sync(waits())
    assert closed == [True]


# -- which API is made from which ---------------------------------------------


class Partly(DictStateInThreads):
    """Has one ``_async`` method of its own, which does not wait."""

    async def get_async(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        return self.store.read([key]).get(key)


def test_what_a_driver_has_of_its_own_stands(executor: Executor, store: DictStore) -> None:
    store.write([StateWrite("k", b"1")], True)
    value = asyncio.run(Partly(store, executor).get_async(operation(), "k", None))
    assert value is not None
    assert value.data == b"1"
    assert not threads(), "a hop where none was needed"


def test_the_pool_does_not_block_the_callers_loop(make: Callable[[type[Any]], CloudRuntimesClient]) -> None:
    inside, release = threading.Event(), threading.Event()

    class Slow(DictStateInThreads):
        def get(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
            inside.set()
            assert release.wait(10.0)
            return VALUE

    client = make(Slow)

    async def run() -> Any:
        task = asyncio.create_task(client.state.get_async("store", "k"))
        while not inside.is_set():
            await asyncio.sleep(0.001)
        release.set()  # by this loop, which would not come here if it were blocked
        return await task

    assert asyncio.run(run()) == 1


# -- deadlines ----------------------------------------------------------------


def test_deadline_of_a_blocking_driver_in_the_async_api(make: Callable[[type[Any]], CloudRuntimesClient]) -> None:
    inside, release = threading.Event(), threading.Event()

    class Slow(DictStateInThreads):
        def write(
            self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
        ) -> Mapping[int, CloudRuntimesError]:
            inside.set()
            release.wait(60.0)
            return {}

    client = make(Slow)
    try:
        for timeout in longer(inside.is_set, 0.1):
            with pytest.raises(DeadlineExceededError) as caught:
                asyncio.run(client.state.save_async("store", "k", 1, timeout=timeout))
    finally:
        release.set()
    assert caught.value.maybe_applied is True, "its thread runs to the end"


# -- cancelling ---------------------------------------------------------------


def test_a_cancelled_task_is_cancelled_and_not_closed(make: Callable[[type[Any]], CloudRuntimesClient]) -> None:
    release = threading.Event()

    class Slow(DictStateInThreads):
        def get(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
            release.wait(10.0)
            return None

    client = make(Slow)

    async def run() -> None:
        task = asyncio.create_task(client.state.get_async("store", "k"))
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    try:
        with pytest.raises(asyncio.CancelledError) as caught:
            asyncio.run(run())
    finally:
        release.set()
    assert caught.value.maybe_applied is False  # type: ignore[attr-defined]


# -- the end ------------------------------------------------------------------


def test_a_closed_executor_starts_nothing(store: DictStore) -> None:
    executor = Executor()
    driver = DictStateInThreads(store, executor)
    executor.loop()
    assert asyncio.run(driver.get_async(operation(), "k", None)) is None
    assert threads() == {"cloud-runtimes-loop", "cloud-runtimes-executor"}
    executor.close(5.0)
    for call in (lambda: asyncio.run(driver.get_async(operation(), "k", None)), executor.loop):
        with pytest.raises(ClosedError):
            call()
    executor.close(5.0)
    until(lambda: not threads(), seconds=30.0)


def test_closing_does_not_begin_what_waits_for_a_thread(store: DictStore) -> None:
    inside, release = threading.Event(), threading.Event()
    begun: list[str] = []

    class Slow(DictStateInThreads):
        def get(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
            begun.append(key)
            inside.set()
            release.wait(10.0)
            return None

    executor = Executor(threads=1)
    driver = Slow(store, executor)

    async def run() -> list[Any]:
        tasks = [asyncio.create_task(driver.get_async(operation(WRITE), key, None)) for key in ("first", "second")]
        while not inside.is_set():
            await asyncio.sleep(0.001)
        executor.close(5.0)
        release.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second = asyncio.run(run())
    assert first is None
    assert isinstance(second, ClosedError)
    assert second.maybe_applied is False
    assert begun == ["first"]


def test_a_client_refuses_after_close(make: Callable[[type[Any]], CloudRuntimesClient], api: Api) -> None:
    client = make(DictStateInThreads)
    api.call(client.state, "save", "store", "k", 1)
    client.close()
    api.fails(ClosedError)(client.state, "get", "store", "k")
