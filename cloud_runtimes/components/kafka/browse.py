"""Reading of partitions by nobody's member: a consumer that belongs to no group, subscribes to nothing and commits nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition

from ...spi.broker.showing import Shown, events_of
from ...spi.operation import Operation
from ...spi.pubsub import Delivery
from .librdkafka import client, map_error
from .messages import runs

if TYPE_CHECKING:
    from .settings import KafkaSettings

_STEP: Final = 0.05
_READER: Final = {
    "group.id": "cloud-runtimes-peek",  # of which the brokers never learn
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",
    "fetch.wait.max.ms": 50,
}

_FIRST: Final = {
    **_READER,
    "fetch.message.max.bytes": 16384,
    "queued.min.messages": 1,
    "fetch.queue.backoff.ms": 10,  # else it asks no partition for a second while there are messages of others
}
_AT_ONCE: Final = 1000
"""Partitions of which the first messages are read together."""


class Place(NamedTuple):
    """A message, or where the next one is."""

    topic: str
    partition: int
    offset: int


def first(
    op: Operation, settings: KafkaSettings, places: Collection[Place], end: Mapping[tuple[str, int], Any]
) -> dict[Place, Any]:
    """Return the first message from each place on, if there is one before the end of its partition."""
    found: dict[Place, Any] = {}
    missing = sorted(places)
    if not missing:
        return found
    consumer: Any = client(Consumer, settings, _FIRST)
    with closing(consumer):
        while missing:
            # a partition is read at one place at a time
            some = dict(list({place[:2]: place for place in reversed(missing)}.items())[-_AT_ONCE:])
            missing = [place for place in missing if some.get(place[:2]) != place]
            consumer.assign([TopicPartition(*place) for place in some.values()])
            while some:
                for message in consumer.consume(len(some), _STEP):
                    if (error := message.error()) is not None and error.code() != KafkaError._PARTITION_EOF:
                        raise map_error(settings.servers, error, message.topic())
                    at = message.topic(), message.partition()
                    place = some.pop(at, None)
                    if place is not None and error is None and message.offset() < end[at].offset:
                        found[place] = message
                if some and op.remaining() == 0.0:
                    raise op.timed_out(f"kafka {settings.servers}")
    return found


def read(
    op: Operation,
    settings: KafkaSettings,
    topic: str,
    offsets: Mapping[int, int],
    end: Mapping[int, int],
    limit: int | None = None,
) -> dict[int, list[Any]]:
    """Return messages of each partition from an offset to the end, at most so many."""
    found: dict[int, list[Any]] = {}
    consumer: Any = client(Consumer, settings, _READER)
    with closing(consumer):
        for partition, offset in offsets.items():
            messages = found[partition] = []
            most = end[partition] - offset if limit is None else limit
            if offset >= end[partition]:
                continue
            consumer.assign([TopicPartition(topic, partition, offset)])
            is_over = False
            while not is_over and len(messages) < most:
                for message in consumer.consume(most - len(messages), _STEP):
                    if (error := message.error()) is None:
                        messages.append(message)
                    elif error.code() != KafkaError._PARTITION_EOF:
                        raise map_error(settings.servers, error, topic)
                    is_over = error is not None or message.offset() + 1 >= end[partition]
                if not is_over and op.remaining() == 0.0:
                    raise op.timed_out(f"kafka {settings.servers}")
            found[partition] = [each for each in messages if each.offset() < end[partition]]
    return found


def events(topic: str, messages: Sequence[Any]) -> Iterator[tuple[Any, int, Delivery]]:
    """Yield the events of messages, each with its message and how many events that has."""
    shown = Shown(topic, lambda offset: f"{topic}-{offset}", "ce_")
    for message in messages:
        partition, offset = message.partition(), message.offset()
        for run in runs([message], ordered=True):
            if run.plain:
                ((data, _),) = run.messages
                shown.add(partition, [offset], [data])
            else:
                run.messages[0].put(shown, partition)
    for message, held in zip(messages, shown.held, strict=True):
        for event in events_of(held):
            yield message, held.length, event
