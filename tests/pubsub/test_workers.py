"""Workers of a subscription: as many handle events at once as there are events, and no others wake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.threads import Changes
from cloud_runtimes.pubsub import Event, OutgoingEvent
from cloud_runtimes.pubsub._takers import Takers
from cloud_runtimes.testing import Api

WORKERS = 8


@pytest.fixture
def client() -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": ":memory:"}}) as client:
        yield client


@pytest.mark.parametrize("order", [None, "key"])
def test_events_that_come_together_have_a_worker_each(client: CloudRuntimesClient, api: Api, order: str | None) -> None:
    """None of these handlers ends before all have begun."""
    begun: list[int] = []

    def waits(number: int) -> bool:
        return len(begun) < number // WORKERS * WORKERS + WORKERS

    def handle(event: Event[int]) -> None:
        begun.append(event.data)
        while waits(event.data):
            time.sleep(0.001)

    async def handle_async(event: Event[int]) -> None:
        begun.append(event.data)
        while waits(event.data):
            await asyncio.sleep(0.001)

    handler = handle if api.name == "sync" else handle_async
    subscription = api.call(client.pubsub, "subscribe", "bus", "t", handler, workers=WORKERS, order=order)
    for number in range(0, 20 * WORKERS, WORKERS):
        client.pubsub.publish_bulk(
            "bus", "t", [OutgoingEvent(each, key=f"k{each}") for each in range(number, number + WORKERS)]
        )
        assert api.until(lambda number=number: len(begun) == number + WORKERS)
    assert sorted(begun) == [*range(20 * WORKERS)]
    api.call(subscription, "close")


def test_one_event_wakes_one_worker(client: CloudRuntimesClient, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[None] = []
    look = Takers._for_workers

    def counted(takers: Takers) -> int | None:
        found = look(takers)
        looks.append(None)
        return found

    monkeypatch.setattr(Takers, "_for_workers", counted)
    handled: list[int] = []
    subscription = api.call(client.pubsub, "subscribe", "bus", "t", api.handler(handled.append), workers=WORKERS)
    assert api.until(lambda: len(looks) == 2 * WORKERS)  # all are idle
    for number in range(20):
        client.pubsub.publish("bus", "t", number)
        # who wakes looks once before the event and twice behind it; then all are idle again
        assert api.until(lambda number=number: len(looks) == 2 * WORKERS + 3 * (number + 1))
    assert len(handled) == 20
    api.call(subscription, "close")


def test_one_event_wakes_one_task(client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[None] = []
    look = Takers._hand_out

    def counted(takers: Takers, limit: int) -> list[Event[int]] | None:
        looks.append(None)
        return look(takers, limit)

    monkeypatch.setattr(Takers, "_hand_out", counted)

    async def run() -> None:
        async with await client.pubsub.subscribe_async("bus", "t") as subscription:
            tasks = [asyncio.create_task(subscription.receive_async()) for _ in range(WORKERS)]
            await asyncio.sleep(0.05)
            idle = len(looks)
            await client.pubsub.publish_async("bus", "t", 1)
            done, tasks_left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            assert len(looks) == idle + 1
            (event,) = [task.result() for task in done]
            assert event is not None
            event.ack()
            await client.pubsub.publish_bulk_async("bus", "t", [*range(WORKERS - 1)])
            events = await asyncio.gather(*tasks_left)
            assert sorted(event.data for event in events if event is not None) == [*range(WORKERS - 1)]

    asyncio.run(run())


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_task_that_is_cancelled_as_it_wakes_wakes_another(timeout: float | None) -> None:
    async def run() -> None:
        changes = Changes()
        found: list[bool] = []
        tasks = [asyncio.create_task(changes.wait_for_async(lambda: found or None, timeout)) for _ in range(3)]
        await asyncio.sleep(0)
        found.append(True)
        changes.announce_to_one()
        tasks[-1].cancel()
        while not any(task.done() and not task.cancelled() for task in tasks):
            await asyncio.sleep(0)
        assert [task.done() for task in tasks] == [False, True, True]
        tasks[0].cancel()

    asyncio.run(asyncio.wait_for(run(), 20))
