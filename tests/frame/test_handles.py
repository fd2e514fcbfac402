"""Handles: made without I/O, opened by a block or by their first I/O, closed once, by whoever comes first."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    BulkError,
    ClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
)
from cloud_runtimes.pubsub import DeliveryReport
from cloud_runtimes.testing import Api
from tests.support.waiting import wait_in_vain

APIS = pytest.mark.parametrize("api", ["sync", "async"])


async def leave(handle: Any, api: str, body: Callable[[Any], Any]) -> None:
    """Run a body in a handle's block of one API, inside a running loop."""
    if api == "sync":
        with handle as opened:
            body(opened)
    else:
        async with handle as opened:
            body(opened)


# -- made without I/O ---------------------------------------------------------


def test_making_a_handle_touches_nothing(client: CloudRuntimesClient, home: Path) -> None:
    threads = set(threading.enumerate())
    client.pubsub.publisher("bus", "t")
    client.state.transaction("store")
    assert not home.exists()
    assert not set(threading.enumerate()) - threads


@APIS
def test_a_block_without_a_send_touches_nothing(client: CloudRuntimesClient, home: Path, api: str) -> None:
    asyncio.run(leave(client.pubsub.publisher("bus", "t"), api, lambda publisher: publisher.stats()))
    asyncio.run(leave(client.state.transaction("store"), api, lambda tx: None))
    assert not home.exists()


@APIS
def test_a_block_gives_the_handle_itself(client: CloudRuntimesClient, api: str) -> None:
    for handle in (client.pubsub.publisher("bus", "t"), client.state.transaction("store")):
        seen: list[Any] = []
        asyncio.run(leave(handle, api, seen.append))
        assert seen == [handle]


# -- transactions -------------------------------------------------------------


@APIS
def test_a_transaction_serves_one_block(client: CloudRuntimesClient, api: str) -> None:
    tx = client.state.transaction("store")
    asyncio.run(leave(tx, api, lambda tx: tx.save("k", 1)))
    assert client.state.get("store", "k") == 1
    with pytest.raises(ClosedError, match="has ended"):
        asyncio.run(leave(tx, api, lambda tx: None))
    with pytest.raises(ClosedError, match="has ended"):
        tx.delete("k")


@APIS
def test_a_transaction_left_by_an_exception(client: CloudRuntimesClient, api: str) -> None:
    def body(tx: Any) -> None:
        tx.save("k", 1)
        raise KeyboardInterrupt

    tx = client.state.transaction("store")
    with pytest.raises(KeyboardInterrupt) as caught:
        asyncio.run(leave(tx, api, body))
    assert not hasattr(caught.value, "maybe_applied"), "the call had not begun"
    assert client.state.get_item("store", "k") is None
    with pytest.raises(ClosedError):
        tx.save("k", 1)


@APIS
def test_the_deadline_of_a_transaction_begins_with_its_sending(
    scripted: CloudRuntimesClient, runtime: Any, api: str
) -> None:
    filled: list[float] = []

    def body(tx: Any) -> None:
        tx.save("k", 1)
        time.sleep(0.1)
        filled.append(time.monotonic())

    asyncio.run(leave(scripted.state.transaction("store", timeout=30), api, body))
    assert runtime.state.operations[-1].deadline >= filled[0] + 30


def test_a_transaction_of_a_closed_client(client: CloudRuntimesClient) -> None:
    tx = client.state.transaction("store")
    tx.save("k", 1)
    client.close()
    with pytest.raises(ClosedError), tx:
        pass
    with pytest.raises(ClosedError):
        client.state.transaction("store")


# -- publishers ---------------------------------------------------------------


@APIS
def test_a_publisher_left_by_an_exception_still_delivers(client: CloudRuntimesClient, api: str) -> None:
    """Accepted events are delivered; an exception takes none back."""

    def body(publisher: Any) -> None:
        assert publisher.send(1) == 1
        raise LookupError("mine")

    publisher = client.pubsub.publisher("bus", "t", linger=60)
    with pytest.raises(LookupError, match="mine"):
        asyncio.run(leave(publisher, api, body))
    assert publisher.stats()[:3] == (1, 1, 0)
    with pytest.raises(ClosedError):
        publisher.send(2)


def test_closing_a_publisher_again(client: CloudRuntimesClient) -> None:
    publisher = client.pubsub.publisher("bus", "t")
    publisher.close()
    publisher.close()
    asyncio.run(publisher.close_async())
    publisher.flush()
    with pytest.raises(ClosedError):
        publisher.send(1)
    with pytest.raises(ClosedError):
        asyncio.run(publisher.send_async(1))


