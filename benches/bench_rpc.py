"""RPC beside the clients that users would take, all on one uvicorn application; and the call that never leaves the process.

``python -m benches.bench_rpc`` measures ratios instead: slices of all callers, interleaved, so that what else runs on the machine meets all of them.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from benches.rpc_callers import ASYNC, DATA, SYNC, Loop
from cloud_runtimes import CloudRuntimesClient

FLIGHT = 50


@contextmanager
def served() -> Iterator[int]:
    """The application, in a process of its own."""
    command = [sys.executable, str(Path(__file__).parent / "rpc_app.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
            process.communicate("", timeout=10)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served() as number:
        yield number


def _skip_missing(name: str) -> None:
    if name in ("aiohttp", "dapr", "httpx2"):
        pytest.importorskip(name)


@pytest.mark.parametrize("name", SYNC)
def bench_sync(benchmark: Any, port: int, name: str) -> None:
    _skip_missing(name)
    benchmark.group = "RPC over HTTP, sync, one caller"
    with SYNC[name](port) as call:
        assert benchmark(call) == DATA


@pytest.mark.parametrize("name", ASYNC)
def bench_async(benchmark: Any, port: int, name: str) -> None:
    _skip_missing(name)
    benchmark.group = "RPC over HTTP, async, one caller"
    loop = Loop()
    with ASYNC[name](port) as (call, close):

        async def once() -> Any:
            return await call()

        assert benchmark(lambda: loop.run(once())) == DATA
        loop.run(close())
    loop.close()


@pytest.mark.parametrize("name", ASYNC)
def bench_async_50_in_flight(benchmark: Any, port: int, name: str) -> None:
    _skip_missing(name)
    benchmark.group = "RPC over HTTP, async, 50 calls at once"
    loop = Loop()
    with ASYNC[name](port) as (call, close):

        async def many() -> Any:
            return await asyncio.gather(*(call() for _ in range(FLIGHT)))

        assert benchmark(lambda: loop.run(many())) == [DATA] * FLIGHT
        loop.run(close())
    loop.close()


@pytest.mark.benchmark(group="RPC in the process")
def bench_in_process(benchmark: Any) -> None:
    with CloudRuntimesClient(app_id="bench", config={"capa": {"home": ":memory:"}}) as client:
        client.rpc.register_method("echo", lambda data: data)
        assert benchmark(client.rpc.invoke_method, "bench", "echo", DATA) == DATA


# -- ratios -------------------------------------------------------------------


def _slices(callers: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median seconds a call of each, over interleaved slices."""
    taken: dict[str, list[float]] = {name: [] for name in callers}
    for _ in range(rounds):
        for name, caller in callers.items():
            if name not in taken:
                continue
            try:
                taken[name].append(caller())
            except Exception as error:
                if name == "ours":
                    raise
                del taken[name]
                sys.stdout.write(f"{name} failed and is left out: {error!r}\n")
    return {name: statistics.median(each) for name, each in taken.items()}


def _sync_slice(call: Callable[[], Any], count: int) -> Callable[[], float]:
    def run() -> float:
        begin = time.perf_counter()
        for _ in range(count):
            assert call() == DATA
        return (time.perf_counter() - begin) / count

    return run


def _pool_slice(pool: ThreadPoolExecutor, call: Callable[[], Any], count: int) -> Callable[[], float]:
    def run() -> float:
        begin = time.perf_counter()
        assert all(answer == DATA for answer in pool.map(lambda _: call(), range(count)))
        return (time.perf_counter() - begin) / count

    return run


def _async_slice(loop: Loop, call: Callable[[], Any], count: int, flight: int) -> Callable[[], float]:
    async def worker(share: int) -> None:
        for _ in range(share):
            assert await call() == DATA

    async def all_workers() -> None:
        await asyncio.gather(*(worker(count // flight) for _ in range(flight)))

    def run() -> float:
        begin = time.perf_counter()
        loop.run(all_workers())
        return (time.perf_counter() - begin) / count

    return run


def _tell(title: str, medians: dict[str, float]) -> None:
    mine = medians["ours"]
    sys.stdout.write(f"{title}\n")
    for name, seconds in medians.items():
        sys.stdout.write(f"  {name:12} {seconds * 1e6:9.1f} µs a call   ours is {seconds / mine:5.2f} times as fast\n")
    sys.stdout.flush()


def main() -> None:
    """Measure the ratios."""
    with served() as port, ExitStack() as stack:
        sync = {name: stack.enter_context(make(port)) for name, make in SYNC.items()}
        for call in sync.values():
            _sync_slice(call, 20)()
        _tell("sync, one caller", _slices({name: _sync_slice(call, 100) for name, call in sync.items()}, 15))
        pool = stack.enter_context(ThreadPoolExecutor(FLIGHT))
        _tell("sync, 50 threads", _slices({name: _pool_slice(pool, call, 500) for name, call in sync.items()}, 7))
        loop = Loop()
        calls: dict[str, Any] = {}
        closers = []
        for name, make in ASYNC.items():
            calls[name], close = stack.enter_context(make(port))
            closers.append(close)
        for call in calls.values():
            _async_slice(loop, call, 100, 50)()
        _tell(
            "async, one caller", _slices({name: _async_slice(loop, call, 100, 1) for name, call in calls.items()}, 15)
        )
        _tell(
            "async, 50 in flight",
            _slices({name: _async_slice(loop, call, 1000, FLIGHT) for name, call in calls.items()}, 9),
        )
        for close in closers:
            loop.run(close())
        loop.close()
    with CloudRuntimesClient(app_id="bench", config={"capa": {"home": ":memory:"}}) as client:
        client.rpc.register_method("echo", lambda data: data)
        run = _sync_slice(lambda: client.rpc.invoke_method("bench", "echo", DATA), 5000)
        sys.stdout.write(f"in the process: {statistics.median(run() for _ in range(9)) * 1e6:.2f} µs a call\n")


if __name__ == "__main__":
    main()
