"""A member of a consumer group on Kafka.

Its consumer belongs to a thread of its own, which fetches, commits and takes part in rebalances, so that none of these waits for handlers; confluent-kafka lets one thread at a time use a consumer. What a member holds of a partition that goes to another stays its own for a while: the thread gives the partition up once all that was handed out is settled, or ``handover`` is over.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from operator import attrgetter
from threading import Condition
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from ..._core import fork
from ..._core.logs import repeated
from ..._core.threads import Background
from ...errors import InternalError, UnavailableError
from ...spi.operation import Operation
from ...spi.pubsub import Deliveries, EventSource, Settled, Settlement, Settlements
from .._deliveries import POLL, POLL_TIMEOUT, Rules
from .._messages.holding import Holding, Part
from .failures import explained
from .ledger import Ledger
from .messages import Incoming, read
from .ordered import Keys
from .producer import Outgoing
from .threads import client, keep

if TYPE_CHECKING:
    from . import KafkaComponent
    from .pubsub import KafkaPubSub

__all__ = ["KafkaMember"]

Origin: TypeAlias = tuple[str, int]
"""A topic and a partition."""

_SLICE: Final = 0.05
_PATIENCE: Final = 1.0
"""Seconds that the fetching waits for room before it pauses the partitions, which costs what librdkafka has read ahead."""
_COMMIT_EVERY: Final = 0.05
_MOST: Final = 10_000
"""Messages that a member holds at most; with as many it fetches no more."""
_BYTES: Final = 16 * 1024 * 1024
"""What a member has fetched and not handed out, about."""
_LEAVING: Final = 10.0
_numbers = itertools.count()


class _Later(NamedTuple):
    """What is due later."""

    at: float
    number: int
    origin: Origin
    message: Incoming


class KafkaMember(EventSource):
    """See the module. Making one sees that its topics are there and its group has begun."""

    def __init__(self, component: KafkaComponent, driver: KafkaPubSub, rules: Rules, op: Operation) -> None:
        self._component = component
        self._driver = driver
        self._rules = rules
        self._topics = component.topics
        self._handover = component.settings.handover
        request = rules.request
        self._topic = self._topics.name(request.topic)
        self._keys = Keys() if component.settings.retry == "in_order" else None
        self._retry_topic = self._topics.name(request.topic, request.group, "retry")
        topics = [self._topic] if self._keys is not None else [self._topic, self._retry_topic]
        dead = [self._topics.name(request.dead_letter_topic)] if request.dead_letter_topic else []
        self._topics.ensure(op, [*topics, *dead])
        self._adding: Origin = (self._topic, 0)
        self._holding = Holding(rules, lambda offset: f"{self._adding[0]}-{self._adding[1]}-{offset}")
        self._changed = Condition()
        self._new: list[Any] = []  # messages that were fetched
        self._woken = self._stopped = self._leaves = False
        self._room = 1  # messages to fetch ahead
        self._ledgers: dict[Origin, Ledger] = {}
        self._going: dict[Origin, float] = {}  # partitions that go to another member, and until when that waits
        self._later: list[_Later] = []
        self._twice: dict[tuple[Origin, int], int] = (
            {}
        )  # how many parts of a message are still to be settled, if not one
        self._open: dict[Origin, int] = {}  # messages that were taken in and are not settled
        self._following: list[tuple[Origin, Incoming]] = []  # that waited for what is settled now
        self._failure: Exception | None = None
        self._consumer = self._make()
        fork.register(self)
        try:
            self._begin(op, topics)
        except BaseException:
            self._consumer.close()
            raise
        self._thread: Background | None = None

    def forked(self) -> None:
        """In a forked child: the threads of the consumer are not there."""
        keep(self._consumer)

    def _make(self) -> Any:
        settings = self._component.settings
        number = next(self._component.members)
        more = {} if settings.instance is None else {"group.instance.id": f"{settings.instance}-{number}"}
        return client(
            Consumer,
            settings,
            {
                "queued.max.messages.kbytes": 16 * 1024,
                **(settings.options or {}),
                **more,
                "group.id": self._topics.group(self._rules.request.group),
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": int(settings.session_timeout * 1000),
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "error_cb": lambda error: repeated(f"kafka {self._where}", "kafka %s: %s", self._where, error.str()),
                "on_commit": self._committed,
            },
        )

    def _begin(self, op: Operation, topics: list[str]) -> None:
        for topic in topics:
            latest = topic == self._topic and self._rules.request.start == "latest"
            self._topics.begin(op, self._consumer, topic, latest=latest)
        self._consumer.subscribe(topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    @property
    def _where(self) -> str:
        return self._topics.where

    # -- the source -------------------------------------------------------

    def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Deliveries:
        self._component.check_open()
        if self._thread is None:
            self._thread = Background(self._fetch, "cloud-runtimes-kafka-member")
            self._thread.start()
        self._leave_partitions()
        self._holding.settle(settled)
        self._settle()
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            self._take(want)
            deliveries = self._holding.deliver(want, time.time_ns() // 1000)
            if self._holding.done:  # those that have expired
                self._settle()
            if deliveries:
                self._hand(deliveries)
            elif self._wait(end, want):
                continue
            return deliveries

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self, settled: Sequence[Settled], /) -> None:
        kept = Settlements()
        released: list[Any] = []
        for group in Settlements(settled).groups:
            if group[1] is Settlement.RELEASE:
                released += group[0]
            else:
                kept.groups.append(group)
        try:
            self._holding.settle(kept)
            self._settle()
            with self._changed:  # what was not handed out does not count as a delivery
                for ledger in self._ledgers.values():
                    ledger.handed.clear()
                for origin, tokens in _places(released):
                    if origin in self._ledgers:
                        self._ledgers[origin].hand(tokens)
        finally:
            with self._changed:
                self._stopped = self._leaves = True
                self._changed.notify_all()
            if self._thread is not None:
                self._thread.join(_LEAVING)
            try:
                self._commit(list(self._ledgers), wait=True)
            except KafkaException as error:
                raise UnavailableError(
                    f"kafka {self._where}: {error.args[0].str()}: what was settled last goes to another member again"
                ) from error
            finally:
                self._consumer.close()

    def _wait(self, end: float | None, want: int) -> bool:
        """Wait for messages, for `wake`, or for what is due; tells whether to look again."""
        while True:
            now = time.monotonic()
            due = [now + self._later[0].at - time.time()] if self._later else []
            with self._changed:
                if self._woken:
                    self._woken = False
                    return False
                if isinstance(self._failure, KafkaException):
                    raise explained(self._where, self._failure.args[0], self._topic)
                if self._failure is not None:
                    raise InternalError(f"kafka {self._where}: the consumer ended") from self._failure
                if self._going or (want and self._new):
                    break
                until = min(due + ([] if end is None else [end]), default=None)
                if until is None or until > now:
                    self._changed.wait(None if until is None else until - now)
            now = time.monotonic()
            if want and self._later and self._later[0].at <= time.time():
                return True
            if end is not None and now >= end:
                return False
        self._leave_partitions()
        return True

    # -- taking in --------------------------------------------------------

    def _take(self, want: int) -> None:
        """Take in what was fetched, and what has become due."""
        if not want or self._holding.is_ready:
            return
        with self._changed:
            messages, self._new = self._new[:want], self._new[want:]
            self._changed.notify_all()
        now = time.time()
        while self._later and self._later[0].at <= now:
            later = heappop(self._later)
            self._deliver(later.origin, [later.message])
        for origin, group in itertools.groupby(messages, lambda each: (each.topic(), each.partition())):
            self._read(origin, list(group))

    def _read(self, origin: Origin, messages: list[Any]) -> None:
        ledger = self._ledgers.get(origin)
        if ledger is None:  # it was given up after these had come
            return
        for message in messages:
            if (error := message.error()) is not None:
                raise explained(self._where, error, origin[0])
        found = [read(message) for message in messages]
        with self._changed:
            found = [each for each in found if ledger.read(each.offset)]
            if ledger.counts:
                known = ledger.counts
                found = [
                    each._replace(deliveries=each.deliveries + known[each.offset]) if each.offset in known else each
                    for each in found
                ]
        self._open[origin] = self._open.get(origin, 0) + len(found)
        if self._keys is not None:
            found = [each for each in found if self._keys.enter(origin, each)]
        self._deliver(origin, found)

    def _deliver(self, origin: Origin, messages: list[Incoming]) -> None:
        """Have messages delivered once they are due."""
        self._adding = origin
        for plain, group in itertools.groupby(messages, lambda each: each.is_plain):
            if plain:
                those = list(group)
                self._holding.add(origin, [each.offset for each in those], [each.data for each in those])
                continue
            for each in group:
                if each.due > time.time():
                    heappush(self._later, _Later(each.due, next(_numbers), origin, each._replace(due=0.0)))
                elif each.kind is not None:
                    self._holding.add_plain(origin, each.offset, each.data, each.kind, each.deliveries, each.past)
                else:
                    self._holding.add(origin, [each.offset], [each.data], each.deliveries, each.past, each.topic)

    def _hand(self, deliveries: Deliveries) -> None:
        """Note in the ledgers what is being delivered, in case that this process dies with it."""
        with self._changed:
            for origin, tokens in _places([record for records, _ in deliveries.groups for record in records]):
                if (ledger := self._ledgers.get(origin)) is not None:
                    ledger.hand(tokens)

    # -- settling ---------------------------------------------------------

    def _settle(self) -> None:
        """Say what became of messages; what is to be written of them first has been, once this returns."""
        holding = self._holding
        self._write([part for part in holding.parts if part.frame is not None])
        for part in holding.parts:
            origin: Origin = part.held.origin  # type: ignore[assignment]
            if self._keys is not None and part.delay_ms is not None and part.frame is not None:
                self._hold_back(origin, part)
            if part.done:
                self._done(origin, part.tokens)
            if part.frame is None and part.events:
                repeated(f"dropped {self._rules.label}", "%s: %d events were dropped", self._rules.label, part.events)
        holding.parts.clear()
        for origin, tokens in holding.done.items():  # type: ignore[assignment]
            self._done(origin, tokens)
        holding.done.clear()
        if holding.expired:
            repeated(f"expired {self._rules.label}", "%s: %d events had expired", self._rules.label, holding.expired)
            holding.expired = 0
        following, self._following = self._following, []
        for origin, message in following:
            self._deliver(origin, [message])

    def _write(self, parts: Sequence[Part]) -> None:
        """Write what comes again, and dead letters, and wait until the brokers have them."""
        now_ms = time.time_ns() // 1_000_000
        again: list[Outgoing] = []
        dead: list[Outgoing] = []
        for part in parts:
            if part.delay_ms is None:
                dead += self._driver.writer.dead(part, self._rules.request.topic)
            elif self._keys is None:
                again += self._driver.writer.again(part, now_ms)
        op = Operation(POLL, self._driver.name, POLL_TIMEOUT)
        letters = self._rules.request.dead_letter_topic
        for topic, messages in ((self._retry_topic, again), (letters and self._topics.name(letters), dead)):
            if topic and messages:
                failures = self._component.producer.send(op, topic, messages).result()
                for error in failures.values():
                    raise error

    def _hold_back(self, origin: Origin, part: Part) -> None:
        """Have a part come again from memory."""
        assert part.frame is not None
        assert part.delay_ms is not None
        token, *_ = part.tokens
        if (ledger := self._ledgers.get(origin)) is not None:
            with self._changed:
                ledger.handed.discard(token)
                ledger.counts[token] = part.deliveries
                ledger.changed = True
        self._twice[origin, token] = self._twice.get((origin, token), 1) + 1
        message = Incoming(token, None, part.frame, deliveries=part.deliveries + 1, past=part.past)
        heappush(self._later, _Later(time.time() + part.delay_ms / 1000, next(_numbers), origin, message))

    def _done(self, origin: Origin, tokens: Sequence[int]) -> None:
        """Note messages of which nothing is left."""
        if self._twice:
            tokens = [each for each in tokens if self._last(origin, each)]
        ledger = self._ledgers.get(origin)
        if ledger is None:  # the partition is another's
            return
        self._open[origin] = self._open.get(origin, 0) - len(tokens)
        if self._keys is not None:
            self._following += [(origin, each) for each in self._keys.leave(origin, tokens)]
        with self._changed:
            ledger.settle(tokens)

    def _last(self, origin: Origin, token: int) -> bool:
        left = self._twice.pop((origin, token), 1) - 1
        if left:
            self._twice[origin, token] = left
        return not left

    def _leave_partitions(self) -> None:
        """Let go of what was not handed out of partitions that go to others."""
        if not self._going:
            return
        with self._changed:
            going = list(self._going)
            self._new = [each for each in self._new if (each.topic(), each.partition()) not in self._going]
        for origin in going:
            if self._keys is not None:
                self._keys.forget(origin)
            self._later = [each for each in self._later if each.origin != origin]
            heapify(self._later)
            left = self._holding.leave(origin)
            if not left or time.monotonic() >= self._going[origin]:
                self._holding.lose(origin, set(self._holding.tokens(origin)))
                self._open.pop(origin, None)
                self._twice = {place: count for place, count in self._twice.items() if place[0] != origin}
                with self._changed:
                    self._going.pop(origin, None)
                    self._changed.notify_all()

    # -- the thread of the consumer ---------------------------------------

    def _fetch(self) -> None:
        try:
            commit_at = full_since = 0.0
            while not self._stopped:
                if time.monotonic() >= commit_at:
                    self._commit(list(self._ledgers))
                    commit_at = time.monotonic() + _COMMIT_EVERY
                with self._changed:
                    has_room = self._changed.wait_for(lambda: self._stopped or not self._full(), _SLICE)
                if has_room:
                    full_since = 0.0
                elif not full_since:
                    full_since = time.monotonic()
                elif time.monotonic() > full_since + _PATIENCE:
                    self._stand_by()
                if has_room and (first := self._consumer.poll(_SLICE)) is not None:
                    self._room = max(1, min(_MOST, _BYTES // (len(first.value() or b"") + 100)))
                    messages = [first, *self._consumer.consume(self._room, 0)]
                    with self._changed:
                        self._new += messages
                        self._changed.notify_all()
        except Exception as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _commit(self, origins: Iterable[Origin], *, wait: bool = False) -> None:
        """Commit what has changed of partitions; with ``wait`` it is known afterwards.

        Raises:
            KafkaException: it is not; only with ``wait``.
        """
        offsets = []
        with self._changed:
            for origin in origins:
                ledger = self._ledgers.get(origin)
                if ledger is not None and ledger.changed:
                    ledger.changed = False
                    offsets.append(TopicPartition(*origin, ledger.base, ledger.text()))
        if offsets:
            try:
                self._consumer.commit(offsets=offsets, asynchronous=not wait)
            except KafkaException as error:
                self._committed(error.args[0], offsets)
                if wait:
                    raise

    def _committed(self, error: Any, partitions: list[TopicPartition]) -> None:
        """Have what was not committed be so the next time."""
        if error is None:
            return
        for each in partitions:
            if (ledger := self._ledgers.get((each.topic, each.partition))) is not None:
                ledger.changed = True

    def _full(self) -> bool:
        return len(self._new) >= self._room or sum(self._open.values()) >= _MOST

    def _stand_by(self) -> None:
        """Take part in rebalances, and fetch nothing."""
        consumer = self._consumer
        paused = consumer.assignment()
        consumer.pause(paused)
        while self._full() and not self._stopped:
            self._commit(list(self._ledgers))
            if (message := consumer.poll(_SLICE)) is not None:
                with self._changed:
                    self._new.append(message)
        there = consumer.assignment()
        consumer.resume([each for each in paused if each in there])

    def _assigned(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        with self._changed:  # of what comes back, nothing of the time before may be left
            origins = {(each.topic, each.partition) for each in partitions}
            self._changed.wait_for(lambda: self._leaves or origins.isdisjoint(self._going))
        try:
            partitions = consumer.committed(partitions, timeout=_LEAVING)
        except KafkaException as error:  # nothing is missed without, and some may come again
            repeated(f"kafka {self._where}", "kafka %s: %s", self._where, error.args[0].str())
        for each in partitions:
            known = each.offset >= 0
            self._ledgers[each.topic, each.partition] = Ledger(
                each.offset if known else 0, each.metadata if known else None
            )
            if not known:
                each.offset = OFFSET_BEGINNING
        consumer.incremental_assign(partitions)

    def _revoked(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Wait until what was handed out is settled, then give up the partitions."""
        origins = [(each.topic, each.partition) for each in partitions]
        end = time.monotonic() + self._handover
        with self._changed:
            if not self._leaves:
                self._going.update(dict.fromkeys(origins, end))
                self._changed.notify_all()
            while not self._leaves and any(origin in self._going for origin in origins):
                if not self._changed.wait(max(0.0, end + 1 - time.monotonic())):
                    break
        try:
            self._commit(origins, wait=True)
        except KafkaException as error:
            repeated(f"kafka {self._where}", "kafka %s: %s", self._where, error.args[0].str())
        self._lost(consumer, partitions)

    def _lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Forget partitions that are another's; settlements of their messages are void."""
        with self._changed:
            for each in partitions:
                self._ledgers.pop((each.topic, each.partition), None)
                if not self._leaves:
                    self._going[each.topic, each.partition] = 0.0
            self._changed.notify_all()
        if self._leaves:
            return
        consumer.incremental_unassign(partitions)


def _places(records: Sequence[Any]) -> Iterator[tuple[Origin, Sequence[int]]]:
    """Yield where delivered events came from, and the offsets of their messages."""
    for held, group in itertools.groupby(records, attrgetter("marks")):
        yield held.origin, [held.tokens[each.place] for each in group] if held.single else held.tokens
