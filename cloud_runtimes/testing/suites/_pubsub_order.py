"""Conformance of a `PubSubDriver`: ``order="key"``."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import pytest

from ...errors import ConflictError
from ...pubsub import DropEvent, Event, EventBatch, OutgoingEvent
from ..apis import Api
from ..harness import Harness, requires
from ._base import Call, Suite
from ._pubsub_answers import collect, data, nothing


class KeyLog:
    """Checks a handler of events whose data is ``[key, number]``, numbered from 0: one event of a key at a time, the next one or one of before, and after one of before those that follow it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[str] = set()
        self._recent: dict[str, deque[int]] = {}  # the last ones, which tell of a fault where it began
        self.faults: list[str] = []
        self.handled = 0

    def begin(self, key: str, number: int) -> None:
        """Note that a handler has an event."""
        with self._lock:
            if key in self._running:
                self.faults.append(f"{key}: two at once, {number} is one of them")
            self._running.add(key)
            before = self._recent.get(key, (-1,))
            if number > before[-1] + 1:
                self.faults.append(f"{key}: {number} came after {[*before]}")

    def end(self, key: str, number: int, *, handled: bool = True) -> None:
        """Note that the handler is through with it."""
        with self._lock:
            self._running.discard(key)
            if handled:
                self._recent.setdefault(key, deque(maxlen=8)).append(number)
                self.handled += 1

    def is_complete(self, keys: int, events: int) -> bool:
        """Return whether the last event of each of so many keys was handled last."""
        with self._lock:
            return len(self._recent) == keys and all(last[-1] == events - 1 for last in self._recent.values())


def keyed(keys: int, events: int) -> list[OutgoingEvent]:
    """Return so many events of each key, of all keys in turn."""
    return [OutgoingEvent([f"k{key}", number], f"k{key}") for number in range(events) for key in range(keys)]