def test_closing_from_several_threads(client: CloudRuntimesClient) -> None:
    publisher = client.pubsub.publisher("bus", "t", linger=60)
    publisher.send(1)
    sub = client.pubsub.subscribe("bus", "t")
    failures: list[BaseException] = []

    def close(handle: Any) -> None:
        try:
            handle.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=close, args=(handle,)) for handle in (publisher, sub) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert failures == []
    assert publisher.stats().delivered == 1


def test_flush_in_on_delivery_is_an_error(client: CloudRuntimesClient) -> None:
    raised: list[BaseException] = []

    def report(report: DeliveryReport) -> None:
        for call in (publisher.flush, publisher.close):
            try:
                call()
            except RuntimeError as error:
                raised.append(error)

    with client.pubsub.publisher("bus", "t", on_delivery=report) as publisher:
        publisher.send(1)
        publisher.flush()
    assert len(raised) == 2
    assert all("on_delivery" in str(error) for error in raised)


def test_a_flush_that_is_late_loses_nothing(scripted_bus: Any, api: Api) -> None:
    client, bus = scripted_bus
    publisher = client.pubsub.publisher("bus", "t", delivery_timeout=30)
    bus.away = True
    publisher.send(1)
    api.fails(DeadlineExceededError, match=r"1 events .* not settled after 0\.05 s")(publisher, "flush", 0.05)
    bus.away = False
    publisher.flush(10)
    assert publisher.stats()[:3] == (1, 1, 0)
    for bad in (0, -1, float("nan"), "5"):
        with pytest.raises(InvalidArgumentError, match="timeout"):
            publisher.flush(bad)


def test_failures_are_told_once(scripted_bus: Any, api: Api) -> None:
    client, bus = scripted_bus
    bus.away = True
    publisher = client.pubsub.publisher("bus", "t", delivery_timeout=0.05)
    publisher.send(1)
    publisher.send(2)
    error = api.fails(BulkError)(publisher, "flush", 10)
    assert sorted(error.failed) == [1, 2]
    assert (error.code, error.service, error.component) == ("UNAVAILABLE", "pubsub", "bus")
    api.call(publisher, "flush", 10)
    publisher.close()
    assert publisher.stats()[:3] == (2, 0, 2)


def test_a_full_buffer_in_a_running_loop_does_not_block_it(scripted_bus: Any) -> None:
    client, bus = scripted_bus
    bus.away = True
    publisher = client.pubsub.publisher("bus", "t", buffer_bytes=2000, delivery_timeout=30)

    async def run() -> None:
        with pytest.raises(ResourceExhaustedError, match="send_async"):
            for _ in range(100):
                publisher.send(b"x" * 100)
        begin = time.monotonic()
        waiting = asyncio.create_task(publisher.send_async(b"x" * 100, timeout=10))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        with pytest.raises(ResourceExhaustedError, match=r"0\.05 s"):
            await publisher.send_async(b"x" * 100, timeout=0.05)
        bus.away = False
        assert await waiting > 0
        assert time.monotonic() - begin < 9

    asyncio.run(run())
    publisher.close()
    stats = publisher.stats()
    assert stats.accepted == stats.delivered


# -- subscriptions ------------------------------------------------------------


@APIS
def test_a_subscription_ends_its_iteration_and_gives_back(client: CloudRuntimesClient, api: str) -> None:
    client.pubsub.publish_bulk("bus", "t", [1, 2, 3])

    async def run() -> list[Any]:
        seen = []
        if api == "sync":
            with client.pubsub.subscribe("bus", "t") as sub:
                for event in sub:
                    seen.append(event.data)
                    event.ack()
                    break
            assert list(sub) == []
            assert sub.receive(0) is None
            sub.wait()
            sub.close()
        else:
            async with await client.pubsub.subscribe_async("bus", "t") as sub:
                stream = sub.__aiter__()
                event = await anext(stream)
                seen.append(event.data)
                event.ack()
                await stream.aclose()
            assert [event async for event in sub] == []
            assert await sub.receive_async(0) is None
            await sub.wait_async()
            await sub.close_async()
        return seen

    first = asyncio.run(run())
    with client.pubsub.subscribe("bus", "t") as sub:
        rest = [event.data for _ in range(2) if (event := sub.receive(10)) is not None]
        assert sub.receive(0.1) is None
    assert sorted(first + rest) == [1, 2, 3], "what was not settled came again, what was did not"


