"""Kafka as others use it; see `engine_peers`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import orjson

from benches.bench_envelope import by_hand
from benches.engine_peers import BODY, EVENT, WINDOW, Engine, Peer, decode, decode_by_sdk, fast_read
from tests.support.kafka import KafkaServer

__all__ = ["TOPIC", "KafkaEngine"]

TOPIC: Final = "events"
"""What all consumers read."""
_SENT: Final = "sent"
_FAST: Final = "fast"
_FEW: Final = 10_000
_FEWER: Final = 2_000
_HEADERS: Final = [("content-type", b"application/cloudevents+json; charset=UTF-8")]


class KafkaEngine(Engine):
    """A single broker; topics of four partitions."""

    def __init__(self, name: str, server: KafkaServer) -> None:
        from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
        from confluent_kafka.admin import AdminClient, NewTopic

        assert server.process is not None
        super().__init__(name, server.url, server.process.pid, count=50_000)
        admin = AdminClient({"bootstrap.servers": self.url})
        for future in admin.create_topics(
            [NewTopic(each, 4, 1) for each in (TOPIC, _SENT, _FAST, "ours", "frames")]
        ).values():
            future.result()
        self._consumer: Callable[[dict[str, Any]], Any] = Consumer
        self._producer: Any = Producer(
            {"bootstrap.servers": self.url, "enable.idempotence": True, "linger.ms": 5, "partitioner": "murmur2_random"}
        )
        self._error, self._nothing = KafkaException, KafkaError._NO_OFFSET
        self._failed: list[Any] = []

    def fill(self) -> None:
        self._produce(TOPIC, lambda: BODY)
        self.run(self._by_faststream())

    # -- publishing -------------------------------------------------------

    def senders(self) -> dict[str, Peer]:
        return {
            "confluent-kafka produce, prepared bytes": Peer(lambda: self._produce(_SENT, lambda: BODY)),
            "confluent-kafka produce, JSON of the data alone": Peer(
                lambda: self._produce(_SENT, lambda: orjson.dumps(EVENT)), goal=0.9
            ),
            "confluent-kafka produce, events by hand": Peer(
                lambda: self._produce(_SENT, lambda: by_hand(EVENT)), goal=0.9
            ),
            "aiokafka send, events by hand": Peer(lambda: self.run(self._by_aiokafka()), _FEW, 5),
            "FastStream publish, 1,000 at once": Peer(lambda: self.run(self._by_faststream()), _FEWER, 10),
        }

    def _report(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append(error)

    def _produce(self, topic: str, make: Callable[[], bytes]) -> None:
        produce, poll = self._producer.produce, self._producer.poll
        for number in range(self.count):
            produce(topic, make(), on_delivery=self._report, headers=_HEADERS)
            if number % WINDOW == 0:
                poll(0)
        assert self._producer.flush(60) == 0
        assert not self._failed

    async def _by_aiokafka(self) -> None:
        from aiokafka import AIOKafkaProducer

        async with AIOKafkaProducer(bootstrap_servers=self.url, enable_idempotence=True, linger_ms=5) as producer:
            sent = [await producer.send(_SENT, by_hand(EVENT), headers=_HEADERS) for _ in range(_FEW)]
            await asyncio.gather(*sent)

    async def _by_faststream(self) -> None:
        from faststream.kafka import KafkaBroker

        async with KafkaBroker(self.url, logger=None, enable_idempotence=True, linger_ms=5) as broker:
            for _ in range(_FEWER // WINDOW):
                await asyncio.gather(*[broker.publish(EVENT, _FAST) for _ in range(WINDOW)])

    # -- consuming --------------------------------------------------------

    def takers(self, size: int) -> dict[str, Peer]:
        return {
            f"confluent-kafka consume({size:,})": Peer(lambda: self._take("plain", size), goal=0.8),
            "aiokafka getmany": Peer(lambda: self.run(self._getmany("aio", size)), _FEW),
        }

    def readers(self, size: int) -> dict[str, Peer]:
        return {
            "confluent-kafka, orjson and a dataclass": Peer(lambda: self._take("hand", size, decode), goal=1.3),
            "confluent-kafka, cloudevents SDK": Peer(lambda: self._take("sdk", size, decode_by_sdk)),
            "aiokafka, orjson and a dataclass": Peer(lambda: self.run(self._getmany("aiohand", size, decode)), _FEW),
            f"FastStream, batches of {size:,}": Peer(lambda: self.run(self._fast_read(size)), _FEWER),
        }

    def _take(self, group: str, size: int, decoded: Callable[[bytes], Any] | None = None) -> None:
        consumer = self._consumer(
            {
                "bootstrap.servers": self.url,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        consumer.subscribe([TOPIC])
        remaining = self.count
        while remaining:
            messages = consumer.consume(min(size, remaining), 10.0)
            remaining -= len(messages)
            if decoded is not None:
                _check([decoded(message.value()) for message in messages], decoded)
            try:
                consumer.commit(asynchronous=remaining > 0)
            except self._error as error:  # a rebalance took what was to be committed: it has come again
                if error.args[0].code() != self._nothing:
                    raise
        consumer.close()

    async def _getmany(self, group: str, size: int, decoded: Callable[[bytes], Any] | None = None) -> None:
        from aiokafka import AIOKafkaConsumer

        async with AIOKafkaConsumer(
            TOPIC,
            bootstrap_servers=self.url,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        ) as consumer:
            remaining = _FEW
            while remaining:
                records = await consumer.getmany(timeout_ms=10_000, max_records=min(size, remaining))
                messages = [message for each in records.values() for message in each]
                remaining -= len(messages)
                if decoded is not None:
                    _check([decoded(message.value) for message in messages], decoded)
                await consumer.commit()

    async def _fast_read(self, size: int) -> None:
        from faststream.kafka import KafkaBroker

        broker = KafkaBroker(self.url, logger=None)
        await fast_read(
            broker,
            broker.subscriber(_FAST, group_id="fast", auto_offset_reset="earliest", batch=True, max_records=size),
        )


def _check(events: list[Any], decoded: Callable[[bytes], Any]) -> None:
    data = [each.data if decoded is decode else each.get_data() for each in (events[0], events[-1])]
    assert data == [EVENT, EVENT]
