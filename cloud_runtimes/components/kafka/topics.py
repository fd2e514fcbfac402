"""Topics and groups: what they are called in the cluster, whether they are there, and where a group begins."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2s
from typing import Any, Final, TypeAlias, TypeVar

import confluent_kafka.admin
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition

from ..._core import fork
from ...errors import NotFoundError
from ...spi.broker.policy import LATEST
from ...spi.operation import Operation
from .ledger import Ledger
from .librdkafka import MISSING, OLD, client, keep, map_error, without_shares
from .settings import KafkaSettings

T = TypeVar("T")
Note: TypeAlias = Callable[[bool], str]
"""Gets whether a group has the order of keys; returns what is noted with its new positions."""
_admin: Final[Any] = confluent_kafka.admin  # its types are incomplete
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,240}")
_LONGEST: Final = 200
_STEP: Final = 30.0
_FIRST: Final = 0.5
_NEWS: Final = 5.0
"""Seconds in which all brokers learn of a topic that was made."""
_BEGUN: Final = frozenset([KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION])
"""What a group answers that has members, who began it."""
_MOVING: Final = frozenset(
    [
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError._NOENT,
        KafkaError._WAIT_COORD,
    ]
)
"""What is answered until a group has its coordinator, and a new partition its leader."""
_START: Final = "share.auto.offset.reset"
_NONE: Final = -1001
"""The offset of a group that has committed none."""


class Topics:
    """Topics of one component.

    Attributes:
        where: the brokers, for messages.
        has_shares: whether they are known to have share groups.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self.where = settings.servers
        self.has_shares = False
        self._existing: set[str] = set()
        self._admin: Any = None
        self._last_error: KafkaError | None = None
        fork.register(self)

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

    def brokers(self, op: Operation) -> int:
        """Return how many brokers there are.

        Raises:
            UnavailableError: none answers.
        """
        return len(self._metadata(op).brokers)

    def forget(self, name: str) -> None:
        """Look anew whether a topic is there, the next time."""
        self._existing.discard(name)

    def forked(self) -> None:
        """In a forked child: the threads of the parent's client are not there."""
        keep(self._admin)
        self._admin = None

    def ensure(self, op: Operation, names: Iterable[str]) -> None:
        """See that topics are there, or make them.

        Raises:
            NotFoundError: one is missing, and none are made.
        """
        missing = [name for name in names if name not in self._existing]
        if not missing:
            return
        there = self._metadata(op).topics
        missing = [name for name in missing if name not in there]
        if missing and self._settings.ensure == "check":
            raise NotFoundError(
                f"kafka {self.where}: there is no topic {' and none '.join(map(repr, missing))}: make it, "
                'or set ensure = "create" in the component\'s table'
            )
        self._make(op, missing)
        self._existing.update(names)

    def _make(self, op: Operation, names: Sequence[str]) -> None:
        settings = self._settings
        wanted = [_admin.NewTopic(name, settings.partitions or -1, settings.replicas or -1) for name in names]
        if not wanted:
            return
        for name, future in self._client().create_topics(wanted, operation_timeout=_remaining(op)).items():
            try:
                future.result(_remaining(op))
            except TimeoutError:
                raise op.timed_out(f"kafka {self.where}") from None
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise map_error(self.where, error.args[0], name) from error

    def _client(self) -> Any:
        if self._admin is None:
            self._admin = client(_admin.AdminClient, self._settings, {"error_cb": self._note})
        return self._admin

    def _note(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # the others say why
            self._last_error = error

    def _metadata(self, op: Operation) -> Any:
        """Return what the brokers say of the cluster. librdkafka tries until time runs out, whatever it is told, so it gets little at first."""
        step = _FIRST
        self._last_error = None
        while True:
            remaining = _remaining(op)
            try:
                return self._client().list_topics(timeout=min(remaining, step))
            except KafkaException as error:
                self._client().poll(0)  # which calls `_note`
                failure = map_error(self.where, error.args[0], broker_error=self._last_error)
                if remaining <= step or not failure.retryable:
                    raise failure from error
            step *= 2

    # -- groups -----------------------------------------------------------

    def begin(self, op: Operation, consumer: Consumer, topic: str, begins: int | None, note: Note) -> None:
        """Give a group that has no position in a topic one, so that it misses nothing from now on. ``begins``: see `begins_at`.

        A partition that is added later is read from its beginning.
        """
        end = time.monotonic() + min(_remaining(op), _NEWS)
        while True:
            try:
                return self._begin(op, consumer, topic, begins, note)
            except KafkaException as error:
                code = error.args[0].code()
                if code in _BEGUN:
                    return
                if code not in MISSING or time.monotonic() >= end:
                    self.forget(topic)
                    raise map_error(self.where, error.args[0], topic) from error
            time.sleep(0.05)

    def _begin(self, op: Operation, consumer: Consumer, topic: str, begins: int | None, note: Note) -> None:
        metadata = consumer.list_topics(topic, timeout=_remaining(op)).topics[topic]
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        wanted = [TopicPartition(topic, each) for each in metadata.partitions]
        positions = committed(consumer, wanted, _remaining(op))
        text = note(any(Ledger(0, each.metadata).ordered for each in positions))
        missing = uncommitted(positions)
        if not missing:
            return
        spec = _admin.OffsetSpec
        offsets = self._offsets(op, missing, spec.earliest() if begins is None else spec.latest())
        if begins is not None and begins < LATEST:
            # asked second, so that nothing comes between; where no message is so late, none is found
            starts = self._offsets(op, missing, spec.for_timestamp(begins))
            offsets |= {partition: offset for partition, offset in starts.items() if offset >= 0}
        there = [TopicPartition(topic, partition, offset, text) for partition, offset in offsets.items()]
        consumer.commit(offsets=there, asynchronous=False)

    def share_group(self, op: Operation, name: str) -> dict[str, str]:
        """See that a share group that is new misses nothing from now on, and return its settings."""
        which = _admin.ConfigResource(_admin.ResourceType.GROUP, name)
        start = _admin.ConfigEntry(_START, "earliest", incremental_operation=_admin.AlterConfigOpType.SET)
        earliest = _admin.ConfigResource(_admin.ResourceType.GROUP, name, incremental_configs=[start])
        try:
            (asked,) = self._client().describe_configs([which], request_timeout=_remaining(op)).values()
            config = asked.result(_remaining(op))
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
                    self._client().incremental_alter_configs([earliest], request_timeout=_remaining(op)).values()
                )
                altered.result(_remaining(op))
        except KafkaException as error:
            if error.args[0].code() in OLD or error.args[0].code() == KafkaError.INVALID_REQUEST:
                raise without_shares(self.where) from error
            raise map_error(self.where, error.args[0]) from error
        return {key: each.value for key, each in config.items()}

    def _offsets(self, op: Operation, wanted: Sequence[TopicPartition], spec: Any) -> dict[int, int]:
        """Return an offset of each partition of a topic."""

        def ask(remaining: float) -> dict[int, int]:
            asked = self._client().list_offsets(dict.fromkeys(wanted, spec), request_timeout=remaining)
            return {each.partition: future.result(remaining).offset for each, future in asked.items()}

        return _patiently(ask, _remaining(op))

    def lag(self, op: Operation, topic: str, group: str) -> int | None:
        """Return how many messages of a topic a group has not settled; ``None``: it has no position in it."""
        there = self._metadata(op).topics.get(topic)
        if there is None:
            return None
        wanted = [TopicPartition(topic, each) for each in there.partitions]

        def ask(remaining: float) -> list[TopicPartition]:
            asked = ConsumerGroupTopicPartitions(group, wanted)
            (future,) = self._client().list_consumer_group_offsets([asked], request_timeout=remaining).values()
            return list(future.result(remaining).topic_partitions)

        try:
            positions = _patiently(ask, _remaining(op))
            ends = self._offsets(op, wanted, _admin.OffsetSpec.latest())
        except KafkaException as error:
            raise map_error(self.where, error.args[0], topic) from error
        if len(uncommitted(positions)) == len(positions):
            return None
        ledgers = {each.partition: Ledger(max(0, each.offset), each.metadata) for each in positions}
        return sum(max(0, end - ledgers[each].base - ledgers[each].ahead) for each, end in ends.items())


def committed(consumer: Consumer, partitions: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
    """Return where a group stands in partitions.

    Raises:
        KafkaException: of one it is not known, in so many seconds.
    """

    def ask(remaining: float) -> list[TopicPartition]:
        positions = consumer.committed(list(partitions), timeout=remaining)
        for each in positions:
            if each.error is not None:
                raise KafkaException(each.error)
        return positions

    return _patiently(ask, timeout)


def _patiently(ask: Callable[[float], T], timeout: float) -> T:
    """Ask until whoever knows can be asked."""
    end = time.monotonic() + timeout
    while True:
        try:
            return ask(max(0.01, end - time.monotonic()))
        except KafkaException as error:
            if error.args[0].code() not in _MOVING or time.monotonic() >= end:
                raise
        time.sleep(0.05)


def uncommitted(partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
    """Return those in which a group has no position."""
    return [TopicPartition(each.topic, each.partition) for each in partitions if each.offset == _NONE]


def _remaining(op: Operation) -> float:
    remaining = op.remaining()
    return _STEP if remaining is None else max(0.01, remaining)
