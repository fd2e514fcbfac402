"""The response parser: whatever the pieces that a response comes in, and nothing that is not exactly one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_runtimes._http.http1 import Endpoint, ProtocolError, ResponseParser, TooLargeError, request
from cloud_runtimes._http.limits import MAX_BODY, MAX_HEAD
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.rpc.peers import endpoint
from cloud_runtimes.spi.rpc import RpcCall, RpcReply

GOOD: dict[bytes, tuple[int, bytes, bool]] = {
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello": (200, b"hello", True),
    b"HTTP/1.1 200 \r\nContent-Length:5  \r\n\r\nhello": (200, b"hello", True),
    b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n": (200, b"", True),
    b"HTTP/1.1 204 No Content\r\n\r\n": (204, b"", True),
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 201 Made\r\ncontent-length: 1\r\n\r\nx": (201, b"x", True),
    b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok": (200, b"ok", False),
    b"HTTP/1.1 200 OK\r\nconnection: Close\r\ncontent-length: 2\r\n\r\nok": (200, b"ok", False),
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n": (200, b"hello world", True),
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n1\r\n\r\r\n1 \r\n\n\r\n0\r\nx: y\r\n\r\n": (200, b"\r\n", True),
}  # fmt: skip

BAD = [
    b"\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"HTTP/2 200 OK\r\n\r\n",
    b"HTTP/1.1 99 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\0\r\n\r\n",
    b"HTTP/1.1 200 OK\nx: y\r\n\r\n",
    b"HTTP/1.1 200 OK\n\ncontent-length: 0",
    b"HTTP/1.1 200 OK\r\nx\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n: y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx : y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: y\r\n folded\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: a\0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\ncontent-length: \xb2\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n123456789\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1" * 300,
    b"HTTP/1.1 101 Switching\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 9,
]


def parsed(pieces: list[bytes], *, head_only: bool = False) -> tuple[RpcReply, bool]:
    parser = ResponseParser(head_only=head_only)
    done = [parser.feed(piece) for piece in pieces]
    assert done[-1]
    assert not any(done[:-1])
    return parser.reply(), parser.keep_alive


@pytest.mark.parametrize("data", GOOD)
def test_a_response_in_any_two_pieces_and_byte_by_byte(data: bytes) -> None:
    status, body, keep_alive = GOOD[data]
    cuts = [[data[:offset], data[offset:]] for offset in range(1, len(data))]
    for pieces in [[data], *cuts, [data[offset : offset + 1] for offset in range(len(data))]]:
        reply, kept = parsed(pieces)
        assert (reply.status, reply.data, kept) == (status, body, keep_alive), pieces


@pytest.mark.parametrize("data", BAD, ids=lambda data: data[:70].decode("latin-1").encode("unicode_escape").decode())
def test_what_is_no_response(data: bytes) -> None:
    for step in (len(data), 1):
        parser = ResponseParser(head_only=False)
        with pytest.raises(ProtocolError):
            for offset in range(0, len(data), step):
                parser.feed(data[offset : offset + step])


@pytest.mark.parametrize("data", GOOD)
def test_what_follows_a_response_ends_the_connection(data: bytes) -> None:
    reply, keep_alive = parsed([data + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"])
    assert (reply.status, reply.data) == GOOD[data][:2]
    assert not keep_alive


def test_to_the_end_of_the_connection() -> None:
    parser = ResponseParser(head_only=False)
    assert not parser.feed(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nab")
    assert not parser.feed(b"c")
    assert parser.eof()
    assert parser.reply() == RpcReply(200, {}, "text/plain", b"abc")
    assert not parser.keep_alive


@pytest.mark.parametrize("data", [each for each in GOOD if GOOD[each][1]])
def test_a_response_that_is_cut_off(data: bytes) -> None:
    parser = ResponseParser(head_only=False)
    parser.feed(data[:-1])
    assert not parser.eof()


def test_to_head() -> None:
    reply, keep_alive = parsed([b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"], head_only=True)
    assert (reply.data, keep_alive) == (b"", True)


def test_limits() -> None:
    for head in (
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (MAX_BODY + 1),
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * MAX_HEAD,
        b"HTTP/1.1 200 OK\r\n" + b"x: a\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(MAX_BODY + 1),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n",
    ):
        parser = ResponseParser(head_only=False)
        with pytest.raises(TooLargeError):
            parser.feed(head)
            parser.feed(b"")


@given(st.lists(st.binary(max_size=40), max_size=6), st.binary(max_size=60))
def test_garbage_only_raises_what_is_meant(pieces: list[bytes], tail: bytes) -> None:
    for begin in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"):
        parser = ResponseParser(head_only=False)
        try:
            for piece in (begin, *pieces, tail):
                if piece and parser.feed(piece):
                    parser.reply()
                    break
        except (ProtocolError, TooLargeError):
            continue


def _call(**changes: Any) -> RpcCall:
    return RpcCall("m", "m", "POST", b"x", "text/plain", {"a": "b"}, "q=1")._replace(**changes)


def test_the_bytes_of_a_request() -> None:
    where = Endpoint(False, "::1", 8080, "/prefix", b"s" * 32)
    head, _, body = request(where, _call(), "me", 1.5, "a.b.c").partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /prefix/m?q=1 HTTP/1.1"
    assert lines[1:3] == ["host: [::1]:8080", "cloud-runtimes-caller: me"]
    assert lines[3] == "cloud-runtimes-token: a.b.c"
    assert "s" * 32 not in head.decode()
    assert lines[4:] == ["cloud-runtimes-timeout: 1501", "a: b", "content-type: text/plain", "content-length: 1"]
    assert body == b"x"
    plain = request(Endpoint(True, "host", 443), _call(http_method="GET", body=b"", content_type=None), "me", None)
    assert plain == b"GET /m?q=1 HTTP/1.1\r\nhost: host\r\ncloud-runtimes-caller: me\r\na: b\r\n\r\n"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:8080", Endpoint(False, "127.0.0.1", 8080)),
        ("http://host/", Endpoint(False, "host", 80)),
        ("https://host/a/b/", Endpoint(True, "host", 443, "/a/b")),
        ("http://[::1]:5", Endpoint(False, "::1", 5)),
    ],
)
def test_addresses(address: str, expected: Endpoint) -> None:
    assert endpoint(address, "here") == expected


@pytest.mark.parametrize(
    "address",
    ["", "host", "host:80", "ftp://host", "http://", "http://a@host", "http://u:p@host", "http://host:x", "http://host:99999",
     "http://host/a?b", "http://host#f", "http://host/../a", "http://ho st", "http://host\r\nx: y", "http://hö", "http:\\\\host", None, 5],
)  # fmt: skip
def test_bad_addresses(address: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="here"):
        endpoint(address, "here")
