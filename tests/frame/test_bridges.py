"""The bridges between faces, beside the suites: what suspends, waits for itself, is late, or comes after the end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from harnesses import DictStateInThreads, DictStateOnLoop, DictStateRuntime, DictStore

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.errors import ClosedError, CloudRuntimesError, DeadlineExceededError, InternalError
from cloud_runtimes.spi.blocking import BlockingDriver, Bridge, LoopDriver
from cloud_runtimes.spi.flow import run_sync
from cloud_runtimes.spi.operation import Method, Operation
from cloud_runtimes.state import StateDriver, StateWrite, StoredValue

READ = Method("state", "get", repeatable=True, writes=False)
WRITE = Method("state", "save", repeatable=False)
VALUE = StoredValue(b"1", "application/json", None, None)


def operation(method: Method = READ, timeout: float | None = 5.0) -> Operation:
    return Operation(method, "store", timeout)


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    made = Bridge()
    yield made
    made.close(5.0)


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


def threads() -> set[str]:
    return {thread.name.split("_")[0] for thread in threading.enumerate()} & {
        "cloud-runtimes-loop",
        "cloud-runtimes-bridge",
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

    with pytest.raises(InternalError, match=r"waits.*sync face"):
        run_sync(waits())
    assert closed == [True]


# -- which face is made from which --------------------------------------------


class Partly(DictStateInThreads):
    """Has one ``_async`` method of its own, which does not wait."""

    async def get_async(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        return self.store.read([key]).get(key)


class AsyncMixin:
    """Async methods from a base that knows nothing of loops."""

    loops: list[asyncio.AbstractEventLoop]

    async def get_async(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        self.loops.append(asyncio.get_running_loop())
        return VALUE

    async def get_bulk_async(
        self, op: Operation, keys: Sequence[str], consistency: str | None, /
    ) -> dict[str, StoredValue]:
        return {}

    async def list_keys_async(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> list[str]:
        return []

    async def write_async(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Mapping[int, CloudRuntimesError]:
        return {}


class Mixed(LoopDriver, AsyncMixin, StateDriver):
    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.loops = []


class Quick(DictStateOnLoop):
    """Has one sync method of its own."""

    def get(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        return VALUE


def test_what_a_driver_has_of_its_own_stands(bridge: Bridge, store: DictStore) -> None:
    store.write([StateWrite("k", b"1")], True)
    found = asyncio.run(Partly(store, bridge).get_async(operation(), "k", None))
    assert found is not None
    assert found.data == b"1"
    assert Quick(store, bridge).get(operation(), "k", None) is VALUE
    assert not threads(), "a hop where none was needed"


def test_inherited_async_methods_run_in_the_clients_loop_too(bridge: Bridge) -> None:
    driver = Mixed(bridge)
    assert driver.get(operation(), "k", None) is VALUE
    assert asyncio.run(driver.get_async(operation(), "k", None)) is VALUE
    assert driver.loops == [bridge.loop()] * 2


@pytest.mark.parametrize("base", [BlockingDriver, LoopDriver])
def test_a_driver_without_its_natural_face_cannot_be_made(base: type[Any]) -> None:
    # each face would be made from the other
    incomplete = type("Incomplete", (base, StateDriver), {})
    with pytest.raises(TypeError, match="abstract"):
        incomplete()


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


# -- a sync call in the loop that would have to serve it ----------------------


def test_a_sync_call_in_the_clients_own_loop_is_refused(make: Callable[[type[Any]], CloudRuntimesClient]) -> None:
    client = make(DictStateOnLoop)
    client.state.save("store", "k", 7)

    async def handler() -> Any:
        with pytest.raises(InternalError, match="_async twin"):
            client.state.get("store", "k")
        return await client.state.get_async("store", "k")

    bridge = client.state._driver("store").bridge
    assert asyncio.run_coroutine_threadsafe(handler(), bridge.loop()).result(10.0) == 7


def test_a_sync_call_in_another_loop_works(make: Callable[[type[Any]], CloudRuntimesClient]) -> None:
    client = make(DictStateOnLoop)

    async def run() -> Any:
        client.state.save("store", "k", 7)
        return client.state.get("store", "k")

    assert asyncio.run(run()) == 7


# -- deadlines ----------------------------------------------------------------


class Stuck(DictStateOnLoop):
    """Never answers."""

    ended: threading.Event

    async def get_async(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        return await self._never()

    async def write_async(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Mapping[int, CloudRuntimesError]:
        return await self._never()

    async def _never(self) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            type(self).ended.set()


@pytest.fixture
def stuck() -> type[Stuck]:
    return type("Stuck", (Stuck,), {"ended": threading.Event()})


def in_face(client: CloudRuntimesClient, face: str, name: str, *args: Any, **options: Any) -> Any:
    if face == "sync":
        return getattr(client.state, name)(*args, **options)

    async def run() -> Any:
        return await getattr(client.state, f"{name}_async")(*args, **options)

    return asyncio.run(run())


@pytest.mark.parametrize("face", ["sync", "async"])
@pytest.mark.parametrize(("name", "args", "maybe_applied"), [("get", (), False), ("save", (1,), True)])
def test_deadline_of_a_loop_driver(
    make: Callable[[type[Any]], CloudRuntimesClient],
    stuck: type[Stuck],
    face: str,
    name: str,
    args: tuple[Any, ...],
    maybe_applied: bool,
) -> None:
    client = make(stuck)
    begin = time.monotonic()
    with pytest.raises(DeadlineExceededError, match=r"0\.1 s") as caught:
        in_face(client, face, name, "store", "k", *args, timeout=0.1)
    assert 0.09 < time.monotonic() - begin < 5.0
    assert caught.value.maybe_applied is maybe_applied
    assert (caught.value.service, caught.value.operation, caught.value.component) == ("state", name, "store")
    assert stuck.ended.wait(5.0), "the flow was left running in the loop"


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_timeout_error_of_the_drivers_own_is_no_deadline(
    make: Callable[[type[Any]], CloudRuntimesClient], face: str
) -> None:
    class Native(DictStateOnLoop):
        async def get_async(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
            raise TimeoutError("the server said so")

    client = make(Native)
    for timeout in (5.0, None):
        with pytest.raises(InternalError, match="the server said so") as caught:
            in_face(client, face, "get", "store", "k", timeout=timeout)
        assert type(caught.value.__cause__) is TimeoutError


def test_deadline_of_a_blocking_driver_in_the_async_face(make: Callable[[type[Any]], CloudRuntimesClient]) -> None:
    release = threading.Event()

    class Slow(DictStateInThreads):
        def write(
            self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
        ) -> Mapping[int, CloudRuntimesError]:
            release.wait(10.0)
            return {}

    client = make(Slow)
    try:
        with pytest.raises(DeadlineExceededError) as caught:
            in_face(client, "async", "save", "store", "k", 1, timeout=0.1)
    finally:
        release.set()
    assert caught.value.maybe_applied is True, "its thread runs to the end"


# -- cancelling ---------------------------------------------------------------


@pytest.mark.parametrize("kind", [DictStateInThreads, Stuck])
def test_a_cancelled_task_is_cancelled_and_not_closed(
    make: Callable[[type[Any]], CloudRuntimesClient], stuck: type[Stuck], kind: type[Any]
) -> None:
    release = threading.Event()

    class Slow(DictStateInThreads):
        def get(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
            release.wait(10.0)
            return None

    client = make(stuck if kind is Stuck else Slow)

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
    if kind is Stuck:
        assert stuck.ended.wait(5.0)


# -- the end ------------------------------------------------------------------


def test_a_closed_bridge_starts_nothing(store: DictStore) -> None:
    bridge = Bridge()
    on_loop, in_threads = DictStateOnLoop(store, bridge), DictStateInThreads(store, bridge)
    assert on_loop.get(operation(), "k", None) is None
    assert asyncio.run(in_threads.get_async(operation(), "k", None)) is None
    assert threads() == {"cloud-runtimes-loop", "cloud-runtimes-bridge"}
    bridge.close(5.0)
    for call in (
        lambda: on_loop.get(operation(), "k", None),
        lambda: asyncio.run(on_loop.get_async(operation(), "k", None)),
        lambda: asyncio.run(in_threads.get_async(operation(), "k", None)),
        bridge.loop,
    ):
        with pytest.raises(ClosedError):
            call()
    bridge.close(5.0)
    end = time.monotonic() + 5.0
    while threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert not threads()


@pytest.mark.parametrize("face", ["sync", "async"])
@pytest.mark.parametrize(("method", "maybe_applied"), [(READ, False), (WRITE, True)])
def test_closing_ends_the_calls_under_way(
    store: DictStore, stuck: type[Stuck], face: str, method: Method, maybe_applied: bool
) -> None:
    bridge = Bridge()
    driver = stuck(store, bridge)
    closing = threading.Timer(0.1, bridge.close, (5.0,))
    closing.start()
    op = operation(method, 20.0)
    with pytest.raises(ClosedError) as caught:
        if face == "sync":
            driver.get(op, "k", None)
        else:
            asyncio.run(driver.get_async(op, "k", None))
    closing.join()
    assert (op.remaining() or 0.0) > 10.0
    assert caught.value.maybe_applied is maybe_applied


def test_closing_does_not_begin_what_waits_for_a_thread(store: DictStore) -> None:
    inside, release = threading.Event(), threading.Event()
    begun: list[str] = []

    class Slow(DictStateInThreads):
        def get(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
            begun.append(key)
            inside.set()
            release.wait(10.0)
            return None

    bridge = Bridge(threads=1)
    driver = Slow(store, bridge)

    async def run() -> list[Any]:
        tasks = [asyncio.create_task(driver.get_async(operation(WRITE), key, None)) for key in ("first", "second")]
        while not inside.is_set():
            await asyncio.sleep(0.001)
        bridge.close(5.0)
        release.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second = asyncio.run(run())
    assert first is None
    assert isinstance(second, ClosedError)
    assert second.maybe_applied is False
    assert begun == ["first"]


def test_a_client_over_a_bridge_refuses_after_close(make: Callable[[type[Any]], CloudRuntimesClient]) -> None:
    for kind in (DictStateInThreads, DictStateOnLoop):
        client = make(kind)
        for face in ("sync", "async"):
            in_face(client, face, "save", "store", "k", 1)
        client.close()
        for face in ("sync", "async"):
            with pytest.raises(ClosedError):
                in_face(client, face, "get", "store", "k")
