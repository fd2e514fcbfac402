"""Servers over bare sockets: the least that a client can cost, and what processes cost. They send prepared bytes and decode no event."""

from __future__ import annotations

import json
import resource
import socket
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["BODY", "EVENT", "Beside", "NatsWire", "RedisWire", "beside", "served", "spent"]

NOTE = "x" * 90
EVENT = {"number": 12345678, "carrier": "UA", "flight": "UA1545", "origin": "EWR", "note": NOTE}
BODY = (
    b'{"specversion":"1.0","id":"019ac4f2-7d1e-7c3b-a1b2-0123456789ab","source":"bench","type":"cloud_runtimes.event",'
    b'"time":"2026-11-27T13:00:00.123456Z","datacontenttype":"application/json","data":%b}'
    % json.dumps(EVENT, separators=(",", ":")).encode()
)
"""The event as structured JSON, of 361 bytes."""
assert len(BODY) == 361


def spent() -> float:
    """Return the processor seconds of this process, and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def served(process: int) -> float:
    """Return those of a server."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


class Beside(NamedTuple):
    """How ours compares with a bare socket.

    Attributes:
        rate: that the busier of client and server allows: a fraction of the bare socket's.
        client: processor time of the client, a multiple of the bare socket's.
        used: the same in microseconds for one event or call.
    """

    rate: float
    client: float
    used: float

    def __str__(self) -> str:
        return f"{self.rate:.2f} of its rate; client {self.client:.1f} × ({self.used:.2f} µs)"


def beside(
    process: int,
    ours: Callable[[], None],
    bare: Callable[[], None],
    count: int,
    rounds: int,
    before: Callable[[], None] = lambda: None,
) -> Beside:
    """Compare slices of ours with slices of a bare socket, in turn; ratios are medians over the rounds."""
    costs: dict[Callable[[], None], list[tuple[float, float]]] = {ours: [], bare: []}
    for number in range(rounds):
        before()
        for run in (ours, bare) if number % 2 else (bare, ours):
            client, server = spent(), served(process)
            run()
            costs[run].append((spent() - client, served(process) - server))
    pairs = list(zip(costs[ours], costs[bare], strict=True))
    return Beside(
        statistics.median(max(theirs) / max(mine) for mine, theirs in pairs),
        statistics.median(mine[0] / theirs[0] for mine, theirs in pairs),
        statistics.median(mine[0] for mine, _ in pairs) / count * 1e6,
    )


class _Wire:
    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class RedisWire(_Wire):
    """A bare connection to Redis; hiredis reads its replies."""

    def __init__(self, port: int) -> None:
        import hiredis

        super().__init__(port)
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)

    @staticmethod
    def pack(*words: bytes) -> bytes:
        """Return a command."""
        return b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))

    def exchange(self, data: bytes, count: int) -> list[Any]:
        """Send commands and return their replies."""
        self._socket.sendall(data)
        replies: list[Any] = []
        while len(replies) < count:
            self._reader.feed(self._socket.recv(65536))
            while (reply := self._reader.gets()) is not ...:
                replies.append(reply)
        return replies

    def send(self, stream: bytes, body: bytes, count: int) -> None:
        """Append an entry so often, in windows of a thousand."""
        commands = self.pack(b"XADD", stream, b"*", b"data", body) * 1000
        for _ in range(count // 1000):
            assert len(self.exchange(commands, 1000)) == 1000

    def take(self, stream: bytes, group: bytes, size: int, count: int) -> None:
        """Read entries as a member of a group; what was read is acknowledged with the next read."""
        read = self.pack(b"XREADGROUP", b"GROUP", group, b"m", b"COUNT", b"%d" % size, b"STREAMS", stream, b">")
        ids: list[bytes] = []
        while count:
            acks = self.pack(b"XACK", stream, group, *ids) if ids else b""
            replies = self.exchange(acks + read, 2 if ids else 1)
            ids = [entry[0] for entry in replies[-1][0][1]]
            count -= len(ids)
        assert self.exchange(self.pack(b"XACK", stream, group, *ids), 1) == [len(ids)]


class NatsWire(_Wire):
    """A bare connection to NATS, which answers ``PING``."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.recv(65536)
        self._socket.sendall(
            b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\nSUB _INBOX.wire.* 1\r\nPING\r\n'
        )
        while b"PONG" not in self._socket.recv(65536):
            pass

    def exchange(self, commands: bytes, count: int, mark: bytes = b'"seq":') -> None:
        """Send commands, and count answers by what is in each of them: acknowledgements by default."""
        self._socket.sendall(commands)
        tail = b""
        while count:
            data = tail + self._socket.recv(1 << 18)
            assert b'"error"' not in data, data
            count -= data.count(mark)
            tail = data[1 - len(mark) :]
            self._ponged(data)

    def take(self, pull: bytes, size: int, count: int) -> None:
        """Pull messages, and acknowledge each of them."""
        rest, at, remaining = b"", 0, 0
        while count:
            out = []
            if not remaining:
                out.append(pull)
                remaining = min(size, count)
            data = rest + (self._socket.recv(1 << 18) if not out else b"")
            at = 0
            while (line := data.find(b"\r\n", at)) >= 0:
                words = data[at:line].split()
                if words[0] == b"MSG":
                    after = line + 4 + int(words[-1])
                    if after > len(data):
                        break
                    assert len(words) == 5, data[at:after]
                    out.append(b"PUB %b 4\r\n+ACK\r\n" % words[3])
                    remaining -= 1
                    count -= 1
                    at = after
                else:
                    assert words[0] == b"PING", words
                    out.append(b"PONG\r\n")
                    at = line + 2
            rest = data[at:]
            if out:
                self._socket.sendall(b"".join(out))

    def _ponged(self, data: bytes) -> None:
        if b"PING\r\n" in data:
            self._socket.sendall(b"PONG\r\n")
