"""Conformance of a `PubSubDriver`: handlers, iteration and ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ...client import CloudRuntimesClient
from ...errors import ClosedError, InvalidArgumentError
from ...pubsub import DropEvent, Event
from ..faces import Face
from ..harness import Harness, requires
from ._base import Call, Suite, as_sent
from ._pubsub import NEVER, SOON, nothing

__all__ = ["HandlerTests"]


class HandlerTests(Suite):
    """What a subscription does for a handler, and how it ends."""

    # -- dead letters -------------------------------------------------------

    @requires("pubsub.dead_letter")
    def test_a_dropped_event_tells_the_message(self, call: Call, face: Face, harness: Harness) -> None:
        def drop(event: Event[Any]) -> None:
            raise DropEvent("no such\norder" + "!" * 2000 if event.data else "")

        dead = call("subscribe", "dead")
        sub = call("subscribe", "t", face.handler(drop), dead_letter_topic="dead")
        for data, error in ((1, "DropEvent: no such order"), (0, "DropEvent")):
            call("publish", "t", data)
            letter = face.call(dead, "receive", SOON)
            letter.ack()
            assert letter.data == data
            if harness.tells_dead:
                assert letter.extensions["dlreason"] == "dropped"
                assert letter.extensions["dlerror"].rstrip("!") == error
                assert len(letter.extensions["dlerror"]) == (1024 if data else len(error))
        face.call(sub, "close")
        face.call(dead, "close")

    @requires("pubsub.dead_letter", "pubsub.max_deliveries", "pubsub.ack_wait")
    def test_a_dead_letter_tells_the_last_error(
        self, call: Call, client: CloudRuntimesClient, face: Face, store: str
    ) -> None:
        def fail(event: Event[Any]) -> None:
            raise ValueError(f"attempt {event.delivery_count} of {event.data}")

        dead = call("subscribe", "dead")
        options: dict[str, Any] = {"dead_letter_topic": "dead", "max_deliveries": 2}
        call("publish_bulk", "t", ["a", "b"])
        sub = call("subscribe", "t", face.handler(fail), **options)
        for letter in [face.call(dead, "receive", SOON) for _ in range(2)]:
            letter.ack()
            assert letter.extensions["dlreason"] == "deliveries"
            assert letter.extensions["dlerror"] == f"ValueError: attempt 2 of {letter.data}"
            assert letter.extensions["dlcount"] == 2
            assert letter.extensions["dlfirst"] <= letter.extensions["dllast"]
        face.call(sub, "close")
        # after an error the handler does not answer: the error is the last that is known
        hold = threading.Event()

        def fail_then_hang(event: Event[Any]) -> None:
            if event.delivery_count == 1:
                raise OSError("disk")
            hold.wait(SOON)

        sub = client.pubsub.subscribe(store, "u", fail_then_hang, ack_wait=0.3, **options)
        client.pubsub.publish(store, "u", "c")
        letter = face.call(dead, "receive", SOON)
        hold.set()
        letter.ack()
        assert (letter.extensions["dlreason"], letter.extensions["dlerror"]) == ("deliveries", "OSError: disk")
        sub.close()
        face.call(dead, "close")

    # -- handlers -----------------------------------------------------------

    def test_handler(self, call: Call, face: Face, harness: Harness) -> None:
        got: list[Any] = []
        sub = call("subscribe", "t", face.handler(lambda event: got.append(event.data)))
        call("publish_bulk", "t", list(range(50)))
        assert face.until(lambda: len(got) == 50)
        assert as_sent(harness, got, int) == list(range(50))
        face.fails(InvalidArgumentError, match="handler")(sub, "receive", 0.1)
        face.call(sub, "close")
        face.call(sub, "wait")
        with face.opened(call("subscribe", "t")) as again:
            nothing(face, again)

    @requires("pubsub.retry_delay")
    def test_handler_outcomes(self, call: Call, face: Face, harness: Harness) -> None:
        calls: list[tuple[str, int]] = []

        def body(event: Event[Any]) -> None:
            calls.append((event.data, event.delivery_count or 0))
            if event.data == "drop":
                raise DropEvent
            if event.data == "fail" and event.delivery_count == 1:
                raise RuntimeError("once")
            if event.data == "answered":
                event.drop()
                raise RuntimeError("too late to count")

        sub = call("subscribe", "t", face.handler(body))
        call("publish_bulk", "t", ["ok", "drop", "fail", "answered"])
        assert face.until(lambda: len(calls) == 4)
        face.pause(0.2)
        harness.advance(1.5)
        assert face.until(lambda: len(calls) == 5)
        assert sorted(calls) == [("answered", 1), ("drop", 1), ("fail", 1), ("fail", 2), ("ok", 1)]
        face.pause(0.2)  # its acknowledgement reaches the component
        harness.advance(100)
        face.pause(NEVER)
        assert len(calls) == 5
        face.call(sub, "close")

    def test_handler_batch(self, call: Call, face: Face) -> None:
        sizes: list[int] = []
        call("publish_bulk", "t", list(range(100)))
        handler = face.handler(lambda batch: sizes.append(len(batch)))
        sub = call("subscribe", "t", handler, batch=40)
        assert face.until(lambda: sum(sizes) == 100)
        assert max(sizes) <= 40
        face.call(sub, "close")

    def test_workers_run_at_once(self, call: Call, face: Face) -> None:
        running, most = set(), 0
        lock = threading.Lock()

        def enter(event: Event[Any]) -> None:
            nonlocal most
            with lock:
                running.add(event.data)
                most = max(most, len(running))

        if face.name == "async":
            import asyncio

            async def handler(event: Event[Any]) -> None:
                enter(event)
                await asyncio.sleep(0.15)
                running.discard(event.data)

            handle: Callable[[Any], Any] = handler
        else:

            def handle(event: Event[Any]) -> None:
                enter(event)
                time.sleep(0.15)
                running.discard(event.data)

        sub = call("subscribe", "t", handle, workers=4)
        call("publish_bulk", "t", list(range(8)))
        assert face.until(lambda: most == 4)
        assert face.until(lambda: not running)
        face.call(sub, "close")

    def test_async_handler_of_a_sync_subscription(self, client: CloudRuntimesClient, store: str) -> None:
        got: list[tuple[Any, str]] = []

        async def handler(event: Event[Any]) -> None:
            got.append((event.data, threading.current_thread().name))

        with client.pubsub.subscribe(store, "t", handler):
            client.pubsub.publish(store, "t", 1)
            end = time.monotonic() + SOON
            while not got and time.monotonic() < end:
                time.sleep(0.01)
        assert got == [(1, "cloud-runtimes-loop")]

    # -- iterating and closing ----------------------------------------------

    def test_close_ends_the_iteration(self, client: CloudRuntimesClient, store: str, harness: Harness) -> None:
        client.pubsub.publish_bulk(store, "t", [1, 2, 3])
        got = []
        with client.pubsub.subscribe(store, "t") as sub:
            for event in sub:
                got.append(event.data)
                event.ack()
                if len(got) == 3:
                    threading.Timer(0.1, sub.close).start()
        assert as_sent(harness, got, int) == [1, 2, 3]

    def test_async_iteration(self, client: CloudRuntimesClient, store: str, harness: Harness) -> None:
        import asyncio

        async def run() -> list[int]:
            got = []
            async with await client.pubsub.subscribe_async(store, "t") as sub:
                await client.pubsub.publish_bulk_async(store, "t", [1, 2, 3])
                async for event in sub:
                    got.append(event.data)
                    event.ack()
                    if len(got) == 3:
                        break
            return got

        assert as_sent(harness, asyncio.run(run()), int) == [1, 2, 3]

    def test_receive_times_out(self, call: Call, face: Face) -> None:
        with face.opened(call("subscribe", "t")) as sub:
            started = time.monotonic()
            assert face.call(sub, "receive", 0.2) is None
            assert 0.15 < time.monotonic() - started < 2
            assert face.call(sub, "receive", 0) is None
        assert face.call(sub, "receive", 5) is None  # closed
        face.call(sub, "close")

    def test_client_close_closes(self, face: Face, store: str, harness: Harness) -> None:
        client = harness.client()
        sub = face.call(client.pubsub, "subscribe", store, "t")
        face.call(client, "close")
        assert face.call(sub, "receive", 5) is None
        face.fails(ClosedError)(client.pubsub, "publish", store, "t", 1)
        face.fails(ClosedError)(client.pubsub, "subscribe", store, "t")
