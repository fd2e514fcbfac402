"""What a subscription does with every event, a batch at a time: the same in both twins."""

from __future__ import annotations

import gc
import random
import weakref
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from .conftest import load, outcome


class Made(NamedTuple):
    record: Any
    token: Any
    deliveries: int | None


class Said(NamedTuple):
    token: Any
    verdict: Any
    delay: float | None = None


@pytest.fixture
def kernel(twin: str) -> ModuleType:
    """The events kernel."""
    return load(twin, "events")


def frame(kernel: ModuleType, expires: list[int | None]) -> Any:
    records = [
        kernel.encode_record(b"%d" % number, None, expires=each, type="own" if number % 2 else None)
        for number, each in enumerate(expires)
    ]
    return kernel.Frame(kernel.build_frame("/s", "t", "top", records))


def test_deliver(kernel: ModuleType) -> None:
    found = frame(kernel, [None, 10, 11, None, 12, None])
    out: list[Any] = [None]
    token = object()
    assert found.deliver(1, [0, 1, 2, 4], 11, token, 3, Made, out) == [0, 1]
    assert [type(each) for each in out[1:]] == [Made, Made]
    assert [(each.record.payload, each.token, each.deliveries) for each in out[1:]] == [
        (b"3", (token, 2), 3),
        (b"5", (token, 4), 3),
    ]
    assert found.deliver(0, range(6), 0, token, 1, Made, out) == []
    assert len(out) == 9
    for start, places in ((0, [6]), (5, [1]), (-1, [0]), (0, [-1])):
        with pytest.raises(IndexError):
            found.deliver(start, places, 0, token, 1, Made, [])
    for wrong in ((0, [None], 0, token, 1, Made, []), (0, 5, 0, token, 1, Made, [])):
        with pytest.raises(TypeError):
            found.deliver(*wrong)


def test_receive_and_settle(kernel: ModuleType) -> None:
    class Event(kernel.ReceivedEvent):  # type: ignore[name-defined, misc]
        __slots__ = ()

    records = frame(kernel, [None] * 4)
    given: list[Any] = []
    records.deliver(0, range(4), 0, "claim", 2, Made, given)
    pump = object()
    events = kernel.receive_events(Event, given, pump, "bus", dict, True)
    assert [type(event) for event in events] == [Event] * 4
    first = events[0]
    assert (first._pump, first._token, first._type, first._raw) == (pump, ("claim", 0), dict, True)
    assert (first.pubsub_name, first.delivery_count, first._verdict, first._decoded) == ("bus", 2, None, False)
    assert [event.type for event in events] == ["t", "own", "t", "own"]
    assert [event.topic for event in events] == ["top"] * 4
    answers: list[Any] = []
    assert not kernel.all_settled(events)
    assert kernel.settle_events(events[1:2], "drop", None, Said, answers) == 1
    assert kernel.settle_events(events, "again", 1.5, Said, answers) == 3
    assert kernel.settle_events(events, "done", None, Said, answers) == 0
    assert [type(each) for each in answers] == [Said] * 4
    assert answers == [
        (("claim", 1), "drop", None),
        (("claim", 0), "again", 1.5),
        (("claim", 2), "again", 1.5),
        (("claim", 3), "again", 1.5),
    ]
    assert kernel.all_settled(events)
    assert kernel.all_settled([])
    assert [event._verdict for event in events] == ["again", "drop", "again", "again"]


def test_only_events_are_events(kernel: ModuleType) -> None:
    with pytest.raises(TypeError):
        kernel.receive_events(dict, [], None, "", None, False)
    with pytest.raises((TypeError, ValueError)):
        kernel.receive_events(kernel.ReceivedEvent, [(1, 2)], None, "", None, False)
    with pytest.raises((TypeError, AttributeError)):
        kernel.settle_events([object()], "done", None, Said, [])
    with pytest.raises((TypeError, AttributeError)):
        kernel.all_settled([object()])
    with pytest.raises((TypeError, AttributeError)):
        kernel.mark_answers([Said((object(), 0), "done")], "done")


def test_a_cycle_through_an_event_is_collected(kernel: ModuleType) -> None:
    class Pump:
        pass

    pump = Pump()
    pump.events = kernel.receive_events(kernel.ReceivedEvent, [(None, None, None)], pump, "", None, False)  # type: ignore[attr-defined]
    seen = weakref.ref(pump)
    del pump
    gc.collect()
    assert seen() is None


def test_marks(kernel: ModuleType) -> None:
    marks = kernel.Marks(10)
    assert (marks.left, marks.touched, marks.void, marks.settled) == (10, False, False, b"\0\0")
    assert marks.settle(9)
    assert not marks.settle(9)
    assert marks.settle(0)
    assert (marks.left, marks.touched, marks.settled) == (8, True, b"\x01\x02")
    again = kernel.Marks(10, marks.settled)
    assert (again.left, again.touched) == (8, False)
    assert not again.settle(0)
    for place in (-1, 10, 2**40):
        with pytest.raises(IndexError):
            marks.settle(place)
    for length, settled in ((-1, None), (10, b"\0"), (8, b"\0\0"), (0, b"\0")):
        with pytest.raises(ValueError, match="one bit"):
            kernel.Marks(length, settled)
    assert kernel.Marks(0).left == 0


def test_answers_are_marked_once(kernel: ModuleType) -> None:
    one, other, void = kernel.Marks(4), kernel.Marks(4), kernel.Marks(4)
    void.void = True
    answers = [
        Said((one, 0), "done"),
        Said((one, 1), "again", 2.0),
        Said((one, 1), "again"),
        Said((one, 0), "drop"),
        Said((void, 2), "drop"),
        Said((other, 3), "drop"),
    ]
    assert kernel.mark_answers(answers, "done") == [(one, 1, answers[1]), (other, 3, answers[5])]
    assert (one.left, one.settled, other.left, void.left) == (2, b"\x03", 3, 4)
    with pytest.raises(IndexError):
        kernel.mark_answers([Said((one, 4), "done")], "done")


def test_twins_mark_alike(both: tuple[ModuleType, ModuleType]) -> None:
    chance = random.Random(5)
    for _ in range(300):
        length = chance.randrange(40)
        settled = chance.choice((None, chance.randbytes((length + 7) // 8), chance.randbytes(length // 8)))
        places = [chance.randrange(-1, length + 1) for _ in range(chance.randrange(30))]

        def read(module: ModuleType, length: int = length, settled: Any = settled, places: Any = places) -> Any:
            marks = module.Marks(length, settled)
            said = [outcome(marks.settle, place) for place in places]
            return said, marks.left, marks.settled, marks.touched

        assert outcome(read, both[0]) == outcome(read, both[1])