@APIS
def test_a_subscription_that_nobody_has_leaves_the_group(client: CloudRuntimesClient, api: str) -> None:
    client.pubsub.publish_bulk("bus", "t", [1, 2, 3])

    async def run() -> None:
        if api == "sync":
            first = client.pubsub.subscribe("bus", "t", ack_wait=60).receive(5)
        else:
            first = await (await client.pubsub.subscribe_async("bus", "t", ack_wait=60)).receive_async(5)
        gc.collect()
        assert first is not None
        assert first.data == 1
        # the others go to whoever comes, at once; the first one is still his who has it
        with client.pubsub.subscribe("bus", "t", ack_wait=60) as other:
            rest = [other.receive(5), other.receive(5)]
            assert sorted(event.data for event in rest if event is not None) == [2, 3]
            first.ack()
            for event in rest:
                assert event is not None
                event.ack()
        with client.pubsub.subscribe("bus", "t") as nobody:
            assert nobody.receive(0.3) is None

    asyncio.run(run())
    gc.collect()
    assert not list(client._context.handles)


def test_a_subscription_with_a_handler_lives_without_a_reference(client: CloudRuntimesClient) -> None:
    got: SimpleQueue[Any] = SimpleQueue()
    client.pubsub.subscribe("bus", "t", lambda event: got.put(event.data))
    gc.collect()
    client.pubsub.publish("bus", "t", 1)
    assert got.get(timeout=10) == 1


def test_waiters_that_give_up_are_forgotten(client: CloudRuntimesClient) -> None:
    """Polling an empty topic for days must not fill the memory."""
    with client.pubsub.subscribe("bus", "t") as sub:
        wait_in_vain(sub)
        assert not sub._fetcher._changes._futures
        assert len(sub._fetcher._idle._futures) <= 1
        assert len(sub._fetcher._changes._tickets) <= 1


@pytest.mark.parametrize("timeout", [None, 10])
def test_a_cancellation_beside_an_arrival_is_not_swallowed(client: CloudRuntimesClient, timeout: float | None) -> None:
    """An event that comes in the same moment must not turn a cancelled task into one that goes on."""
    with client.pubsub.subscribe("bus", "t") as sub:

        async def run() -> None:
            task = asyncio.create_task(sub.receive_async(timeout))
            await asyncio.sleep(0.01)
            # taken first: the pump announces, and forgets, as soon as the event is there
            (future,) = sub._fetcher._idle._futures
            client.pubsub.publish("bus", "t", 1)
            future.set_result(None)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(run())
        event = sub.receive(10)
        assert event is not None, "nothing was lost with it"


def test_a_subscription_with_a_handler_is_not_iterated(client: CloudRuntimesClient) -> None:
    with client.pubsub.subscribe("bus", "t", lambda event: None) as sub:
        for call in (lambda: sub.receive(0), lambda: next(iter(sub)), lambda: asyncio.run(sub.receive_async(0))):
            with pytest.raises(InvalidArgumentError, match="has a handler"):
                call()


@pytest.mark.parametrize("bad", [-1, float("nan"), True, "5"])
def test_bad_timeouts_of_receive(client: CloudRuntimesClient, bad: Any) -> None:
    with client.pubsub.subscribe("bus", "t") as sub, pytest.raises(InvalidArgumentError, match="timeout"):
        sub.receive(bad)


def test_sync_methods_work_in_a_running_loop(client: CloudRuntimesClient) -> None:
    async def run() -> None:
        client.state.save("store", "k", 1)
        assert client.state.get("store", "k") == 1
        with client.state.transaction("store") as tx:
            tx.save("k", 2)
        client.pubsub.publish("bus", "t", 1)
        with client.pubsub.publisher("bus", "t") as publisher:
            publisher.send(2)
            publisher.flush(10)
        with client.pubsub.subscribe("bus", "t") as sub:
            assert [sub.receive(10).data, sub.receive(10).data] == [1, 2]  # type: ignore[union-attr]
        client.close()

    asyncio.run(run())


@pytest.fixture
def scripted_bus(monkeypatch: pytest.MonkeyPatch, client: CloudRuntimesClient) -> Any:
    """A client whose broker can be away."""

    class Bus:
        away = False

    from cloud_runtimes.components.sqlite.pubsub import SqlitePubSub

    real = SqlitePubSub.publish

    def publish(self: SqlitePubSub, *arguments: Any) -> Any:
        if Bus.away:
            raise UnavailableError("the broker is away")
        return real(self, *arguments)

    monkeypatch.setattr(SqlitePubSub, "publish", publish)
    return client, Bus
