"""Processes for the tests of load and limits, on plain loops and sockets so that they do not affect the measurement.

* ``load.py steady URL RATE SECONDS CONNECTIONS [TOKEN [STORE BUS]]`` sends an even mix of saves, gets and
  publications over HTTP at a rate (0: as fast as answers come) and prints one line of JSON. It works against every
  server that speaks Dapr's API, including daprd.
* ``load.py hostile KIND URL GRPC NUMBER`` misbehaves from the line it prints until its input ends. For each line of
  its input, and at the end, it reports the answers and errors that it got.
* ``load.py serve HOME SETTINGS SECONDS FILES`` is a sidecar. It answers each line of its input with what it holds.
  With seconds that are not empty, peers have those where they usually have `HEAD_TIME`. With files that are not 0,
  the process may have so many open.
* ``load.py app PORT`` is an application that prints the id of each event before it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import random
import resource
import socket
import sys
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

KINDS = ("save", "get", "publish")
BIG = 512 << 10
"""Bytes of the value that deaf clients ask for: more than the buffers beneath take."""


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


# -- an even load -------------------------------------------------------------


def post(path: str, body: bytes, more: str = "") -> bytes:
    head = f"POST /v1.0/{path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n{more}\r\n".encode() + body


def request(number: int, store: str, bus: str, more: str) -> bytes:
    """Return the request of that number, each of the kinds in turn."""
    key, text = f"key-{number // 3 % 1000}", "x" * 60
    if number % 3 == 1:
        return f"GET /v1.0/state/{store}/{key} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n".encode()
    value = {"number": number, "text": text}
    if number % 3 == 0:
        return post(f"state/{store}", json.dumps([{"key": key, "value": value}]).encode(), more)
    return post(f"publish/{bus}/orders", json.dumps(value).encode(), more)


class Steady:
    """A load at a rate; a request's time counts from the moment it was due, so that a server that is late is not forgiven."""

    def __init__(self, rate: float, seconds: float, make: Callable[[int], bytes]) -> None:
        self._rate, self._seconds, self._make = rate, seconds, make
        self._free: deque[_Connection] = deque()
        self._due: deque[tuple[int, float]] = deque()
        self._end = 0.0
        self.open = 0
        self.sent = self.refused = self.unanswered = 0
        self.taken: tuple[list[float], ...] = ([], [], [])

    async def run(self, url: str, connections: int) -> float:
        """Send for a while, and await all answers; returns the seconds that it took."""
        address = urlsplit(url)
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            await loop.create_connection(lambda: _Connection(self), address.hostname, address.port)
        begin = perf_counter()
        self._end = begin + self._seconds
        number = 0
        while (now := perf_counter()) < self._end and self.open:
            if self._rate:
                wanted = int((now - begin) * self._rate) + 1
                self._due.extend((each, begin + each / self._rate) for each in range(number, wanted))
                number = max(number, wanted)
            else:
                self._due.extend((self.sent + each, now) for each in range(len(self._free)))
            while self._due and self._free:
                self._next(self._free.popleft())
            await asyncio.sleep(0.001)
        patience = perf_counter() + 60
        while self.open and (len(self._free) < self.open or self._due) and perf_counter() < patience:
            await asyncio.sleep(0.001)
        return perf_counter() - begin

    def _next(self, connection: _Connection) -> None:
        number, due = self._due.popleft()
        self.sent += 1
        connection.send(number % 3, due, self._make(number))

    def free(self, connection: _Connection) -> None:
        """Take back a connection whose answer has come."""
        if self._due:
            self._next(connection)
        elif not self._rate and (now := perf_counter()) < self._end:
            self._due.append((self.sent, now))
            self._next(connection)
        else:
            self._free.append(connection)

    def lost(self, connection: _Connection) -> None:
        """Go on without a connection."""
        self.open -= 1
        if connection.busy:
            self.unanswered += 1
        elif connection in self._free:
            self._free.remove(connection)


