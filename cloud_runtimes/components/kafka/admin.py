"""``client.admin`` on Kafka: what the brokers tell of topics and groups. A consumer that belongs to no group reads events."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import confluent_kafka.admin
from confluent_kafka import KafkaException, TopicPartition

from ...errors import UnsupportedError
from ...spi.admin import GroupInfo, MemberInfo, Position, PubSubAdmin, TopicInfo
from ...spi.broker.showing import is_full, milliseconds, time_of
from ...spi.operation import Operation
from ...spi.pubsub import Delivery
from .backlogs import Backlogs
from .browse import events, read
from .cluster import seconds_left
from .ledger import Ledger
from .librdkafka import map_error
from .removals import ALL, SUFFIX, Parts
from .topics import NOTES, REDRIVEN

if TYPE_CHECKING:
    from . import KafkaComponent

_admin: Final[Any] = confluent_kafka.admin  # its types are incomplete
_spec: Final = _admin.OffsetSpec
_FEWEST: Final = 20
"""Messages of a partition that are read at least, where there are so many."""
_MOST: Final = 5000


class _Place(NamedTuple):
    """Token of an event: the offset of each partition at which to read on, the partition and index of the event, and how many its message has."""

    offsets: Mapping[int, int]
    partition: int
    event: int
    length: int


class KafkaAdmin(PubSubAdmin):
    """The topics of a component; all its names share them."""

    def __init__(self, component: KafkaComponent) -> None:
        self._settings = component.settings
        self._topics = component.topics
        self._backlogs = Backlogs(component.settings, component.topics)

    # -- topics and groups ------------------------------------------------

    def topics(self, op: Operation, prefix: str, limit: int, /) -> Sequence[TopicInfo]:
        mine, there = self._settings.prefix, self._topics.metadata(op).topics
        wanted = self._shown(there, prefix, self._group_ids(op))[:limit]
        partitions = [TopicPartition(name, each) for name in wanted for each in there[name].partitions]
        specs = (_spec.earliest(), _spec.latest(), _spec.for_timestamp(0), _spec.max_timestamp())
        begin, end, first, last = self._topics.all_offsets(op, partitions, *specs)
        found = []
        for name in wanted:
            keys = [(name, each) for each in there[name].partitions]
            bounds = ({each: at[name, each].offset for each in there[name].partitions} for at in (begin, end))
            count = self._kept(op, name, *bounds, removals=name + SUFFIX in there)
            times = [[at[key].timestamp for key in keys if at[key].offset >= 0] for at in (first, last)]
            oldest, newest = (
                time_of(pick(each)) if each else None for pick, each in zip((min, max), times, strict=True)
            )
            found.append(TopicInfo(name.removeprefix(mine), count, None, oldest, newest))
        return found

    def names(self, op: Operation, limit: int, /) -> Sequence[str]:
        there = self._topics.metadata(op).topics
        cut = len(self._settings.prefix)
        return [name[cut:] for name in self._shown(there, "", self._group_ids(op))[:limit]]

    def _shown(self, there: Collection[str], prefix: str, groups: Collection[str]) -> list[str]:
        """Return what the topics are called whose names begin so."""
        names = {name for name in there if name.startswith(self._settings.prefix + prefix)}
        return sorted({name for name in names if not name.startswith("__")} - self._internal(there, groups))

    def _kept(
        self, op: Operation, name: str, begin: Mapping[int, int], end: Mapping[int, int], *, removals: bool = True
    ) -> int:
        """Return how many messages there are between, without removed ones."""
        removed = self._topics.removals.of(op, name) if removals else {}
        return sum(
            end[each]
            - offset
            - sum(bits == ALL and offset <= at < end[each] for at, bits in removed.get(each, {}).items())
            for each, offset in begin.items()
        )

    def _internal(self, there: Collection[str], groups: Collection[str]) -> set[str]:
        """Return the topics with what is removed of others, tried again by groups, or redriven to them."""
        found = {name for name in there if name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in there}
        found |= set(groups)  # a group that reads what comes again is called as the topic
        cut = len(self._settings.prefix)
        for name in (each for each in there if REDRIVEN in each):
            topics = [each[cut:] for each in there if name.startswith(each) and name != each]
            redriven = (self._topics.name(topic, group[cut:], REDRIVEN) for topic in topics for group in groups)
            found |= {name} & {*redriven}
        return found

    def _all_ids(self, op: Operation) -> list[str]:
        """Return the groups, with those that tell who is paused."""
        remaining = seconds_left(op)
        try:
            listed = self._topics.admin().list_consumer_groups(request_timeout=remaining).result(remaining)
        except KafkaException as error:
            raise map_error(self._topics.where, error.args[0]) from error
        return sorted(each.group_id for each in listed.valid if each.group_id.startswith(self._settings.prefix))

    def _group_ids(self, op: Operation) -> list[str]:
        return [id for id in self._all_ids(op) if not id.endswith(NOTES)]

    def groups(self, op: Operation, topic: str, /) -> Sequence[GroupInfo]:
        name = self._topics.name(topic)
        found = self._backlogs.of(op, {name: topic}, self._all_ids(op))
        return [replace(each, members=self._members(op, self._topics.group(each.name), name)) for each in found]

    def backlogs(self, op: Operation, limit: int, /) -> Sequence[GroupInfo]:
        ids = self._all_ids(op)
        groups = [id for id in ids if not id.endswith(NOTES)]
        names = self._shown(self._topics.metadata(op).topics, "", groups)[:limit]
        return self._backlogs.of(op, {name: name.removeprefix(self._settings.prefix) for name in names}, ids)

    def _members(self, op: Operation, id: str, topic: str | None = None) -> tuple[MemberInfo, ...]:
        """Return the members of a group that have partitions of a topic, or none at all; ``None``: all members."""
        remaining = seconds_left(op)
        try:
            (told,) = self._topics.of_coordinators(remaining, "describe_consumer_groups", id)
        except KafkaException as error:
            raise map_error(self._topics.where, error.args[0]) from error
        found = []
        for each in told.members:
            partitions = each.assignment.topic_partitions if topic and each.assignment else []
            if not partitions or any(one.topic == topic for one in partitions):
                found.append(MemberInfo(each.member_id, (each.host or "").lstrip("/") or None))
        return tuple(sorted(found, key=lambda member: member.id))

    # -- events -----------------------------------------------------------

    def peek(
        self, op: Operation, topic: str, group: str | None, start: Position, limit: int, /
    ) -> Sequence[Delivery] | None:
        if group is not None:
            if self._settings.group_type == "share":
                raise UnsupportedError(f"kafka {self._topics.where}: a share group does not tell what it has settled")
            return self._unsettled(op, topic, group, limit)
        name = self._topics.name(topic)
        if (partitions := self._topics.there(op, name).get(name)) is None:
            return []
        begin, end = self._topics.bounds(op, name, partitions)
        removed = self._topics.removals.of(op, name)
        more = max(map(len, removed.values()), default=0)
        offsets, after = begin, None
        if start == "latest":
            offsets = {each: max(begin[each], offset - limit - more) for each, offset in end.items()}
            messages = self._merged(read(op, self._settings, name, offsets, end))
            return self._events(topic, offsets, messages, removed)[-limit:]
        if isinstance(start, datetime):
            offsets = self._topics.since(op, name, end, milliseconds(start))
        elif start != "earliest":
            offsets, after = {each: max(begin[each], start.offsets.get(each, 0)) for each in begin}, start
        found: list[Delivery] = []
        page = min(_MOST, more + max(_FEWEST, min(limit, 2 * limit // len(offsets))))
        while not is_full(found, limit):
            messages = self._merged(read(op, self._settings, name, offsets, end, page), end)
            if not messages:
                break
            found += self._events(topic, offsets, messages, removed, after)
            offsets = {**offsets, **{each.partition(): each.offset() + 1 for each in messages}}
            after = None
        return found[:limit]

    @staticmethod
    def _merged(read: Mapping[int, list[Any]], end: Mapping[int, int] | None = None) -> list[Any]:
        """Return messages of all partitions by their times. With their ends, only up to where all that come before were read."""
        merged = list(heapq.merge(*read.values(), key=lambda message: message.timestamp()[1]))
        if end is None:
            return merged
        cut = [each[-1] for partition, each in read.items() if each and each[-1].offset() + 1 < end[partition]]
        return merged[: min((merged.index(each) + 1 for each in cut), default=len(merged))]

    @staticmethod
    def _events(
        topic: str, offsets: Mapping[int, int], messages: Sequence[Any], removed: Parts, after: _Place | None = None
    ) -> list[Delivery]:
        found = []
        at, last = dict(offsets), (-1, 0)
        for message, length, event in events(topic, messages):
            place = partition, offset = message.partition(), message.offset()
            if place != last:
                at = {**at, last[0]: last[1] + 1, partition: offset}
                last = place
            index = event.token[1]
            if removed.get(partition, {}).get(offset, 0) >> index & 1:
                continue
            if after is None or last != (after.partition, after.offsets[after.partition]) or index > after.event:
                found.append(event._replace(token=_Place(at, partition, index, length)))
        return found

    def _unsettled(self, op: Operation, topic: str, group: str, limit: int) -> list[Delivery] | None:
        name, id = self._topics.name(topic), self._topics.group(group)
        ledgers = self._topics.ledgers(op, name, id)
        if ledgers is None:
            return None
        found = [event for _, event in self._open(op, topic, name, ledgers, limit)]
        if len(found) < limit:
            again, id = self._topics.retried(topic, group, ledgers)
            retried = self._topics.ledgers(op, again, id, begun=True) or {}
            found += [event for _, event in self._open(op, topic, again, retried, limit - len(found))]
        return found[:limit]

    def _open(
        self, op: Operation, topic: str, name: str, ledgers: Mapping[int, Ledger], limit: int | None = None
    ) -> Iterator[tuple[Any, Delivery]]:
        """Yield events of a topic that a group has not settled, with their messages and their deliveries so far."""
        begin, end = self._topics.bounds(op, name, ledgers)
        offsets = {each: max(begin[each], ledger.base) for each, ledger in ledgers.items()}
        ahead = max((ledger.ahead for ledger in ledgers.values()), default=0)
        most = None if limit is None else limit + ahead
        messages = self._merged(read(op, self._settings, name, offsets, end, most))
        wanted = [each for each in messages if ledgers[each.partition()].read([each.offset()])]
        for message, _, event in events(topic, wanted):
            ledger, offset = ledgers[message.partition()], message.offset()
            if not ledger.parts.get(offset, 0) >> event.token[1] & 1:
                yield message, event._replace(deliveries=(event.deliveries or 1) - 1 + ledger.counts.get(offset, 0))
