"""Messages that a member holds, without a broker: which are done with, which come again, which become dead letters."""

from __future__ import annotations

from typing import Any

from cloud_runtimes._native import events as kernel
from cloud_runtimes.spi.broker.in_flight import InFlight, Unacked
from cloud_runtimes.spi.broker.policy import DeliveryHistory, DeliveryPolicy
from cloud_runtimes.spi.pubsub import Cause, Delivery, Settlement, Settlements, SubscribeRequest

NOW = 1_700_000_000_000_000


def in_flight(**asked: Any) -> InFlight:
    fields = dict.fromkeys(SubscribeRequest._fields) | {"topic": "t", "group": "g", "raw": False} | asked
    return InFlight(DeliveryPolicy("bus", SubscribeRequest(**fields)))


def record(number: int, **more: Any) -> bytes:
    encoded: bytes = kernel.encode_record(b"%d" % number, "application/json", **more)
    return encoded


def frame(*records: bytes) -> bytes:
    encoded: bytes = kernel.build_frame("app", "type", "t", records)
    return encoded


def document(number: int) -> bytes:
    encoded: bytes = kernel.Frame(frame(record(number)))[0].to_json()
    return encoded


def numbers(deliveries: Any) -> list[int]:
    return [int(each.record.payload) for each in deliveries]


def settled(given: list[Delivery], settlement: Settlement, delay: float | None = None, error: str | None = None) -> Any:
    cause = None if error is None else Cause("dropped", error)
    settlements = Settlements()
    settlements.add([each.token for each in given], settlement, delay, cause)
    return settlements


def events(part: Unacked) -> list[int]:
    assert part.frame is not None
    return [int(each.payload) for each in kernel.Frame(part.frame)]


def test_messages_with_an_event_each_are_done_with_one_by_one() -> None:
    held = in_flight()
    assert held.add("s", ["a", "b", "c"], [document(1), document(2), document(3)]) == 3
    first = list(held.deliver(2, NOW))
    rest = list(held.deliver(9, NOW))
    assert (numbers(first), numbers(rest)) == ([1, 2], [3])
    held.settle(settled(rest, Settlement.ACK))
    assert held.done == {"s": ["c"]}
    assert list(held.tokens("s")) == ["a", "b"]
    held.settle(settled(first, Settlement.ACK))
    held.settle(settled(first, Settlement.RETRY))
    assert held.done == {"s": ["c", "a", "b"]}
    assert not held.unacked
    assert not held.held


def test_a_frame_is_done_with_once_all_of_it_is() -> None:
    held = in_flight()
    held.add("s", ["f"], [frame(*map(record, range(4)))])
    one, two, three, four = held.deliver(9, NOW)
    held.settle(settled([one], Settlement.ACK))
    held.settle(settled([two, four], Settlement.RETRY, 1.5))
    (part,) = held.unacked
    assert (events(part), part.delay_ms, part.deliveries, part.done) == ([1, 3], 1500, 1, False)
    assert part.history == DeliveryHistory(NOW, NOW, None)
    held.settle(settled([three], Settlement.ACK))
    # behind the part, since a broker that took the acknowledgement alone would lose two events
    assert not held.done
    assert [(each.events, each.done, each.tokens) for each in held.unacked] == [(2, False, ("f",)), (0, True, ("f",))]
    assert not held.held


def test_messages_that_are_answered_in_any_order_are_done_with_once() -> None:
    held = in_flight()
    held.add("s", ["f"], [frame(*map(record, range(3)))])
    held.add("s", ["g"], [frame(record(3))])
    held.add("s", ["a", "b", "c"], [document(4), document(5), document(6)])
    one, two, three, other, *single = held.deliver(9, NOW)
    held.settle(settled([three, other, single[2], one, single[0], two, single[0]], Settlement.ACK))
    assert held.done == {"s": ["f", "g", "c", "a"]}
    assert list(held.tokens("s")) == ["b"]
    held.add("s", ["h"], [frame(record(7), record(8))])
    held.add("s", ["i"], [frame(record(9))])
    one, two, other = held.deliver(9, NOW)
    held.settle(settled([two, other, one], Settlement.RETRY, 1.5))
    assert [(events(part), part.done, part.tokens) for part in held.unacked] == [
        ([8, 7], True, ("h",)),
        ([9], True, ("i",)),
    ]


def test_kinds_of_messages_keep_their_order() -> None:
    held = in_flight()
    messages = [
        document(0),
        frame(record(1), record(2)),
        document(3),
        document(4),
        b"5",
        b"CRF\x01 damaged",
        document(6),
    ]
    assert held.add("s", list("abcdefg"), messages) == 8
    records = [each.record for each in held.deliver(99, NOW)]
    assert [each.payload for each in records] == [b"0", b"1", b"2", b"3", b"4", b"5", b"CRF\x01 damaged", b"6"]
    assert [each.raw for each in records] == [False] * 5 + [True] * 2 + [False]
    assert records[5].id == "e"
    # whatever comes first
    assert held.add("s", list("fgab"), [*messages[1::-1], frame(record(7)), document(8)]) == 5
    records = [each.record for each in held.deliver(99, NOW)]
    assert [(each.payload, each.raw) for each in records] == [(each, False) for each in (b"1", b"2", b"0", b"7", b"8")]
    assert held.add("s", ["h"], [b"CRF\x02"]) == 1
    assert [(each.record.payload, each.record.raw) for each in held.deliver(99, NOW)] == [(b"CRF\x02", True)]


