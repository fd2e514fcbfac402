"""NATS' text protocol, without I/O (docs.nats.io, "Client Protocol"): writing commands, reading what a server sends."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn

from .._net.partial import Partial

_LINE: Final = 65536
"""Bytes of a line at most."""
_MESSAGE: Final = 1 << 27
"""Bytes of a message at most: twice what a server can be told to take."""
_BEGIN: Final = b"+-HIMP"
"""How commands of a server begin."""
_WITH_DATA: Final = (b"MSG", b"HMSG")


class Message(NamedTuple):
    """Message that a subscription receives.

    Attributes:
        subject: it was published to.
        reply: subject for the reply, or empty.
        head: the raw headers, or empty.
        data: the payload.
    """

    subject: bytes
    reply: bytes
    head: bytes
    data: bytes

    @property
    def status(self) -> int:
        """The status of a message that the server itself sent, such as 404 and 503; else 0."""
        code = self.head[9:12]
        return int(code) if code.isdigit() else 0

    @property
    def headers(self) -> dict[str, str]:
        """The headers; names as they were written."""
        fields = {}
        for line in self.head.decode("utf-8", "replace").split("\r\n")[1:]:
            name, colon, value = line.partition(":")
            if colon:
                fields[name] = value.strip()
        return fields


def publish(subject: str, data: bytes, reply: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """Return the command that publishes a message."""
    if not headers:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply, len(data), data)
    lines = ["NATS/1.0", *[f"{name}: {value}" for name, value in headers.items()], "", ""]
    head = "\r\n".join(lines).encode()
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject.encode(), reply, len(head), len(head) + len(data), head, data)


def payload_size(data: bytes, headers: Mapping[str, str] | None) -> int:
    """Return the bytes of a message that the server's ``max_payload`` limits; headers are ASCII."""
    return len(data) + (sum(len(name) + len(value) + 4 for name, value in headers.items()) + 12 if headers else 0)


def subscribe(subject: str, sid: int, queue: str = "") -> bytes:
    """Return the command that subscribes to a subject; the members of a queue group share its messages."""
    return f"SUB {subject} {queue} {sid}\r\n".encode() if queue else f"SUB {subject} {sid}\r\n".encode()


def unsubscribe(sid: int) -> bytes:
    """Return the command that ends a subscription."""
    return b"UNSUB %d\r\n" % sid


class Session:
    """Protocol state of one connection.

    Attributes:
        info: of the server, from its last ``INFO``.
        callbacks: receivers of messages, by the number of the subscription.
        bulk: called before the callbacks; takes in consecutive messages and returns where they end.
        error: text of the last ``-ERR``.
        pongs: number received.
        out: bytes to send in answer.
    """

    def __init__(self) -> None:
        self.info: dict[str, Any] = {}
        self.callbacks: dict[int, Callable[[Message], None]] = {}
        self.bulk: Callable[[bytes, int], int] | None = None
        self.error: str | None = None
        self.pongs = 0
        self.out = bytearray()
        self._rest = Partial()

    def feed(self, received: bytes) -> None:
        """Take in bytes and call back with each message that is whole.

        Raises:
            ValueError: this is no NATS server.
        """
        if self._rest.size and not (received := self._rest.add(received)):
            return
        data = received
        at, end, wanted = 0, len(data), 0
        find = data.find
        while at < end:
            line = find(b"\r\n", at)
            if line < 0 or line - at > _LINE:
                if end - at > _LINE or data[at] not in _BEGIN:
                    _refuse("a line without an end")
                break
            first = data[at]
            if first == 72 or first == 77:  # HMSG, MSG
                if self.bulk is not None and (after := self.bulk(data, at)) > at:
                    at = after
                    continue
                words = data[at:line].split()
                size, head = int(words[-1]), 0
                if first == 72 and len(words) > 4:
                    head = int(words.pop(-2))
                if not 0 <= head <= size <= _MESSAGE or not 4 <= len(words) <= 5 or words[0] not in _WITH_DATA:
                    _refuse("a message that is none, or too large")
                begin = line + 2
                body, after = begin + head, begin + size
                if after + 2 > end:
                    wanted = after + 2 - at
                    break
                if data[after] != 13 or data[after + 1] != 10:
                    _refuse("a message that does not end where it says")
                reply = words[3] if len(words) == 5 else b""
                message = Message(words[1], reply, data[begin:body], data[body:after])
                at = after + 2
                callback = self.callbacks.get(int(words[2]))
                if callback is not None:
                    callback(message)
                continue
            self._read_line(data[at:line])
            at = line + 2
        if at < end:
            self._rest.keep(data[at:], wanted)

    def _read_line(self, line: bytes) -> None:
        verb, _, rest = line.partition(b" ")
        if verb == b"PING":
            self.out += b"PONG\r\n"
        elif verb == b"PONG":
            self.pongs += 1
        elif verb == b"INFO":
            self.info = _info(rest)
        elif verb == b"-ERR":
            self.error = rest.decode("utf-8", "replace").strip(" '")
        elif verb != b"+OK":
            _refuse("no command of a server")


def _refuse(what: str) -> NoReturn:
    raise ValueError(f"what answers is no NATS server: {what}")


def _info(text: bytes) -> dict[str, Any]:
    """Return what a server says of itself, whose fields have their types where they are there."""
    parsed = json.loads(text)
    urls, size = parsed.get("connect_urls"), parsed.get("max_payload", 0)
    if not isinstance(size, int) or not all(isinstance(url, str) for url in urls or ()):
        _refuse("fields of other types")
    if not isinstance(parsed.get("nonce", ""), str):
        _refuse("fields of other types")
    info: dict[str, Any] = parsed
    return info
