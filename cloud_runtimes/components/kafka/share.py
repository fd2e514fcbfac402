"""A member of a share group: the brokers lend it messages one by one, each until it is answered or its lock is over.

librdkafka fetches no more before all messages of the last poll are answered. So a slow event holds up its member until the lock is over, and no other member. An event that failed, or that the brokers have lent almost as often as they will, goes on in the retry topic, which has a consumer group.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import (
    AcknowledgeType,
    IllegalStateException,
    KafkaError,
    KafkaException,
    ShareConsumer,
)

from ..._core.logs import repeated
from ...errors import CloudRuntimesError
from ...spi.operation import Operation
from ...spi.pubsub import Settlement, Settlements
from .fetched import Fetched, Origin
from .fetcher import COMMIT_EVERY, LEAVING, SLICE, Fetcher
from .ledger import Ledger
from .librdkafka import OLD, client, map_error, without_shares
from .member import KafkaMember
from .messages import Incoming, runs
from .settings import KafkaSettings
from .topics import Topics

_JOINING: Final = 1.0
"""Seconds in which brokers without share groups say so; librdkafka does not tell that it has joined."""
_MOST: Final = 256
_LIMIT: Final = "5"
_LOCK: Final = "30000"


class _Lent(Ledger):
    """Messages of one partition that the brokers have lent to this member.

    Attributes:
        open: offsets of those that are not answered.
    """

    __slots__ = ("_settled_since", "open")

    def __init__(self) -> None:
        super().__init__(0, None)
        self.open: set[int] = set()
        self._settled_since: list[int] = []

    def lend(self, offset: int, deliveries: int) -> None:
        """Take in a message, and how often it was lent."""
        self.open.add(offset)
        if deliveries > 1:
            self.counts[offset] = deliveries - 1

    def answered(self) -> list[int]:
        """Return what was settled since the last time."""
        settled, self._settled_since = self._settled_since, []
        self.open.difference_update(settled)
        return settled

    @property
    def is_waiting(self) -> bool:
        """Whether any message is not settled."""
        return len(self.open) > len(self._settled_since)

    def read(self, offsets: Sequence[int], start: int = 0) -> Sequence[int]:
        return offsets

    def hand(self, offsets: Sequence[int]) -> None:
        """The brokers count themselves."""

    def settle(self, offsets: Sequence[int]) -> None:
        self._settled_since += offsets
        for offset in offsets:
            self.counts.pop(offset, None)


class _ShareFetcher(Fetcher):
    """The thread of a share consumer."""

    def __init__(
        self, settings: KafkaSettings, topics: Topics, topic: str, fetched: Fetched, group: str, limit: int, lock: float
    ) -> None:
        self._limit = limit
        self._lock = lock
        self._lent: dict[Origin, _Lent] = {}
        super().__init__(settings, topics, topic, fetched, {"group.id": group})

    def _open(self, settings: KafkaSettings, more: dict[str, Any]) -> Any:
        consumer = client(
            ShareConsumer,
            settings,
            {
                "max.poll.records": self._limit,
                "max.poll.interval.ms": 86_400_000,  # the lock ends before
                **(settings.options or {}),
                "share.acknowledgement.mode": "explicit",
                "error_cb": self._note,
                **more,
            },
        )
        consumer.set_acknowledgement_commit_callback(self._acknowledged)
        return consumer

    def subscribe(self) -> None:
        self.consumer.subscribe([self._topic])
        self.start()

    def wait(self) -> None:
        """Raise what brokers say that have no share groups."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or self._fetched.new, _JOINING)
        self.check()

    def _run(self) -> None:
        while not self._stopped:
            with self._changed:
                if not self._changed.wait_for(lambda: self._stopped or self._has_room(), SLICE):
                    continue
            since = time.monotonic()
            if messages := self._poll():
                self._take_in(messages)
                self._stay(since + self._lock)

    def _has_room(self) -> bool:
        return sum(self._fetched.open.values()) < self._limit

    def _poll(self) -> list[Any]:
        try:
            return list(self.consumer.poll(SLICE))
        except KafkaException as error:
            failure = self._map_error(error.args[0])
            if not failure.retryable:
                raise failure from error
            self._note(error.args[0])
            time.sleep(SLICE)
            return []

    def _map_error(self, error: KafkaError) -> CloudRuntimesError:
        if error.code() in OLD:
            return without_shares(self._where)
        return map_error(self._where, error, self._topic)

    def _take_in(self, messages: Sequence[Any]) -> None:
        with self._changed:
            for message in messages:
                if message.error() is None:
                    origin = self._topic, message.partition()
                    lent = self._lent.setdefault(origin, _Lent())
                    lent.lend(message.offset(), message.delivery_count() or 1)
                    self._fetched.ledgers[origin] = lent
            self._fetched.add(self._topic, list(runs(messages, ordered=False)))
            self._fetched.tell()

    def _stay(self, end: float) -> None:
        """Answer what is settled, until all is or the lock is over."""
        while self._answer() and not self._stopped:
            if time.monotonic() >= end:
                self._let_go()
                return
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or not self._is_waiting(), COMMIT_EVERY)

    def _is_waiting(self) -> bool:
        return any(lent.is_waiting for lent in self._lent.values())

    def _answer(self) -> bool:
        """Acknowledge what is settled; returns whether anything is left."""
        with self._changed:
            settled = {origin: lent.answered() for origin, lent in self._lent.items()}
            waiting = self._is_waiting()
        self._acknowledge(settled, AcknowledgeType.ACCEPT)
        if waiting and any(settled.values()):  # else the next poll takes it along
            self.consumer.commit_async()
        return waiting

    def _acknowledge(self, settled: dict[Origin, list[int]], how: AcknowledgeType) -> None:
        for (topic, partition), offsets in settled.items():
            for offset in offsets:
                with suppress(IllegalStateException):  # it is not lent any more
                    self.consumer.acknowledge_offset(topic, partition, offset, how)

    def _acknowledged(self, offsets: object, error: KafkaException | None) -> None:
        if error is not None and error.args[0].code() != KafkaError.INVALID_RECORD_STATE:  # what a late one gets
            self._note(error.args[0])

    def _let_go(self) -> None:
        """Forget what the brokers lend to others now."""
        with self._changed:
            for origin in self._lent:
                self._fetched.ledgers.pop(origin, None)
                self._fetched.going[origin] = 0.0
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopped or self._lent.keys().isdisjoint(self._fetched.going))
        self._release()

    def _release(self) -> None:
        self._acknowledge({origin: list(lent.open) for origin, lent in self._lent.items()}, AcknowledgeType.RELEASE)
        self._lent.clear()

    def _commit_last(self, end: float) -> None:
        """Release what is not settled."""
        if not self._lent:
            return
        self._answer()
        self._release()
        try:
            answers = self.consumer.commit_sync(max(SLICE, end - time.monotonic()))
        except KafkaException as error:
            raise self._uncertain() from error
        for refused in filter(None, answers.values()):
            if refused.args[0].code() != KafkaError.INVALID_RECORD_STATE:
                raise self._uncertain() from refused

    def _leave(self, end: float) -> None:
        """The end of the consumer does that."""


