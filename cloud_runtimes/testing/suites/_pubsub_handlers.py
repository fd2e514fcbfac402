"""Conformance of a `PubSubDriver`: what handlers say and raise, how long they have, and answers that come late."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from ...errors import InvalidArgumentError
from ...pubsub import DropEvent, Event, EventBatch
from ..apis import Api
from ..harness import Harness, requires
from ._base import Call, Suite, as_sent
from ._pubsub_answers import NEVER, SOON, collect, nothing
from ._stopwatch import Stopwatch


class HandlerTests(Suite):
    """See the module."""

    service = "pubsub"

    def test_handler(self, call: Call, api: Api, harness: Harness) -> None:
        got: list[Any] = []
        sub = call("subscribe", "t", api.handler(lambda event: got.append(event.data)))
        call("publish_bulk", "t", list(range(50)))
        assert api.until(lambda: len(got) == 50)
        assert as_sent(harness, got, int) == list(range(50))
        api.fails(InvalidArgumentError, match="handler")(sub, "receive", 0.1)
        api.call(sub, "close")
        api.call(sub, "wait")
        with call.opened("subscribe", "t") as again:
            nothing(api, again)

    @requires("pubsub.retry_delay")
    def test_handler_outcomes(self, call: Call, api: Api, harness: Harness) -> None:
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

        with call.opened("subscribe", "t", api.handler(body)):
            call("publish_bulk", "t", ["ok", "drop", "fail", "answered"])
            assert api.until(lambda: len(calls) == 4)
            api.pause(0.2)
            harness.advance(1.5)
            assert api.until(lambda: len(calls) == 5)
            assert sorted(calls) == [("answered", 1), ("drop", 1), ("fail", 1), ("fail", 2), ("ok", 1)]
        with call.opened("subscribe", "t", api.handler(body)):  # the component has all acknowledgements now
            harness.advance(100)
            api.pause(NEVER)
            assert len(calls) == 5

    def test_handler_batch(self, call: Call, api: Api) -> None:
        sizes: list[int] = []
        call("publish_bulk", "t", list(range(100)))
        with call.opened("subscribe", "t", api.handler(lambda batch: sizes.append(len(batch))), batch=40):
            assert api.until(lambda: sum(sizes) == 100)
        assert max(sizes) <= 40

    def test_workers_run_at_once(self, call: Call, api: Api, harness: Harness) -> None:
        running, highest = set(), 0
        lock = threading.Lock()

        def enter(event: Event[Any]) -> None:
            nonlocal highest
            with lock:
                running.add(event.data)
                highest = max(highest, len(running))

        def handle(event: Event[Any]) -> None:
            enter(event)
            time.sleep(0.15)
            running.discard(event.data)

        async def handle_async(event: Event[Any]) -> None:
            enter(event)
            await asyncio.sleep(0.15)
            running.discard(event.data)

        with call.opened("subscribe", "t", handle if api.name == "sync" else handle_async, workers=4):
            call("publish_bulk", "t", list(range(8)))
            assert api.until(lambda: highest == min(4, harness.at_once))
            assert api.until(lambda: not running)

    @requires("pubsub.dead_letter")
    def test_a_dead_letter_tells_why_it_was_dropped(self, call: Call, api: Api, harness: Harness) -> None:
        def drop(event: Event[Any]) -> None:
            raise DropEvent("no such\norder" + "!" * 2000 if event.data else "")

        with call.opened("subscribe", "dead") as dead:
            with call.opened("subscribe", "t", api.handler(drop), dead_letter_topic="dead"):
                for sent, error in ((1, "DropEvent: no such order"), (0, "DropEvent")):
                    call("publish", "t", sent)
                    (letter,) = collect(api, dead, 1)
                    assert letter.data == sent
                    if harness.tells_dead:
                        assert letter.extensions["dlreason"] == "dropped"
                        assert letter.extensions["dlerror"].rstrip("!") == error
                        assert len(letter.extensions["dlerror"]) == (1024 if sent else len(error))

    @requires("pubsub.ack_wait")
    def test_a_handler_keeps_its_event(self, call: Call, api: Api) -> None:
        seen: list[Any] = []
        ended: list[Any] = []
        ack_wait = 0.0

        def slow(event: Event[Any]) -> None:
            seen.append(event.data)
            time.sleep(3 * ack_wait)
            ended.append(event.data)

        async def slow_async(event: Event[Any]) -> None:
            seen.append(event.data)
            await asyncio.sleep(3 * ack_wait)
            ended.append(event.data)

        def slow_batch(batch: EventBatch[Any]) -> None:
            seen.extend(event.data for event in batch)
            time.sleep(3 * ack_wait)
            ended.extend(event.data for event in batch)

        for ack_wait in (0.6, 3.0):  # a busy machine may miss the first
            seen.clear()
            ended.clear()
            for number, (handler, options) in enumerate([(slow, {}), (slow_async, {}), (slow_batch, {"batch": 10})]):
                topic = f"slow-{number}-{ack_wait}"
                with call.plain("subscribe", topic, handler, ack_wait=ack_wait, **options):
                    call("publish", topic, number)
                    assert api.until(lambda: len(ended) > number)  # noqa: B023
                    api.pause(1.2 * ack_wait)
                with call.opened("subscribe", topic) as sub:
                    nothing(api, sub)
            if seen == ended == [0, 1, 2]:
                return
        raise AssertionError(f"handled: {seen}")

    @requires("pubsub.ack_wait")
    def test_a_handler_that_takes_too_long(self, call: Call, api: Api) -> None:
        seen: list[Any] = []
        hold = threading.Event()

        def slow(event: Event[Any]) -> None:
            seen.append(event.delivery_count)
            if event.delivery_count == 1:
                hold.wait(SOON)

        async def slow_async(event: Event[Any]) -> None:
            seen.append(event.delivery_count)
            if event.delivery_count == 1:
                await asyncio.sleep(SOON)

        for number, handler in enumerate((slow, slow_async)):
            with call.plain("subscribe", f"late-{number}", handler, handler_timeout=0.3, workers=2) as sub:
                call("publish", f"late-{number}", 1)
                assert api.until(lambda: len(seen) == 2)
                hold.set()
                assert seen == [1, 2]
                seen.clear()
                api.call(sub, "close")

    def test_a_late_answer_settles_unless_somebody_has_the_event(self, call: Call, api: Api) -> None:
        self.answers_late(call, api)

    @requires("pubsub.key_order")
    def test_a_late_answer_settles_where_keys_are_in_order(self, call: Call, api: Api) -> None:
        self.answers_late(call, api, order="key")

    def answers_late(self, call: Call, api: Api, **options: Any) -> None:
        """Have a handler and a taker answer once the event was given up."""
        seen: list[int] = []

        def handle(event: Event[int]) -> None:
            seen.append(event.data)
            if seen == [1]:
                time.sleep(1.0)

        with call.plain("subscribe", "slow", handle, handler_timeout=0.3, **options):
            call("publish", "slow", 1, key="k")
            assert api.until(lambda: seen == [1])
            call("publish", "slow", 2, key="k")
            assert api.until(lambda: 2 in seen)
            api.pause(0.5)
        assert seen == [1, 2]
        if call.lacks("pubsub.ack_wait"):
            return
        with call.opened("subscribe", "late", ack_wait=0.5, **options) as sub:
            call("publish", "late", 1, key="k")
            (event,) = collect(api, sub, 1, ack=False)
            api.pause(1.0)
            event.ack()
            nothing(api, sub)
        assert call.lacks("pubsub.lag") or call("lag", "late") == 0

    @requires("pubsub.ack_wait")
    def test_extend(self, call: Call, api: Api) -> None:
        for ack_wait in (1.0, 4.0):  # a busy machine may miss the first
            topic = f"t-{ack_wait}"
            with call.opened("subscribe", topic, ack_wait=ack_wait) as sub:
                call("publish", topic, 1)
                (event,) = collect(api, sub, 1, ack=False)
                with Stopwatch() as watch:
                    api.call(event, "extend", 3 * ack_wait)
                    (again,) = collect(api, sub, 1)
                assert again.id == event.id
                if watch.seconds > 2.7 * ack_wait:
                    break
        else:
            raise AssertionError("it came before its time")
        for seconds in (0, -1.0, True, float("inf"), "1"):
            try:
                api.call(event, "extend", seconds)
            except InvalidArgumentError:
                continue
            raise AssertionError(f"{seconds!r} is no number of seconds")

    @requires("pubsub.dead_letter", "pubsub.max_deliveries", "pubsub.ack_wait")
    def test_a_dead_letter_tells_the_last_error(self, call: Call, api: Api, harness: Harness) -> None:
        failed: list[Any] = []

        def come_again(count: int) -> None:
            assert api.until(lambda: len(failed) == count)
            api.pause(0.1)  # the handler's answers reach the component
            harness.advance(1)

        def fail(event: Event[Any]) -> None:
            failed.append(event.data)
            raise ValueError(f"attempt {event.delivery_count} of {event.data}")

        options: dict[str, Any] = {"dead_letter_topic": "dead", "max_deliveries": 2}
        dead = call("subscribe", "dead")
        call("publish_bulk", "t", ["a", "b"])
        with call.opened("subscribe", "t", api.handler(fail), **options):
            come_again(2)
            for letter in collect(api, dead, 2):
                assert letter.extensions["dlreason"] == "deliveries"
                assert letter.extensions["dlerror"] == f"ValueError: attempt 2 of {letter.data}"
                assert letter.extensions["dlcount"] == 2
                assert letter.extensions["dlfirst"] <= letter.extensions["dllast"]
        # after an error the handler takes too long
        hold = threading.Event()

        def fail_then_hang(event: Event[Any]) -> None:
            if event.delivery_count == 1:
                failed.append(event.data)
                raise OSError("disk")
            hold.wait(SOON)

        count = len(failed) + 1
        with call.plain("subscribe", "u", fail_then_hang, handler_timeout=0.3, **options):
            call("publish", "u", "c")
            come_again(count)
            (letter,) = collect(api, dead, 1)
            hold.set()
        assert letter.extensions["dlreason"] == "deliveries"
        assert letter.extensions["dlerror"] == "TimeoutError: the handler took longer than 0.3 s"
        api.call(dead, "close")
