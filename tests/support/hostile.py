"""Servers that greet a client as its protocol has it, and then answer with whatever they are told to."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from cloud_runtimes.components.etcd.hpack import literal
from cloud_runtimes.components.rabbitmq import wire
from tests.support.listening import Listener

__all__ = ["PROTOCOLS", "Answer", "HostileServer", "Protocol", "http2_frame"]

_MANY = 1 << 18
"""Bytes that are sent at once of what has no end."""


@dataclass(frozen=True)
class Answer:
    """Response of a hostile server to a request.

    Attributes:
        name: name of the case.
        data: bytes that are sent once, or a function that makes them from the request.
        endless: bytes that are repeated for ever after that.
        early: whether the response replaces the greeting.
        foreign: whether the response is of another protocol, which the error must say.
        ends: whether the server closes the connection afterwards.
    """

    name: str
    data: bytes | Callable[[bytes], bytes] = b""
    endless: bytes = b""
    early: bool = False
    foreign: bool = False
    ends: bool = False


class HostileServer(Listener):
    """Listens on 127.0.0.1, and gives each connection a greeting, then the answer.

    Attributes:
        port: where.
        connections: that were made.
    """

    def __init__(self, greet: Callable[[socket.socket], bytes], answer: Answer) -> None:
        self.answer = answer
        self._greet = greet
        super().__init__(self._send)

    def _send(self, connection: socket.socket) -> None:
        answer = self.answer
        request = b"" if answer.early else self._greet(connection)
        connection.sendall(answer.data if isinstance(answer.data, bytes) else answer.data(request))
        while answer.endless:
            connection.sendall(answer.endless * (_MANY // len(answer.endless) + 1))
        if not answer.ends:
            while connection.recv(65536):
                pass


@dataclass(frozen=True)
class Protocol:
    """A protocol, and what no server of it would say.

    Attributes:
        greet: has a connection log in, and returns its first request.
        speaks: what messages call the protocol.
        answers: all cases.
    """

    greet: Callable[[socket.socket], bytes]
    speaks: str
    answers: tuple[Answer, ...]


def _receive(connection: socket.socket, until: bytes = b"") -> bytes:
    """Receive until something has come, or that."""
    received = b""
    while not received or until not in received:
        if not (data := connection.recv(65536)):
            raise EOFError
        received += data
    return received


_ELSEWHERE = (
    Answer("http", b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", foreign=True),
    Answer("tls-alert", b"\x15\x03\x03\x00\x02\x02\x50" * 20, foreign=True),
    Answer("noise", bytes(range(255, 100, -1)) * 10, foreign=True),
    Answer("noise-early", os.urandom(64).replace(b"\n", b"") + b"\r\n" + bytes(range(255, 100, -1)) * 10, early=True),
    Answer("silence"),
    Answer("silence-early", early=True),
    Answer("end", ends=True),
)
"""What may answer at any port."""

# -- NATS ---------------------------------------------------------------------

_INFO = b'INFO {"server_id":"X","version":"2.12.0","jetstream":true,"headers":true,"max_payload":1048576%b}\r\n'


def _greet_nats(connection: socket.socket) -> bytes:
    connection.sendall(_INFO % b"")
    _receive(connection, b"PING\r\n")
    connection.sendall(b"PONG\r\n")
    return _receive(connection)


def _reply_to(request: bytes, data: bytes) -> bytes:
    """Return a message that answers a request."""
    match = re.search(rb"PUB \S+ (\S+) ", request)
    return b"MSG %b 1 %d\r\n%b\r\n" % (match[1] if match else b"x", len(data), data)


_NATS = (
    Answer("negative-size", b"MSG x 9 -15\r\n", foreign=True),
    Answer("negative-headers", b"HMSG x 1 -5 10\r\n0123456789\r\n", foreign=True),
    Answer("headers-beyond", b"HMSG x 1 20 10\r\n0123456789\r\n", foreign=True),
    Answer("no-number", b"MSG x 1 x\r\n", foreign=True),
    Answer("unicode-digit", "MSG x 1 ²\r\n".encode(), foreign=True),
    Answer("long-number", b"MSG x 1 " + b"9" * 5000 + b"\r\n", foreign=True),
    Answer("large", b"MSG x 1 1099511627776\r\n", foreign=True),
    Answer("words", b"MSG\r\n", foreign=True),
    Answer("more-words", b"MSG a b c d e 1\r\nx\r\n", foreign=True),
    Answer("no-end", b"MSG x 1 5\r\nabcdeXX", foreign=True),
    Answer("line", endless=b"+", foreign=True),
    Answer("info-cut", b"INFO {\r\n", foreign=True),
    Answer("info-list", b"INFO []\r\n", foreign=True),
    Answer("info-deep", b"INFO " + b"[" * 60_000 + b"\r\n", foreign=True),
    Answer("info-types", b'INFO {"connect_urls":[1,{}]}\r\n', foreign=True),
    Answer("info-size", b'INFO {"max_payload":"much"}\r\n', foreign=True),
    Answer("info-ports", _INFO % b',"connect_urls":["a:99999","b:0","c:\xc2\xb2","d"]'),
    Answer("ping", endless=b"PING\r\n"),
    Answer("ok", endless=b"+OK\r\n"),
    Answer("messages", endless=b"MSG x 7 5\r\nhello\r\n"),
    Answer("foreign-messages", endless=b"MSG x 1 5\r\nhello\r\n"),
    Answer("errors", endless=b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n"),
    Answer(
        "infos", endless=_INFO % (b',"connect_urls":[%b]' % b",".join([b'"127.0.0.1:%d"' % n for n in range(1, 3000)]))
    ),
    Answer("ping-early", early=True, endless=b"PING\r\n"),
    Answer("info-early", _INFO % b"", early=True, endless=b"+OK\r\n"),
    Answer("answer-no-json", lambda request: _reply_to(request, b"nonsense")),
    Answer("answer-list", lambda request: _reply_to(request, b"[]")),
    Answer("answer-deep", lambda request: _reply_to(request, b"[" * 100_000)),
)

# -- Redis --------------------------------------------------------------------


def _greet_redis(connection: socket.socket) -> bytes:
    _receive(connection)
    connection.sendall(b"+OK\r\n")
    if b"INFO" not in (request := _receive(connection)):  # it asks once
        return request
    info = b"redis_version:7.4.0\r\nredis_mode:standalone\r\n"
    connection.sendall(b"$%d\r\n%b\r\n$0\r\n\r\n" % (len(info), info))
    return _receive(connection)


_REDIS = (
    Answer("negative-size", b"$-5\r\n", foreign=True),
    Answer("large", b"$1099511627776\r\n", foreign=True),
    Answer("larger-than-any", b"$1073741825\r\n", foreign=True),
    Answer("values", b"*99999999999\r\n", foreign=True),
    Answer("values-in-sum", b"*2000000\r\n" * 2, foreign=True),
    Answer("deep", endless=b"*1\r\n", foreign=True),
    Answer("deep-and-whole", b"*1\r\n" * 1000 + b":1\r\n", foreign=True),
    Answer("number", b":12345678901234567890\r\n", foreign=True),
    Answer("no-number", b":\r\n", foreign=True),
    Answer("line", endless=b"+", foreign=True),
    Answer("no-end", b"$3\r\nabcdXX\r\n", foreign=True),
    Answer("resp3", b"%1\r\n+a\r\n+b\r\n", foreign=True),
    Answer("null-of-resp3", b"_\r\n", foreign=True),
    Answer("ok", endless=b"+OK\r\n"),
    Answer("errors", endless=b"-ERR no\r\n"),
    Answer("numbers", endless=b":1\r\n"),
    Answer("shape", b"*2\r\n:1\r\n*1\r\n:2\r\n"),
    Answer("moved-nowhere", b"-MOVED abc def\r\n"),
    Answer("moved-port", b"-MOVED 1 127.0.0.1:99999\r\n"),
    Answer("moved-slot", b"-MOVED 99999999 127.0.0.1:1\r\n"),
    Answer("moved", endless=b"-MOVED 1 127.0.0.1:1\r\n"),
    Answer("clusterdown", endless=b"-CLUSTERDOWN no\r\n"),
    Answer("ok-early", early=True, endless=b"+OK\r\n"),
    Answer("numbers-early", b":1\r\n" * 3, early=True, foreign=True),
)

# -- RabbitMQ -----------------------------------------------------------------

_START = wire.method(0, (10, 10), "ootSS", 0, 9, {"product": "RabbitMQ", "version": "4.0"}, "PLAIN", "en_US")
_OPENED = b"".join([
    wire.method(1, (20, 11), "S", ""), wire.method(1, (85, 11), ""), wire.method(2, (20, 11), "S", "")
])  # fmt: skip
_CLOSE = wire.method(7, (20, 40), "hshh", 404, "NOT_FOUND", 40, 10)
_RETURNED = wire.method(1, (60, 50), "hsss", 312, "NO_ROUTE", "x", "y")


def _table(depth: int, kind: bytes) -> bytes:
    """Return a table of one field that is nested so deep."""
    inner = b""
    for _ in range(depth):
        inner = (b"\x01a" if kind == b"F" else b"") + kind + len(inner).to_bytes(4, "big") + inner
    return (b"" if kind == b"F" else b"\x01a") + inner


def _started(table: bytes) -> bytes:
    payload = b"\x00\x0a\x00\x0a\x00\x09" + len(table).to_bytes(4, "big") + table + b"\0\0\0\x05PLAIN\0\0\0\x05en_US"
    return wire.frame(wire.METHOD, 0, payload)


def _tuned(frame_max: int) -> bytes:
    return wire.method(0, (10, 30), "hlh", 2047, frame_max, 60)


def _greet_rabbitmq(connection: socket.socket) -> bytes:
    _receive(connection)
    connection.sendall(_START)
    _receive(connection)
    connection.sendall(_tuned(131072))
    _receive(connection)
    connection.sendall(wire.method(0, (10, 41), "s", "") + _OPENED)
    received = b""
    while len(received) <= 3 * len(wire.method(1, (20, 10), "s", "")):  # channels are opened in three steps
        received += _receive(connection)
    return received


_RABBITMQ = (
    Answer("kind", wire.frame(9, 0, b""), foreign=True),
    Answer("large", b"\x01\0\0\xff\xff\xff\xff", foreign=True),
    Answer("no-end", wire.HEARTBEAT[:-1] + b"\0", foreign=True),
    Answer("heartbeats", endless=wire.HEARTBEAT),
    Answer("unasked", endless=wire.method(2, (60, 60), "sqoss", "c", 1, 0, "x", "y"), foreign=True),
    Answer("cut", wire.frame(wire.METHOD, 1, b"\x00\x14\x00\x28\x00"), foreign=True),
    Answer("another-answer", wire.method(2, (60, 21), "s", "m1"), foreign=True),
    Answer("another-channel", _CLOSE, foreign=True),
    Answer("closes", endless=wire.method(2, (20, 40), "hshh", 404, "NOT_FOUND", 40, 10)),
    Answer("message-size", _RETURNED + wire.frame(wire.HEADER, 1, b"\0\x3c\0\0" + b"\x7f" * 8 + b"\0\0"), foreign=True),
    Answer("returns", endless=_RETURNED + wire.content(1, b"\0\0", b"x" * 1000, 131072)),
    Answer("bodies", _RETURNED + wire.frame(wire.HEADER, 1, b"\0\x3c\0\0" + b"\0" * 7 + b"\xff\0\0"), wire.frame(wire.BODY, 1, b"")),
    Answer("acks", endless=wire.method(1, (60, 80), "qo", 1 << 62, 1)),
    Answer("nacks", endless=wire.method(1, (60, 120), "qo", 1, 0)),
    Answer("blocked", wire.method(0, (10, 60), "s", "memory")),
    Answer("closed", wire.method(0, (10, 50), "hshh", 541, "INTERNAL_ERROR", 0, 0)),
    Answer("deep-early", _started(_table(20_000, b"F")), early=True),
    Answer("deep-list-early", _started(_table(20_000, b"A")), early=True),
    Answer("damaged-early", _started(b"\x01aF\0\0\xff\xff"), early=True, foreign=True),
    Answer("types-early", _started(b"\x01a?"), early=True, foreign=True),
    Answer("tune-early", _START + _tuned(8), early=True, foreign=True),
    Answer("heartbeats-early", _START, early=True, endless=wire.HEARTBEAT),
    Answer("starts-early", early=True, endless=_START, foreign=True),
    Answer("open-early", _START, early=True, endless=wire.method(0, (10, 41), "s", ""), foreign=True),
)  # fmt: skip

# -- etcd ---------------------------------------------------------------------


def http2_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_OK = http2_frame(_HEADERS, 4, 1, b"\x88")
_HELLO = http2_frame(_SETTINGS, 0, 0)


def _greet_etcd(connection: socket.socket) -> bytes:
    _receive(connection)
    connection.sendall(_HELLO)
    return _receive(connection, b"/etcdserverpb.KV/")


def _status(text: bytes) -> bytes:
    return http2_frame(_HEADERS, 5, 1, b"\x88" + literal(b"grpc-status", text))


def _message(data: bytes, size: int | None = None) -> bytes:
    return _OK + http2_frame(_DATA, 0, 1, b"\0" + struct.pack(">I", len(data) if size is None else size) + data)


_ETCD = (
    Answer("ping", endless=http2_frame(_PING, 0, 0, b"12345678")),
    Answer("settings", endless=http2_frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, 65535))),
    Answer("settings-large", endless=http2_frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, 65535) * 100_000)),
    Answer("rst", endless=http2_frame(_RST, 0, 99, b"\0\0\0\2")),
    Answer("window", endless=http2_frame(_WINDOW, 0, 1, b"\0\0\0\1")),
    Answer("goaway", http2_frame(_GOAWAY, 0, 0, struct.pack(">II", 1, 0)), http2_frame(_GOAWAY, 0, 0, struct.pack(">II", 1, 0))),
    Answer("frame", b"\xff\xff\xff\0\0\0\0\0\1", foreign=True),
    Answer("number", http2_frame(_HEADERS, 4, 1, b"\xff" * 16_000), foreign=True),
    Answer("number-without-end", http2_frame(_HEADERS, 0, 1, b"\xff"), http2_frame(_CONTINUATION, 0, 1, b"\xff" * 16_000), foreign=True),
    Answer("continuations", http2_frame(_HEADERS, 0, 1), http2_frame(_CONTINUATION, 0, 1)),
    Answer("continuation", http2_frame(_CONTINUATION, 4, 1, b"\x88"), foreign=True),
    Answer("within-headers", http2_frame(_HEADERS, 0, 1, b"\x88") + http2_frame(_PING, 0, 0, b"12345678"), foreign=True),
    Answer("headers", endless=_OK, foreign=True),
    Answer("huffman", http2_frame(_HEADERS, 5, 1, b"\x40\x01a\xff\xe9\xfa\x03" + b"\x55" * 65_000)),
    Answer("message", _message(b"", 0xFFFFFFFF), foreign=True),
    Answer("compressed", _OK + http2_frame(_DATA, 0, 1, b"\1\0\0\0\1x"), foreign=True),
    Answer("messages", _OK, http2_frame(_DATA, 0, 1, b"\0\0\0\0\0"), foreign=True),
    Answer("pieces", _message(b"", 100_000_000), http2_frame(_DATA, 0, 1, b"x")),
    Answer("ping-size", http2_frame(_PING, 0, 0, b"123"), foreign=True),
    Answer("setting", http2_frame(_SETTINGS, 0, 0, struct.pack(">HI", 5, 1)), foreign=True),
    Answer("settings-cut", http2_frame(_SETTINGS, 0, 0, b"123"), foreign=True),
    Answer("padding", http2_frame(_DATA, 8, 1), foreign=True),
    Answer("table", http2_frame(_HEADERS, 4, 1, b"\xbe"), foreign=True),
    Answer("status-unicode", _status("²".encode())),
    Answer("status-long", _status(b"9" * 5000), foreign=True),
    Answer("answer", _message(b"\x0a\xff\xff\xff\xff") + _status(b"0")),
    Answer("refused", http2_frame(_RST, 0, 1, b"\0\0\0\7")),
    Answer("ping-early", early=True, endless=http2_frame(_PING, 0, 0, b"12345678"), foreign=True),
)  # fmt: skip

# -- a sidecar's HTTP ---------------------------------------------------------

_HTTP = (
    Answer("redis", b"-ERR unknown command\r\n\r\n"),
    Answer("status", b"HTTP/1.1 9999 x\r\n\r\n"),
    Answer("two-lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
    Answer("length-negative", b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"),
    Answer("length-unicode", "HTTP/1.1 200 OK\r\ncontent-length: ²\r\n\r\n".encode()),
    Answer("length-large", b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999999\r\n\r\n"),
    Answer("head", b"HTTP/1.1 200 OK\r\nx: ", b"a"),
    Answer("headers", b"HTTP/1.1 200 OK\r\n", b"x: a\r\n"),
    Answer("informational", endless=b"HTTP/1.1 100 Continue\r\n\r\n"),
    Answer("chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n"),
    Answer("chunk-sign", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n"),
    Answer("chunk-extension", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", b"a"),
    Answer("chunks", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    Answer("trailers", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    Answer("coding", b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n"),
    Answer("to-the-end", b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    Answer("switching", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    Answer("nul", b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n"),
    Answer("error", b"HTTP/1.1 500 x\r\ncontent-length: 100000\r\n\r\n" + b'{"errorCode":' * 7692 + b"1234"),
    Answer("tls-alert", b"\x15\x03\x03\x00\x02\x02\x50" * 20),
    Answer("silence"),
    Answer("end", ends=True),
)  # fmt: skip

PROTOCOLS: dict[str, Protocol] = {
    "nats": Protocol(_greet_nats, "NATS", (*_NATS, *_ELSEWHERE)),
    "redis": Protocol(_greet_redis, "RESP, Redis' protocol", (*_REDIS, *_ELSEWHERE)),
    "rabbitmq": Protocol(_greet_rabbitmq, "AMQP 0-9-1", (*_RABBITMQ, *_ELSEWHERE)),
    "etcd": Protocol(_greet_etcd, "gRPC over HTTP/2", (*_ETCD, *_ELSEWHERE)),
    "http": Protocol(_receive, "", _HTTP),
}
