"""RabbitMQ as others use it; see `engine_peers`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from benches.bench_envelope import by_hand
from benches.engine_peers import BODY, EVENT, FEW, WINDOW, Engine, Peer, decode, decode_by_sdk
from cloud_runtimes.components._net.connections import Servers
from cloud_runtimes.components.rabbitmq.connection import Connection
from cloud_runtimes.components.rabbitmq.messages import STRUCTURED
from cloud_runtimes.components.rabbitmq.session import CALLS, CONFIRMS
from cloud_runtimes.components.rabbitmq.settings import parse_url
from cloud_runtimes.components.rabbitmq.wire import content, method, properties
from cloud_runtimes.spi.operation import Method, Operation
from tests.support.rabbitmq import RabbitServer

__all__ = ["RabbitmqEngine"]

_GROUPS = ("wire", "plain", "hand", "sdk", "sent")
_OURS = "cr.bus.t:bench"
_OPEN = Method("bench", "open", repeatable=False)


class RabbitmqWire:
    """A bare connection: prepared bytes, and answers that are counted by their size."""

    def __init__(self, url: str) -> None:
        address = parse_url(url)
        opened = Connection(address, Servers(address.servers), "bench")
        opened.open(Operation(_OPEN, "bench", 10.0))
        while any(opened.session._asked.values()):  # its channels
            opened.wait(monotonic() + 5)
            opened.receive()
        assert opened._socket is not None
        self._socket = opened._socket
        self._socket.setblocking(True)
        self._opened = opened
        self._published = 0
        self._rest = b""

    def send(self, exchange: str, count: int) -> None:
        """Publish an event so often, in windows of a thousand, each of which is confirmed before the next."""
        message = method(CONFIRMS, (60, 40), "hsso", 0, exchange, "", 1)
        window = (message + content(CONFIRMS, properties(STRUCTURED), BODY, 131072)) * WINDOW
        for _ in range(count // WINDOW):
            self._socket.sendall(window)
            self._confirmed(WINDOW)

    def _confirmed(self, count: int) -> None:
        self._published += count
        alone, low = set(), self._published - count
        while low < self._published:
            data = self._rest + self._socket.recv(65536)
            end = len(data) // 21 * 21  # a frame with basic.ack
            for at in range(0, end, 21):
                assert data[at] == 1
                tag = int.from_bytes(data[at + 11 : at + 19], "big")
                if data[at + 19]:
                    low = max(low, tag)
                else:
                    alone.add(tag)
            while low + 1 in alone:
                low += 1
            self._rest = data[end:]

    def take(self, queue: str, size: int, count: int) -> None:
        """Receive so many events, and acknowledge them by the size of a batch."""
        asks = method(CALLS, (60, 10), "lho", 0, 2 * size, 0)
        asks += method(CALLS, (60, 20), "hssot", 0, queue, "m", 0, {})
        self._socket.sendall(asks)
        seen = taken = 0
        begins, rest = b'{"specversion"', b""
        while taken < count:
            data = rest + self._socket.recv(131072)
            seen += data.count(begins)
            rest = data[1 - len(begins) :]  # one that is not whole yet
            if seen - taken >= size or seen >= count:
                taken = seen
                self._socket.sendall(method(CALLS, (60, 80), "qo", taken, 1))
        self._socket.close()


class RabbitmqEngine(Engine):
    """Quorum queues on one node."""

    def __init__(self, name: str, server: RabbitServer, **options: int) -> None:
        import pika

        assert server.process is not None
        super().__init__(name, server.url, server.process.pid, **options)
        self.settings = {"groups": ["bench"]}
        self._pika = pika
        self._connection = pika.BlockingConnection(pika.URLParameters(self.url + "?heartbeat=0"))
        self._channel = self._connection.channel()
        for exchange, groups in (("bench", _GROUPS[:4]), ("sent", _GROUPS[4:])):
            self._channel.exchange_declare(exchange, "fanout", durable=True)
            for group in groups:
                self._channel.queue_declare(group, durable=True, arguments={"x-queue-type": "quorum"})
                self._channel.queue_bind(group, exchange)
        self._wire = RabbitmqWire(self.url + "?heartbeat=0")
        self.run(self._open())

    async def _open(self) -> None:
        import aio_pika

        self._aio: Any = await aio_pika.connect(self.url + "?heartbeat=0")
        channel = await self._aio.channel(publisher_confirms=True)
        self._exchange: Any = await channel.get_exchange("sent")
        self._message = aio_pika.Message

    def empty(self) -> None:
        self._purge(*_GROUPS)
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000}
        self._channel.queue_declare(_OURS, durable=True, arguments=arguments)
        self._purge(_OURS)

    def _purge(self, *queues: str) -> None:
        for queue in queues:
            self._channel.queue_purge(queue)

    def fill(self) -> None:
        self._purge(*_GROUPS)  # ours is empty, and has a consumer, which a purge harms
        self._wire.send("bench", self.count)

    # -- publishing -------------------------------------------------------

    def senders(self) -> dict[str, Peer]:
        # the server takes as long for everybody, so who is busier is bounded by it; client CPU tells more
        return {
            "bare socket, prepared bytes": Peer(lambda: self._wire.send("sent", self.count), goal=0.9),
            "pika, no confirms, prepared bytes": Peer(self._by_pika, FEW),
            "aio-pika, 1,000 at once, prepared bytes": Peer(lambda: self.run(self._gather(lambda: BODY)), FEW),
            "aio-pika, 1,000 at once, events by hand": Peer(
                lambda: self.run(self._gather(lambda: by_hand(EVENT))), FEW
            ),
        }

    def _by_pika(self) -> None:
        about = self._pika.BasicProperties(delivery_mode=2)
        for _ in range(FEW):
            self._channel.basic_publish("sent", "", BODY, about)
        self._channel.queue_declare("sent", passive=True)  # all before it has arrived

    async def _gather(self, make: Callable[[], bytes]) -> None:
        for _ in range(FEW // WINDOW):
            sent = [self._exchange.publish(self._message(make(), delivery_mode=2), "") for _ in range(WINDOW)]
            await asyncio.gather(*sent)

    # -- consuming --------------------------------------------------------

    def takers(self, size: int) -> dict[str, Peer]:
        return {
            "bare socket, multiple acknowledgements": Peer(lambda: self._wire_take(size), goal=0.9),
            "pika consume, multiple acknowledgements": Peer(lambda: self._take("plain", size), FEW),
        }

    def readers(self, size: int) -> dict[str, Peer]:
        return {
            "pika, orjson and a dataclass": Peer(lambda: self._take("hand", size, decode), FEW, 2),
            "pika, cloudevents SDK": Peer(lambda: self._take("sdk", size, decode_by_sdk), FEW, 2),
        }

    def _wire_take(self, size: int) -> None:
        RabbitmqWire(self.url + "?heartbeat=0").take("wire", size, self.count)

    def _take(self, queue: str, size: int, decoded: Callable[[bytes], Any] | None = None) -> None:
        channel = self._connection.channel()
        channel.basic_qos(prefetch_count=2 * size)
        for taken, (delivery, _, body) in enumerate(channel.consume(queue), 1):
            if decoded is not None:
                event = decoded(body)
                assert (event.data if decoded is decode else event.get_data()) == EVENT
            if taken % size == 0 or taken == FEW:
                channel.basic_ack(delivery.delivery_tag, multiple=True)
            if taken == FEW:
                break
        channel.cancel()
        channel.close()

    def close(self) -> None:
        self._connection.close()
        self.run(self._aio.close())
        super().close()
