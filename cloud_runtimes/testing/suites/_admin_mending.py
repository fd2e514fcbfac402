"""Conformance of what drivers mend of their services, through ``client.admin``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ...admin import Redriven
from ...client import CloudRuntimesClient
from ...errors import ConflictError, NotFoundError
from ...pubsub import DropEvent, Event
from ..apis import Api
from ..harness import Harness, requires
from ._base import Call, Suite
from ._pubsub_answers import APART, collect, data


class MendingCases(Suite):
    """Redriving, discarding, purging and moving groups. None of it may lose or double an event."""

    service = "admin"

    @pytest.fixture
    def store(self, harness: Harness) -> str:
        """A pub/sub name of the test's own."""
        return harness.store("pubsub")

    @pytest.fixture
    def bus(self, client: CloudRuntimesClient, api: Api, store: str) -> Call:
        """Calls of the pub/sub service on it."""
        return Call(api, client, "pubsub", store)

    @pytest.fixture
    def failed(self, api: Api, bus: Call) -> Call:
        """The bus, on which the group ``one`` has dropped 1, 2, 4 and 5 of 0 to 5, and ``two`` has given up 3. ``other`` has handled all."""
        options = {"dead_letter_topic": "dead"}
        bus("publish_bulk", "t", list(range(6)))

        handled: list[Event] = []

        def handle(event: Event) -> None:
            handled.append(event)

        def drop(event: Event) -> None:
            handle(event)
            if event.data % 3:
                raise DropEvent(f"number {event.data}")

        def fail(event: Event) -> None:
            handle(event)
            if event.data == 3:
                raise ValueError("three")

        with (
            bus.opened("subscribe", "t", api.handler(drop), group="one", **options),
            bus.opened("subscribe", "t", api.handler(fail), group="two", max_deliveries=1, **options),
            bus.opened("subscribe", "t", api.handler(handle), group="other"),
        ):
            groups = ("one", "two", "other")
            assert api.until(lambda: len(handled) >= 18 and all(_lags(bus, group, 0) for group in groups))
        return bus

    def _left(self, call: Call) -> list[Any]:
        return sorted(event.data for event in call("peek", "dead"))

    @requires("admin.redrive", "admin.peek", "pubsub.dead_letter", "pubsub.group")
    def test_redrive_to_the_group_that_failed(self, call: Call, api: Api, failed: Call) -> None:
        assert api.until(lambda: self._left(call) == [1, 2, 3, 4, 5])
        assert call("redrive", "dead", group="one", dry_run=True) == Redriven(4, 0)
        assert call("redrive", "dead", group="one", limit=1, dry_run=True) == Redriven(1, 3)
        assert self._left(call) == [1, 2, 3, 4, 5]
        assert call("redrive", "dead", group="one", limit=3) == Redriven(3, 1)
        assert _lags(failed, "one", 3)
        assert call("redrive", "dead", group="one") == Redriven(1, 0)
        assert self._left(call) == [3]
        assert call("redrive", "dead", group="one") == Redriven(0, 0)
        for other in ("two", "other"):
            assert _lags(failed, other, 0)
        if not call.lacks("admin.topics"):
            assert [each.name for each in call("topics")] == ["dead", "t"]
        if not call.lacks("pubsub.start"):
            with failed.opened("subscribe", "t", group="later", start="earliest") as sub:
                assert data(api, sub, 6) == [0, 1, 2, 3, 4, 5]
                assert api.until(lambda: _lags(failed, "later", 0))
        with failed.opened("subscribe", "t", group="one") as sub:
            events = sorted(collect(api, sub, 4), key=lambda event: event.data)
            assert [event.data for event in events] == [1, 2, 4, 5]
            for event in events:
                assert event.topic == "t"
                assert event.delivery_count in (1, None)
                assert not [name for name in event.extensions if name.startswith("dl")]
            assert api.until(lambda: _lags(failed, "one", 0))

    @requires("admin.redrive", "admin.peek", "pubsub.dead_letter", "pubsub.group")
    def test_redrive_wakes_a_member_and_may_fail_again(self, call: Call, api: Api, failed: Call) -> None:
        assert api.until(lambda: len(self._left(call)) == 5)
        with failed.opened("subscribe", "t", group="two", dead_letter_topic="dead") as sub:
            first = {event.id for event in call("peek", "dead") if event.data == 3}
            assert call("redrive", "dead", reason="deliveries", error="ValueError") == Redriven(1, 0)
            (event,) = collect(api, sub, 1, ack=False)
            assert {event.id} == first
            event.drop()
            assert api.until(lambda: self._left(call) == [1, 2, 3, 4, 5])
        letters = [each for each in call("dead_letters", "dead") if each.group == "two"]
        assert [(each.reason, each.count) for each in letters] == [("dropped", 1)]

    @requires("admin.redrive", "admin.peek", "pubsub.dead_letter", "pubsub.group")
    def test_redrive_to_all_groups(self, call: Call, api: Api, failed: Call) -> None:
        assert api.until(lambda: len(self._left(call)) == 5)
        failed("publish", "dead", "by itself")
        assert api.until(lambda: len(call("peek", "dead")) == 6)
        three = [event.id for event in call("peek", "dead") if event.data == 3]
        assert call("redrive", "dead", ids=three, to="topic") == Redriven(1, 0)
        for group in ("one", "two", "other"):
            with failed.opened("subscribe", "t", group=group) as sub:
                assert data(api, sub, 1) == [3]
        assert call("redrive", "dead", to="topic", dry_run=True) == Redriven(4, 1)
        assert call("discard", "dead") == 5
        assert call("peek", "dead") == []

    @requires("admin.redrive", "admin.peek", "pubsub.group")
    def test_redrive_needs_the_group(self, call: Call, api: Api, bus: Call) -> None:
        with bus.opened("subscribe", "t", group="g"):
            pass
        for group in ("g", "gone"):
            attributes = {"dlgroup": group, "dltopic": "t", "dlreason": "dropped"}
            bus("publish", "dead", group, attributes=attributes)
        assert api.until(lambda: len(call("peek", "dead")) == 2)
        call.fails(NotFoundError, match="t has no group 'gone' any more")("redrive", "dead", group="gone")
        assert self._left(call) == ["g", "gone"]
        assert call("redrive", "dead", group="g") == Redriven(1, 0)
        assert self._left(call) == ["gone"]

    @requires("admin.redrive", "admin.peek", "pubsub.group", "pubsub.key_order")
    def test_redrive_to_a_group_with_an_order(self, call: Call, api: Api, bus: Call) -> None:
        with bus.opened("subscribe", "t", group="g", order="key", dead_letter_topic="dead") as sub:
            for number in range(6):
                bus("publish", "t", number, key=f"k{number % 2}")
            for _ in range(6):
                collect(api, sub, 1, ack=False)[0].drop()
            assert api.until(lambda: len(self._left(call)) == 6)
            assert call("redrive", "dead") == Redriven(6, 0)
            events = data(api, sub, 6)
            assert [each for each in events if each % 2] == [1, 3, 5]
            assert [each for each in events if not each % 2] == [0, 2, 4]

    @requires("admin.redrive", "admin.peek", "pubsub.group")
    def test_two_redrivers_double_nothing(self, call: Call, api: Api, bus: Call) -> None:
        with bus.opened("subscribe", "t", group="g"):
            pass
        with bus.opened("publisher", "dead", linger=0.05) as publisher:
            for number in range(300):
                attributes = {"dlgroup": "g", "dltopic": "t", "dlreason": ("dropped", "deliveries")[number % 3 == 0]}
                api.call(publisher, "send", number, attributes=attributes)
        assert api.until(lambda: len(call("peek", "dead", limit=1000)) == 300)
        found = call.together(*[("redrive", "dead")] * 3, reason="dropped")
        assert sum(each.count for each in found) == 200
        assert _lags(bus, "g", 200)
        assert [event.data for event in call("peek", "dead", limit=1000)] == list(range(0, 300, 3))
        with bus.opened("subscribe", "t", group="g") as sub:
            assert sorted(data(api, sub, 200)) == [number for number in range(300) if number % 3]
        with bus.opened("subscribe", "dead", group="letters", start="earliest") as sub:
            assert data(api, sub, 100) == list(range(0, 300, 3))

    @requires("admin.discard", "admin.peek", "pubsub.dead_letter", "pubsub.group")
    def test_discard(self, call: Call, api: Api, failed: Call) -> None:
        assert api.until(lambda: len(self._left(call)) == 5)
        assert call("discard", "dead", error="DropEvent", dry_run=True) == 4
        assert call("discard", "dead", error="DropEvent", limit=3) == 3
        assert len(self._left(call)) == 2
        assert call("discard", "dead", error="KeyError") == 0
        assert call("discard", "dead") == 2
        assert call("dead_letters", "dead") == []
        assert call("discard", "nothing") == 0
        for group in ("one", "two", "other"):
            assert _lags(failed, group, 0)

    @requires("admin.purge", "admin.peek", "pubsub.group", "pubsub.lag")
    def test_purge(self, call: Call, api: Api, bus: Call) -> None:
        assert call("purge", "t") == 0
        with bus.opened("subscribe", "t", group="g") as sub:
            bus("publish_bulk", "t", [0, 1, 2])
            for event in collect(api, sub, 3, ack=False):
                event.retry(delay=60)
            assert api.until(lambda: len(call("peek", "t")) == 3)
        api.pause(APART)
        between = datetime.now(UTC)
        api.pause(APART)
        bus("publish_bulk", "t", [3, 4])
        bus("publish", "u", "another")
        assert api.until(lambda: len(call("peek", "t")) == 5)
        assert call("purge", "t", before=between, dry_run=True) == 3
        assert call("purge", "t", dry_run=True) == 5
        assert bus("lag", "t", group="g") == 5
        assert call("purge", "t", before=between) == 3
        assert [event.data for event in call("peek", "t")] == [3, 4]
        assert bus("lag", "t", group="g") == 2
        with bus.opened("subscribe", "t", group="g") as sub:
            assert data(api, sub, 2) == [3, 4]
        assert call("purge", "t") == 2
        bus("publish", "t", 5)
        with bus.opened("subscribe", "t", group="g") as sub:
            assert data(api, sub, 1) == [5]
        assert [event.data for event in call("peek", "u")] == ["another"]

    @requires("admin.seek", "pubsub.group", "pubsub.lag")
    def test_seek(self, call: Call, api: Api, bus: Call, harness: Harness) -> None:
        call.fails(NotFoundError, match="t has no group 'g'")("seek", "t", "g", "earliest")
        bus("publish_bulk", "t", [0, 1, 2])
        with bus.opened("subscribe", "t", group="g") as sub:
            collect(api, sub, 2, ack=False)[0].retry(delay=60)
        api.pause(APART)
        between = datetime.now(UTC)
        api.pause(APART)
        bus("publish_bulk", "t", [3, 4])
        api.pause(APART)
        for to, left in (
            ("latest", []),
            ("earliest", [0, 1, 2, 3, 4]),
            (between, [3, 4]),
            (datetime(1990, 1, 15, tzinfo=UTC), [0, 1, 2, 3, 4]),
            (datetime.now(UTC), []),
        ):
            call("seek", "t", "g", to)
            assert bus("lag", "t", group="g") == len(left)
            with bus.opened("subscribe", "t", group="g") as sub:
                assert data(api, sub, len(left)) == left
                assert api.until(lambda: bus("lag", "t", group="g") == 0)
        bus("publish", "t", 5)
        with bus.opened("subscribe", "t", group="g") as sub:
            assert data(api, sub, 1) == [5]
            if harness.moves_members:
                call("seek", "t", "g", between)
                assert data(api, sub, 3) == [3, 4, 5]
            else:
                call.fails(ConflictError, match="stop them first")("seek", "t", "g", between)
                assert api.until(lambda: bus("lag", "t", group="g") == 0)

    @requires("admin.seek", "pubsub.group", "pubsub.key_order")
    def test_seek_of_a_group_with_an_order(self, call: Call, api: Api, bus: Call) -> None:
        for number in range(4):
            bus("publish", "t", number, key=f"k{number % 2}")
        for _ in range(2):
            with bus.opened("subscribe", "t", group="g", order="key") as sub:
                assert sorted(data(api, sub, 4)) == [0, 1, 2, 3]
                call.fails(ConflictError, match="stop them first")("seek", "t", "g", "earliest")
            call("seek", "t", "g", "earliest")
            assert bus("lag", "t", group="g") == 4

    @requires("admin.seek", "admin.redrive", "pubsub.group", "pubsub.lag")
    def test_seek_keeps_redriven_events(self, call: Call, api: Api, bus: Call) -> None:
        with bus.opened("subscribe", "t", group="g"):
            pass
        bus("publish", "dead", "redriven", attributes={"dlgroup": "g", "dltopic": "t", "dlreason": "dropped"})
        assert call("redrive", "dead") == Redriven(1, 0)
        call("seek", "t", "g", "latest")
        with bus.opened("subscribe", "t", group="g") as sub:
            assert data(api, sub, 1) == ["redriven"]

    @requires("admin.seek", "admin.redrive", "pubsub.group", "pubsub.lag", "pubsub.retry_delay")
    def test_a_redriven_event_is_one_while_it_is_tried_again(self, call: Call, api: Api, bus: Call) -> None:
        with bus.opened("subscribe", "t", group="g") as sub:
            bus("publish", "dead", "redriven", attributes={"dlgroup": "g", "dltopic": "t", "dlreason": "dropped"})
            assert call("redrive", "dead") == Redriven(1, 0)
            collect(api, sub, 1, ack=False)[0].retry(delay=60)
        call("seek", "t", "g", "latest")
        assert bus("lag", "t", group="g") == 1
        if not call.lacks("admin.peek"):
            assert [event.data for event in call("peek", "t", group="g")] == ["redriven"]

    @requires("admin.redrive", "pubsub.group", "pubsub.key_order")
    def test_redriven_events_move_with_the_parts_of_their_keys(self, call: Call, api: Api, bus: Call) -> None:
        with bus.opened("subscribe", "t", group="g", order="key"):
            pass
        letters = {"dlgroup": "g", "dltopic": "t", "dlreason": "dropped"}
        for number in range(40):
            bus("publish", "dead", number, key=f"k{number % 20}", attributes=letters)
        assert call("redrive", "dead") == Redriven(40, 0)
        assert bus("lag", "t", group="g") == 40
        if not call.lacks("admin.peek"):
            assert sorted(event.data for event in call("peek", "t", group="g", limit=50)) == list(range(40))
        with bus.opened("subscribe", "t", group="g", order="key") as one:
            got = data(api, one, 5)
            collect(api, one, 5, ack=False)
            with bus.opened("subscribe", "t", group="g", order="key") as two:
                got += data(api, two, 5)
        with bus.opened("subscribe", "t", group="g", order="key") as sub:
            rest = data(api, sub, 30)
            assert sorted(got + rest) == list(range(40))
            assert all(
                rest.index(number) < rest.index(number + 20) for number in rest if number + 20 in rest and number < 20
            )
            assert api.until(lambda: bus("lag", "t", group="g") == 0)

    @requires("admin.purge", "pubsub.group", "pubsub.key_order", "pubsub.lag")
    def test_purge_of_a_group_with_an_order(self, call: Call, api: Api, bus: Call) -> None:
        with bus.opened("subscribe", "t", group="g", order="key") as sub:
            for number in range(6):
                bus("publish", "t", number, key=f"k{number % 3}")
            collect(api, sub, 3, ack=False)[-1].ack()
            assert api.until(lambda: bus("lag", "t", group="g") == 5)
        assert call("purge", "t") == 6
        assert bus("lag", "t", group="g") == 0
        bus("publish", "t", 6, key="k1")
        with bus.opened("subscribe", "t", group="g", order="key") as sub:
            assert data(api, sub, 1) == [6]

    @requires("admin.discard", "admin.peek", "pubsub.group", "pubsub.lag", "pubsub.retry_delay")
    def test_discard_reaches_what_groups_of_the_topic_hold(self, call: Call, api: Api, bus: Call) -> None:
        with bus.opened("subscribe", "dead", group="watch", start="earliest") as sub:
            for number in range(4):
                attributes = {"dlgroup": f"g{number % 2}", "dltopic": "t", "dlreason": "dropped"}
                bus("publish", "dead", number, attributes=attributes)
            for event in collect(api, sub, 4, ack=False)[:2]:
                event.retry(delay=60)
            assert api.until(lambda: len(call("peek", "dead")) == 4)
        assert call("discard", "dead", group="g0") == 2
        assert api.until(lambda: bus("lag", "dead", group="watch") == 2)
        assert sorted(event.data for event in call("peek", "dead", group="watch")) == [1, 3]


def _lags(bus: Call, group: str, count: int) -> bool:
    """Return whether a group has so many events left, where that is told."""
    return bus.lacks("pubsub.lag") or bus("lag", "t", group=group) == count