class _Connection(asyncio.Protocol):
    """Persistent connection with one request at a time."""

    def __init__(self, steady: Steady) -> None:
        self._steady = steady
        self._kind = 0
        self._due = 0.0
        self._received = b""
        self._transport: Any = None
        self.busy = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._steady.open += 1
        self._steady.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._steady.lost(self)

    def send(self, kind: int, due: float, data: bytes) -> None:
        self._kind, self._due, self.busy = kind, due, True
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        if at >= 0 and len(rest) < int(lower[at + 15 :].partition(b"\r\n")[0]):
            return
        self._received, self.busy = b"", False
        self._steady.taken[self._kind].append(perf_counter() - self._due)
        if head[9:12] not in (b"200", b"204"):
            self._steady.refused += 1
        if b"\r\nconnection: close" in lower:
            self._transport.close()
        else:
            self._steady.free(self)


def at(times: list[float], share: float) -> float:
    """Return a percentile of sorted times."""
    return times[min(len(times) - 1, int(len(times) * share))] if times else 0.0


def steady(
    url: str, rate: str, seconds: str, connections: str, token: str = "", store: str = "store", bus: str = "bus"
) -> None:
    """See the module."""
    more = f"dapr-api-token: {token}\r\n" if token else ""

    async def main() -> None:
        load = Steady(float(rate), float(seconds), lambda number: request(number, store, bus, more))
        took = await load.run(url, int(connections))
        every = sorted(each for kind in load.taken for each in kind)
        say(
            sent=load.sent,
            answered=len(every),
            refused=load.refused,
            unanswered=load.unanswered,
            rate=len(every) / took,
            p50=at(every, 0.5),
            p99=at(every, 0.99),
            most=at(every, 1.0),
            kinds={
                name: {"p50": at(kind, 0.5), "p99": at(kind, 0.99), "answered": len(kind)}
                for name, kind in zip(KINDS, map(sorted, load.taken), strict=True)
            },
        )

    asyncio.run(main())


# -- those who behave badly ---------------------------------------------------


class Hostile:
    """So many clients that do one thing over and over until `over`; `met` counts what became of it."""

    def __init__(self, host: str, port: int, number: int) -> None:
        self._address = host, port
        self.number = number
        self.met: Counter[str] = Counter()
        self.began = 0
        self.over = asyncio.Event()

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, with a small window."""
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(connection, self._address)
        return await asyncio.open_connection(sock=connection)

    async def trickle(self, head: bytes, more: bytes) -> None:
        """Send a byte a second."""
        reader, writer = await self.connect()
        ended = asyncio.create_task(reader.read(12))
        writer.write(head)
        self.began += 1
        while not ended.done() and not self.over.is_set():
            writer.write(more)
            await self.pause(1.0)
        if ended.done():
            self.met[ended.result().decode() or "closed"] += 1
        ended.cancel()
        writer.transport.abort()

    async def deaf(self) -> None:
        """Ask for more than the buffers beneath hold, and read nothing."""
        _, writer = await self.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        sock = writer.get_extra_info("socket")
        writer.write(b"GET /v1.0/state/store/big HTTP/1.1\r\nhost: localhost\r\ndapr-api-token: secret\r\n\r\n" * 10)
        self.began += 1
        while not self.over.is_set():
            if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1:  # no longer established
                self.met["closed"] += 1
                await self.pause(60)  # to come again at once would be a load, which is another matter
                break
            await self.pause(0.25)
        writer.transport.abort()

    async def ask(self, data: bytes, pause: float) -> None:
        """Send something on a connection of its own and read what comes, then wait."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            self.began += 1
            async with asyncio.timeout(30):
                answer = await reader.read(12)
                while await reader.read(65536):
                    pass
            self.met[answer.decode("latin-1") if answer.startswith(b"HTTP/") else "closed"] += 1
        finally:
            writer.transport.abort()
        await self.pause(pause)

    async def again(self, act: Callable[[], Awaitable[None]], wait: float) -> None:
        """Be one client, which begins after so many seconds."""
        await self.pause(wait)
        while not self.over.is_set():
            try:
                await act()
            except (OSError, TimeoutError) as error:
                self.met[type(error).__name__] += 1
                self.began += 1
                await self.pause(0.1)


