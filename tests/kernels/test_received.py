"""What a subscription does with every event, a batch at a time: the same in both twins."""

from __future__ import annotations

import gc
import random
import weakref
from types import ModuleType
from typing import Any

import pytest

from tests.kernels.conftest import load, outcome


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
    marks = object()
    assert found.deliver(1, [0, 1, 2, 4], 11, marks, out) == [0, 1]
    assert [type(each) for each in out[1:]] == [kernel.ClaimedRecord] * 2
    assert [(each.payload, each.marks, each.place) for each in out[1:]] == [(b"3", marks, 2), (b"5", marks, 4)]
    assert found.deliver(0, range(6), 0, marks, out) == []
    assert len(out) == 9
    for start, places in ((0, [6]), (5, [1]), (-1, [0]), (0, [-1])):
        with pytest.raises(IndexError):
            found.deliver(start, places, 0, marks, [])
    for wrong in ((0, [None], 0, marks, []), (0, 5, 0, marks, [])):
        with pytest.raises(TypeError):
            found.deliver(*wrong)


def test_receive_and_settle(kernel: ModuleType) -> None:
    class Event(kernel.ReceivedEvent):  # type: ignore[name-defined, misc]
        __slots__ = ()

    given: list[Any] = []
    frame(kernel, [None] * 4).deliver(0, range(4), 0, kernel.Marks(4), given)
    fetcher = object()
    events = kernel.receive_events(Event, given, 2, fetcher, "bus", dict, True)
    assert [type(event) for event in events] == [Event] * 4
    first = events[0]
    assert (first._fetcher, first._token, first._type, first._raw) == (fetcher, given[0], dict, True)
    assert (first.pubsub_name, first.delivery_count, first._settlement, first._decoded) == ("bus", 2, None, False)
    assert [event._record.type for event in events] == ["t", "own", "t", "own"]
    assert [event._record.topic for event in events] == ["top"] * 4
    assert not kernel.all_settled(events)
    assert kernel.settle_events(events[1:2], "drop") == given[1:2]
    assert kernel.settle_events(events, "again") == [given[0], *given[2:]]
    assert kernel.settle_events(events, "done") == []
    assert kernel.all_settled(events)
    assert kernel.all_settled([])
    assert [event._settlement for event in events] == ["again", "drop", "again", "again"]


def test_only_events_are_events(kernel: ModuleType) -> None:
    with pytest.raises(TypeError):
        kernel.receive_events(dict, [], None, None, "", None, False)
    with pytest.raises((TypeError, AttributeError)):
        kernel.settle_events([object()], "done")
    with pytest.raises((TypeError, AttributeError)):
        kernel.all_settled([object()])
    with pytest.raises((TypeError, AttributeError)):
        kernel.mark_records([object()])
    with pytest.raises((TypeError, AttributeError)):
        kernel.mark_records([frame(kernel, [None])[0]])  # which nobody has delivered


def test_a_cycle_through_an_event_is_collected(kernel: ModuleType) -> None:
    class Pump:
        pass

    fetcher = Pump()
    fetcher.events = kernel.receive_events(kernel.ReceivedEvent, [None], 1, fetcher, "", None, False)  # type: ignore[attr-defined]
    seen = weakref.ref(fetcher)
    del fetcher
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


def test_records_are_marked_once(kernel: ModuleType) -> None:
    records = frame(kernel, [None] * 4)
    one, other, void = kernel.Marks(4), kernel.Marks(4), kernel.Marks(4)
    void.void = True
    given: list[Any] = []
    for marks in (one, other, void):
        records.deliver(0, range(4), 0, marks, given)
    assert kernel.mark_records([given[0], given[1], given[1], given[0], given[10], given[7]]) == [
        given[0],
        given[1],
        given[7],
    ]
    assert (one.left, one.settled, other.left, void.left) == (2, b"\x03", 3, 4)
    wrong: list[Any] = []
    records.deliver(0, [3], 0, kernel.Marks(3), wrong)
    with pytest.raises(IndexError):
        kernel.mark_records(wrong)


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
