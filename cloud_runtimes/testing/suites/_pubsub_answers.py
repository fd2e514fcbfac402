"""Conformance of a `PubSubDriver`: groups, what an answer does, batches."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from ...errors import NotFoundError
from ...pubsub import Event, EventBatch
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
    """Redelivery, dead letters, groups, give-back, batches."""

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
