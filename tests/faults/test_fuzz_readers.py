"""Readers of what servers say, fed with bytes that were changed at random: they take them in, wait, or say that this is not the protocol."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest

from cloud_runtimes._native import resp_py
from cloud_runtimes.components._net import connections
from cloud_runtimes.components._net.connections import ConnectionLost, ServerConnection, ServerError
from cloud_runtimes.components.etcd import EtcdSettings
from cloud_runtimes.components.etcd import connection as etcd
from cloud_runtimes.components.etcd.connection import parse_url as etcd_url
from cloud_runtimes.components.etcd.hpack import literal
from cloud_runtimes.components.nats import NatsSettings
from cloud_runtimes.components.nats import connection as nats
from cloud_runtimes.components.nats.requests import Batch, Bulk, Call, Inbox, Request
from cloud_runtimes.components.rabbitmq import connection as rabbitmq
from cloud_runtimes.components.rabbitmq import wire
from cloud_runtimes.components.rabbitmq.session import CALLS, CONFIRMS, Ask, Publish
from cloud_runtimes.components.rabbitmq.settings import parse_url as rabbitmq_url
from tests.support import Rounds
from tests.support.hostile import http2_frame

_SERVER = ("server", 1)
_NUMBERS = (b"0", b"-1", b"-15", b"4294967295", b"9" * 25, b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x80" * 9)


def changed(chance: random.Random, data: bytes, alphabet: bytes) -> bytes:
    """Return data with some bytes changed, moved, cut out or put in."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at, kind = chance.randrange(len(result) + 1), chance.randrange(6)
        if kind == 0 and at < len(result):
            result[at] = chance.randrange(256)
        elif kind == 1 and at < len(result):
            result[at] = chance.choice(alphabet)
        elif kind == 2:
            del result[at : at + chance.randint(1, 8)]
        elif kind == 3:
            result[at:at] = chance.choice(_NUMBERS)
        elif kind == 4:
            result[at:at] = chance.randbytes(chance.randint(1, 8))
        else:
            begin = chance.randrange(len(result) + 1)
            result[at:at] = result[begin : begin + chance.randint(1, 60)]
    return bytes(result)


def pieces(chance: random.Random, data: bytes) -> list[bytes]:
    """Return data in pieces."""
    size = chance.choice([1, 7, 60, len(data) + 1])
    return [data[at : at + size] for at in range(0, len(data), size)]


def feed(connection: ServerConnection, chance: random.Random, data: bytes) -> bool:
    """Feed a connection; returns whether it says that this is not the protocol."""
    connection._server, said = _SERVER, ""
    try:
        for piece in pieces(chance, data):
            connection._took(piece)
    except ConnectionLost as error:
        said = str(error)
    except ServerError:
        pass
    assert said in ("", f"the server at server:1 does not speak {connection.protocol}")
    return bool(said)


def fuzz(
    rounds: int, seeds: Sequence[bytes], alphabet: bytes, opened: Callable[[], ServerConnection], seed: int
) -> None:
    chance, refused = random.Random(seed), 0
    for each in seeds:
        assert not feed(opened(), chance, each), each
    for _ in range(rounds):
        refused += feed(opened(), chance, changed(chance, chance.choice(seeds), alphabet))
    assert refused > rounds / 20


# -- NATS ---------------------------------------------------------------------


