"""NATS as others use it; see `engine_peers`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import orjson

from benches.bench_envelope import by_hand
from benches.engine_peers import BODY, EVENT, FEW, WINDOW, Engine, Peer, decode, decode_by_sdk, fast_read
from tests.support.nats import NatsServer
from tests.support.wires import NatsWire

__all__ = ["NatsEngine"]

_GROUPS = ("wire100", "wire1000", "plain", "hand", "sdk")


class NatsEngine(Engine):
    """JetStream, in files."""

    def __init__(self, name: str, server: NatsServer, **options: int) -> None:
        assert server.process is not None
        super().__init__(name, server.url, server.process.pid, **options)
        self._wire = NatsWire(server.port)
        self.run(self._open())

    async def _open(self) -> None:
        import nats

        self._client = await nats.connect(self.url)
        self._stream = self._client.jetstream(publish_async_max_pending=WINDOW)
        for name in ("bench", "sent", "fast"):
            await self._stream.add_stream(name=name, subjects=[name])
        for group in _GROUPS:
            await self._stream.pull_subscribe("bench", group)
        self._bucket = await self._stream.create_key_value(bucket="peer")
        await self._bucket.put("state", orjson.dumps(EVENT))

    def empty(self) -> None:
        for stream in self.run(self._stream.streams_info()):
            if not stream.config.name.startswith("KV_"):
                self.run(self._stream.purge_stream(stream.config.name))

    def fill(self) -> None:
        self.empty()
        self._by_wire("bench")
        self.run(self._by_faststream())

    # -- publishing -------------------------------------------------------

    def senders(self) -> dict[str, Peer]:
        return {
            "bare socket, prepared bytes": Peer(lambda: self._by_wire("sent"), goal=0.9),
            "nats-py publish_async, prepared bytes": Peer(lambda: self.run(self._publish(lambda: BODY)), FEW),
            "nats-py publish_async, events by hand": Peer(lambda: self.run(self._publish(lambda: by_hand(EVENT))), FEW),
            "FastStream, 1,000 at once": Peer(lambda: self.run(self._by_faststream()), FEW),
        }

    def _by_wire(self, subject: str) -> None:
        commands = b"PUB %b _INBOX.wire.a %d\r\n%b\r\n" % (subject.encode(), len(BODY), BODY) * WINDOW
        for _ in range(self.count // WINDOW):
            self._wire.exchange(commands, WINDOW)

    async def _publish(self, make: Callable[[], bytes]) -> None:
        for _ in range(FEW):
            await self._stream.publish_async("sent", make())
        await self._stream.publish_async_completed()

    async def _by_faststream(self) -> None:
        from faststream.nats import NatsBroker

        async with NatsBroker(self.url, logger=None) as broker:
            for _ in range(FEW // WINDOW):
                await asyncio.gather(*[broker.publish(EVENT, "fast", stream="fast", timeout=60) for _ in range(WINDOW)])

    # -- consuming --------------------------------------------------------

    def takers(self, size: int) -> dict[str, Peer]:
        return {
            "bare socket, pull and +ACK": Peer(lambda: self._wire_take(size), goal=0.9),
            "nats-py fetch": Peer(lambda: self.run(self._take("plain", size)), FEW),
        }

    def readers(self, size: int) -> dict[str, Peer]:
        return {
            "nats-py fetch, orjson and a dataclass": Peer(lambda: self.run(self._take("hand", size, decode)), FEW, 2),
            "nats-py fetch, cloudevents SDK": Peer(lambda: self.run(self._take("sdk", size, decode_by_sdk)), FEW, 5),
            f"FastStream, batches of {size:,}": Peer(lambda: self.run(self._fast_read(size)), FEW, 5),
        }

    def _wire_take(self, size: int) -> None:
        body = json.dumps({"batch": size, "expires": 5_000_000_000}).encode()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.bench.wire{size}".encode()
        pull = b"PUB %b _INBOX.wire.m %d\r\n%b\r\n" % (subject, len(body), body)
        self._wire.take(pull, size, self.count)

    async def _take(self, group: str, size: int, decoded: Callable[[bytes], Any] | None = None) -> None:
        subscription = await self._stream.pull_subscribe_bind(group, "bench")
        remaining = FEW
        while remaining > 0:
            messages = await subscription.fetch(min(size, remaining), timeout=10)
            if decoded is not None:
                events = [decoded(message.data) for message in messages]
                assert (events[0].data if decoded is decode else events[0].get_data()) == EVENT
            for message in messages:
                await message.ack()
            remaining -= len(messages)
        await self._client.flush()
        await subscription.unsubscribe()

    async def _fast_read(self, size: int) -> None:
        from faststream.nats import NatsBroker, PullSub

        broker = NatsBroker(self.url, logger=None)
        pull = PullSub(batch_size=size, batch=True)
        await fast_read(broker, broker.subscriber("fast", stream="fast", durable="fast", pull_sub=pull))

    # -- state ------------------------------------------------------------

    def state(self, name: str, api: str) -> tuple[str, Callable[[], Any]]:
        bucket = self._bucket

        async def get() -> Any:
            return orjson.loads((await bucket.get("state")).value or b"")

        async def save() -> Any:
            return await bucket.put("state", orjson.dumps(EVENT))

        call = get if name == "get" else save
        return "nats-py", call if api == "async" else lambda: self.run(call())

    def close(self) -> None:
        self._wire.close()
        self.run(self._client.close())
        super().close()
