"""Topics and groups: what they are called in the cluster, whether they are there, and where a group begins."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from hashlib import blake2s
from typing import Any, Final, TypeAlias

import confluent_kafka.admin
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from ...errors import NotFoundError
from ...spi.broker.policy import LATEST
from ...spi.operation import Operation
from .cluster import Cluster, committed, patiently, seconds_left, uncommitted
from .ledger import Ledger
from .librdkafka import MISSING, OLD, map_error, without_shares
from .removals import Removals
from .settings import KafkaSettings

Note: TypeAlias = Callable[[bool], str]
"""Gets whether a group has the order of keys; returns what is noted with its new positions."""
_admin: Final[Any] = confluent_kafka.admin  # its types are incomplete
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,240}")
_LONGEST: Final = 200
_NEWS: Final = 5.0
"""Seconds in which all brokers learn of a topic that was made."""
_IN_USE: Final = frozenset([KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION])
"""Answers of a group that has members."""
REDRIVEN: Final = "redriven"
PAUSED: Final = ".paused"
BEGINS: Final = ".begins"
NOTES: Final = PAUSED, BEGINS
"""Suffixes of groups without members, whose positions note something of the group that they are named for: Kafka keeps nothing else of one, and takes its positions from its members alone while it has some."""
_START: Final = "share.auto.offset.reset"


class Topics(Cluster):
    """Topics of one component.

    Attributes:
        has_shares: whether they are known to have share groups.
        removals: what was removed of the topics.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__(settings)
        self.has_shares = False
        self.removals = Removals(settings, self)
        self._existing: set[str] = set()

    def name(self, *parts: str) -> str:
        """Return what a topic is called. Kafka takes ASCII letters, digits, ``.``, ``_`` and ``-``; another name gets a hash in the place of what it does not take."""
        name = self._settings.prefix + ".".join(parts)
        if _NAME.fullmatch(name) and name not in (".", ".."):
            return name
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:_LONGEST]
        return f"{plain}-{blake2s(name.encode(), digest_size=6).hexdigest()}"

    def group(self, name: str) -> str:
        """Return what a consumer group is called."""
        return self._settings.prefix + name

    def knows(self, name: str) -> bool:
        """Return whether a topic was there the last time."""
        return name in self._existing

    def forget(self, name: str) -> None:
        """Look anew whether a topic is there, the next time."""
        self._existing.discard(name)

    def ensure(self, op: Operation, names: Iterable[str], partitions: int = 0, **config: str) -> None:
        """See that topics are there, or make them, with so many partitions.

        Raises:
            NotFoundError: one is missing, and none are made.
        """
        missing = [name for name in names if name not in self._existing]
        if not missing:
            return
        there = self.there(op, *missing)
        missing = [name for name in missing if name not in there]
        if missing and self._settings.ensure == "check":
            raise NotFoundError(
                f"kafka {self.where}: there is no topic {' and none '.join(map(repr, missing))}: make it, "
                'or set ensure = "create" in the component\'s table'
            )
        self._make(op, missing, partitions or self._settings.partitions or -1, config)
        for name in missing:
            self.partitions(
                op, name
            )  # else librdkafka, which has asked in vain, takes it for missing for half a minute
        self._existing.update(names)

    def _make(self, op: Operation, names: Sequence[str], partitions: int, config: dict[str, str]) -> None:
        replicas = self._settings.replicas or -1
        wanted = [_admin.NewTopic(name, partitions, replicas, config=config) for name in names]
        if not wanted:
            return
        for name, future in self.admin().create_topics(wanted, operation_timeout=seconds_left(op)).items():
            try:
                future.result(seconds_left(op))
            except TimeoutError:
                raise op.timed_out(f"kafka {self.where}") from None
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise map_error(self.where, error.args[0], name) from error

    def ensure_beside(self, op: Operation, topic: str, again: str) -> None:
        """See that a topic is there for what a group of another tries again or is redriven; keys go to partitions as there."""
        if again not in self._existing:
            self.ensure(op, [again], len(self.partitions(op, topic)))

    def partitions(self, op: Operation, topic: str) -> list[int]:
        """Return the partitions of a topic. Of one that was made just now brokers tell a moment later."""
        end = time.monotonic() + min(seconds_left(op), _NEWS)
        while not (partitions := self.there(op, topic).get(topic)):
            if time.monotonic() >= end:
                raise NotFoundError(f"kafka {self.where}: there is no topic {topic!r}: make it")
            time.sleep(0.05)
        return partitions

    # -- groups -----------------------------------------------------------

    def begin(self, op: Operation, consumer: Consumer, group: str, topic: str, begins: int | None, note: Note) -> None:
        """Give a group that has no position in a topic one, so that it misses nothing from now on. ``begins``: see `begins_at`.

        A partition that is added later is read from its beginning.
        """
        end = time.monotonic() + min(seconds_left(op), _NEWS)
        while True:
            try:
                return self._begin(op, consumer, group, topic, begins, note)
            except KafkaException as error:
                code = error.args[0].code()
                if code not in MISSING or time.monotonic() >= end:
                    self.forget(topic)
                    raise map_error(self.where, error.args[0], topic) from error
            time.sleep(0.05)

    def _begin(self, op: Operation, consumer: Consumer, group: str, topic: str, begins: int | None, note: Note) -> None:
        metadata = consumer.list_topics(topic, timeout=seconds_left(op)).topics[topic]
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        wanted = [TopicPartition(topic, each) for each in metadata.partitions]
        positions = committed(consumer, wanted, seconds_left(op))
        text = note(any(Ledger(0, each.metadata).ordered for each in positions))
        missing = uncommitted(positions)
        if not missing:
            return
        spec = _admin.OffsetSpec
        offsets = self.offsets(op, missing, spec.earliest() if begins is None else spec.latest())
        if begins is not None and begins < LATEST:
            # asked second, so that nothing comes between; where no message is so late, none is found
            starts = self.offsets(op, missing, spec.for_timestamp(begins))
            offsets |= {partition: offset for partition, offset in starts.items() if offset >= 0}
        there = [TopicPartition(topic, partition, offset, text) for partition, offset in offsets.items()]
        try:
            consumer.commit(offsets=there, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in _IN_USE:
                raise
            self._begin_beside(op, group, topic, there)

    def _begin_beside(self, op: Operation, group: str, topic: str, there: list[TopicPartition]) -> None:
        """Note where a group begins whose members read other topics, for whoever is assigned the partitions; unless another has."""
        if missing := [each for each in there if each.partition not in self.beginnings(op, group, topic, there)]:
            asked = ConsumerGroupTopicPartitions(group + BEGINS, missing)
            self.of_coordinators(seconds_left(op), "alter_consumer_group_offsets", asked)

    def beginnings(
        self, op: Operation, group: str, topic: str, partitions: Iterable[TopicPartition]
    ) -> dict[int, TopicPartition]:
        """Return what was noted of where a group begins in partitions of a topic."""
        wanted = [TopicPartition(topic, each.partition) for each in partitions if each.topic == topic]
        if not wanted:
            return {}

        found = self.standing(group + BEGINS, wanted, seconds_left(op))
        return {each.partition: each for each in found if each.offset >= 0}

    def share_group(self, op: Operation, name: str) -> dict[str, str]:
        """See that a share group that is new misses nothing from now on, and return its settings."""
        which = _admin.ConfigResource(_admin.ResourceType.GROUP, name)
        start = _admin.ConfigEntry(_START, "earliest", incremental_operation=_admin.AlterConfigOpType.SET)
        earliest = _admin.ConfigResource(_admin.ResourceType.GROUP, name, incremental_configs=[start])
        try:
            (asked,) = self.admin().describe_configs([which], request_timeout=seconds_left(op)).values()
            config = asked.result(seconds_left(op))
            if _START not in config:
                raise without_shares(self.where)
            if config[_START].is_default and self._settings.ensure == "check":
                raise NotFoundError(
                    f"kafka {self.where}: the share group {name!r} has no {_START}, without which it misses events: "
                    f"kafka-configs.sh --alter --entity-type groups --entity-name {name} --add-config "
                    f'{_START}=earliest sets it, or ensure = "create" in the component\'s table'
                )
            if config[_START].is_default:
                (altered,) = (
                    self.admin().incremental_alter_configs([earliest], request_timeout=seconds_left(op)).values()
                )
                altered.result(seconds_left(op))
        except KafkaException as error:
            if error.args[0].code() in OLD or error.args[0].code() == KafkaError.INVALID_REQUEST:
                raise without_shares(self.where) from error
            raise map_error(self.where, error.args[0]) from error
        return {key: each.value for key, each in config.items()}

    def _listed(self, op: Operation, wanted: Sequence[TopicPartition], *specs: Any) -> list[dict[tuple[str, int], Any]]:
        """Return offsets and times of partitions, as each of some specifications asks for them.

        Raises:
            KafkaException: of one it is not known.
        """

        def ask(remaining: float) -> list[dict[tuple[str, int], Any]]:
            asked = [
                self.admin().list_offsets(dict.fromkeys(wanted, spec), request_timeout=remaining) for spec in specs
            ]
            return [
                {(each.topic, each.partition): future.result(remaining) for each, future in those.items()}
                for those in asked
            ]

        # which tells librdkafka of leaders that have moved: it does not ask by itself
        look = partial(self.metadata, op)
        return patiently(ask, seconds_left(op), look) if wanted else [{} for _ in specs]

    def offsets(self, op: Operation, wanted: Sequence[TopicPartition], spec: Any) -> dict[int, int]:
        """Return an offset of each partition of a topic."""
        (found,) = self._listed(op, wanted, spec)
        return {partition: each.offset for (_, partition), each in found.items()}

    def all_offsets(
        self, op: Operation, wanted: Sequence[TopicPartition], *specs: Any
    ) -> list[dict[tuple[str, int], Any]]:
        """Return offsets and times of partitions of any topics."""
        try:
            return self._listed(op, wanted, *specs)
        except KafkaException as error:
            raise map_error(self.where, error.args[0]) from error

    def bounds(self, op: Operation, topic: str, partitions: Iterable[int]) -> tuple[dict[int, int], dict[int, int]]:
        """Return where partitions of a topic begin and end."""
        wanted = [TopicPartition(topic, each) for each in partitions]
        try:
            found = self._listed(op, wanted, _admin.OffsetSpec.earliest(), _admin.OffsetSpec.latest())
        except KafkaException as error:
            raise map_error(self.where, error.args[0], topic) from error
        begin, end = ({partition: each.offset for (_, partition), each in those.items()} for those in found)
        return begin, end

    def since(self, op: Operation, topic: str, end: Mapping[int, int], time_ms: int) -> dict[int, int]:
        """Return the first offset since a time of each partition, at most its end."""
        wanted = [TopicPartition(topic, each) for each in end]
        try:
            found = self.offsets(op, wanted, _admin.OffsetSpec.for_timestamp(time_ms))
        except KafkaException as error:
            raise map_error(self.where, error.args[0], topic) from error
        return {each: min(offset, end[each]) if offset >= 0 else end[each] for each, offset in found.items()}

    def retried(self, topic: str, group: str, ledgers: Mapping[int, Ledger]) -> tuple[str, str]:
        """Return the topic with what a group tries again or is redriven, and the consumer group that reads it. With an order nothing is tried again there, and the group reads both topics."""
        if any(each.ordered for each in ledgers.values()):
            return self.name(topic, group, REDRIVEN), self.group(group)
        again = self.name(topic, group, "retry")
        return again, again

    def lag(self, op: Operation, topic: str, group: str) -> int | None:
        """Return how many messages a group has not settled; ``None``: there is no such group."""
        name = self.name(topic)
        ledgers = self.ledgers(op, name, self.group(group))
        if ledgers is None:
            return None
        again, id = self.retried(topic, group, ledgers)
        return self._open(op, name, ledgers) + self._open(op, again, self.ledgers(op, again, id, begun=True) or {})

    def _open(self, op: Operation, topic: str, ledgers: Mapping[int, Ledger]) -> int:
        begin, end = self.bounds(op, topic, ledgers)
        return sum(ledger.count(begin[each], end[each]) for each, ledger in ledgers.items())

    def ledgers(self, op: Operation, topic: str, group: str, *, begun: bool = False) -> dict[int, Ledger] | None:
        """Return where a group stands in each partition of a topic; ``None``: it has no position in it. ``begun``: it is then at the beginning."""
        partitions = self.there(op, topic).get(topic)
        if partitions is None:
            return None
        wanted = [TopicPartition(topic, each) for each in partitions]
        try:
            positions = self.standing(group, wanted, seconds_left(op))
        except KafkaException as error:
            raise map_error(self.where, error.args[0], topic) from error
        if len(uncommitted(positions)) == len(positions) and not begun:
            return None
        removed = self.removals.of(op, topic)
        ledgers = {each.partition: Ledger(max(0, each.offset), each.metadata) for each in positions}
        for partition, ledger in ledgers.items():
            ledger.remove(removed.get(partition, {}))
        return ledgers