@pytest.mark.promise("G3")
def test_nats(rounds: Rounds) -> None:
    settings = NatsSettings(url="nats://h:1")
    address = nats.parse_url("nats://h:1")
    replies: list[bytes] = []
    inbox = Inbox("_INBOX")
    inbox._prefix = b"_INBOX.x."

    def opened() -> ServerConnection:
        connection = nats.Connection(address, settings, nats.Servers(address.servers))
        inbox.waiting.clear()
        inbox._next = 0
        batch = Batch(Request("a", answers=3), Bulk("b", lambda reply: reply, 5), Request("c", consumer="C"))
        inbox.begin(Call(batch, lambda call: None), batch)
        connection.session.callbacks[1], connection.session.bulk = inbox.take, inbox.take_bulk
        connection.session.callbacks[2] = lambda message: replies.append(message.data)
        return connection

    answer = b'{"stream":"S", "seq":1}'
    seeds = [
        b'INFO {"version":"2.12.0","max_payload":1048576,"connect_urls":["a:1","[::1]:2"]}\r\nPING\r\n+OK\r\nPONG\r\n',
        b"MSG x 2 5\r\nhello\r\nMSG x 2 y 0\r\n\r\nHMSG x 2 12 17\r\nNATS/1.0\r\n\r\nhello\r\n-ERR 'no'\r\n",
        b"".join(b"MSG _INBOX.x.%d 1 %d\r\n%b\r\n" % (n % 4, len(answer), answer) for n in range(8)),
        b"MSG a.b 1 $JS.ACK.S.C.1.2.3.4.5 2\r\nhi\r\nHMSG _INBOX.x.1 1 r 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
    ]
    fuzz(rounds(2_000, 100_000), seeds, b"MSGHINFOPER+- \r\n0123456789", opened, 1)


# -- RabbitMQ -----------------------------------------------------------------


@pytest.mark.promise("G3")
def test_rabbitmq(rounds: Rounds) -> None:
    address = rabbitmq_url("amqp://h:1")
    start = wire.method(0, (10, 10), "ootSS", 0, 9, {"product": "RabbitMQ", "n": {"a": [1, None]}}, "PLAIN", "en_US")
    login = start + wire.method(0, (10, 30), "hlh", 2047, 4096, 60) + wire.method(0, (10, 41), "s", "")
    login += wire.method(1, (20, 11), "S", "") + wire.method(1, (85, 11), "") + wire.method(2, (20, 11), "S", "")

    def opened() -> ServerConnection:
        return rabbitmq.Connection(address, connections.Servers(address.servers), "fuzz")

    def working() -> ServerConnection:
        connection = rabbitmq.Connection(address, connections.Servers(address.servers), "fuzz")
        connection.session.feed(login)
        for step in (Ask((60, 20), "s", ""), Ask((50, 10), "s", ""), Publish(b"", 3, "x"), Publish(b"", 2, "y")):
            connection.session.begin(step)
        return connection

    properties = wire.properties(wire.Properties("a/b", {"x": {"y": [1, "z", 2.5]}, "n": 5}, 2, "id"))
    deliver = wire.method(CALLS, (60, 60), "sqoss", "c", 1, 0, "x", "y") + wire.content(
        CALLS, properties, b"b" * 5000, 4096
    )
    seeds = [
        wire.method(CALLS, (60, 21), "s", "c") + deliver * 3 + wire.HEARTBEAT + deliver,
        wire.method(CALLS, (60, 21), "s", "c") + wire.method(CALLS, (50, 11), "sll", "q", 1, 2),
        wire.method(CONFIRMS, (60, 80), "qo", 1, 0) + wire.method(CONFIRMS, (60, 120), "qo", 4, 1),
        wire.method(CONFIRMS, (60, 50), "hsss", 312, "NO_ROUTE", "x", "k")
        + wire.content(CONFIRMS, properties, b"b", 4096),
        wire.method(CALLS, (20, 40), "hshh", 404, "NOT_FOUND", 60, 20) + wire.method(0, (10, 60), "s", "memory"),
    ]
    alphabet = bytes((0, 1, 2, 3, 8, 0xCE, 10, 20, 50, 60, 80, 255)) + b"FAStsxlD"
    fuzz(rounds(500, 20_000), [login], alphabet, opened, 2)
    fuzz(rounds(2_000, 100_000), seeds, alphabet, working, 3)


def test_headers_of_rabbitmq(rounds: Rounds) -> None:
    """Headers that another program wrote break nothing."""
    chance = random.Random(4)
    headers = {"a": {"b": [1, {"c": None}], "d": 2.5}, "e": b"x", "f": True, "g": "text", "h": [[[1]]]}
    properties = wire.properties(wire.Properties("a/b", headers, 2, "id"))
    for _ in range(rounds(5_000, 200_000)):
        result = wire.read_properties(changed(chance, properties, b"FAStsxlDVTud\0\1\2\xff"))
        assert result.headers is None or isinstance(result.headers, dict)


