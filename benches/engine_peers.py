"""Redis and NATS as others use them: a bare socket, the usual client, FastStream, ``redis-benchmark``. They write and read an event of 361 bytes.

Bare sockets (`tests.support.wires`) are the floor of a client's cost, not a product.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson
from cloudevents.core.formats.json import JSONFormat

from benches.bench_envelope import by_hand
from tests.support.redis import RedisServer
from tests.support.wires import BODY, EVENT, RedisWire, served, spent

__all__ = [
    "BODY",
    "EVENT",
    "FEW",
    "WINDOW",
    "Engine",
    "Peer",
    "RedisEngine",
    "decode",
    "decode_by_sdk",
    "fast_read",
]

FEW: Final = 2_000
"""Events of a slice of who takes ten times as long; those of one of ours are in `Engine.count`."""
WINDOW: Final = 1000
_BENCHMARK: Final = 200_000
"""Events of `redis-benchmark`, whose start would count otherwise."""


class Peer(NamedTuple):
    """A contender that is measured beside ours.

    Attributes:
        run: one slice of it.
        count: of its events; ``None``: as many as ours.
        goal: how many times as fast as it ours should be.
    """

    run: Callable[[], None]
    count: int | None = None
    goal: float | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """An event as a consumer by hand has it."""

    id: str
    source: str
    type: str
    time: str
    data: Any


def decode(body: bytes) -> Decoded:
    """Read an event by hand."""
    fields = orjson.loads(body)
    return Decoded(fields["id"], fields["source"], fields["type"], fields["time"], fields["data"])


def decode_by_sdk(body: bytes) -> Any:
    """Read it with the CloudEvents SDK; ``.data`` is decoded."""
    event = JSONFormat().read(None, body)
    assert event.get_data() is not None
    return event


class Engine:
    """A server of a kind, with the peers.

    Attributes:
        name: of it, with what it keeps.
        url: of it.
        count: events of a slice.
        settings: further ones of ours.
    """

    settings: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, name: str, url: str, process: int, count: int = 50_000) -> None:
        self.name = name
        self.url = url
        self.count = count
        self._process = process
        self.loop = asyncio.new_event_loop()

    @property
    def clocks(self) -> dict[str, Callable[[], Any]]:
        """Clocks for the measurement; goals are for the first."""
        return {
            "the busier of client and server": lambda: (spent(), served(self._process)),
            "client CPU": spent,
            "server CPU": lambda: served(self._process),
            "wall clock": time.perf_counter,
        }

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run it in the peers' loop."""
        return self.loop.run_until_complete(coroutine)

    def empty(self) -> None:
        """Delete all events."""
        raise NotImplementedError

    def fill(self) -> None:
        """Give each of the peers events to read."""
        raise NotImplementedError

    def senders(self) -> dict[str, Peer]:
        """Return what publishes."""
        raise NotImplementedError

    def takers(self, size: int) -> dict[str, Peer]:
        """Return what reads and acknowledges, and does not look at the events."""
        raise NotImplementedError

    def readers(self, size: int) -> dict[str, Peer]:
        """Return what also decodes them."""
        raise NotImplementedError

    def state(self, name: str, api: str) -> tuple[str, Callable[[], Any]]:
        """Return who gets or saves a value, and how."""
        raise NotImplementedError

    def close(self) -> None:
        """Close."""
        self.loop.close()


# -- FastStream ---------------------------------------------------------------


async def fast_read(broker: Any, subscribe: Callable[..., Any]) -> None:
    """Start a subscriber, have it handle the events of a slice, and stop it."""
    remaining = FEW
    done = asyncio.Event()

    @subscribe
    async def handle(events: list[dict[str, Any]]) -> None:
        nonlocal remaining
        assert events[0] == EVENT
        remaining -= len(events)
        if remaining <= 0:
            done.set()

    await broker.start()
    await asyncio.wait_for(done.wait(), 60)
    await broker.stop()


# -- Redis and Valkey ---------------------------------------------------------


