"""gRPC over HTTP/2, as RFC 9113 and gRPC's own page have it, without I/O: calls that begin, and what their servers answer."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from .._net.partial import Partial
from .hpack import decode, literal

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 1, 1, 4, 8, 32
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 4, 5
_LARGEST_WINDOW: Final = 2**31 - 1
_LARGEST_FRAME: Final = 1 << 20
_FRAME_SIZES: Final = range(1 << 14, 1 << 24)
_LARGEST_BLOCK: Final = 1 << 16
_LARGEST_MESSAGE: Final = 1 << 28
_BLOCKS: Final = 8
"""Blocks of headers that a call has at most: a server sends two."""
_LAST_STREAM: Final = 2**31 - 1001
_REPLENISH: Final = 1 << 30
# no table of headers, no pushes, all the window that there is, and large frames
_OURS: Final = struct.pack(
    ">HIHIHIHI", 1, 0, 2, 0, _INITIAL_WINDOW_SIZE, _LARGEST_WINDOW, _MAX_FRAME_SIZE, _LARGEST_FRAME
)
_REFUSED_STREAM: Final = 7
REFUSED: Final = -1
"""Status of a call that the server has not looked at."""
CANCELLED: Final = 1
_HEAD: Final = struct.Struct(">HBBBI")
_TIMEOUT: Final = literal(b"grpc-timeout", b"")[:-1]
"""Of that header, what stands before the length of its value."""
_SIZES: Final = {_RST_STREAM: 4, _PING: 8, _WINDOW_UPDATE: 4}


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Stream:
    """A call.

    Attributes:
        messages: that have come, and were not taken.
        status: gRPC's number of how it ended, or `REFUSED`; ``None``: it goes on.
        text: what the server said about that.
    """

    __slots__ = (
        "_blocks", "_data", "_done", "_headers", "credit", "id", "messages", "more", "pending", "received", "status", "text",
    )  # fmt: skip

    def __init__(self, id: int, done: Callable[[Stream], None] | None, more: bool) -> None:
        self.id = id
        self.more = more
        self.credit = 0  # of its window, beyond what the server gives each
        self.messages: list[bytes] = []
        self.status: int | None = None
        self.text = ""
        self.received = 0
        self.pending = b""
        self._done = done
        self._data = Partial()
        self._headers: dict[str, str] = {}
        self._blocks = 0

    def take(self, data: bytes) -> None:
        """Take in a part of messages."""
        if self._data.size and not (data := self._data.add(data)):
            return
        at, end, wanted = 0, len(data), 5
        while end - at >= 5:
            size = int.from_bytes(data[at + 1 : at + 5], "big")
            if data[at] or size > _LARGEST_MESSAGE or (self.messages and not self.more):
                raise ValueError("a message is compressed, too large, or one too many")
            if end - at - 5 < size:
                wanted = 5 + size
                break
            self.messages.append(data[at + 5 : at + 5 + size])
            at += 5 + size
        if at < end:
            self._data.keep(data[at:], wanted)

    def head(self, headers: dict[str, str]) -> None:
        """Take in headers or trailers."""
        self._blocks += 1
        if self._blocks > _BLOCKS:
            raise ValueError("a call has headers without end")
        self._headers = {**self._headers, **headers} if self._headers else headers

    def finish(self, status: int | None = None, text: str = "") -> None:
        """End it, by a status or by what the headers said."""
        if self.status is not None:
            return
        if status is None:
            code = self._headers.get("grpc-status", "")
            if code.isascii() and code.isdigit():
                status, text = int(code), unquote(self._headers.get("grpc-message", ""))
            else:
                http = self._headers.get(":status", "nothing")
                status, text = (2, "it sent no status") if http == "200" else (14, f"it answers {http}: no gRPC")
        self.status, self.text = status, text
        if self._done is not None:
            self._done(self)


class Session:
    """Calls of one connection.

    Attributes:
        out: what is to be sent; see `take_out`.
        streams: calls under way.
        greeted: whether the server has said that it speaks HTTP/2.
        closing: whether it takes no further calls.
        pongs: how many pings it has answered.
    """

    def __init__(self) -> None:
        self.out = bytearray(_PREFACE + _frame(_SETTINGS, 0, 0, _OURS))
        self.out += _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST_WINDOW - 65535))
        self.streams: dict[int, Stream] = {}
        self.greeted = False
        self.closing = False
        self.pongs = 0
        self._owed = 0
        self._rest = Partial()
        self._next = 1
        self._window = self._initial = 65535
        self._largest = _FRAME_SIZES.start
        self._received = 0
        self._block: tuple[int, int, bytearray] | None = None
        self._last = _LARGEST_WINDOW  # call that the server looks at
        self._widened = False

    # -- sending ----------------------------------------------------------

    def take_out(self) -> bytes:
        """Return what is to be sent, and forget it."""
        out = bytes(self.out)
        self.out.clear()
        return out

    def take_owed(self) -> int:
        """Return how many bytes of it answer the server's own questions, since the last time."""
        owed, self._owed = self._owed, 0
        return owed

    @staticmethod
    def head(secure: bool, authority: str, path: str, **headers: str) -> bytes:
        """Return the headers of calls of one method."""
        encoded = b"\x83\x87" if secure else b"\x83\x86"
        encoded += literal(4, path.encode()) + literal(1, authority.encode()) + literal(31, b"application/grpc")
        for name, value in (("te", "trailers"), *headers.items()):
            encoded += literal(name.encode(), value.encode())
        return encoded

    def begin(
        self,
        head: bytes,
        message: bytes,
        done: Callable[[Stream], None] | None = None,
        *,
        timeout: float | None = None,
        more: bool = False,
    ) -> Stream:
        """Begin a call; ``more``: further messages follow."""
        stream = Stream(self._next, done, more)
        self._next += 2
        self.closing = self.closing or self._next > _LAST_STREAM
        self.streams[stream.id] = stream
        if timeout is not None:
            value = b"%dm" % min(99_999_999, max(1, int(timeout * 1000)))
            head += b"%b%c%b" % (_TIMEOUT, len(value), value)
        self.out += _frame(_HEADERS, _END_HEADERS, stream.id, head)
        self.send(stream, message)
        return stream

    def send(self, stream: Stream, message: bytes) -> None:
        """Send a further message, or the first."""
        stream.pending += b"\0" + struct.pack(">I", len(message)) + message
        self._flow(stream)

    def _flow(self, stream: Stream) -> None:
        """Send what the windows allow."""
        pending, at = stream.pending, 0
        room = min(self._window, self._initial + stream.credit, len(pending))
        while at < room:
            part = pending[at : min(at + self._largest, room)]
            at += len(part)
            last = at == len(pending) and not stream.more
            self.out += _frame(_DATA, _END_STREAM if last else 0, stream.id, part)
        if at:
            stream.pending = pending[at:]
            self._window -= at
            stream.credit -= at

    def cancel(self, stream: Stream) -> None:
        """Forget a call, and tell the server."""
        if self.streams.pop(stream.id, None) is not None:
            self.out += _frame(_RST_STREAM, 0, stream.id, struct.pack(">I", 8))

    def ping(self) -> None:
        """Ask whether the server is there."""
        self.out += _frame(_PING, 0, 0, b"\0" * 8)

    # -- receiving --------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take in what came.

        Raises:
            ValueError: it is no HTTP/2.
        """
        if self._rest.size and not (data := self._rest.add(data)):
            return
        at, end, wanted = 0, len(data), 9
        while end - at >= 9:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            size = high << 8 | low
            if size > _LARGEST_FRAME or (not self.greeted and kind != _SETTINGS):
                raise ValueError("a frame is too large, or none of settings comes first")
            if end - at - 9 < size:
                wanted = 9 + size
                break
            self._frame(kind, flags, stream & _LARGEST_WINDOW, data[at + 9 : at + 9 + size])
            at += 9 + size
        if at < end:
            self._rest.keep(data[at:], wanted)
        if self._widened:  # once, however often the server widened which window
            self._widened = False
            for each in self.streams.values():
                if each.pending:
                    self._flow(each)

    def _frame(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        if _SIZES.get(kind, len(payload)) != len(payload) or (self._block is not None) != (kind == _CONTINUATION):
            raise ValueError("a frame has another size, or stands within headers")
        if kind == _DATA:
            self._data(flags, id, payload)
        elif kind == _HEADERS:
            if flags & (_PADDED | _PRIORITY):
                payload = _unpadded(flags, payload)[5 if flags & _PRIORITY else 0 :]
            self._headers(flags, id, payload)
        elif kind == _CONTINUATION:
            assert self._block is not None
            self._headers(flags, id, payload)
        elif kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
        elif kind == _PING:
            if flags & _ACK:
                self.pongs += 1
            else:
                self._owe(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE:
            self._widen(id, int.from_bytes(payload, "big") & _LARGEST_WINDOW)
        elif kind == _RST_STREAM:
            code = int.from_bytes(payload, "big")
            status = REFUSED if code == _REFUSED_STREAM else CANCELLED
            self._end(id, status, f"the server ended the call ({code})")
        elif kind == _GOAWAY:
            self.closing = True
            last = int.from_bytes(payload[:4], "big") & _LARGEST_WINDOW
            if last < self._last:
                self._last = last
                for each in [each for each in self.streams if each > last]:
                    self._end(each, REFUSED, "the server is going away")

    def _owe(self, answer: bytes) -> None:
        self.out += answer
        self._owed += len(answer)

    def _data(self, flags: int, id: int, payload: bytes) -> None:
        size = len(payload)
        self._received += size
        if self._received > _REPLENISH:
            self.out += _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received))
            self._received = 0
        stream = self.streams.get(id)
        if stream is None:
            return
        stream.received += size
        if stream.received > _REPLENISH:
            self.out += _frame(_WINDOW_UPDATE, 0, id, struct.pack(">I", stream.received))
            stream.received = 0
        stream.take(_unpadded(flags, payload) if flags & _PADDED else payload)
        if flags & _END_STREAM:
            self._end(id)

    def _headers(self, flags: int, id: int, piece: bytes) -> None:
        block: bytes | bytearray
        first, of, block = self._block or (flags, id, b"")
        block += piece
        if of != id or len(block) > _LARGEST_BLOCK:
            raise ValueError("headers are too large, or of two calls at once")
        if not flags & _END_HEADERS:
            self._block = self._block or (first, of, bytearray(block))
            return
        self._block = None
        headers = decode(bytes(block))
        stream = self.streams.get(id)
        if stream is not None:
            stream.head(headers)
            if first & _END_STREAM:
                self._end(id)

    def _settings(self, payload: bytes) -> None:
        self.greeted = True
        settings = dict(struct.iter_unpack(">HI", payload))
        self._initial = settings.get(_INITIAL_WINDOW_SIZE, self._initial)
        self._largest = settings.get(_MAX_FRAME_SIZE, self._largest)
        if self._initial > _LARGEST_WINDOW or self._largest not in _FRAME_SIZES:
            raise ValueError("a setting has a value that none has")
        self._owe(_frame(_SETTINGS, _ACK, 0))
        self._widened = True

    def _widen(self, id: int, more: int) -> None:
        if not id:
            self._window += more
        elif (stream := self.streams.get(id)) is not None:
            stream.credit += more
        self._widened = True

    def _end(self, id: int, status: int | None = None, text: str = "") -> None:
        stream = self.streams.pop(id, None)
        if stream is not None:
            stream.finish(status, text)


def _unpadded(flags: int, payload: bytes) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
