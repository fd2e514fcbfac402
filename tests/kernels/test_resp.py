"""Redis' protocol: both twins render the same commands and read the same replies, however these are cut; what is no reply is refused."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

NOTHING = object()
arguments = st.lists(st.binary(max_size=80) | st.text(st.characters(codec="utf-8")) | st.integers(-(2**63), 2**63 - 1))
replies = st.recursive(
    st.binary(max_size=80) | st.none() | st.integers(-(2**63), 2**63 - 1) | st.from_regex(r"\AERR[^\r\n]{0,30}\Z"),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=30,
)


def wire(reply: Any) -> bytes:
    """A reply as a server sends it; text is an error."""
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if isinstance(reply, str):
        return b"-%b\r\n" % reply.encode()
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    return b"*%d\r\n%b" % (len(reply), b"".join(map(wire, reply)))


def reader(events: ModuleType) -> Any:
    return events.ReplyReader(str, NOTHING)


def read(one: Any, data: bytes, topic: str | None = None) -> list[Any]:
    replies: list[Any] = []
    one.feed(data)
    one.take(replies, 1000, topic)
    return replies


def event(number: int, source: str = "/s") -> bytes:
    return b'{"specversion":"1.0","id":"%d","source":"%b","type":"t","data":%d}' % (number, source.encode(), number)


def entries(*fields: list[bytes], name: bytes = b"stream") -> list[Any]:
    return [[name, [[b"17-%d" % number, each] for number, each in enumerate(fields)]]]


@given(given=arguments)
def test_commands(both: tuple[ModuleType, ModuleType], given: list[Any]) -> None:
    native, python = both
    expected = b"*%d\r\n" % len(given)
    for each in given:
        expected += wire(each if isinstance(each, bytes) else str(each).encode())
    assert native.pack_command(given) == python.pack_command(given) == expected


def test_an_argument_that_is_none(both: tuple[ModuleType, ModuleType], same: Any) -> None:
    for wrong in (None, 1.5, bytearray(b"x")):
        assert same(both, "pack_command", ["SET", wrong])[1] is TypeError


@given(given=st.lists(replies, min_size=1, max_size=8), seed=st.integers(0, 2**32))
def test_replies_cut_anywhere(events: ModuleType, given: list[Any], seed: int) -> None:
    """In one piece, byte by byte, and at random."""
    data = b"".join(map(wire, given))
    assert read(reader(events), data) == given
    one, parsed, at = reader(events), [], 0
    cut = random.Random(seed)
    while at < len(data):
        size = cut.choice([1, 2, cut.randint(1, 200)])
        parsed += read(one, data[at : at + size])
        at += size
    assert parsed == given
    assert one.gets() is NOTHING


def test_a_status_and_an_absent_array(events: ModuleType) -> None:
    assert read(reader(events), b"+OK\r\n*-1\r\n*0\r\n$0\r\n\r\n+\r\n") == [b"OK", None, [], b"", b""]


def test_replies_one_by_one_and_no_more_than_asked_for(events: ModuleType) -> None:
    one = reader(events)
    one.feed(b":1\r\n:2\r\n:3\r\n:4\r")
    assert one.gets() == 1
    replies: list[Any] = []
    assert one.take(replies, 1) is True
    assert replies == [2]
    assert one.take(replies, 3) is False
    assert replies == [2, 3]
    one.feed(b"\n")
    assert one.take(replies, 3) is True
    assert replies == [2, 3, 4]
    assert one.gets() is NOTHING


def test_a_large_reply(events: ModuleType) -> None:
    """Of many pieces; what was seen is not looked at again, and the next one is read as well."""
    given = [[b"%d" % number, b"x" * 1000] for number in range(10_000)]
    data = wire(given) + b":1\r\n"
    one, replies = reader(events), []
    for at in range(0, len(data), 4096):
        replies += read(one, data[at : at + 4096])
    assert replies == [given, 1]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n", b":\r\n", b":1x\r\n", b"$-5x\r\n", b"$12345678901234567890\r\n",
        b"$3\r\nabcd\r\n", b"*2\r\n:1\r\n?\r\n", b"\r\n", b":9223372036854775808\r\n",
    ],
)  # fmt: skip
def test_what_is_no_reply(events: ModuleType, data: bytes) -> None:
    with pytest.raises(ConnectionError):
        read(reader(events), data)


@pytest.mark.parametrize(
    "data",
    [
        b"+" + b"x" * 100_000, b"+" + b"x" * 70_000 + b"\r\n", b"*1\r\n" * 100_000 + b":1\r\n", b"*1\r\n" * 33 + b":1\r\n",
        b"*2097153\r\n", b"*2000000\r\n*97153\r\n", b"$1073741825\r\n", b"*2\r\n$10\r\n0123456789\r\n$1073741820\r\n",
        b"$-2\r\n", b"*-2\r\n", b"%1\r\n", b"\x15\x03\x03\x00",
    ],
)  # fmt: skip
def test_what_is_too_much(events: ModuleType, data: bytes) -> None:
    """It is refused when it is announced, not once it has come."""
    with pytest.raises(ConnectionError):
        read(reader(events), data)


def test_limits_are_those_of_a_reply(events: ModuleType) -> None:
    """Each of many has as much, and 32 levels are not too many."""
    data = b"*3\r\n:1\r\n:2\r\n:3\r\n" * 900 + b"*1\r\n" * 32 + b":1\r\n+" + b"x" * 65_000 + b"\r\n"
    replies = read(reader(events), data)
    assert len(replies) == 902


def test_the_python_twin_keeps_nothing_that_it_has_read(both: tuple[ModuleType, ModuleType]) -> None:
    """Also where the beginning of the next reply is always there."""
    one, piece = reader(both[1]), b"0123456789\r\n$10\r\n" * 500
    one.feed(b"$10\r\n")
    for _ in range(5):
        assert read(one, piece) == [b"0123456789"] * 500
    assert len(one._data) <= 2 * len(piece)


@pytest.mark.native_only
def test_two_large_replies(both: tuple[ModuleType, ModuleType]) -> None:
    one = reader(both[0])
    for _ in range(2):
        assert read(one, b"*1048577\r\n" + b":1\r\n" * 1_048_577) == [[1] * 1_048_577]


def test_a_piece_of_no_bytes(events: ModuleType) -> None:
    one = reader(events)
    one.feed(b"")
    assert one.gets() is NOTHING
    assert read(one, b"+OK\r\n") == [b"OK"]


# -- reads of a stream --------------------------------------------------------


def test_events_of_a_stream(events: ModuleType, both: tuple[ModuleType, ModuleType]) -> None:
    """The compiled twin may make the frame; it is the one that its events make."""
    documents = [event(number, "/other" if number == 2 else "/s") for number in range(4)]
    reply = entries(*[[b"data", each] for each in documents])
    (parsed,) = read(reader(events), wire(reply), "top")
    if isinstance(parsed, list):
        assert parsed == reply
        return
    name, ids, frame = parsed
    assert (name, ids) == (b"stream", [b"17-0", b"17-1", b"17-2", b"17-3"])
    records = events.Frame(frame)
    assert [(each.id, each.source, each.topic, each.payload) for each in records] == [
        ("0", "/s", "top", b"0"), ("1", "/s", "top", b"1"), ("2", "/other", "top", b"2"), ("3", "/s", "top", b"3"),
    ]  # fmt: skip
    assert [each.to_json() for each in records] == [
        each.to_json() for each in both[1].Frame(both[1].pack_cloudevents(documents, "top")[0])
    ]


@pytest.mark.native_only
def test_events_of_a_stream_are_packed(both: tuple[ModuleType, ModuleType]) -> None:
    (parsed,) = read(reader(both[0]), wire(entries([b"data", event(1)])), "top")
    assert isinstance(parsed, tuple)


@pytest.mark.parametrize(
    "reply",
    [
        [],
        None,
        [[b"stream", []]],
        [[b"stream", None]],
        entries([b"data", event(1)], [b"data", b"CRF\x01"]),
        entries([b"data", event(1)], [b"data", b"{}"]),
        entries([b"data", event(1)], [b"other", event(2)]),
        entries([b"data", event(1), b"datacontenttype", b"text/plain"]),
        [[b"stream", [[b"17-0", None]]]],
        [*entries([b"data", event(1)]), *entries([b"data", event(2)], name=b"another")],
        [[b"stream", [[b"17-0", [b"data", event(1)], b"more"]]]],
        [[b"stream", [[5, [b"data", event(1)]]]]],
        [[b"stream", [[b"17-0", [b"data", 5]]]]],
        5,
    ],
)
def test_what_else_a_read_gives(events: ModuleType, reply: Any) -> None:
    """It comes as it is, and so do the replies after it."""
    assert read(reader(events), wire(reply) + b":1\r\n", "top") == [reply, 1]


@pytest.mark.native_only
def test_events_cut_anywhere(both: tuple[ModuleType, ModuleType]) -> None:
    data = b":5\r\n" + wire(entries(*[[b"data", event(number)] for number in range(3)])) + b"+OK\r\n"
    whole = read(reader(both[0]), data, "top")
    assert [type(each) for each in whole] == [int, tuple, bytes]
    for cut in range(len(data)):
        one = reader(both[0])
        replies = read(one, data[:cut], "top") + read(one, data[cut:], "top")
        assert [each[:2] if isinstance(each, tuple) else each for each in replies] == [5, whole[1][:2], b"OK"]


@pytest.mark.native_only
def test_mutated_replies(both: tuple[ModuleType, ModuleType]) -> None:
    """Bytes changed at random: the compiled twin finds replies, waits, or refuses them."""
    chance = random.Random(17)
    data = wire(entries(*[[b"data", event(number)] for number in range(5)])) + wire([[1, [b"x" * 40, None]], "ERR no"])
    for _ in range(5000):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(data))] = chance.choice([*b"\r\n$*:-+0123456789", chance.randrange(256)])
        one = reader(both[0])
        try:
            for at in range(0, len(changed), 37):
                read(one, bytes(changed[at : at + 37]), "top")
        except ConnectionError:
            pass
