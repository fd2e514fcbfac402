"""Mending of a cluster's topics: dead letters are removed and delivered again, topics purged and deleted, groups moved and deleted.

What one group alone gets lies in the topic with what it tries again. `removals` says how a removed event is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition

from ...spi.admin import MemberInfo, Position, Target
from ...spi.broker.mending import group_is_gone, has_members, sent_back
from ...spi.broker.redelivery import REDRIVEN
from ...spi.broker.showing import milliseconds
from ...spi.events import EventRecord
from ...spi.operation import Operation
from ...spi.pubsub import Delivery
from .admin import KafkaAdmin
from .cluster import patiently, seconds_left
from .ledger import GONE, ORDERED, Ledger
from .librdkafka import MISSING, client, map_error
from .messages import PAST, Writer
from .pausing import pause
from .producer import Outgoing
from .removals import SUFFIX
from .topics import BEGINS

if TYPE_CHECKING:
    from . import KafkaComponent

_IN_USE: Final = frozenset([KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.NON_EMPTY_GROUP])
_REDRIVEN: Final = REDRIVEN.encode()
_STEP: Final = 0.05
_GONE: Final = MISSING | {KafkaError.GROUP_ID_NOT_FOUND}


class KafkaMender(KafkaAdmin):
    """The topics of a component, and what mends them."""

    def __init__(self, component: KafkaComponent) -> None:
        super().__init__(component)
        self._producer = component.producer
        self._writer = Writer(component.settings)

    def remove(self, op: Operation, topic: str, letters: Sequence[Delivery], to: Target | None, /) -> int:
        name = self._topics.name(topic)
        if (partitions := self._topics.there(op, name).get(name)) is None:
            return 0
        sent = [sent_back(record, to) for record, *_ in letters] if to else []
        goes = {target: self._target(op, *target) for target in dict(sent)}
        claim = self._topics.removals.claim(op, self._producer, name, goes.values())
        begin, _ = self._topics.bounds(op, name, partitions)
        copies: dict[str, list[Outgoing]] = {}
        removed, count = set(), 0
        for number, (record, (offsets, partition, index, length), *_) in enumerate(letters):
            place = partition, offsets[partition], index, length
            if place[1] < begin[partition] or not claim.remove(*place):
                continue
            count += 1
            removed.add(_identity(record))
            if to:
                target, frame = sent[number]
                message = self._writer.redriven(frame, claim.copy_of(*place), alone=to == "group")
                copies.setdefault(goes[target], []).append(message)
        for sending in [self._producer.send(claim.op, goal, messages) for goal, messages in copies.items()]:
            for error in sending.result().values():
                raise error
        self._topics.removals.finish(op, self._producer, claim)
        self._drop_idle(op, topic, lambda event: _identity(event.record) in removed)
        return count

    def _target(self, op: Operation, topic: str, group: str) -> str:
        """Return the topic that a letter goes to."""
        name = self._topics.name(topic)
        if not group:
            self._topics.ensure(op, [name])
            return name
        ledgers = self._topics.ledgers(op, name, self._topics.group(group))
        if ledgers is None:
            raise group_is_gone(op.component, topic, group)
        again, _ = self._topics.retried(topic, group, ledgers)
        self._topics.ensure_beside(op, name, again)
        return again

    def purge(self, op: Operation, topic: str, before: datetime | None, dry_run: bool, /) -> int:
        name = self._topics.name(topic)
        if (partitions := self._topics.there(op, name).get(name)) is None:
            return 0
        begin, end = self._topics.bounds(op, name, partitions)
        upto = end if before is None else self._topics.since(op, name, end, milliseconds(before))
        count = self._kept(op, name, begin, upto)
        if not dry_run:
            self._topics.removals.delete(op, name, upto)
            end_us = inf if before is None else 1000 * milliseconds(before)
            self._drop_idle(op, topic, lambda event: event.record.time_us < end_us)
        return count

    def seek(self, op: Operation, topic: str, group: str, to: Position, /) -> bool:
        name = self._topics.name(topic)
        ledgers = self._topics.ledgers(op, name, self._topics.group(group))
        if ledgers is None:
            return False
        self._check_unused(op, topic, group)
        begin, end = self._topics.bounds(op, name, ledgers)
        if isinstance(to, datetime):
            places = self._topics.since(op, name, end, milliseconds(to))
        else:
            places = {"earliest": begin, "latest": end}[to]
        moved = {}
        for partition, before in ledgers.items():
            moved[partition] = after = Ledger(places[partition], ORDERED if before.ordered else None)
            after.ended = before.ended
        self._commit(op, topic, group, self._topics.group(group), name, moved)
        self._drop(op, topic, group, lambda event: True)
        return True

    def _drop_idle(self, op: Operation, topic: str, drops: Callable[[Delivery], bool]) -> None:
        """Settle what groups without members try again."""
        name, cut = self._topics.name(topic), len(self._settings.prefix)
        for id in self._group_ids(op):
            if self._topics.ledgers(op, name, id) is not None and not self._users(op, topic, id[cut:]):
                self._drop(op, topic, id[cut:], drops)

    def _drop(self, op: Operation, topic: str, group: str, drops: Callable[[Delivery], bool]) -> None:
        """Settle what a group tries again, but not what was redriven to it."""
        ledgers = self._topics.ledgers(op, self._topics.name(topic), self._topics.group(group)) or {}
        again, id = self._topics.retried(topic, group, ledgers)
        ledgers = self._topics.ledgers(op, again, id, begun=True) or {}
        offsets: dict[int, dict[int, bool]] = {each: {} for each in ledgers}
        for message, event in self._open(op, topic, again, ledgers):
            of, offset = offsets[message.partition()], message.offset()
            stays = any(name == PAST and value.startswith(_REDRIVEN) for name, value in message.headers() or ())
            of[offset] = of.get(offset, True) and not stays and drops(event)
        for partition, ledger in ledgers.items():
            if dropped := [offset for offset, goes in offsets[partition].items() if goes]:
                ledger.settle(dropped)
        if any(map(any, (of.values() for of in offsets.values()))):
            self._commit(op, topic, group, id, again, ledgers)

    def pause(self, op: Operation, topic: str, group: str, paused: bool, /) -> bool:
        if self._topics.ledgers(op, self._topics.name(topic), self._topics.group(group)) is None:
            return False
        pause(self._topics, op, topic, group, paused)
        return True

    def delete_group(self, op: Operation, topic: str, group: str, dry_run: bool, /) -> int | None:
        lag = self._topics.lag(op, topic, group)
        if lag is not None:
            self._check_unused(op, topic, group)
            if not dry_run:
                self._delete_group(op, topic, group)
        return lag

    def _delete_group(self, op: Operation, topic: str, group: str) -> None:
        name, id = self._topics.name(topic), self._topics.group(group)
        ledgers = self._topics.ledgers(op, name, id) or {}
        again, retrier = self._topics.retried(topic, group, ledgers)
        topics = {each.topic for each in self._positions(op, id) if each.metadata != GONE}
        if retrier != id:
            self._delete_id(op, retrier)
        self._delete_topics(op, again)
        pause(self._topics, op, topic, group, False)
        self._delete_id(op, id + BEGINS)
        if topics <= {name, again}:  # last, since it tells that the group is there
            self._delete_id(op, id)
        else:
            self._commit(op, topic, group, id, name, dict.fromkeys(ledgers))

    def delete_topic(self, op: Operation, topic: str, dry_run: bool, /) -> int | None:
        name = self._topics.name(topic)
        if (partitions := self._topics.there(op, name).get(name)) is None:
            return None
        count = self._kept(op, name, *self._topics.bounds(op, name, partitions))
        groups = [info.name for info in self.groups(op, topic)]
        for group in groups:
            self._check_unused(op, topic, group)
        if not dry_run:
            for group in groups:
                self._delete_group(op, topic, group)
            self._delete_topics(op, name, name + SUFFIX)
        return count

    # -- steps ------------------------------------------------------------

    def _users(self, op: Operation, topic: str, group: str) -> list[MemberInfo]:
        """Return the members of a group; a consumer group may have some that read other topics."""
        name, id = self._topics.name(topic), self._topics.group(group)
        _, retrier = self._topics.retried(topic, group, self._topics.ledgers(op, name, id) or {})
        return [each for one in {id, retrier} for each in self._members(op, one)]

    def _check_unused(self, op: Operation, topic: str, group: str) -> None:
        if members := self._users(op, topic, group):
            names = [each.id for each in members]
            raise has_members(op.component, topic, group, names, self._settings.session_timeout)

    def _commit(
        self, op: Operation, topic: str, group: str, id: str, name: str, ledgers: Mapping[int, Ledger | None]
    ) -> None:
        """Commit where a group without members stands; ``None``: it is deleted."""
        consumer: Any = client(Consumer, self._settings, {"group.id": id, "enable.auto.commit": False})
        places = ((0, GONE) if each is None else (each.base, each.text()) for each in ledgers.values())
        positions = [TopicPartition(name, partition, *place) for partition, place in zip(ledgers, places, strict=True)]
        with closing(consumer):
            try:
                patiently(lambda _: consumer.commit(offsets=positions, asynchronous=False), seconds_left(op))
            except KafkaException as error:
                if error.args[0].code() in _IN_USE:
                    self._check_unused(op, topic, group)
                raise map_error(self._topics.where, error.args[0], topic) from error

    def _positions(self, op: Operation, id: str) -> Sequence[TopicPartition]:
        """Return where a consumer group stands in all topics."""
        asked = ConsumerGroupTopicPartitions(id)
        (told,) = self._topics.of_coordinators(seconds_left(op), "list_consumer_group_offsets", asked)
        return told.topic_partitions  # type: ignore[no-any-return]

    def _delete_topics(self, op: Operation, *names: str) -> None:
        """Delete topics; the brokers list them for a moment longer."""
        for future in self._topics.admin().delete_topics([*names]).values():
            self._settled(partial(future.result, seconds_left(op)))
        for name in names:
            self._topics.forget(name)
        while self._topics.there(op, *names):
            if op.remaining() == 0.0:
                raise op.timed_out(f"kafka {self._topics.where}")
            time.sleep(_STEP)

    def _delete_id(self, op: Operation, id: str) -> None:
        """Delete a consumer group."""
        self._settled(partial(self._topics.of_coordinators, seconds_left(op), "delete_consumer_groups", id))

    def _settled(self, delete: Callable[[], object]) -> None:
        """Delete what may not be there."""
        try:
            delete()
        except KafkaException as error:
            if error.args[0].code() not in _GONE:
                raise map_error(self._topics.where, error.args[0]) from error


def _identity(record: EventRecord) -> tuple[Any, ...]:
    """Return what tells a letter from all others."""
    return record.id, record.extensions.get("dlgroup"), record.extensions.get("dllast")
