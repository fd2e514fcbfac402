"""A record that points into a CloudEvent's JSON, and what a subscription does with events a batch at a time: the same in both twins."""

from __future__ import annotations

import gc
import json
import random
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from cloud_runtimes.errors import PayloadError
from cloud_runtimes.pubsub import Event
from tests.kernels.conftest import FIELDS, load, outcome, read_field
from tests.kernels.test_cloudevents import FULL, MINIMAL, REFUSED, event

BINARY = event(data_base64="AAECAwQF", datacontenttype="image/png", time="2024-05-06T07:08:09.123456Z")
TEXT = event(data='a "quoted" line\n€', datacontenttype="text/plain", subject="ü", ext="\\")
UUID = event(id="018f4e5c-7a1b-7c3d-8e4f-0123456789ab", data=[1, {"a": "b"}], time="2024-05-06T07:08:09Z")
DOCUMENTS = [FULL, BINARY, TEXT, UUID, event()]


@pytest.fixture
def module(twin: str) -> Iterator[ModuleType]:
    """The events kernel with a clock that stands."""
    loaded = load(twin, "events")
    loaded._set_clock(lambda: 1_700_000_000_000)
    yield loaded
    loaded._set_clock(None)


def said(function: Callable[[], Any]) -> tuple[str, Any]:
    """A value, or an error with its message."""
    try:
        return "value", function()
    except Exception as error:
        return type(error).__name__, str(error)


def values(record: Any) -> list[Any]:
    return [*(read_field(record, name) for name in FIELDS), outcome(record.to_json)]


def from_document(module: ModuleType, data: Any) -> tuple[str, Any]:
    return said(lambda: values(module.read_cloudevent(data)))


def from_frame(module: ModuleType, data: Any) -> tuple[str, Any]:
    return said(lambda: values(module.Frame(module.parse_cloudevent(data))[0]))


def test_same_as_its_frame(module: ModuleType) -> None:
    for text in DOCUMENTS:
        for data in (text, *(kind(text.encode()) for kind in (bytes, bytearray, memoryview))):
            result = from_document(module, data)
            assert result[0] == "value", data
            assert result == from_frame(module, data)


def test_refused_alike(module: ModuleType, subtests: pytest.Subtests) -> None:
    for data in (*REFUSED, 5, None, ["{}"], "\ud800", memoryview(b"ab")[::2]):
        with subtests.test(data=ascii(data)[-40:]):
            result = from_document(module, data)
            assert result[0] == "PayloadError"
            assert result == from_frame(module, data)


@pytest.mark.parametrize("text", DOCUMENTS[:4], ids=["full", "binary", "text", "uuid"])
def test_truncation_raises_at_decode(module: ModuleType, text: str) -> None:
    data = text.strip().encode()
    for size in range(len(data)):
        with pytest.raises(PayloadError):
            module.read_cloudevent(data[:size])


def test_mutations(both: tuple[ModuleType, ModuleType], rounds: Any) -> None:
    chance = random.Random(23)
    pieces = [
        b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"1", b"\\u00e9", b"\\ud83d", b"\xff", b"\xc3\xa9",
        b"\x00",
    ]  # fmt: skip
    accepted = 0
    count = rounds(3_000, 100_000)
    for number in range(count):
        changed = bytearray(DOCUMENTS[number % 4].encode())
        for _ in range(chance.choice((1, 1, 2, 3))):
            at = chance.randrange(len(changed))
            if chance.random() < 0.5:
                changed[at : at + chance.choice((0, 1))] = chance.choice(pieces)
            else:
                del changed[at : at + chance.choice((1, 1, 2, 9))]
        ours, reference = (from_document(module, bytes(changed)) for module in both)
        assert ours[0] == reference[0], changed
        assert ours == from_frame(both[0], bytes(changed))
        if ours[0] == "value":
            accepted += 1
            assert ours == reference
    assert count * 0.05 < accepted < count * 0.95


def test_what_changes_is_copied(module: ModuleType) -> None:
    data = bytearray(UUID.encode())
    record = module.read_cloudevent(memoryview(data))
    expected = values(record)
    data[:] = b"x" * len(data)
    data.clear()
    assert values(record) == expected


@pytest.mark.parametrize("text", DOCUMENTS, ids=["full", "binary", "text", "uuid", "minimal"])
def test_it_holds_its_document(module: ModuleType, text: str) -> None:
    expected = from_frame(module, text)[1]
    for data in (text.encode() + b" " * 7, text + "\n"):
        record = module.read_cloudevent(data)
        del data
        gc.collect()
        [bytes(1000) for _ in range(100)]
        assert values(record) == expected


def test_only_documents_and_frames_make_records(module: ModuleType) -> None:
    kind = type(module.read_cloudevent(event()))
    with pytest.raises(TypeError):
        kind().id  # noqa: B018
    with pytest.raises(TypeError):
        kind().source  # noqa: B018
    with pytest.raises(TypeError):
        kind().to_json()


