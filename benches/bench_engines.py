"""Events over a server that others run, beside a bare socket and the usual client: processor time of client and server for an event of 361 bytes.

``python -m benches.bench_engines [valkey | redis]``. The bound is the rate at which the busier of the two has no time left: it holds under load, unlike the clock. Bare sockets send one prepared body and decode no event; they are the floor of a client's cost, not a product.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.redis.resp import NOTHING, pack, reader
from tests.support.redis import RedisServer, serve

COUNT: Final = 200_000
ROUNDS: Final = 5
NOTE: Final = 90
EVENT: Final = {"number": 12345678, "carrier": "UA", "flight": "UA1545", "origin": "EWR", "note": "x" * NOTE}
BODY: Final = (
    b'{"specversion":"1.0","id":"019ac4f2-7d1e-7c3b-a1b2-0123456789ab","source":"bench","type":"cloud_runtimes.event",'
    b'"time":"2026-11-27T13:00:00.123456Z","datacontenttype":"application/json","data":{"number":12345678,"carrier":"UA",'
    b'"flight":"UA1545","origin":"EWR","note":"' + b"x" * NOTE + b'"}}'
)


class Cost(NamedTuple):
    """Microseconds of processor time for an event."""

    client: float
    server: float

    @property
    def bound(self) -> float:
        """Events a second."""
        return 1e6 / max(self)


class Bench:
    """One server and what is done with it."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server

    def measure(self, run: Callable[[], None], before: Callable[[], None] | None = None) -> Cost:
        """Return the least cost of some rounds."""
        found: list[Cost] = []
        for _ in range(ROUNDS):
            self.server.command("FLUSHALL")
            if before is not None:
                before()
            client, server = spent(), self._spent()
            run()
            found.append(Cost(*(each / COUNT * 1e6 for each in (spent() - client, self._spent() - server))))
        return min(found, key=max)

    def _spent(self) -> float:
        assert self.server.process is not None
        folder = f"/proc/{self.server.process.pid}/task"
        nanoseconds = 0
        for task in os.listdir(folder):
            with open(f"{folder}/{task}/schedstat") as file:
                nanoseconds += int(file.read().split()[0])
        return nanoseconds / 1e9

    def client(self, layout: str) -> CloudRuntimesClient:
        home = {"url": self.server.url, "layout": layout}
        return CloudRuntimesClient(app_id="bench", config={"capa": {"home": home}})

    # -- publishing -------------------------------------------------------

    def benchmark(self) -> None:
        """``redis-benchmark`` with 100 commands under way."""
        options = ("-p", str(self.server.port), "-n", str(COUNT), "-P", "100", "-c", "1", "-q")
        command = ["redis-benchmark", *options, "XADD", "bench", "*", "data", BODY.decode()]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    def raw_send(self) -> None:
        """1,000 commands joined on a socket."""
        commands = pack(("XADD", "bench", "*", "data", BODY)) * 1000
        with Socket(self.server.port) as connection:
            for _ in range(COUNT // 1000):
                connection.exchange(commands, 1000)

    def redis_py_send(self) -> None:
        """A pipeline of 1,000 without a transaction."""
        import redis

        with redis.Redis(port=self.server.port) as client:
            for _ in range(COUNT // 1000):
                pipeline = client.pipeline(transaction=False)
                for _ in range(1000):
                    pipeline.xadd("bench", {"data": BODY})
                pipeline.execute()

    def send(self, layout: str) -> None:
        """``Publisher.send`` until all is acknowledged."""
        with self.client(layout) as client, client.pubsub.publisher("bus", "t") as publisher:
            for _ in range(COUNT):
                publisher.send(EVENT)
            publisher.flush()

    # -- consuming --------------------------------------------------------

    def fill(self) -> None:
        """Make a group with something to read."""
        self.server.command("XGROUP", "CREATE", "bench", "g", "0", "MKSTREAM")
        self.raw_send()

    def raw_consume(self, size: int) -> None:
        """What was read is acknowledged with the next read."""
        read = pack(("XREADGROUP", "GROUP", "g", "m", "COUNT", size, "STREAMS", "bench", ">"))
        ids: list[bytes] = []
        done = 0
        with Socket(self.server.port) as connection:
            while done < COUNT:
                acks = pack(("XACK", "bench", "g", *ids)) if ids else b""
                replies = connection.exchange(acks + read, 2 if ids else 1)
                ids = [entry[0] for entry in replies[-1][0][1]]
                done += len(ids)

    def redis_py_consume(self, size: int) -> None:
        """``xreadgroup``, then ``xack``; events are not decoded."""
        import redis

        done = 0
        with redis.Redis(port=self.server.port) as client:
            while done < COUNT:
                reply: Any = client.xreadgroup("g", "m", {"bench": ">"}, count=size)
                entries = reply[0][1] if isinstance(reply, list) else next(iter(reply.values()))[0]
                client.xack("bench", "g", *[entry[0] for entry in entries])
                done += len(entries)

    def consume(self, layout: str, size: int) -> None:
        """Batches of a subscription, each acknowledged."""
        done = 0
        with self.client(layout) as client, client.pubsub.subscribe("bus", "t", batch=size) as sub:
            while done < COUNT:
                batch = sub.receive(10)
                done += len(batch)
                batch.ack()


class Socket:
    """A bare connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._reader = reader()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def exchange(self, data: bytes, count: int) -> list[Any]:
        """Send commands and return their replies."""
        self._socket.sendall(data)
        replies: list[Any] = []
        while len(replies) < count:
            self._reader.feed(self._socket.recv(65536))
            while (reply := self._reader.gets()) is not NOTHING:
                replies.append(reply)
        return replies


def spent() -> float:
    """Return the processor seconds of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    kind = sys.argv[1] if len(sys.argv) > 1 else "valkey"
    sys.stdout.write(f"{kind}: µs of client and server for an event, and events a second at their bound\n")
    with serve(kind) as server:
        bench = Bench(server)
        rows: list[tuple[str, Callable[[], None], Callable[[], None] | None]] = [
            ("send: bare socket", bench.raw_send, None),
            ("send: redis-py", bench.redis_py_send, None),
            ("send: ours, event", lambda: bench.send("event"), None),
            ("send: ours, frame", lambda: bench.send("frame"), None),
        ]
        if shutil.which("redis-benchmark"):
            rows.insert(0, ("send: redis-benchmark", bench.benchmark, None))
        for size in (100, 1000):
            rows += [
                (f"consume {size}: bare socket", lambda size=size: bench.raw_consume(size), bench.fill),
                (f"consume {size}: redis-py", lambda size=size: bench.redis_py_consume(size), bench.fill),
            ]
            for layout in ("event", "frame"):
                consume = lambda layout=layout, size=size: bench.consume(layout, size)  # noqa: E731
                rows.append((f"consume {size}: ours, {layout}", consume, lambda layout=layout: bench.send(layout)))
        for name, run, before in rows:
            cost = bench.measure(run, before)
            sys.stdout.write(f"{name:30} {cost.client:6.2f} {cost.server:6.2f} {cost.bound:12,.0f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    assert len(BODY) == 361, len(BODY)
    main()
