"""Pub/sub on Kafka: a topic for each topic. ``docs/explanation/kafka.md`` explains it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ..._core import fork
from ...errors import CloudRuntimesError, UnsupportedError
from ...spi import pubsub as spi
from ...spi.admin import LOOKING, MENDING, PubSubAdmin
from ...spi.broker.policy import FEATURES, DeliveryPolicy
from ...spi.broker.redelivery import spread
from ...spi.operation import Operation
from ...spi.pubsub import BatchLimits, EventSource, Failures, OutgoingBatch, PubSubDriver, SubscribeRequest
from .member import KafkaMember
from .messages import Writer

if TYPE_CHECKING:
    from . import KafkaComponent

_DELAY: Final = "schedule a job that publishes it"
_INSTEAD: Final = MappingProxyType(
    {
        spi.ACK_WAIT: "session_timeout of the component's table says when a member that died is noticed",
        spi.DELAY: _DELAY,
    }
)
_SHARED: Final = MENDING | {spi.GROUPS, spi.LAG, spi.START, spi.START_TIME}
"""What a share group has not."""
_SHARE_INSTEAD: Final = MappingProxyType(
    {
        spi.ACK_WAIT: "share.record.lock.duration.ms of the group says when an unsettled event comes again",
        spi.DELAY: _DELAY,
        spi.GROUPS: "kafka-share-groups.sh --describe tells them",
        spi.LAG: "kafka-share-groups.sh --describe --offsets tells it",
        spi.START: "a new share group begins where its share.auto.offset.reset says, else with the first event",
        spi.START_TIME: "a new share group begins where its share.auto.offset.reset says, else with the first event",
    }
)


class KafkaPubSub(PubSubDriver):
    """Pub/sub driver; all names of one component share the same topics."""

    def __init__(self, component: KafkaComponent, name: str) -> None:
        self._component = component
        self.name = name
        settings = component.settings
        self.features = (FEATURES | LOOKING | MENDING) - {spi.ACK_WAIT, spi.DELAY}
        self.alternatives = _INSTEAD
        if settings.group_type == "share":
            self.features, self.alternatives = self.features - _SHARED, _SHARE_INSTEAD
        elif settings.layout == "event":  # a frame has events of many keys
            self.features |= {spi.KEY_ORDER}
        if settings.retry == "in_order":
            self.default_order = "key"
        self.writer = Writer(settings)
        self.limits = BatchLimits(events=10_000, bytes=4 * 1024 * 1024, retries=True)
        self.max_event_bytes = 64 * 1024 * 1024

    # -- publishing -------------------------------------------------------

    def begin(self, op: Operation, batch: OutgoingBatch, /) -> Future[Failures]:
        topic = self._component.topics.name(batch.topic)
        self._component.topics.ensure(op, [topic])
        messages, counts = self.writer.publish(batch.frames)
        sent = self._component.producer.send(op, topic, messages)
        if counts is None:
            return sent  # type: ignore[return-value]
        failures: Future[Failures] = Future()
        sent.add_done_callback(lambda done: _spread(done, counts, failures))
        return failures

    def publish(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        return self.begin(op, batch).result()

    async def publish_async(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        if self._component.topics.knows(self._component.topics.name(batch.topic)):
            return await asyncio.wrap_future(self.begin(op, batch))
        return await asyncio.wrap_future(await asyncio.to_thread(self.begin, op, batch))

    # -- subscribing ------------------------------------------------------

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        member_class = _share_member() if self._component.settings.group_type == "share" else KafkaMember
        return member_class(self._component, self, DeliveryPolicy(self.name, request), op)

    def lag(self, op: Operation, topic: str, group: str, /) -> int | None:
        return self._component.topics.lag(op, topic, group)

    def admin(self) -> PubSubAdmin:
        from .mending import KafkaMender

        return KafkaMender(self._component)


def _share_member() -> type[KafkaMember]:
    try:
        with fork.importing:
            from .share import KafkaShareMember
    except ImportError as error:
        raise UnsupportedError(
            'share groups need confluent-kafka 2.16 or newer: pip install "confluent-kafka>=2.16"'
        ) from error
    return KafkaShareMember


def _spread(done: Future[dict[int, CloudRuntimesError]], counts: list[int], into: Future[Failures]) -> None:
    """Give each event of a message the error of the message."""
    try:
        into.set_result(spread(counts, done.result()))
    except CloudRuntimesError as error:
        into.set_exception(error)
