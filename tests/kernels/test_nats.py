"""NATS' protocol: the compiled twin takes events that stand in a row as the Python reader and `pack_cloudevents` do, and leaves all else to them."""

from __future__ import annotations

import random
import re
from types import ModuleType
from typing import Any

import pytest

from cloud_runtimes.components.nats.protocol import Message, Session

TOKEN = re.compile(rb"\$JS\.ACK\.[^ \r\n]*\.1\.\d+\.\d+\.\d+\.\d+")


def event(number: int, source: str = "/s") -> bytes:
    return b'{"specversion":"1.0","id":"%d","source":"%b","type":"t","data":%d}' % (number, source.encode(), number)


def token(number: int, deliveries: int = 1) -> bytes:
    return b"$JS.ACK.capa-pubsub-bus.billing=orders.%d.%d.%d.1764619200000000000.0" % (deliveries, number, number)


def wire(reply: bytes, body: bytes, head: bytes = b"", number: bytes = b"1") -> bytes:
    if head:
        return b"HMSG capa.bus.t.orders %b %b %d %d\r\n%b%b\r\n" % (
            *(number, reply, len(head), len(head) + len(body), head, body),
        )
    return b"MSG capa.bus.t.orders %b %b %d\r\n%b\r\n" % (number, reply, len(body), body)


def plain(number: int) -> bytes:
    return wire(token(number), event(number, "/other" if number == 2 else "/s"))


def test_events_in_a_row(events: ModuleType, both: tuple[ModuleType, ModuleType]) -> None:
    """The compiled twin may take them; the frame is the one that their documents make."""
    data = b"PING\r\n" + b"".join(map(plain, range(4))) + b"PING\r\n"
    at, tokens, frame = events.take_messages(data, 6, 1, "top")
    if not tokens:
        assert (at, frame) == (6, None)
        return
    assert at == len(data) - 6
    assert tokens == list(map(token, range(4)))
    expected, _ = both[1].pack_cloudevents(
        [event(number, "/other" if number == 2 else "/s") for number in range(4)], "top"
    )
    assert [each.to_json() for each in events.Frame(frame)] == [each.to_json() for each in both[1].Frame(expected)]
    assert events.Frame(frame).topic == "top"


@pytest.mark.native_only
@pytest.mark.parametrize(
    "other",
    [
        wire(token(2), event(2), number=b"2"), wire(token(2), event(2), number=b"1x"), wire(token(2, 2), event(2)),
        wire(token(2, 11), event(2)), wire(b"_INBOX.x", event(2)), wire(b"$JS.ACK.1.2.3.4", event(2)),
        wire(b"$JS.ACK.s.c.1.2.3.4.x", event(2)), wire(b"$JS.ACK.s.c.1..3.4.5", event(2)),
        wire(b"", event(2)), wire(token(2), b'{"a":1}'), wire(token(2), b""), wire(token(2), b"CRF\x01" + b"\0" * 40),
        wire(token(2), event(2), b"NATS/1.0\r\nCr-Due: 5\r\n\r\n"), wire(token(2), event(2), b"NATS/1.0 404\r\n\r\n"),
        wire(token(2), event(2), b"NATS/1.0\r\nNats-Msg-Id: 5\r\nCr-Due: 5\r\n\r\n"),
        plain(2).replace(b"orders 1", b"orders  1"), plain(2).replace(b" 1 $", b"\t1 $"), plain(2).replace(b"\r\n", b"\n", 1),
        plain(2)[:-2] + b"xx", plain(2).replace(b"MSG", b"MSX"), b"+OK\r\n" + plain(2), plain(2)[:-1], plain(2)[:40], b"",
        b"HMSG a 1 %b 90 70\r\n%b\r\n" % (token(2), b"x" * 70), b"MSG a 1 %b 9999999999\r\n" % token(2),
        b"MSG a 1 %b -5\r\n" % token(2), b"MSG a 1 %b 5 6 7\r\n" % token(2), b"\n", b"\r\n", b"MSG\r\n", b"MSG \r\n",
    ],
)  # fmt: skip
def test_where_it_stops(both: tuple[ModuleType, ModuleType], other: bytes) -> None:
    begin = plain(0) + plain(1)
    at, tokens, frame = both[0].take_messages(begin + other + (plain(3) if other.endswith(b"\r\n") else b""), 0, 1, "")
    assert (at, tokens) == (len(begin), [token(0), token(1)])
    assert len(both[0].Frame(frame)) == 2


@pytest.mark.native_only
def test_an_id_of_the_message_matters_not(both: tuple[ModuleType, ModuleType]) -> None:
    data = wire(token(1), event(1), b"NATS/1.0\r\nNats-Msg-Id: 1f 7\r\n\r\n") + plain(2)
    at, tokens, frame = both[0].take_messages(data, 0, 1, "")
    assert (at, tokens) == (len(data), [token(1), token(2)])
    assert [each.id for each in both[0].Frame(frame)] == ["1", "2"]


@pytest.mark.parametrize("at", [-1, 10**9])
def test_a_place_that_is_none(events: ModuleType, at: int) -> None:
    assert events.take_messages(plain(1), at, 1, "") == (at, [], None)


def heard(session: Session, data: bytes) -> tuple[list[Message], str]:
    messages: list[Message] = []
    session.callbacks[1] = messages.append
    try:
        session.feed(data)
    except ValueError as error:
        return messages, str(error)
    return messages, ""


@pytest.mark.native_only
def test_changed_bytes(both: tuple[ModuleType, ModuleType]) -> None:
    """Whatever comes, what the kernel takes is what the reader would have read there, and an event."""
    native, chance, taken = both[0], random.Random(11), 0
    seed = plain(1) + wire(token(2), event(2), b"NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n") + plain(3)
    for _ in range(5000):
        data = bytearray(seed)
        for _ in range(chance.randint(0, 3)):
            data[chance.randrange(len(data))] = chance.choice(b"\r\n 019.$HM{}\0\xff")
        found: list[Any] = []

        def take(data: bytes, at: int, found: list[Any] = found) -> int:
            end, tokens, frame = native.take_messages(data, at, 1, "")
            found.extend(zip(tokens, native.Frame(frame) if tokens else [], strict=True))
            return int(end)

        mixed, alone = Session(), Session()
        mixed.bulk = take
        rest, problem = heard(mixed, bytes(data))
        expected, expected_problem = heard(alone, bytes(data))
        assert problem == expected_problem
        assert len(found) + len(rest) == len(expected)
        documents = {message.reply: message.data for message in expected}
        for reply, record in found:
            assert TOKEN.fullmatch(reply)
            assert record.to_json() == native.Frame(native.parse_cloudevent(documents[reply], ""))[0].to_json()
        taken += len(found)
    assert taken > 5000