class RedisEngine(Engine):
    """Redis or Valkey."""

    def __init__(self, name: str, server: RedisServer) -> None:
        import redis

        assert server.process is not None
        super().__init__(name, server.url, server.process.pid)
        self._port = server.port
        self._wire = RedisWire(server.port)
        self._client = redis.Redis(port=server.port, max_connections=64)
        self._async = redis.asyncio.Redis(port=server.port, max_connections=64)
        for group in ("wire", "plain", "hand", "sdk"):
            self._client.xgroup_create("bench", group, mkstream=True)
        self._client.xgroup_create("fast", "fast", mkstream=True)

    def empty(self) -> None:
        for stream in self._client.scan_iter(_type="STREAM", count=1000):
            self._client.xtrim(stream, 0, approximate=False)

    def fill(self) -> None:
        self.empty()
        self._wire.send(b"bench", BODY, self.count)
        self.run(self._by_faststream())

    def senders(self) -> dict[str, Peer]:
        peers = {
            "bare socket, prepared bytes": Peer(lambda: self._wire.send(b"sent", BODY, self.count), goal=0.9),
            "redis-py pipeline of 1,000, prepared bytes": Peer(lambda: self._by_pipeline(lambda: BODY)),
            "redis-py pipeline of 1,000, events by hand": Peer(lambda: self._by_pipeline(lambda: by_hand(EVENT))),
            "FastStream, pipeline of 1,000": Peer(lambda: self.run(self._by_faststream()), FEW),
        }
        if shutil.which("redis-benchmark"):
            peers["redis-benchmark -P 100"] = Peer(self._by_benchmark, _BENCHMARK)
        return peers

    def _by_benchmark(self) -> None:
        options = ("-p", str(self._port), "-n", str(_BENCHMARK), "-P", "100", "-c", "1", "-q")
        command = ["redis-benchmark", *options, "XADD", "sent", "*", "data", BODY.decode()]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    def _by_pipeline(self, make: Callable[[], bytes]) -> None:
        for _ in range(self.count // WINDOW):
            pipeline = self._client.pipeline(transaction=False)
            for _ in range(WINDOW):
                pipeline.xadd("sent", {"data": make()})
            assert len(pipeline.execute()) == WINDOW

    async def _by_faststream(self) -> None:
        from faststream.redis import RedisBroker

        async with RedisBroker(self.url, logger=None) as broker:
            for _ in range(FEW // WINDOW):
                async with broker._connection.pipeline(transaction=False) as pipeline:
                    for _ in range(WINDOW):
                        await broker.publish(EVENT, stream="fast", pipeline=pipeline)
                    await pipeline.execute()

    def takers(self, size: int) -> dict[str, Peer]:
        return {
            "bare socket, XREADGROUP and XACK in one trip": Peer(
                lambda: self._wire.take(b"bench", b"wire", size, self.count), goal=0.9
            ),
            "redis-py": Peer(lambda: self._take("plain", size)),
        }

    def readers(self, size: int) -> dict[str, Peer]:
        return {
            "redis-py, orjson and a dataclass": Peer(lambda: self._take("hand", size, decode), goal=2),
            "redis-py, cloudevents SDK": Peer(lambda: self._take("sdk", size, decode_by_sdk), goal=5),
            f"FastStream, batches of {size:,}": Peer(lambda: self.run(self._fast_read(size)), FEW, 5),
        }

    def _take(self, group: str, size: int, decoded: Callable[[bytes], Any] | None = None) -> None:
        remaining = self.count
        while remaining:
            reply: Any = self._client.xreadgroup(group, "m", {"bench": ">"}, count=size)
            entries = reply[0][1] if isinstance(reply, list) else next(iter(reply.values()))[0]
            if decoded is not None:
                events = [decoded(fields[b"data"]) for _, fields in entries]
                assert (events[0].data if decoded is decode else events[0].get_data()) == EVENT
            assert self._client.xack("bench", group, *[entry[0] for entry in entries]) == len(entries)
            remaining -= len(entries)

    async def _fast_read(self, size: int) -> None:
        from faststream.redis import RedisBroker, StreamSub

        broker = RedisBroker(self.url, logger=None)
        stream = StreamSub("fast", group="fast", consumer="m", max_records=size, batch=True, polling_interval=10)
        await fast_read(broker, broker.subscriber(stream=stream))

    def state(self, name: str, api: str) -> tuple[str, Callable[[], Any]]:
        client, waiting = self._client, self._async

        def get() -> Any:
            return orjson.loads(client.get("state"))  # type: ignore[arg-type]

        def save() -> Any:
            return client.set("state", orjson.dumps(EVENT))

        async def get_async() -> Any:
            return orjson.loads(await waiting.get("state"))  # type: ignore[misc, arg-type]

        async def save_async() -> Any:
            return await waiting.set("state", orjson.dumps(EVENT))  # type: ignore[misc]

        save()
        calls: dict[str, Callable[[], Any]] = {"get": get, "save": save}
        if api == "async":
            calls = {"get": get_async, "save": save_async}
        return "redis-py" if api == "sync" else "redis-py, asyncio", calls[name]

    def close(self) -> None:
        self._wire.close()
        self._client.close()
        self.run(self._async.aclose())
        super().close()
