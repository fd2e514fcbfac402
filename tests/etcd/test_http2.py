"""gRPC over HTTP/2: headers, frames in pieces, windows, and servers that do what is not expected."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from cloud_runtimes.components.etcd.hpack import decode, literal
from cloud_runtimes.components.etcd.http2 import REFUSED, Session, Stream
from cloud_runtimes.components.etcd.messages import pack, read_fields

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield kind, flags, stream and payload."""
    while data:
        size = int.from_bytes(data[:3], "big")
        kind, flags, stream = struct.unpack_from(">BBI", data, 3)
        yield kind, flags, stream, data[9 : 9 + size]
        data = data[9 + size :]


SETTINGS = frame(4, 0, 0)
OK = bytes.fromhex("88")
DONE = literal(b"grpc-status", b"0")


def sent(session: Session) -> list[tuple[int, int, int, bytes]]:
    return list(frames(session.take_out().removeprefix(PREFACE)))


def begun(message: bytes = b"m", *, more: bool = False) -> tuple[Session, Stream]:
    """Return a session that has been greeted, with a call."""
    session = Session()
    session.feed(SETTINGS)
    sent(session)
    return session, session.begin(Session.head(False, "host", "/a/B"), message, more=more)


@pytest.mark.parametrize(
    ("block", "headers"),
    [  # RFC 7541, C.4 and C.6
        ("488264025885aec3771a4b", {":status": "302", "": "private"}),
        ("3fe11f88", {":status": "200"}),
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", {"custom-key": "custom-header"}),
        ("4088 25a849e95ba97d7f 89 25a849e95bb8e8b4bf", {"custom-key": "custom-value"}),
    ],
)
def test_headers(block: str, headers: dict[str, str]) -> None:
    assert decode(bytes.fromhex(block)) == headers


@pytest.mark.parametrize("block", ["be", "4882", "48826402ff", "00", "ff80808080"])
def test_headers_that_are_none(block: str) -> None:
    """Cut, of a table that there is not, with an end in the middle."""
    with pytest.raises(ValueError, match="headers cannot be read"):
        decode(bytes.fromhex(block))


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 300, 20_000])
def test_long_headers(size: int) -> None:
    value = b"x" * size
    assert decode(literal(b"token", value) + literal(31, value)) == {
        "token": value.decode(),
        "content-type": value.decode(),
    }


@pytest.mark.parametrize("piece", [1, 2, 9, 10_000])
def test_answers_in_pieces(piece: int) -> None:
    session, stream = begun(more=True)
    messages = [b"", b"a" * 300, b"b"]
    data = b"".join(b"\0" + struct.pack(">I", len(each)) + each for each in messages)
    answer = frame(1, 0, 1, OK[:1]) + frame(9, 4, 1, literal(b"x", b"y")) + frame(6, 0, 0, b"12345678")
    answer += frame(0, 8, 1, b"\x03" + data[:200] + b"\0\0\0") + frame(0, 0, 1, data[200:]) + frame(99, 0, 1, b"?")
    answer += frame(1, 5 | 32, 1, b"\0\0\0\0\x01" + DONE)
    for first in range(0, len(answer), piece):
        session.feed(answer[first : first + piece])
    assert (stream.status, stream.messages) == (0, messages)
    assert not session.streams
    assert sent(session)[-1] == (6, 1, 0, b"12345678")


def test_windows() -> None:
    """Data beyond the server's windows waits; frames are no larger than it takes."""
    message = bytes(200_000)
    session, stream = begun(message)
    parts = [payload for kind, _, _, payload in sent(session) if kind == 0]
    assert sum(map(len, parts)) == 65_535
    assert max(map(len, parts)) == 16_384
    session.feed(frame(8, 0, 0, struct.pack(">I", 1 << 20)))
    assert not sent(session)
    session.feed(frame(4, 0, 0, struct.pack(">HIHI", 4, 100_000, 5, 20_000)))
    more = [payload for kind, _, _, payload in sent(session) if kind == 0]
    assert sum(map(len, more)) == 100_000 - 65_535
    assert max(map(len, more)) == 20_000
    session.feed(frame(8, 0, 1, struct.pack(">I", 1 << 20)))
    *_, (kind, flags, _, _) = last = sent(session)
    assert (kind, flags) == (0, 1)
    assert sum(len(payload) for _, _, _, payload in last) == len(message) + 5 - 100_000
    assert stream.status is None


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (
            frame(1, 5, 1, OK + literal(b"grpc-status", b"14") + literal(b"grpc-message", b"no%20leader")),
            14,
            "no leader",
        ),
        (frame(1, 5, 1, bytes.fromhex("8d")), 14, "it answers 404: no gRPC"),
        (frame(1, 5, 1, OK), 2, "it sent no status"),
        (frame(3, 0, 1, struct.pack(">I", 7)), REFUSED, "the server ended the call (7)"),
        (frame(3, 0, 1, struct.pack(">I", 2)), 1, "the server ended the call (2)"),
        (frame(7, 0, 0, struct.pack(">II", 0, 0)), REFUSED, "the server is going away"),
    ],
)
def test_refusals(answer: bytes, status: int, text: str) -> None:
    session, stream = begun()
    session.feed(answer)
    assert (stream.status, stream.text) == (status, text)


def test_going_away_lets_calls_end() -> None:
    session, stream = begun()
    session.feed(frame(7, 0, 0, struct.pack(">II", 1, 0)))
    assert session.closing
    assert stream.status is None
    session.feed(frame(1, 5, 1, OK + DONE))
    assert stream.status == 0


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        SETTINGS + frame(9, 4, 1, OK),
        SETTINGS + frame(1, 4, 1, b"\xbe"),
        SETTINGS + frame(0, 0, 1, b"\x01\0\0\0\x01x"),
    ],
)
def test_what_is_not_understood(data: bytes) -> None:
    session = Session()
    session.begin(Session.head(True, "host", "/a/B"), b"")
    with pytest.raises(ValueError, match=r"a frame|headers|compressed"):
        session.feed(data)


@pytest.mark.parametrize("value", [1, 127, 128, 2**31, 2**63 - 1])
def test_messages(value: int) -> None:
    data = pack((1, value), (2, "text"), (15, b"x" * 300), (64, b"end"), (3, 0), (4, b""))
    assert list(read_fields(data)) == [(1, value), (2, b"text"), (15, b"x" * 300), (64, b"end")]


@pytest.mark.parametrize("data", [b"\x08", b"\x0a\x80", b"\x0d1234"])
def test_messages_that_are_none(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut|field"):
        list(read_fields(data))
