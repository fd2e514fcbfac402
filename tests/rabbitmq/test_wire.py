"""The protocol without a server: what comes in any pieces, beside pika's own reading and writing of tables."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_runtimes.components._net.connections import ConnectionLost
from cloud_runtimes.components.rabbitmq.failures import ServerError
from cloud_runtimes.components.rabbitmq.messages import STRUCTURED
from cloud_runtimes.components.rabbitmq.session import CALLS, CONFIRMS, Ask, Publish, Session
from cloud_runtimes.components.rabbitmq.wire import (
    HEARTBEAT,
    Properties,
    content,
    method,
    properties,
    read,
    read_properties,
)

KINDS = [properties(STRUCTURED), properties(Properties(None, {"x-cr-rest": 5}, 2, "id")), properties(Properties())]


def opened() -> Session:
    session = Session(("guest", "guest"), "/", 60, "test")
    session.feed(method(0, (10, 10), "ootSS", 0, 9, {"product": "RabbitMQ"}, "PLAIN AMQPLAIN", "en_US"))
    session.feed(method(0, (10, 30), "hlh", 2047, 4096, 30) + method(0, (10, 41), "s", ""))
    for channel in (CONFIRMS, CALLS):
        session.feed(method(channel, (20, 11), "S", ""))
    session.feed(method(CONFIRMS, (85, 11), ""))
    assert session.ready
    assert (session.frame_max, session.heartbeat) == (4096, 30)
    session.begin(Ask((60, 20), "hssot", 0, "queue", "m1", 0, {}))
    session.feed(method(CALLS, (60, 21), "s", "m1"))
    session.out = b""
    return session


@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.integers(0, 6000), st.booleans(), st.sampled_from(["m1", "m22"])),
        max_size=40,
    ),
    st.integers(0, 2**32),
)
def test_deliveries_in_any_pieces(messages: list[tuple[bytes, int, bool, str]], seed: int) -> None:
    chance = random.Random(seed)
    session, data, wanted = opened(), b"", []
    came: list[Any] = []
    for tag, (header, size, again, consumer) in enumerate(messages, 1):
        body = chance.randbytes(size)
        wanted.append((tag, header, body))
        data += method(CALLS, (60, 60), "sqoss", consumer, tag, again, "x", "")
        if chance.random() < 0.2:
            data += HEARTBEAT
        data += content(CALLS, header, body, 4096)
    while data:
        size = chance.choice([1, 7, 100, 5000, len(data)])
        session.feed(data[:size])
        data = data[size:]
        if chance.random() < 0.5:
            came += session.take().get(CALLS, [])
    assert came + session.take().get(CALLS, []) == wanted


def test_what_is_no_amqp(subtests: pytest.Subtests) -> None:
    for data in (b"HTTP/1.1 400 Bad Request\r\n", b"\x01\x00\x00\xff\xff\xff\xff\x00", HEARTBEAT[:-1] + b"\0"):
        with subtests.test(data=data), pytest.raises(ValueError, match="a frame"):
            opened().feed(data)


def test_tables_are_those_of_pika() -> None:
    from pika import data as pika

    values: dict[str, Any] = {
        "text": "grüße", "number": 2**40, "small": -3, "yes": True, "no": None, "deep": {"list": [1, "two", {"three": 3}]},
        "time": datetime(2026, 1, 2, tzinfo=UTC), "decimal": Decimal("12.34"), "bytes": "\udcff".encode("utf-8", "surrogatepass"),
    }  # fmt: skip
    pieces: list[bytes] = []
    pika.encode_table(pieces, values)
    (table,) = read("t", b"".join(pieces), 0)
    assert table.pop("time") == int(values["time"].timestamp())
    assert float(table.pop("decimal")) == 12.34
    table.pop("bytes")
    assert table == {name: value for name, value in values.items() if name in table}
    ours = {"text": "grüße", "number": 2**40, "yes": True, "deep": {"n": -1}, "list": [1, None, [{"b": b"\xff"}]]}
    encoded = method(1, (50, 10), "t", ours)[11:-1]
    assert pika.decode_table(encoded, 0)[0] == read("t", encoded, 0)[0] == ours
    ours["float"] = 2.5  # pika reads it as a whole number
    assert read("t", method(1, (50, 10), "t", ours)[11:-1], 0)[0] == ours
    with pytest.raises(ValueError, match="beyond the end"):
        read("t", encoded[:-1], 0)


def test_properties() -> None:
    for given_ in (STRUCTURED, Properties("a/b", {"k": "v"}, 1, "m"), Properties()):
        assert read_properties(properties(given_)) == given_


def confirm(number: int, multiple: bool, taken: bool = True) -> bytes:
    if taken:
        return method(CONFIRMS, (60, 80), "qo", number, multiple)
    return method(CONFIRMS, (60, 120), "qo", number, multiple)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 2**32))
def test_confirms_in_any_order(counts: list[int], seed: int) -> None:
    """Each step settles with the confirm of its last message, and knows which were refused."""
    chance = random.Random(seed)
    session = opened()
    steps = [Publish(b"", count, "x") for count in counts]
    for step in steps:
        session.begin(step)
    owner = {step.first + offset: step for step in steps for offset in range(step.count)}
    refused: set[int] = set()
    remaining = set(owner)
    while remaining:
        number, multiple, taken = chance.choice(sorted(remaining)), chance.random() < 0.3, chance.random() < 0.7
        those = {each for each in remaining if each <= number} if multiple else {number}
        remaining -= those
        refused |= set() if taken else those
        session.feed(confirm(number, multiple, taken))
        for step in steps:
            assert step.remaining == sum(owner[each] is step for each in remaining)
            missing = [each - step.first for each in sorted(remaining | refused) if owner[each] is step]
            assert sorted(step.unconfirmed()) == missing
    for step in steps:
        assert sorted(step.refused) == [each - step.first for each in sorted(refused) if owner[each] is step]


def test_a_second_confirm_of_a_message_confirms_no_other() -> None:
    session, step = opened(), Publish(b"", 3, "x")
    session.begin(step)
    session.feed(confirm(1, False) * 2 + confirm(3, False) * 2)
    assert step.remaining == 1
    assert step.unconfirmed() == [1]
    session.feed(confirm(2, False, taken=False) + confirm(2, False, taken=False))
    assert (step.remaining, step.refused) == (0, [1])


def nested(depth: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"k": value}
    return value


def test_headers_that_are_nested_too_deep(subtests: pytest.Subtests) -> None:
    """Only headers that are nested too deep are dropped, even with 20,000 levels."""
    for kind in (dict, list):
        with subtests.test(kind=kind):
            headers = {"a": 1, "deepest": nested(16, kind), "deep": nested(17, kind), "z": {"y": [None]}}
            parsed = read_properties(properties(Properties("a/b", headers, 2, "id")))
            del headers["deep"]
            assert parsed == Properties("a/b", headers, 2, "id")
            inner = b""
            for _ in range(20_000):
                inner = (b"\x01kF" if kind is dict else b"A") + len(inner).to_bytes(4, "big") + inner
            table = (b"" if kind is dict else b"\x01k") + inner + b"\x01at\x01"
            assert read("t", len(table).to_bytes(4, "big") + table, 0) == [{"a": True}]


def test_headers_that_are_damaged(subtests: pytest.Subtests) -> None:
    """They are left out; what is around them is read."""
    for table in (
        b"\x01kF\0\0\xff\xff",
        b"\x01kA\0\0\0\x01F",
        b"\x01k?",
        b"\xffk",
        b"\x01kS\xff\xff\xff\xff",
        b"\x01kl\0",
        b"\x01k",
    ):
        with subtests.test(table=table):
            data = bytes.fromhex("b080") + b"\x03a/b" + len(table).to_bytes(4, "big") + table + b"\x02\x02id"
            assert read_properties(data) == Properties("a/b", None, 2, "id")
            for cut in range(len(data)):
                assert read_properties(data[:cut]).headers is None


def test_a_message_that_nobody_asked_for() -> None:
    """A connection without a consumer keeps none."""
    session = Session(("guest", "guest"), "/", 60, "test")
    with pytest.raises(ValueError, match="nobody asked for"):
        session.feed(method(CALLS, (60, 60), "sqoss", "c", 1, 0, "x", ""))


def test_a_channel_that_is_closed() -> None:
    """The step at fault gets the error. Other requests are sent again, and other publishes have failed."""
    session = opened()
    asks = [Ask((40, 10), "hssot", 0, name, "fanout", 2, {}) for name in ("a", "b")]
    publishes = [Publish(b"", 1, name) for name in ("a", "b")]
    for step in (*asks, *publishes):
        session.begin(step)
    session.feed(method(CALLS, (20, 40), "hshh", 406, "PRECONDITION_FAILED - inequivalent arg", 40, 10))
    assert isinstance(asks[0].failure, ServerError)
    assert asks[1].failure is None
    assert session.out.endswith(asks[1].data)
    session.feed(method(CONFIRMS, (20, 40), "hshh", 404, "NOT_FOUND - no exchange 'b' in vhost '/'", 60, 40))
    assert isinstance(publishes[0].failure, ConnectionLost)
    assert isinstance(publishes[1].failure, ServerError)
    session.feed(method(CALLS, (20, 11), "S", "") + method(CALLS, (40, 11), ""))
    session.end(ConnectionLost("gone"))
    assert asks[1].failure is None
    assert session.begin(Publish(b"data", 1, "a")) == b"data"
