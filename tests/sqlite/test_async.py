"""The async API on the embedded store never blocks its loop, and a deadline is kept, whoever holds the store."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.sqlite.writes import Batches
from cloud_runtimes.errors import DeadlineExceededError
from cloud_runtimes.testing import Api
from tests.support import Figure, Rounds
from tests.support.child import Start
from tests.support.waiting import Stopwatch

pytestmark = pytest.mark.process


async def heartbeat(gaps: list[float]) -> None:
    last = time.monotonic()
    while True:
        await asyncio.sleep(0.001)
        now = time.monotonic()
        gaps.append(now - last)
        last = now


@pytest.mark.parametrize("holder", ["hold_write_lock", "hold_lock"])
def test_the_loop_beats_while_another_process_writes(
    start: Start, client: CloudRuntimesClient, figure: Figure, rounds: Rounds, holder: str
) -> None:
    client.state.save("store", "k", 0)
    child = start(holder, 30).ready()
    gaps: list[float] = []

    async def caller(number: int) -> None:
        for step in range(rounds(5, 50)):
            await client.state.save_async("store", f"k{number}", step)
            assert await client.state.get_async("store", f"k{number}") == step

    async def run() -> None:
        beat = asyncio.create_task(heartbeat(gaps))
        callers = asyncio.gather(*[caller(number) for number in range(100)])
        await asyncio.sleep(rounds(0, 2))
        while len(gaps) < 100:  # a loop that waited for the holder would not come to it
            await asyncio.sleep(0.001)
        assert await client.state.list_keys_async("store") == ["k"]
        child.go()
        await callers
        beat.cancel()

    asyncio.run(run())
    assert child.line() == {"told": True}
    figure(
        f"10,000 async calls while another process holds the store 2 s ({holder})",
        f"longest gap {max(gaps) * 1000:.0f} ms",
    )
    if rounds(0, 1):
        assert max(gaps) <= 0.05


def test_first_use_does_not_block_the_loop(
    start: Start, client: CloudRuntimesClient, home: Any, rounds: Rounds
) -> None:
    with CloudRuntimesClient() as other:
        other.state.save("store", "k", 1)
    child = start("hold_write_lock", 30).ready()
    gaps: list[float] = []

    async def run() -> None:
        beat = asyncio.create_task(heartbeat(gaps))
        first = asyncio.create_task(client.state.get_async("store", "k"))
        while len(gaps) < 100:
            await asyncio.sleep(0.001)
        assert not first.done()
        child.go()
        assert await first == 1
        await client.pubsub.publish_async("bus", "t", 1)
        beat.cancel()

    asyncio.run(run())
    assert child.line() == {"told": True}
    if rounds(0, 1):
        assert max(gaps) <= 0.05


@pytest.mark.parametrize("holder", ["hold_write_lock", "hold_lock"])
def test_a_deadline_is_kept(start: Start, client: CloudRuntimesClient, rounds: Rounds, holder: str, api: Api) -> None:
    with CloudRuntimesClient() as other:
        other.state.save("store", "k", "old")
    calls = [("turn", "save", "new")]
    if holder == "hold_write_lock":
        calls.insert(0, ("turn to open", "get"))
    else:
        client.state.get("store", "k")  # SQLite's own lock lets it open
    for match, name, *rest in calls:
        child = start(holder, 30).ready()
        began = time.monotonic()
        with Stopwatch() as watch:
            error = api.fails(DeadlineExceededError, match=match)(client.state, name, "store", "k", *rest, timeout=0.3)
            assert watch.seconds < rounds(1500, 600) / 1000
        assert time.monotonic() - began > 0.25
        if name == "save":
            assert error.maybe_applied is False
            assert client.state.get("store", "k") == "old"  # readers do not wait for writers
        child.go()
        assert child.line() == {"told": True}
        client.state.save("store", "other", 1)
        assert client.state.get("store", "k") == "old"  # said truthfully: it was withdrawn


def test_sync_methods_work_in_a_running_loop(client: CloudRuntimesClient) -> None:
    async def run() -> None:
        client.state.save("store", "k", 1)
        assert client.state.get("store", "k") == 1
        client.pubsub.publish("bus", "t", 1)
        with client.pubsub.subscribe("bus", "t") as sub:
            event = sub.receive(5)
            assert event is not None
            event.ack()
        with client.state.transaction("store") as tx:
            tx.save("k", 2)
        await asyncio.sleep(0)
        assert await client.state.get_async("store", "k") == 2

    asyncio.run(run())


def test_two_loops_share_a_client(client: CloudRuntimesClient) -> None:
    from concurrent.futures import ThreadPoolExecutor

    async def run(name: str) -> int:
        await asyncio.gather(*[client.state.save_async("store", f"{name}{n}", n) for n in range(200)])
        return len(await client.state.get_bulk_async("store", [f"{name}{n}" for n in range(200)]))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda name: asyncio.run(run(name)), "ab")) == [200, 200]


def test_callers_at_once_share_commits_and_hops(client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.state.save("store", "k", 0)
    sizes: list[int] = []
    commit = Batches.commit

    def counting(self: Batches, tasks: Any) -> Any:
        if mine := sum(task.loop is not None for task in tasks):  # not those of the store's own sweeping
            sizes.append(mine)
        return commit(self, tasks)

    monkeypatch.setattr(Batches, "commit", counting)

    async def run() -> int:
        hops = 0
        loop = asyncio.get_running_loop()
        soon = loop.call_soon_threadsafe

        def counted(callback: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal hops
            hops += 1
            return soon(callback, *arguments, **options)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        await asyncio.gather(*[client.state.save_async("store", f"k{n}", n) for n in range(1000)])
        return hops

    hops = asyncio.run(run())
    assert sum(sizes) == 1000
    assert len(sizes) <= 50
    assert hops <= len(sizes)
