"""Conformance of what drivers show of their services, through ``client.admin``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ...errors import InvalidArgumentError, NotFoundError, UnsupportedError
from ...pubsub import DropEvent, Event, OutgoingEvent
from ..apis import Api
from ..harness import Harness, requires
from ._admin_steering import SteeringCases
from ._base import Call
from ._pubsub_answers import APART, collect, data

_CLOCKS = timedelta(seconds=5)


class AdminSuite(SteeringCases):
    """Topics, groups, peeking and dead letters of a pub/sub name. Peeking must leave no trace, and redriving must neither lose nor double an event."""

    def test_undeclared_features_are_refused(self, call: Call) -> None:
        for method, *arguments in (
            ("topics",),
            ("seek", "t", "g", "latest"),
            *((method, "t", "g") for method in ("pause", "resume", "delete_group")),
            ("delete_topic", "t"),
            *((method, "t") for method in ("groups", "peek", "dead_letters", "redrive", "discard", "purge")),
        ):
            if call.lacks(f"admin.{method}"):
                call.fails(UnsupportedError, match=f"admin.{method} is not supported")(method, *arguments)

    def test_wrong_arguments_are_refused(self, call: Call) -> None:
        wrong: list[tuple[str, Sequence[Any], dict[str, Any]]] = [
            ("topics", (), {"limit": 0}),
            ("topics", (), {"limit": True}),
            ("topics", (), {"prefix": "\n"}),
            ("groups", ("",), {}),
            ("peek", ("t",), {"limit": 1.0}),
            ("peek", ("t",), {"start": "now"}),
            ("peek", ("t",), {"start": datetime(2025, 1, 15)}),
            ("peek", ("t",), {"start": "latest", "group": "g"}),
            ("peek", ("t",), {"group": ""}),
            ("dead_letters", ("t",), {"timeout": 0}),
            ("redrive", ("t",), {"to": "all"}),
            ("redrive", ("t",), {"limit": 0}),
            ("redrive", ("t",), {"ids": "one"}),
            ("discard", ("t",), {"group": 1}),
            ("purge", ("t",), {"before": datetime(2025, 1, 15)}),
            ("purge", ("t",), {"before": "now"}),
            ("seek", ("t", "g", "now"), {}),
            ("seek", ("t", "g", None), {}),
            ("seek", ("t", "", "latest"), {}),
            ("pause", ("t", ""), {}),
            ("delete_group", ("", "g"), {}),
            ("delete_topic", ("t\n",), {}),
        ]
        for method, arguments, options in wrong:
            if not call.lacks(f"admin.{method}"):
                call.fails(InvalidArgumentError)(method, *arguments, **options)

    # -- topics and groups ----------------------------------------------------

    @requires("admin.topics")
    def test_topics(self, call: Call, api: Api, bus: Call) -> None:
        assert call("topics") == []
        before = datetime.now(UTC)
        for topic, count in (("orders.eu", 3), ("bills", 1), ("orders.us", 2), ("more_bills", 1)):
            bus("publish_bulk", topic, list(range(count)))
        after = datetime.now(UTC)

        def names(**options: Any) -> list[str]:
            return [each.name for each in call("topics", **options)]

        assert api.until(lambda: names() == ["bills", "more_bills", "orders.eu", "orders.us"])
        assert names(prefix="orders.") == ["orders.eu", "orders.us"]
        assert names(prefix="x") == []
        assert names(limit=2) == ["bills", "more_bills"]
        for info, count in zip(call("topics"), (1, 1, 3, 2), strict=True):
            assert info.events in (count, None)
            assert info.bytes is None or info.bytes > 0
            assert info.groups in (0, None)
            for time in (info.first, info.last):
                assert time is None or before - _CLOCKS < time < after + _CLOCKS

    @requires("admin.groups", "pubsub.group")
    def test_groups(self, call: Call, api: Api, bus: Call, harness: Harness) -> None:
        assert call("groups", "t") == []
        before = datetime.now(UTC)
        bus("publish_bulk", "t", list(range(5)))
        assert call("groups", "t") == []
        with bus.opened("subscribe", "t", group="b") as sub, bus.opened("subscribe", "t", group="a:1"):
            events = collect(api, sub, 2, ack=False)
            if harness.counts_late:
                api.until(lambda: [each.lag for each in call("groups", "t")] == [5, 5])
            first, second = call("groups", "t")
            assert [(each.topic, each.name) for each in (first, second)] == [("t", "a:1"), ("t", "b")]
            for group in (first, second):
                assert group.lag == 5
                assert call.lacks("pubsub.lag") or bus("lag", "t", group=group.name) == 5
                after = datetime.now(UTC)
                assert group.oldest is None or before - _CLOCKS < group.oldest < after + _CLOCKS
                assert group.order in (bus.driver().default_order or "", None)
                assert not group.paused
            assert second.in_flight is None or 2 <= second.in_flight <= 5
            if second.members is not None:
                assert sum(each.in_flight or 0 for each in second.members) in (second.in_flight, 0)
            events[0].ack()
            assert api.until(lambda: call("groups", "t")[1].lag == 4)
            assert call("groups", "u") == []
        if not call.lacks("admin.topics"):
            (topic,) = call("topics")
            assert topic.groups in (2, None)

    @requires("admin.groups", "pubsub.group", "pubsub.key_order")
    def test_a_group_with_an_order(self, call: Call, api: Api, bus: Call) -> None:
        for number in range(4):
            bus("publish", "t", number, key=f"k{number % 2}")
        with bus.opened("subscribe", "t", group="g", order="key") as sub:
            (event,) = collect(api, sub, 1, ack=False)
            (group,) = call("groups", "t")
            assert (group.name, group.order, group.lag) == ("g", "key", 4)
            assert group.members is None or len(group.members) == 1
            left = sorted({0, 1, 2, 3} - {event.data})
            event.ack()
            assert api.until(lambda: call("groups", "t")[0].lag == 3)
            assert call.lacks("admin.peek") or sorted(each.data for each in call("peek", "t", group="g")) == left

    # -- peeking --------------------------------------------------------------

    @requires("admin.peek")
    def test_peek(self, call: Call, api: Api, bus: Call) -> None:
        assert call("peek", "t") == []
        bus("publish_bulk", "t", [0, 1, 2])
        api.pause(APART)
        between = datetime.now(UTC)
        api.pause(APART)
        for number in range(3, 6):
            bus("publish", "t", number, key="k", attributes={"tenant": "blue"})
        bus("publish", "u", "another")

        def peek(**options: Any) -> list[Any]:
            return [event.data for event in call("peek", "t", **options)]

        assert api.until(lambda: len(peek()) == 6)
        assert peek() == [0, 1, 2, 3, 4, 5]
        assert peek(limit=2) == [0, 1]
        assert peek(start="latest", limit=2) == [4, 5]
        assert peek(start="latest", limit=4) == [2, 3, 4, 5]
        assert peek(start="latest") == [0, 1, 2, 3, 4, 5]
        if not call.lacks("pubsub.start_time"):
            assert peek(start=between, limit=2) == [3, 4]
            assert peek(start=datetime(1960, 1, 1, tzinfo=UTC), limit=1) == [0]
            api.pause(APART)
            assert peek(start=datetime.now(UTC)) == []
        (event,) = call("peek", "t", start="latest", limit=1)
        assert (event.topic, event.key, dict(event.extensions)) == ("t", "k", {"tenant": "blue"})
        event.ack()  # nobody waits for it
        with pytest.raises(UnsupportedError):
            event.extend()

    @requires("admin.peek", "pubsub.raw")
    def test_what_is_no_event_is_shown(self, call: Call, api: Api, bus: Call) -> None:
        bus("publish", "t", b"\x00 no JSON", raw=True)
        assert api.until(lambda: len(call("peek", "t")) == 1)
        (event,) = call("peek", "t")
        assert event.data == b"\x00 no JSON"

    @requires("admin.peek", "pubsub.group")
    def test_peek_leaves_no_trace(self, call: Call, api: Api, bus: Call, harness: Harness) -> None:
        bus("publish_bulk", "t", [0, 1, 2])

        def seen() -> Any:
            shown = [method for method in ("topics", "groups") if not call.lacks(f"admin.{method}")]
            return [call(method, *(("t",) if method == "groups" else ())) for method in shown]

        assert api.until(lambda: len(call("peek", "t")) == 3)
        if harness.counts_late and not call.lacks("admin.topics"):
            assert api.until(lambda: [each.events for each in call("topics")] == [3])
        before = seen()
        for start in ("earliest", "latest"):
            call("peek", "t", start=start)
        call("dead_letters", "t")
        assert seen() == before
        with bus.opened("subscribe", "t", group="g") as sub:
            events = collect(api, sub, 3)
            call("peek", "t")
            assert [event.data for event in events] == [0, 1, 2]
            assert {event.delivery_count for event in events} <= {1, None}

    @requires("admin.peek", "pubsub.group", "pubsub.lag")
    def test_peek_shows_what_a_group_has_not_settled(self, call: Call, api: Api, bus: Call, harness: Harness) -> None:
        call.fails(NotFoundError, match="t has no group 'g'")("peek", "t", group="g")
        bus("publish_bulk", "t", list(range(6)))

        def left(**options: Any) -> list[Any]:
            return sorted(event.data for event in call("peek", "t", group="g", **options))

        with bus.opened("subscribe", "t", group="g") as sub:
            events = collect(api, sub, 4, ack=False)
            assert left() == list(range(6))
            assert len(left(limit=3)) == 3
            events[1].ack()
            events[2].ack()
            if not call.lacks("pubsub.retry_delay"):
                events[0].retry(delay=60)

            def shows(*unsettled: int) -> bool:
                shown = left()
                return shown == [*unsettled] if harness.shows_held else {0} <= {*shown} <= {*unsettled}

            assert api.until(lambda: shows(0, 3, 4, 5))
            assert bus("lag", "t", group="g") == 4
            call.fails(NotFoundError)("peek", "t", group="h")
        assert shows(0, 3, 4, 5)
        bus("publish", "t", 6)
        assert api.until(lambda: shows(0, 3, 4, 5, 6))
        assert left()[-1] == 6

    # -- dead letters ---------------------------------------------------------

    @requires("admin.dead_letters", "pubsub.dead_letter", "pubsub.group")
    def test_dead_letters(self, call: Call, api: Api, bus: Call) -> None:
        assert call("dead_letters", "dead") == []
        before = datetime.now(UTC)
        bus("publish_bulk", "t", list(range(9)))

        def drop(event: Event) -> None:
            if event.data % 3:
                raise DropEvent(f"number {event.data}")

        def fail(event: Event) -> None:
            if (fault := faults.get(event.data)) is not None:
                raise fault(f"number {event.data}")

        faults = {4: ZeroDivisionError, 5: KeyError, 6: ValueError, 7: ValueError}

        options = {"dead_letter_topic": "dead"}
        with (
            bus.opened("subscribe", "t", api.handler(drop), group="one", **options),
            bus.opened("subscribe", "t", api.handler(fail), group="two", max_deliveries=1, **options),
        ):
            assert api.until(lambda: sum(each.count for each in call("dead_letters", "dead")) == 10)
        letters = call("dead_letters", "dead")
        assert [each.count for each in letters] == [6, 2, 1, 1]
        assert {(each.group, each.reason, each.error): each.count for each in letters} == {
            ("one", "dropped", "DropEvent"): 6,
            ("two", "deliveries", "ValueError"): 2,
            ("two", "deliveries", "ZeroDivisionError"): 1,
            ("two", "deliveries", "KeyError"): 1,
        }
        assert {each.topic for each in letters} == {"t"}
        zero = next(each for each in letters if each.error == "ZeroDivisionError")
        assert (zero.sample.data, zero.sample.extensions["dlerror"]) == (4, "ZeroDivisionError: number 4")
        for each in letters:
            assert before - _CLOCKS < each.first <= each.last < datetime.now(UTC) + _CLOCKS

    @requires("admin.dead_letters")
    def test_all_dead_letters_are_counted(self, call: Call, api: Api, bus: Call) -> None:
        reasons = {number: ("dropped", "deliveries")[number % 3 == 0] for number in range(2500)}
        says = {"dlgroup": "g", "dltopic": "t"}
        events = [
            OutgoingEvent(number, attributes={**says, "dlreason": reason, "dlerror": f"ValueError: {number}"})
            for number, reason in reasons.items()
        ]
        bus("publish_bulk", "dead", events, timeout=60)  # each once, however slow the broker is
        assert api.until(lambda: sum(each.count for each in call("dead_letters", "dead")) == 2500)
        counts = {each.reason: each.count for each in call("dead_letters", "dead")}
        assert counts == Counter(reasons.values())
        assert {each.error for each in call("dead_letters", "dead")} == {"ValueError"}
        bus("publish", "dead", "by itself")
        assert api.until(lambda: len(call("dead_letters", "dead")) == 3)
        last = call("dead_letters", "dead")[-1]
        assert (last.group, last.topic, last.reason, last.error, last.count) == (None, "dead", None, None, 1)

    @requires("admin.topics", "admin.dead_letters", "pubsub.dead_letter")
    def test_a_dead_letter_topic_is_a_topic(self, call: Call, api: Api, bus: Call) -> None:
        bus("publish", "t", 1)
        with bus.opened("subscribe", "t", dead_letter_topic="dead") as sub:
            collect(api, sub, 1, ack=False)[0].drop()
            assert api.until(lambda: len(call("dead_letters", "dead")) == 1)
        assert [each.name for each in call("topics")] == ["dead", "t"]
        with bus.opened("subscribe", "dead") as sub:
            assert data(api, sub, 1) == [1]
