"""Conformance of a `PubSubDriver`: groups, what an answer does, handlers."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from ...errors import InvalidArgumentError, NotFoundError
from ...pubsub import DropEvent, Event, EventBatch
from ..apis import Api
from ..harness import Harness, requires
from ._base import Call, Suite, as_sent
from ._stopwatch import Stopwatch

SOON = 30.0
"""Seconds in which what must come has come."""
NEVER = 0.3
"""Seconds in which what must not come would have come."""
APART = 0.25
"""Seconds between an event and a time, more than clocks are apart."""


@dataclass
class Reading:
    """A typed payload."""

    sensor: str
    value: float


def collect(api: Api, sub: Any, count: int, *, ack: bool = True) -> list[Any]:
    """Receive ``count`` events."""
    events: list[Any] = []
    while len(events) < count:
        event = api.call(sub, "receive", SOON)
        assert event is not None, f"only {len(events)} of {count} came"
        events.append(event)
        if ack:
            event.ack()
    return events


def data(api: Api, sub: Any, count: int) -> list[Any]:
    """Receive the data of ``count`` events."""
    return [event.data for event in collect(api, sub, count)]


def nothing(api: Api, sub: Any) -> None:
    """Assert that nothing (more) comes."""
    event = api.call(sub, "receive", NEVER)
    assert event is None, f"unexpected {event!r} with {event.data!r}"


class AnswerTests(Suite):
    """Redelivery, dead letters, groups, give-back, batches, handlers."""

    service = "pubsub"

    # -- groups ---------------------------------------------------------------

    def test_members_share(self, call: Call, api: Api, harness: Harness) -> None:
        members = [each("subscribe", "t", max_in_flight=10) for each in (call, call.on(harness.client()))]
        sent = list(range(200 + 3 * harness.prefetch))
        call("publish_bulk", "t", sent)
        got: list[list[int]] = [[], []]
        end = time.monotonic() + SOON
        while sum(map(len, got)) < len(sent) and time.monotonic() < end:
            for mine, member in zip(got, members, strict=True):
                event = api.call(member, "receive", 0.02)
                if event is not None:
                    mine.append(event.data)
                    event.ack()
        assert sorted(got[0] + got[1]) == sent
        assert all(got)
        for member in members:
            api.call(member, "close")

    @requires("pubsub.group")
    def test_each_group_gets_all(self, call: Call, api: Api) -> None:
        groups = [call("subscribe", "t", group=group) for group in ("one", "two")]
        call("publish_bulk", "t", list(range(20)))
        for sub in groups:
            assert data(api, sub, 20) == list(range(20))
            api.call(sub, "close")

    @requires("pubsub.start", "pubsub.group")
    def test_start(self, call: Call, api: Api) -> None:
        call("publish", "t", "old")
        latest = call("subscribe", "t", group="late", start="latest")
        earliest = call("subscribe", "t", group="early", start="earliest")
        default = call("subscribe", "t", group="default")
        call("publish", "t", "new")
        assert data(api, latest, 1) == ["new"]
        assert data(api, earliest, 2) == data(api, default, 2) == ["old", "new"]
        for sub in (latest, earliest, default):
            api.call(sub, "close")
        # a group that exists goes on where it was, whatever start says
        with call.opened("subscribe", "t", group="late", start="earliest") as sub:
            nothing(api, sub)

    @requires("pubsub.start", "pubsub.group")
    def test_start_beside_another_topic(self, call: Call, api: Api) -> None:
        with call.opened("subscribe", "t", group="g") as busy:
            call("publish", "t", 0)
            assert data(api, busy, 1) == [0]
            call("publish", "tt", "old")
            with call.opened("subscribe", "tt", group="g", start="latest") as sub:
                call("publish", "tt", "new")
                assert data(api, sub, 1) == ["new"]
            with call.opened("subscribe", "tt", group="g", start="earliest") as sub:
                nothing(api, sub)

    @requires("pubsub.start_time", "pubsub.group")
    def test_start_at_a_time(self, call: Call, api: Api) -> None:
        call("publish", "t", 1)
        api.pause(APART)
        between = datetime.now(UTC)
        api.pause(APART)
        call("publish", "t", 2)
        call("publish", "t", 3)
        api.pause(APART)
        now = datetime.now(timezone(timedelta(hours=-7)))
        long_ago = datetime(1960, 1, 1, tzinfo=UTC)
        starts = {"two": between, "four": now, "one": long_ago}
        subs = [call("subscribe", "t", group=group, start=start) for group, start in starts.items()]
        call("publish", "t", 4)
        for sub, first in zip(subs, (2, 4, 1), strict=True):
            assert sorted(data(api, sub, 5 - first)) == list(range(first, 5))
            nothing(api, sub)
            api.call(sub, "close")
        # a group that exists goes on where it was
        with call.opened("subscribe", "t", group="four", start=long_ago) as sub:
            nothing(api, sub)

    @requires("pubsub.lag", "pubsub.group")
    def test_lag(self, call: Call, api: Api) -> None:
        for group in ({}, {"group": "g"}):
            call.fails(NotFoundError, match=f"t has no group '{group.get('group', 'suite')}'")("lag", "t", **group)
        for number in range(3):
            call("publish", "t", number)
        call.fails(NotFoundError)("lag", "t", group="g")

        def comes_to(lag: int, **group: str) -> bool:
            return api.until(lambda: call("lag", "t", **group) == lag)

        with call.opened("subscribe", "t", group="g") as sub:
            assert call("lag", "t", group="g") == 3
            events = collect(api, sub, 3, ack=False)
            assert call("lag", "t", group="g") == 3  # what is held counts
            events[1].ack()
            assert comes_to(2, group="g")
            if not call.lacks("pubsub.retry_delay"):
                events[0].retry(delay=30)
                api.pause(APART)
                assert comes_to(2, group="g")  # what comes again counts
            call.fails(NotFoundError)("lag", "u", group="g")
            call.fails(NotFoundError)("lag", "t")
        assert comes_to(2, group="g")
        call("publish", "t", 3)
        assert comes_to(3, group="g")
        with call.opened("subscribe", "t") as sub:
            collect(api, sub, 4)
            assert comes_to(0)
        if not call.lacks("pubsub.start_time"):
            api.pause(APART)
            with call.opened("subscribe", "t", group="late", start=datetime.now(UTC)):
                assert call("lag", "t", group="late") == 0
                call("publish", "t", 4)
                assert comes_to(1, group="late")
                assert comes_to(1)

    # -- answers --------------------------------------------------------------

    def test_what_is_settled_does_not_come_again(self, call: Call, api: Api) -> None:
        call("publish_bulk", "t", ["good", "bad", *range(8)])
        with call.opened("subscribe", "t") as sub:
            collect(api, sub, 1)
            collect(api, sub, 1, ack=False)[0].drop()
            collect(api, sub, 8)
            nothing(api, sub)
        with call.opened("subscribe", "t") as sub:
            nothing(api, sub)

    @requires("pubsub.retry_delay")
    def test_retry(self, call: Call, api: Api, harness: Harness) -> None:
        call("publish_bulk", "t", ["a", "b"])
        with call.opened("subscribe", "t") as sub:
            first, second = collect(api, sub, 2, ack=False)
            first.retry(delay=0)
            second.ack()
            (again,) = collect(api, sub, 1, ack=False)
            assert (again.id, again.data, again.delivery_count) == (first.id, "a", 2)
            first.ack()  # the first answer counted, and this delivery is over
            again.retry(delay=30)
            again.ack()  # no: the first answer counts
            nothing(api, sub)
            harness.advance(31)
            (third,) = collect(api, sub, 1)
            assert third.delivery_count == 3
            nothing(api, sub)

    @requires("pubsub.retry_delay")
    def test_retry_backs_off(self, call: Call, api: Api, harness: Harness) -> None:
        call("publish", "t", 1)
        with call.opened("subscribe", "t") as sub:
            (event,) = collect(api, sub, 1, ack=False)
            for least, latest in ((0.9, 1.2), (1.9, 2.3), (3.9, 4.4)):
                begun = time.monotonic()
                event.retry()
                api.pause(0.1)
                set_at = time.monotonic()
                harness.advance(least - 0.6)
                waited = time.monotonic() - set_at >= least - 0.6
                event = api.call(sub, "receive", NEVER)
                if event is not None:  # a busy machine takes longer than that
                    assert time.monotonic() - begun + (0 if waited else least - 0.6) > least, "it came too early"
                    continue
                harness.advance(latest - least + 0.4)
                (event,) = collect(api, sub, 1, ack=False)
            assert event.delivery_count == 4
            event.ack()

    @requires("pubsub.dead_letter")
    def test_dead_letter(self, call: Call, api: Api, harness: Harness) -> None:
        id = call("publish", "t", {"n": 1}, key="k", attributes={"tenant": "blue"})
        with call.opened("subscribe", "dead") as dead:
            with call.opened("subscribe", "t", dead_letter_topic="dead") as sub:
                collect(api, sub, 1, ack=False)[0].drop()
                (letter,) = collect(api, dead, 1)
        assert (letter.id, letter.data, letter.key, letter.topic) == (id, {"n": 1}, "k", "t")
        extensions = dict(letter.extensions)
        if harness.tells_dead:
            details = {name: extensions.pop(name) for name in ("dlreason", "dltopic", "dlgroup")}
            assert details == {"dlreason": "dropped", "dltopic": "t", "dlgroup": "suite"}
            assert datetime.fromisoformat(extensions.pop("dllast")).tzinfo is UTC
            assert (extensions.pop("dlfirst", None) is None) == (extensions.pop("dlcount", None) is None)
        assert {name: value for name, value in extensions.items() if not name.startswith("dl")} == {"tenant": "blue"}
        assert not harness.tells_dead or len(extensions) == 1

    @requires("pubsub.dead_letter", "pubsub.max_deliveries", "pubsub.retry_delay")
    def test_last_delivery(self, call: Call, api: Api) -> None:
        with call.opened("subscribe", "dead") as dead:
            with call.opened("subscribe", "t", dead_letter_topic="dead", max_deliveries=3) as sub:
                id = call("publish", "t", "poison")
                for count in (1, 2, 3):
                    (event,) = collect(api, sub, 1, ack=False)
                    assert event.delivery_count == count
                    event.retry(delay=0)
                (letter,) = collect(api, dead, 1)
                assert letter.id == id
                assert (letter.extensions["dlreason"], letter.extensions["dlcount"]) == ("deliveries", 3)
                assert "dlerror" not in letter.extensions
                assert letter.extensions["dlfirst"] <= letter.extensions["dllast"]
                nothing(api, sub)
        with call.opened("subscribe", "u", max_deliveries=2) as sub:
            call("publish", "u", "gone")
            for _ in range(2):
                collect(api, sub, 1, ack=False)[0].retry(delay=0)
            nothing(api, sub)

    @requires("pubsub.dead_letter")
    def test_data_that_does_not_fit(self, call: Call, api: Api, harness: Harness) -> None:
        with call.opened("subscribe", "dead") as dead:
            with call.opened("subscribe", "t", type=Reading, dead_letter_topic="dead") as sub:
                for each in ({"sensor": 5}, Reading("ok", 1.0)):
                    call("publish", "t", each)
                assert data(api, sub, 1) == [Reading("ok", 1.0)]
                (letter,) = collect(api, dead, 1)
        assert letter.data == {"sensor": 5}
        if harness.tells_dead:
            assert letter.extensions["dlreason"] == "undecodable"
            assert letter.extensions["dlerror"].startswith("PayloadError: ")

    @requires("pubsub.ack_wait")
    def test_unsettled_comes_again(self, call: Call, api: Api) -> None:
        for ack_wait in (0.5, 2.0, 8.0):
            topic = f"t-{ack_wait}"
            with call.opened("subscribe", topic, ack_wait=ack_wait) as sub, Stopwatch() as watch:
                started = time.monotonic()
                call("publish", topic, 1)
                (event,) = collect(api, sub, 1, ack=False)
                (again,) = collect(api, sub, 1)
                assert watch.seconds < 6 * ack_wait
                assert time.monotonic() - started > 0.9 * ack_wait
                assert again.id == event.id
                event.ack()
                # a busy machine may be so slow that it comes once more
                if again.delivery_count == 2 and api.call(sub, "receive", NEVER) is None:
                    return
        raise AssertionError("it comes again and again")

    def test_close_gives_back(self, call: Call, api: Api, harness: Harness) -> None:
        call("publish_bulk", "t", list(range(10)))
        with call.opened("subscribe", "t") as sub:
            done = set(data(api, sub, 3))
            (held,) = collect(api, sub, 1, ack=False)
        with Stopwatch() as watch, call.on(harness.client()).opened("subscribe", "t") as sub:
            events = as_sent(harness, collect(api, sub, 7))
            assert [event.data for event in events] == [number for number in range(10) if number not in done]
            counts = {event.data: event.delivery_count for event in events}
            # only what was handed out counts as delivered
            assert counts.pop(held.data) in (2, None)
            assert all(count in (1, None) for count in counts.values())
            assert watch.seconds < 5
        assert done == {0, 1, 2} or not harness.bulk_order

    def test_max_in_flight(self, call: Call, api: Api, harness: Harness) -> None:
        call("publish_bulk", "t", list(range(20)))
        limit = min(4, harness.at_once)
        with call.opened("subscribe", "t", max_in_flight=4) as sub:
            events = collect(api, sub, limit, ack=False)
            nothing(api, sub)
            for event in events:
                event.ack()
            events += collect(api, sub, 20 - limit)
        assert [event.data for event in as_sent(harness, events)] == list(range(20))

    def test_batch(self, call: Call, api: Api, harness: Harness) -> None:
        call("publish_bulk", "t", list(range(25)))
        with call.opened("subscribe", "t", batch=10) as sub:
            got: list[int] = []
            while len(got) < 25:
                batch = api.call(sub, "receive", SOON)
                assert isinstance(batch, EventBatch)
                assert 1 <= len(batch) <= 10
                assert all(isinstance(event, Event) for event in batch)
                got += [event.data for event in batch]
                batch.ack()
            assert as_sent(harness, got, int) == list(range(25))
        with call.opened("subscribe", "t") as sub:
            nothing(api, sub)

    @requires("pubsub.retry_delay")
    def test_batch_settles_the_rest(self, call: Call, api: Api) -> None:
        call("publish_bulk", "t", ["a", "b", "c"])
        with call.opened("subscribe", "t", batch=3) as sub:
            seen: list[str] = []
            while len(seen) < 4:  # a broker may send them in parts
                batch = api.call(sub, "receive", SOON)
                assert batch is not None, f"only {seen} came"
                got = [event.data for event in batch]
                if "b" in got and "b" not in seen:
                    batch[got.index("b")].retry(delay=0)
                seen += got
                if len(seen) < 4:
                    batch.ack()
                else:
                    batch.drop()
            assert sorted(seen) == ["a", "b", "b", "c"]
            assert api.call(sub, "receive", NEVER) is None

    # -- handlers -------------------------------------------------------------

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