class KafkaShareMember(KafkaMember):
    """See the module."""

    def _join(self, op: Operation, topic: str) -> Fetcher:
        if topic != self._topic:
            return super()._join(op, topic)
        request = self._policy.request
        group = self._topics.group(request.group)
        config = self._topics.share_group(op, group)
        # one more is left for the case that this member dies
        self._limit = max(2, int(config.get("share.delivery.count.limit", _LIMIT)) - 1)
        lock = int(config.get("share.record.lock.duration.ms", _LOCK)) / 1000
        limit = request.max_in_flight or _MOST
        fetcher = _ShareFetcher(self._component.settings, self._topics, topic, self._fetched, group, limit, lock)
        try:
            fetcher.subscribe()
            if not self._topics.has_shares:
                fetcher.wait()
                self._topics.has_shares = True
        except BaseException:
            fetcher.close(time.monotonic() + LEAVING)
            raise
        return fetcher

    def _deliver(self, origin: Origin, messages: list[Incoming]) -> None:
        super()._deliver(origin, messages)
        if origin[0] == self._topic:  # else the brokers would drop it unsettled
            self._in_flight.release(lambda held: held.origin == origin and held.deliveries >= self._limit)

    def _give_back(self, released: Sequence[Any]) -> None:
        """Have all that is left go on in the retry topic: the brokers would count also what was not handed out as delivered.

        Nothing is fetched any more before, since that would only be counted.
        """
        end = time.monotonic() + LEAVING
        for each in self._fetchers:
            if isinstance(each, _ShareFetcher):
                each.stop(end)
        for origin, run in self._fetched.take(sys.maxsize):
            ledger = self._fetched.ledgers.get(origin)
            if origin[0] == self._topic and run.offsets and ledger is not None:
                self._read(origin, ledger, run)
        handed = Settlements()
        remaining = [each for each in released if each.marks.remaining]  # the origin of others may be forgotten
        handed.add([each for each in remaining if each.marks.origin[0] == self._topic], Settlement.RELEASE)
        self._in_flight.settle(handed)
        self._in_flight.release(lambda held: held.origin[0] == self._topic)  # type: ignore[index]
        super()._give_back(released)

    def _end(self, origin: Origin, how: str, events: int) -> None:
        if origin in self._fetched.ledgers and origin[0] == self._topic and how != "dead_lettered":
            label = self._policy.label  # a share group has no commits, which could count it
            repeated(f"{how} {label}", "%s: %d events were %s", label, events, how)
        super()._end(origin, how, events)