# -- etcd ---------------------------------------------------------------------


def test_etcd(rounds: Rounds) -> None:
    settings = EtcdSettings(url="etcd://h:1")
    address = etcd_url("etcd://h:1")

    def opened() -> ServerConnection:
        connection = etcd.Connection(address, settings, connections.Servers(address.servers), etcd.Login(address))
        connection.session.begin(b"\x83", b"m" * 100_000)
        connection.session.begin(b"\x83", b"m", more=True)
        connection.session.begin(b"\x83", b"m")
        return connection

    def message(stream: int, data: bytes) -> bytes:
        return http2_frame(0, 0, stream, b"\0" + len(data).to_bytes(4, "big") + data)

    hello = http2_frame(4, 0, 0, b"\0\4\0\1\0\0\0\5\0\0\x40\0")
    done = http2_frame(1, 5, 1, b"\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf")
    status = literal(b"grpc-status", b"0") + literal(b"grpc-message", b"a%20b")
    seeds = [
        hello
        + http2_frame(6, 0, 0, b"12345678")
        + http2_frame(8, 0, 1, b"\0\0\1\0")
        + http2_frame(8, 0, 0, b"\0\1\0\0"),
        hello + http2_frame(1, 4, 1, b"\x88") + message(1, b"x" * 300) + http2_frame(1, 5, 1, status),
        hello + http2_frame(1, 0, 3, b"\x88") + http2_frame(9, 4, 3, status) + message(3, b"a") * 4 + done,
        hello + http2_frame(3, 0, 5, b"\0\0\0\7") + http2_frame(7, 0, 0, b"\0\0\0\1\0\0\0\0") + done,
        hello + http2_frame(0, 8, 3, b"\3\0\0\0\0\1x\0\0\0") + http2_frame(1, 37, 1, b"\0\0\0\0\1\x88"),
    ]
    fuzz(rounds(2_000, 100_000), seeds, bytes((0, 1, 3, 4, 5, 6, 7, 8, 9, 0x20, 0x40, 0x7F, 0x80, 0xFF)), opened, 5)


# -- Redis --------------------------------------------------------------------


def read(module: ModuleType, parts: Sequence[bytes]) -> tuple[list[Any], bool]:
    """Return the replies, and whether it said that this is not the protocol."""
    replies: list[Any] = []
    reader = module.ReplyReader(str, Ellipsis)
    try:
        for piece in parts:
            reader.feed(piece)
            reader.take(replies, 1 << 30)
    except ConnectionError:
        return replies, True
    return replies, False


@pytest.mark.promise("G3")
@pytest.mark.native_only
def test_redis(rounds: Rounds) -> None:
    """Both twins give the same replies; the compiled one may find out later than the other that there are none."""
    from cloud_runtimes._native import events

    chance, refused = random.Random(6), 0
    seeds = [
        b"+OK\r\n:5\r\n-ERR no\r\n$5\r\nhello\r\n$-1\r\n*-1\r\n*0\r\n$0\r\n\r\n:-7\r\n",
        b"*2\r\n*3\r\n:1\r\n$2\r\nab\r\n*1\r\n+x\r\n*2\r\n-ERR\r\n$-1\r\n:9\r\n",
        b"*1\r\n" * 31
        + b"$3\r\nabc\r\n"
        + b"*1\r\n*2\r\n$6\r\nstream\r\n*1\r\n*2\r\n$4\r\n17-0\r\n*2\r\n$4\r\ndata\r\n$2\r\n{}\r\n",
        b"$" + b"70000\r\n" + b"x" * 70_000 + b"\r\n+" + b"y" * 300 + b"\r\n",
    ]
    for number in range(rounds(4_000, 200_000)):
        data = changed(chance, seeds[number % 3 if number % 50 else 3], b"\r\n$*:-+0123456789")
        parts = pieces(chance, data) if len(data) < 5000 else [data[:3000], data[3000:]]
        (native, native_ends), (python, python_ends) = read(events, parts), read(resp_py, parts)
        assert native == python
        assert python_ends or not native_ends
        refused += native_ends
    assert refused > 100
