"""Clients and subscriptions that come and go by the thousand: no file, thread or task stays."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support import Figure, Rounds
from tests.support.waiting import until

FILES = Path("/proc/self/fd")


def held() -> tuple[int, int]:
    """Return how many files are open, and how many threads run."""
    gc.collect()
    return len(os.listdir(FILES)), threading.active_count()


def cycle(home: Path) -> None:
    with CloudRuntimesClient(app_id="app", config={"capa": {"home": str(home)}}) as client:
        client.state.save("s", "k", 1)
        for topic in "ab":
            with client.pubsub.subscribe("bus", topic) as sub:
                client.pubsub.publish("bus", topic, 1)
                event = sub.receive(10)
                assert event is not None
                event.ack()


async def cycle_async(home: Path) -> None:
    async with CloudRuntimesClient(app_id="app", config={"capa": {"home": str(home)}}) as client:
        await client.state.save_async("s", "k", 1)
        async with client.pubsub.subscribe("bus", "a") as sub:
            await client.pubsub.publish_async("bus", "a", 1)
            event = await sub.receive_async(10)
            assert event is not None
            event.ack()


@pytest.mark.promise("C5", figure="clients and subscriptions")
@pytest.mark.skipif(not FILES.exists(), reason="needs /proc")
def test_what_comes_and_goes_leaves_nothing(tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    count = rounds(8, 2_500)

    async def run(times: int) -> int:
        for _ in range(times):
            await cycle_async(tmp_path)
        return len(asyncio.all_tasks())

    threads = threading.active_count()
    cycle(tmp_path)
    asyncio.run(run(1))
    until(lambda: threading.active_count() == threads)  # the last may be on its way out
    before = held()
    for _ in range(count):
        cycle(tmp_path)
    tasks = asyncio.run(run(count))
    assert tasks == 1
    until(lambda: held() == before)
    figure(
        f"clients and subscriptions that come and go, {2 * count:,} times",
        f"{before[0]} files, {before[1]} threads, as before",
    )