class OrderTests(Suite):
    """Order by key: events of a key come one at a time, whatever happens."""

    service = "pubsub"

    def _handler(self, api: Api, log: KeyLog, failing: int = 0) -> Any:
        """Return a handler that fails each ``failing``-th delivery."""
        calls = 0

        def handle(event: Event[Any]) -> None:
            nonlocal calls
            calls += 1
            key, number = event.data
            log.begin(key, number)
            if failing and calls % failing == 0:
                log.end(key, number, handled=False)
                event.retry(delay=0.01)
                return
            log.end(key, number)

        return api.handler(handle)

    @requires("pubsub.key_order")
    def test_order_of_keys(self, call: Call, api: Api, harness: Harness) -> None:
        log = KeyLog()
        calls = (call, call.on(harness.client()))
        members = [each("subscribe", "t", self._handler(api, log, 7), order="key", workers=8) for each in calls]
        call("publish_bulk", "t", keyed(20, 40))
        with call.opened("publisher", "t") as publisher:
            for event in keyed(20, 40):
                publisher.send([event.data[0], event.data[1] + 40], key=event.key)
        assert api.until(lambda: log.is_complete(20, 80))
        assert log.faults == []
        assert log.handled == 20 * 80
        for member in members:
            api.call(member, "close")
        assert call.lacks("pubsub.lag") or call("lag", "t") == 0

    @requires("pubsub.key_order")
    def test_a_key_waits_for_its_first_event(self, call: Call, api: Api) -> None:
        with call.opened("subscribe", "t", order="key") as sub:
            call("publish_bulk", "t", keyed(2, 3))
            call("publish", "t", "of no key")
            firsts = collect(api, sub, 3, ack=False)
            assert sorted(str(event.data) for event in firsts) == ["['k0', 0]", "['k1', 0]", "of no key"]
            nothing(api, sub)
            by_key = {event.key: event for event in firsts}
            by_key["k0"].ack()
            (second,) = collect(api, sub, 1, ack=False)
            assert second.data == ["k0", 1]
            second.retry(delay=0.05)
            by_key[None].retry(delay=0)
            (other,) = collect(api, sub, 1)
            assert (other.data, other.delivery_count) == ("of no key", 2)
            (again,) = collect(api, sub, 1, ack=False)
            assert (again.data, again.delivery_count, again.id) == (["k0", 1], 2, second.id)
            nothing(api, sub)
            again.drop()
            by_key["k1"].ack()
            rest = data(api, sub, 3)
        assert [each for each in rest if each[0] == "k0"] == [["k0", 2]]
        assert [each for each in rest if each[0] == "k1"] == [["k1", 1], ["k1", 2]]

    @requires("pubsub.key_order")
    def test_a_key_that_fails_stops_alone(self, call: Call, api: Api) -> None:
        log, broken = KeyLog(), True

        def handle(event: Event[Any]) -> None:
            key, number = event.data
            log.begin(key, number)
            failed = broken and key == "k3"
            log.end(key, number, handled=not failed)
            if failed:
                event.retry(delay=0.02)

        with call.opened("subscribe", "t", api.handler(handle), order="key", workers=2, max_in_flight=4):
            call("publish_bulk", "t", keyed(5, 60))
            assert api.until(lambda: log.handled == 4 * 60)
            broken = False
            assert api.until(lambda: log.is_complete(5, 60))
        assert log.faults == []

    @requires("pubsub.key_order", "pubsub.max_deliveries", "pubsub.dead_letter")
    def test_a_dead_letter_frees_its_key(self, call: Call, api: Api, harness: Harness) -> None:
        log = KeyLog()

        def handle(event: Event[Any]) -> None:
            key, number = event.data
            if number == 1:
                event.retry(delay=0)
            elif number == 2:
                raise DropEvent
            else:
                log.begin(key, number if number == 0 else number - 2)
                log.end(key, number if number == 0 else number - 2)

        options = {"order": "key", "max_deliveries": 3, "dead_letter_topic": "dead"}
        with call.opened("subscribe", "dead") as dead:
            with call.opened("subscribe", "t", api.handler(handle), **options):
                call("publish_bulk", "t", keyed(2, 5))
                letters = collect(api, dead, 4)
                assert api.until(lambda: log.is_complete(2, 3))
        assert log.faults == []
        assert sorted(letter.data for letter in letters) == [["k0", 1], ["k0", 2], ["k1", 1], ["k1", 2]]
        for letter in letters:
            reason, count = ("deliveries", 3) if letter.data[1] == 1 else ("dropped", 1)
            told = letter.extensions.get("dlreason"), letter.extensions.get("dlcount")
            assert told == (reason, count) or not harness.tells_dead

    @requires("pubsub.key_order")
    def test_batches_have_one_event_of_a_key(self, call: Call, api: Api) -> None:
        log = KeyLog()

        def handle(batch: EventBatch[Any]) -> None:
            for key, number in [event.data for event in batch]:
                log.begin(key, number)
            for key, number in [event.data for event in batch]:
                log.end(key, number)

        with call.opened("subscribe", "t", api.handler(handle), order="key", workers=2, batch=10):
            call("publish_bulk", "t", keyed(15, 20))
            assert api.until(lambda: log.is_complete(15, 20))
        assert log.faults == []

    @requires("pubsub.key_order")
    def test_members_come_and_go(self, call: Call, api: Api, harness: Harness) -> None:
        log = KeyLog()
        clients = [call.on(harness.client()) for _ in range(2)]
        with (
            call.opened("subscribe", "t", self._handler(api, log, 11), order="key", workers=4),
            call.opened("publisher", "t") as publisher,
        ):
            for turn in range(6):
                with clients[turn % 2].opened("subscribe", "t", self._handler(api, log), order="key", workers=4):
                    for event in keyed(30, 10):
                        publisher.send([event.data[0], event.data[1] + 10 * turn], key=event.key)
                    api.pause(0.2)
            assert api.until(lambda: log.is_complete(30, 60))
        assert log.faults == []

    @requires("pubsub.key_order")
    def test_what_was_given_back_comes_in_order(self, call: Call, api: Api) -> None:
        if call.lacks("pubsub.start"):  # a group begins with its first member
            api.call(call("subscribe", "t", order="key"), "close")
        call("publish_bulk", "t", keyed(1, 1))
        with call.opened("subscribe", "t", order="key") as sub:
            assert data(api, sub, 1) == [["k0", 0]]
            call("publish_bulk", "t", [OutgoingEvent(["k0", number], "k0") for number in range(1, 20)])
            collect(api, sub, 1, ack=False)[0].retry(delay=60)
            nothing(api, sub)
        with call.opened("subscribe", "t", order="key") as sub:
            assert data(api, sub, 19) == [["k0", number] for number in range(1, 20)]

    @requires("pubsub.key_order", "pubsub.ack_wait")
    def test_an_unanswered_event_comes_before_later_ones(self, call: Call, api: Api) -> None:
        with call.opened("subscribe", "t", order="key", ack_wait=0.5) as sub:
            call("publish_bulk", "t", keyed(1, 3))
            collect(api, sub, 1, ack=False)
            begun = time.monotonic()
            assert data(api, sub, 3) == [["k0", 0], ["k0", 1], ["k0", 2]]
            assert time.monotonic() - begun > 0.3

    @requires("pubsub.key_order", "pubsub.group")
    def test_a_group_has_one_order(self, call: Call, api: Api) -> None:
        if call.driver().default_order is not None:
            pytest.skip("no group is without an order")
        for group, order, other in (("keyed", "key", None), ("plain", None, "key")):
            sub = call("subscribe", "t", group=group, order=order)
            api.call(sub, "close")
            call.fails(ConflictError, match=f"the group '{group}' of .* has")(
                "subscribe", "t", group=group, order=other
            )
            api.call(call("subscribe", "t", group=group, order=order), "close")