def hostile(kind: str, url: str, grpc: str, number: str) -> None:
    """See the module."""
    address = urlsplit(f"http://{grpc}" if kind.endswith("gRPC") else url)
    head = "GET /v1.0/state/store/big HTTP/1.1\r\nhost: localhost\r\n"
    token = "dapr-api-token: secret\r\n"
    large = post("state/store", b"x" * (5 << 20), token)

    async def main() -> None:
        one = Hostile(str(address.hostname), int(address.port or 0), int(number))
        rest = one.number / 100  # what makes a hundred a second of all, and of large ones ten
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "slow heads": lambda: one.trickle(b"GET /v1.0/healthz HTTP/1.1\r\nx: ", b"y"),
            "slow bodies": lambda: one.trickle(post("state/store", b"[", token).replace(b": 1\r", b": 99999\r"), b" "),
            "deaf": one.deaf,
            "large bodies": lambda: one.ask(large.replace(b"\r\n", b"\r\nconnection: close\r\n", 1), rest * 10),
            "garbage": lambda: one.ask(random.randbytes(1000) + b"\r\n\r\n", rest),
            "garbage over gRPC": lambda: one.ask(random.randbytes(1000), rest),
            "no token": lambda: one.ask(f"{head}\r\n".encode(), rest),
            "wrong token": lambda: one.ask(f"{head}dapr-api-token: secreT\r\n\r\n".encode(), rest),
            "huge headers": lambda: one.ask(f"{head}{token}x: {'y' * 100_000}\r\n\r\n".encode(), rest),
        }
        clients = [asyncio.create_task(one.again(acts[kind], each / 100)) for each in range(one.number)]
        while one.began < one.number:
            await asyncio.sleep(0.01)
        say(began=one.began)
        while await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
            say(met=one.met)
        one.over.set()
        await asyncio.gather(*clients)
        say(met=one.met)

    asyncio.run(main())


# -- a sidecar and an application ---------------------------------------------


def serve(home: str, settings: str, seconds: str, files: str) -> None:
    """See the module."""
    from cloud_runtimes import CloudRuntimesClient
    from cloud_runtimes._http import asgi_server
    from cloud_runtimes.dapr_server import Sidecar, SidecarSettings, server
    from cloud_runtimes.dapr_server.http import app as http

    if int(files):
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), int(files)))
    if seconds:
        for module in (asgi_server, server, http):
            module.HEAD_TIME = float(seconds)  # type: ignore[attr-defined]
    given = {"app_id": "app", "http_port": 0, "grpc_port": 0, **json.loads(settings)}
    with (
        CloudRuntimesClient(config={"capa": {"home": home}}, app_id="app") as client,
        Sidecar(client, SidecarSettings(**given)) as sidecar,
    ):
        say(http=sidecar.http_address, grpc=sidecar.grpc_address, pid=os.getpid())
        for _ in sys.stdin:
            loop = sidecar._server._loop
            gc.collect()
            with open("/proc/self/statm") as file:
                pages = int(file.read().split()[1])
            say(
                files=len(os.listdir("/proc/self/fd")),
                tasks=len(asyncio.all_tasks(loop)),
                threads=threading.active_count(),
                memory=pages * os.sysconf("SC_PAGE_SIZE"),
            )


def app(port: str) -> None:
    """See the module."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.path == "/dapr/subscribe"
            route = [{"pubsubname": "bus", "topic": "orders", "route": "/orders"}]
            self.answer(200 if asked else 404, json.dumps(route).encode() if asked else b"")

        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                say(event=event["data"])
            self.answer(200, b"")

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    server.daemon_threads = True
    say(port=server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    # what ours warns of is expected here; anything else on stderr fails the test
    logging.getLogger("cloud_runtimes").addHandler(logging.NullHandler())
    globals()[sys.argv[1]](*sys.argv[2:])
