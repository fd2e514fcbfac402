"""Groups that are paused. Kafka keeps nothing of a group but where it stands, so a second group says it: ``<group>.paused``, which has no members and stands at 1 in the topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition

from ...spi.operation import Operation
from .cluster import patiently, seconds_left
from .librdkafka import map_error
from .topics import PAUSED

if TYPE_CHECKING:
    from .topics import Topics

KEEP_EVERY: Final = 3600.0
"""Seconds after which members note it again: brokers forget where a group without members stands, after seven days by default."""


def pause(topics: Topics, op: Operation, topic: str, group: str, paused: bool) -> None:
    """Note that a group is paused, or that it is not."""
    asked = ConsumerGroupTopicPartitions(
        topics.group(group) + PAUSED, [TopicPartition(topics.name(topic), 0, int(paused))]
    )

    def ask(remaining: float) -> None:
        (told,) = topics.of_coordinators(remaining, "alter_consumer_group_offsets", asked)
        for each in told.topic_partitions or ():
            if each.error is not None:
                raise KafkaException(each.error)

    try:
        patiently(ask, seconds_left(op))
    except KafkaException as error:
        raise map_error(topics.where, error.args[0], topic) from error


def is_paused(topics: Topics, op: Operation, topic: str, group: str) -> bool:
    """Return whether a group is paused."""
    try:
        (place,) = topics.standing(
            topics.group(group) + PAUSED, [TopicPartition(topics.name(topic), 0)], seconds_left(op)
        )
    except KafkaException as error:
        raise map_error(topics.where, error.args[0], topic) from error
    return place.offset == 1
