"""A cluster as one component asks it: which topics it has, and where groups stand."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import confluent_kafka.admin
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)

from ..._core import fork
from ..._core.threads import Mutex
from ...spi.operation import Operation
from .ledger import GONE
from .librdkafka import client, keep, map_error
from .settings import KafkaSettings

T = TypeVar("T")

_admin: Final[Any] = confluent_kafka.admin  # its types are incomplete
_STEP: Final = 30.0
_HOUR: Final = 3600.0
"""Seconds that a request may take at most, for librdkafka."""
_FIRST: Final = 0.5
_MOVING: Final = frozenset(
    [
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError._NOENT,
        KafkaError._WAIT_COORD,
    ]
)
"""Answers until a group has its coordinator, and a new partition its leader."""
_UNSEEN: Final = frozenset([KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED])
_READERS: Final = 32
"""Groups for which a consumer is kept that asks where they stand."""
_NONE: Final = -1001
"""The offset of a group that has committed none."""


class Cluster:
    """See the module.

    Attributes:
        where: the brokers, for messages.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self.where = settings.servers
        self._admin: Any = None
        self._readers: OrderedDict[str, Consumer] = OrderedDict()
        self._reading = Mutex()
        self._last_error: KafkaError | None = None
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: the threads of the parent's client are not there."""
        for each in (self._admin, *self._readers.values()):
            keep(each)
        self._admin = None
        self._readers = OrderedDict()
        self._reading = Mutex()

    def admin(self) -> Any:
        """Return the ``AdminClient`` of confluent-kafka."""
        if self._admin is None:
            self._admin = client(_admin.AdminClient, self._settings, {"error_cb": self._note})
        return self._admin

    def of_coordinators(self, timeout: float, method: str, *asked: Any) -> list[Any]:
        """Return what the coordinators of groups answer to a method of the ``AdminClient``, to each of what is asked.

        librdkafka aborts the process when it finds a coordinator for a request whose time is over. So each has an hour, and who waits in vain lets go of the client that may still send it.

        Raises:
            KafkaException: it failed, or there was no answer in so many seconds.
        """
        admin = self.admin()
        sent = [getattr(admin, method)([each], request_timeout=_HOUR) for each in asked]
        end = time.monotonic() + timeout
        try:
            return [each.result(max(0.01, end - time.monotonic())) for futures in sent for each in futures.values()]
        except TimeoutError:
            if self._admin is admin:
                self._admin = None
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None

    def _note(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # the others say why
            self._last_error = error

    def metadata(self, op: Operation) -> Any:
        """Return what the brokers say of the cluster, with all of its topics, which may be very many."""
        return self._asked(op, lambda seconds: self.admin().list_topics(timeout=seconds))

    def there(self, op: Operation, *names: str) -> dict[str, list[int]]:
        """Return the partitions of those topics that are there and may be seen."""

        def ask(seconds: float) -> dict[str, list[int]]:
            asked = self.admin().describe_topics(TopicCollection(sorted({*names})), request_timeout=seconds)
            found = {}
            for name, future in asked.items():
                try:
                    found[name] = sorted(each.id for each in future.result(seconds + _FIRST).partitions)
                except TimeoutError:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None
                except KafkaException as error:
                    if error.args[0].code() == KafkaError.LEADER_NOT_AVAILABLE:  # it was made just now
                        found[name] = []
                    elif error.args[0].code() not in _UNSEEN:
                        raise
            return found

        return self._asked(op, ask) if names else {}

    def _asked(self, op: Operation, ask: Callable[[float], T]) -> T:
        """Return what the brokers answer. librdkafka tries until time runs out, whatever it is told, so it gets little at first."""
        step = _FIRST
        self._last_error = None
        while True:
            remaining = seconds_left(op)
            try:
                return ask(min(remaining, step))
            except KafkaException as error:
                self.admin().poll(0)  # which calls `_note`
                failure = map_error(self.where, error.args[0], broker_error=self._last_error)
                if remaining <= step or not failure.retryable:
                    raise failure from error
            step *= 2

    def brokers(self, op: Operation) -> int:
        """Return how many brokers there are.

        Raises:
            UnavailableError: none answers.
        """
        return len(self.metadata(op).brokers)

    # -- groups -----------------------------------------------------------

    def standing(self, group: str, partitions: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        """Return where a group stands in partitions.

        A consumer asks, which does not join. librdkafka ends the process of an ``AdminClient`` whose request reaches a broker that is not the group's coordinator any more, as when brokers restart (2.16). A group that is not there needs no consumer.

        Raises:
            KafkaException: of one it is not known, in so many seconds.
        """
        end = time.monotonic() + timeout
        with self._reading:
            reader = self._readers.get(group)
            if reader is not None:
                self._readers.move_to_end(group)
        if reader is None:
            (told,) = patiently(lambda left: self.of_coordinators(left, "describe_consumer_groups", group), timeout)
            if told.state is ConsumerGroupState.DEAD:
                return [TopicPartition(each.topic, each.partition) for each in partitions]
            reader = self._reader(group)
        return committed(reader, partitions, max(0.01, end - time.monotonic()))

    def _reader(self, group: str) -> Consumer:
        """Return a consumer that asks for a group; the one that was needed least lately goes."""
        with self._reading:
            if group not in self._readers:
                self._readers[group] = client(
                    Consumer, self._settings, {"group.id": group, "enable.auto.commit": False}
                )
            reader = self._readers[group]
            gone = [self._readers.popitem(last=False) for _ in range(len(self._readers) - _READERS)]
        del gone  # outside of the lock, since its end may wait for threads of librdkafka
        return reader

    def positions(self, op: Operation, groups: Iterable[str]) -> dict[str, dict[str, dict[int, TopicPartition]]]:
        """Return where groups stand: group → topic → partition → position, of all that they have committed."""
        ids = list(groups)
        found: dict[str, dict[str, dict[int, TopicPartition]]] = {id: {} for id in ids}

        def ask(remaining: float) -> None:
            asked = [ConsumerGroupTopicPartitions(id) for id in ids]
            told = self.of_coordinators(remaining, "list_consumer_group_offsets", *asked)
            for id, answer in zip(ids, told, strict=True):
                for each in answer.topic_partitions or ():
                    found[id].setdefault(each.topic, {})[each.partition] = each

        try:
            patiently(ask, seconds_left(op))
        except KafkaException as error:
            raise map_error(self.where, error.args[0]) from error
        return found


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

    return patiently(ask, timeout)


def patiently(ask: Callable[[float], T], timeout: float, look: Callable[[], object] = lambda: None) -> T:
    """Ask until whoever knows can be asked; look for them before each other time."""
    end = time.monotonic() + timeout
    while True:
        try:
            return ask(max(0.01, end - time.monotonic()))
        except KafkaException as error:
            if error.args[0].code() not in _MOVING or time.monotonic() >= end:
                raise
        time.sleep(0.05)
        look()


def uncommitted(partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
    """Return those in which a group has no position."""
    those = (each for each in partitions if each.offset == _NONE or each.metadata == GONE)
    return [TopicPartition(each.topic, each.partition) for each in those]


def seconds_left(op: Operation) -> float:
    """Return the seconds that a call of librdkafka may take."""
    remaining = op.remaining()
    return _STEP if remaining is None else max(0.01, remaining)