def test_data_is_decoded_when_touched() -> None:
    from cloud_runtimes.codec import cloudevents

    # as JSON the document is sound; that the text is none shows when it is touched
    result = cloudevents.decode(json.dumps(MINIMAL)[:-1] + ',"data":{"a":"\\ud800"}}')
    assert type(result) is Event
    assert (result.id, result.source, result.type, result.topic, result.pubsub_name) == ("1", "/s", "t", "", "")
    assert (result.delivery_count, result.subject, result.key, result.traceparent) == (None, None, None, None)
    with pytest.raises(PayloadError):
        result.data  # noqa: B018
    assert cloudevents.decode(UUID).data == [1, {"a": "b"}]
    result.ack()


def test_events_of_the_class_that_was_set(module: ModuleType) -> None:
    with pytest.raises(TypeError):
        module.receive_as(dict)
    result = module.decode_event(UUID)
    assert isinstance(result, module.ReceivedEvent)
    assert result.id == "018f4e5c-7a1b-7c3d-8e4f-0123456789ab"
    assert result._record.to_json() == module.read_cloudevent(UUID).to_json()


# -- what a subscription does with every event, a batch at a time: the same in both twins


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
    records = frame(kernel, [None, 10, 11, None, 12, None])
    out: list[Any] = [None]
    marks = object()
    assert records.deliver(1, [0, 1, 2, 4], 11, marks, out) == [0, 1]
    assert [type(each) for each in out[1:]] == [kernel.ClaimedRecord] * 2
    assert [(each.payload, each.marks, each.position) for each in out[1:]] == [(b"3", marks, 2), (b"5", marks, 4)]
    assert records.deliver(0, range(6), 0, marks, out) == []
    assert len(out) == 9
    for start, positions in ((0, [6]), (5, [1]), (-1, [0]), (0, [-1])):
        with pytest.raises(IndexError):
            records.deliver(start, positions, 0, marks, [])
    for wrong in ((0, [None], 0, marks, []), (0, 5, 0, marks, [])):
        with pytest.raises(TypeError):
            records.deliver(*wrong)


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
    assert kernel.hand_out(fetcher.events, False) == []  # type: ignore[attr-defined]
    seen = weakref.ref(fetcher)
    del fetcher
    gc.collect()
    assert seen() is None


def test_marks(kernel: ModuleType) -> None:
    marks = kernel.Marks(10)
    assert (marks.remaining, marks.touched, marks.void, marks.settled) == (10, False, False, b"\0\0")
    assert marks.settle(9)
    assert not marks.settle(9)
    assert marks.settle(0)
    assert (marks.remaining, marks.touched, marks.settled) == (8, True, b"\x01\x02")
    again = kernel.Marks(10, marks.settled)
    assert (again.remaining, again.touched) == (8, False)
    assert not again.settle(0)
    for position in (-1, 10, 2**40):
        with pytest.raises(IndexError):
            marks.settle(position)
    for length, settled in ((-1, None), (10, b"\0"), (8, b"\0\0"), (0, b"\0")):
        with pytest.raises(ValueError, match="one bit"):
            kernel.Marks(length, settled)
    assert kernel.Marks(0).remaining == 0


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
    assert (one.remaining, one.settled, other.remaining, void.remaining) == (2, b"\x03", 3, 4)
    wrong: list[Any] = []
    records.deliver(0, [3], 0, kernel.Marks(3), wrong)
    with pytest.raises(IndexError):
        kernel.mark_records(wrong)


def test_ranges_are_marked_once(kernel: ModuleType) -> None:
    """In the order in which they are given; a gap, a step back or other marks begin another."""
    records = frame(kernel, [None] * 6)
    one, other, void = kernel.Marks(6), kernel.Marks(6), kernel.Marks(6)
    void.void = True
    given: list[Any] = []
    for marks in (one, other, void):
        records.deliver(0, range(6), 0, marks, given)
    places = (0, 1, 1, 2, 12, 3, 5, 7, 8, 4, 6, 0)
    assert kernel.mark_ranges([given[place] for place in places]) == [
        (one, 0, 4),
        (one, 5, 6),
        (other, 1, 3),
        (one, 4, 5),
        (other, 0, 1),
    ]
    assert (one.remaining, other.remaining, void.remaining) == (0, 3, 6)
    assert kernel.mark_ranges(given[:6]) == kernel.mark_ranges([]) == []
    for wrong in ([object()], [frame(kernel, [None])[0]]):
        with pytest.raises((TypeError, AttributeError)):
            kernel.mark_ranges(wrong)
    late: list[Any] = []
    records.deliver(0, [3], 0, kernel.Marks(3), late)
    with pytest.raises(IndexError):
        kernel.mark_ranges(late)


def test_twins_mark_alike(both: tuple[ModuleType, ModuleType]) -> None:
    chance = random.Random(5)
    for _ in range(300):
        length = chance.randrange(40)
        settled = chance.choice((None, chance.randbytes((length + 7) // 8), chance.randbytes(length // 8)))
        positions = [chance.randrange(-1, length + 1) for _ in range(chance.randrange(30))]

        def read(module: ModuleType, length: int = length, settled: Any = settled, positions: Any = positions) -> Any:
            marks = module.Marks(length, settled)
            said = [outcome(marks.settle, position) for position in positions]
            return said, marks.remaining, marks.settled, marks.touched

        assert outcome(read, both[0]) == outcome(read, both[1])