def test_expired_events_are_not_delivered() -> None:
    held = in_flight()
    held.add("s", ["f"], [frame(record(0, expires=NOW), record(1, expires=NOW + 1), record(2))])
    held.add("s", ["g"], [frame(record(3, expires=NOW))])
    held.add("s", ["h"], [kernel.Frame(frame(record(4, expires=NOW)))[0].to_json()])
    delivered = list(held.deliver(9, NOW))
    assert (numbers(delivered), held.expired) == ([1, 2], 3)
    assert held.done == {"s": ["g", "h"]}
    held.settle(settled(delivered, Settlement.ACK))
    assert held.done == {"s": ["g", "h", "f"]}


def test_back_off_and_the_last_delivery() -> None:
    held = in_flight(max_deliveries=3)
    for deliveries, delay in ((1, 1000), (2, 2000), (3, None)):
        held.add_message("s", deliveries, document(1), deliveries=deliveries)
        held.settle(settled(list(held.deliver(1, NOW)), Settlement.RETRY))
        assert held.unacked.pop().delay_ms == delay
    # of one who died with it in the last delivery
    held.add_message("s", 4, document(1), deliveries=4)
    assert not held.deliver(1, NOW)
    (part,) = held.unacked
    assert (part.frame, part.events, part.deliveries, part.done) == (None, 1, 3, True)
    assert not held.held


def test_dead_letters_tell_why() -> None:
    held = in_flight(dead_letter_topic="dead")
    held.add_message("s", "f", frame(*map(record, range(3))), deliveries=2, history=DeliveryHistory(5, 6, "Before: x"))
    one, two, three = held.deliver(9, NOW)
    held.settle([*settled([one], Settlement.DROP), *settled([two], Settlement.DROP, error="Now: y")])
    held.settle(settled([three], Settlement.RELEASE))
    letters = [kernel.Frame(part.frame)[0].extensions for part in held.unacked[:2]]
    assert [each["dlerror"] for each in letters] == ["Before: x", "Now: y"]
    assert letters[0]["dlcount"] == 2
    assert letters[0]["dlfirst"] == "1970-01-01T00:00:00.000005Z"
    assert letters[0]["dllast"] == "2023-11-14T22:13:20.000000Z"
    assert [part.done for part in held.unacked] == [False, False, True]
    assert (held.unacked[2].delay_ms, held.unacked[2].deliveries) == (0, 2)


def test_what_is_given_back_was_not_delivered() -> None:
    held = in_flight()
    held.add("s", ["a", "b", "c"], [document(1), document(2), document(3)])
    held.add_message("r", "f", frame(record(4), record(5)), deliveries=3)
    delivered = list(held.deliver(4, NOW))
    held.settle(settled(delivered[:1], Settlement.ACK))
    held.release()
    assert [(events(part), part.deliveries, part.tokens, part.done) for part in held.unacked] == [
        ([2, 3], 0, ["b", "c"], True),
        ([4, 5], 2, ("f",), True),
    ]
    assert not held.deliver(9, NOW)


def test_of_a_frame_that_is_begun_only_what_somebody_had_was_delivered() -> None:
    held = in_flight()
    held.add_message("s", "f", frame(*map(record, range(5))), deliveries=2)
    held.add_message("s", "whole", frame(record(5), record(6)), deliveries=2)
    one, two, *_ = held.deliver(9, NOW)
    held.settle(settled([one], Settlement.ACK))
    held.release_begun([two.token])
    unacked = [(events(part), part.deliveries, part.tokens, part.done) for part in held.unacked]
    assert unacked == [([1], 2, ("f",), False), ([2, 3, 4], 1, ("f",), True)]
    # this one comes again by itself, as a whole
    assert list(held.tokens("s")) == ["whole"]


def test_what_has_gone_to_another_is_void() -> None:
    held = in_flight()
    held.add("s", ["a", "b", "c"], [document(1), document(2), document(3)])
    held.add("s", ["f"], [frame(record(4), record(5))])
    delivered = list(held.deliver(2, NOW))
    held.lose("s", {"a", "c", "f"})
    assert not held.deliver(9, NOW)
    held.settle(settled(delivered, Settlement.ACK))
    assert held.done == {"s": ["b"]}
    held.add("s", ["a"], [document(1)])
    delivered = list(held.deliver(9, NOW))
    held.forget()
    held.settle(settled(delivered, Settlement.ACK))
    assert held.done == {"s": ["b"]}
