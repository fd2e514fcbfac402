"""Pub/sub on Kafka: a topic for each topic. ``docs/explanation/kafka.md`` explains it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ...errors import CloudRuntimesError
from ...spi import pubsub as spi
from ...spi.operation import Operation
from ...spi.pubsub import BatchLimits, EventSource, Failures, OutgoingBatch, PubSubDriver, SubscribeRequest
from .._deliveries import FEATURES, Rules
from .member import KafkaMember
from .messages import Writer

if TYPE_CHECKING:
    from . import KafkaComponent

__all__ = ["KafkaPubSub"]

_INSTEAD: Final = MappingProxyType(
    {
        spi.ACK_WAIT: "session_timeout of the component's table says when a member that died is noticed",
        spi.DELAY: "schedule a job that publishes it",
        spi.RETRY_DELAY: 'with retry = "topic" events come again with a delay',
    }
)


class KafkaPubSub(PubSubDriver):
    """One pub/sub name; all of one component have the same topics."""

    instead = _INSTEAD

    def __init__(self, component: KafkaComponent, name: str) -> None:
        self._component = component
        self.name = name
        settings = component.settings
        self.features = FEATURES - {spi.ACK_WAIT, spi.DELAY}
        if settings.retry == "in_order":
            self.features = (self.features | {spi.KEY_ORDER}) - {spi.RETRY_DELAY}
        self.writer = Writer(settings)
        self.limits = BatchLimits(events=10_000, bytes=4 * 1024 * 1024)
        self.max_event_bytes = 64 * 1024 * 1024

    # -- publishing -------------------------------------------------------

    def begin(self, op: Operation, batch: OutgoingBatch, /) -> Future[Failures]:
        topic = self._component.topics.name(batch.topic)
        self._component.topics.ensure(op, [topic])
        messages, counts = self.writer.publish(batch.frames)
        sent = self._component.producer.send(op, topic, messages)
        if counts is None:
            return sent  # type: ignore[return-value]
        spread: Future[Failures] = Future()
        sent.add_done_callback(lambda done: _spread(done, counts, spread))
        return spread

    def publish(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        return self.begin(op, batch).result()

    async def publish_async(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        if self._component.topics.knows(self._component.topics.name(batch.topic)):
            return await asyncio.wrap_future(self.begin(op, batch))
        return await asyncio.wrap_future(await asyncio.to_thread(self.begin, op, batch))

    # -- subscribing ------------------------------------------------------

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        return KafkaMember(self._component, self, Rules(self.name, request), op)

    def lag(self, op: Operation, topic: str, group: str, /) -> int | None:
        topics = self._component.topics
        again = topics.name(topic, group, "retry")
        found = topics.lag(op, topics.name(topic), topics.group(group))
        return None if found is None else found + (topics.lag(op, again, again) or 0)


def _spread(done: Future[dict[int, CloudRuntimesError]], counts: list[int], into: Future[Failures]) -> None:
    """Give each event of a message the error of the message."""
    if error := done.exception():
        into.set_exception(error)
        return
    failures: dict[int, CloudRuntimesError] = {}
    place = 0
    for number, count in enumerate(counts):
        if (why := done.result().get(number)) is not None:
            failures.update(dict.fromkeys(range(place, place + count), why))
        place += count
    into.set_result(failures)
