"""A member of a consumer group on Kafka.

What a member holds of a partition that goes to another stays its own for a while: its `Fetcher` gives the partition up once all that was handed out is settled, or ``handover`` is over.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import KafkaError

from ..._core.logs import repeated
from ...errors import CloudRuntimesError, UnavailableError
from ...spi.broker.in_flight import Held, InFlight, Unacked
from ...spi.broker.policy import POLL, POLL_TIMEOUT, DeliveryPolicy, begins_at
from ...spi.operation import Operation
from ...spi.pubsub import Deliveries, EventSource, Settled, Settlement, Settlements
from .fetcher import LEAVING, Fetched, Fetcher, Origin
from .ledger import Ledger
from .librdkafka import MISSING, map_error
from .messages import Incoming, Keys, Run
from .producer import Outgoing

if TYPE_CHECKING:
    from . import KafkaComponent
    from .pubsub import KafkaPubSub

_numbers = itertools.count()


class _Later(NamedTuple):
    """A message that is due later."""

    at: float
    number: int
    origin: Origin
    message: Incoming


class KafkaMember(EventSource):
    """See the module. Making one sees that its topics are there and its group has begun."""

    def __init__(self, component: KafkaComponent, driver: KafkaPubSub, rules: DeliveryPolicy, op: Operation) -> None:
        self._component = component
        self._driver = driver
        self._policy = rules
        self._topics = component.topics
        request = rules.request
        self._topic = self._topics.name(request.topic)
        self._keys = Keys() if component.settings.retry == "in_order" or request.order is not None else None
        self._retry_topic = self._topics.name(request.topic, request.group, "retry")
        topics = [self._topic] if self._keys is not None else [self._topic, self._retry_topic]
        dead = [self._topics.name(request.dead_letter_topic)] if request.dead_letter_topic else []
        self._topics.ensure(op, [*topics, *dead])
        self._adding: Origin = (self._topic, 0)
        self._in_flight = InFlight(rules, lambda offset: f"{self._adding[0]}-{self._adding[1]}-{offset}", "ce_")
        self._woken = False
        self._later: list[_Later] = []
        # how many parts of a message are still to be settled, if not one
        self._twice: dict[tuple[Origin, int], int] = {}
        self._following: list[tuple[Origin, Incoming]] = []  # that waited for what is settled now
        self._writing: list[Future[dict[int, CloudRuntimesError]]] = []
        self._written = 0  # how many of the parts that are in these
        self._revoked: set[Origin] = (
            set()
        )  # partitions that go to others, and of which only what was handed out is left
        self._fetched = Fetched()
        self._fetchers: list[Fetcher] = []
        try:
            for topic in topics:
                self._fetchers.append(self._join(op, topic))
        except BaseException:
            for each in self._fetchers:
                each.close(time.monotonic() + LEAVING)
            raise

    def _join(self, op: Operation, topic: str) -> Fetcher:
        settings, request = self._component.settings, self._policy.request
        group = self._topics.group(request.group) if topic == self._topic else topic
        more = {"group.id": group}
        if settings.instance is not None:
            more["group.instance.id"] = f"{settings.instance}-{next(self._component.members)}"
        fetcher = Fetcher(settings, self._where, topic, self._fetched, more, ordered=self._keys is not None)
        try:
            self._topics.begin(op, fetcher.consumer, topic, begins_at(request) if topic == self._topic else None)
            fetcher.subscribe()
        except BaseException:
            fetcher.close(time.monotonic() + LEAVING)
            raise
        return fetcher

    @property
    def _where(self) -> str:
        return self._topics.where

    # -- the source -------------------------------------------------------

    def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Deliveries:
        self._component.check_open()
        for each in self._fetchers:
            each.start()
        self._in_flight.settle(settled)
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            self._settle()
            self._leave_partitions()
            self._take(want)
            deliveries = self._in_flight.deliver(want, time.time_ns() // 1000)
            if self._in_flight.done or self._in_flight.unacked:  # those that have expired, or are given up
                self._settle()
            if deliveries:
                self._hand(deliveries)
            elif self._wait(end, want):
                continue
            return deliveries

    def wake(self) -> None:
        with self._fetched.changed:
            self._woken = True
            self._fetched.changed.notify_all()

    def close(self, settled: Sequence[Settled], /) -> None:
        kept = Settlements()
        released: list[Any] = []
        for group in Settlements(settled).groups:
            if group[1] is Settlement.RELEASE:
                released += group[0]
            else:
                kept.groups.append(group)
        try:
            self._in_flight.settle(kept)
            self._give_back(released)
            self._settle(wait=True)
            with self._fetched.changed:  # what was not handed out does not count as a delivery
                for ledger in self._fetched.ledgers.values():
                    ledger.take_back()
                for origin, tokens in _by_partition([each for each in released if each.marks.remaining]):
                    if origin in self._fetched.ledgers:
                        self._fetched.ledgers[origin].hand(tokens)
        finally:
            end = time.monotonic() + LEAVING
            with ExitStack() as leaving:
                for each in self._fetchers:
                    leaving.callback(each.close, end)

    def _give_back(self, released: Sequence[Any]) -> None:
        """Make parts of what would not come again as it should by not being committed."""
        if self._keys is None:
            self._in_flight.release_begun(released)

    def _wait(self, end: float | None, want: int) -> bool:
        """Wait for messages, for `wake`, or for what is due; returns whether to look again."""
        while True:
            now = time.monotonic()
            due = [now + self._later[0].at - time.time()] if self._later else []
            with self._fetched.changed:
                if self._woken:
                    self._woken = False
                    return False
                for each in self._fetchers:
                    each.check()
                going = self._fetched.going
                if going.keys() - self._revoked or min(going.values(), default=now + 1) <= now:
                    return True
                if (want and self._fetched.new) or (self._writing and self._is_written):
                    return True
                until = min([*due, *going.values(), *([] if end is None else [end])], default=None)
                if until is None or until > now:
                    self._fetched.changed.wait(None if until is None else until - now)
            now = time.monotonic()
            if want and self._later and self._later[0].at <= time.time():
                return True
            if end is not None and now >= end:
                return False

    # -- taking in --------------------------------------------------------

    def _take(self, want: int) -> None:
        """Take in what was fetched, and what has become due."""
        if not want or self._in_flight.is_ready:
            return
        now = time.time()
        while self._later and self._later[0].at <= now:
            later = heappop(self._later)
            self._deliver(later.origin, [later.message])
        failures = []
        for origin, run in self._fetched.take(want):
            ledger = self._fetched.ledgers.get(origin)
            if run.error is not None and (ledger is not None or run.partition < 0):  # else it is another's
                failures.append(self._map_error(origin[0], run.error))
            if run.offsets and ledger is not None:
                self._read(origin, ledger, run)
        for failure in failures:
            raise failure

    def _map_error(self, topic: str, error: KafkaError) -> CloudRuntimesError:
        if error.code() in MISSING:  # it was there: somebody may be making it anew
            return UnavailableError(
                f"kafka {self._where}: the topic {topic!r} is gone; events come once it is there again"
            )
        return map_error(self._where, error, topic)

    def _read(self, origin: Origin, ledger: Ledger, run: Run) -> None:
        messages = run.messages
        with self._fetched.changed:
            before = ledger.ended.get("deleted", 0)
            wanted = ledger.read(run.offsets, run.start)
            deleted = ledger.ended.get("deleted", 0) - before
            known = dict(ledger.counts)
            anew, ledger.anew = ledger.anew, False
        if deleted:
            repeated(
                f"deleted {self._where} {origin}",
                "kafka %s: %d messages of %s (partition %d) were deleted before the group read them: "
                "retention.ms and retention.bytes of the topic say how long messages stay",
                *(self._where, deleted, *origin),
            )
        if anew:
            self._let_go(origin)
            self._forget(origin)
        if wanted is not run.offsets:
            needed = set(wanted)
            messages = [each for offset, each in zip(run.offsets, messages, strict=True) if offset in needed]
        if not messages:
            return
        self._fetched.open[origin] = self._fetched.open.get(origin, 0) + len(messages)
        if run.plain and not known:
            self._adding = origin
            self._in_flight.add(origin, wanted, messages)
            return
        incoming = list(map(Incoming, wanted, itertools.repeat(None), messages)) if run.plain else messages
        if known:
            incoming = [each._replace(deliveries=each.deliveries + known.get(each.offset, 0)) for each in incoming]
        if self._keys is not None:
            incoming = [each for each in incoming if self._keys.enter(origin, each)]
        self._deliver(origin, incoming)

    def _deliver(self, origin: Origin, messages: list[Incoming]) -> None:
        """Have messages delivered once they are due."""
        self._adding = origin
        for plain, group in itertools.groupby(messages, lambda each: each.is_plain):
            if plain:
                those = list(group)
                self._in_flight.add(origin, [each.offset for each in those], [each.data for each in those])
                continue
            for each in group:
                if each.due > time.time():
                    heappush(self._later, _Later(each.due, next(_numbers), origin, each._replace(due=0.0)))
                else:
                    each.put(self._in_flight, origin)

    def _hand(self, deliveries: Deliveries) -> None:
        """Note in the ledgers what is being delivered, in case that this process dies with it."""
        with self._fetched.changed:
            for records, _ in deliveries.groups:
                held: Held = records[0].marks  # type: ignore[attr-defined]
                if (ledger := self._fetched.ledgers.get(held.origin)) is not None:  # type: ignore[call-overload]
                    ledger.hand(_tokens(held, records))

    # -- settling ---------------------------------------------------------

    def _settle(self, *, wait: bool = False) -> None:
        """Say what became of messages. What is to be written of some first goes out meanwhile, and they are settled once it is there; with ``wait`` it is."""
        in_flight = self._in_flight
        for origin, tokens in in_flight.done.items():
            if in_flight.expired:  # the counts of all partitions are one group's
                self._end(origin, "expired", in_flight.expired)  # type: ignore[arg-type]
                in_flight.expired = 0
            self._done(origin, tokens)  # type: ignore[arg-type]
        in_flight.done.clear()
        while in_flight.unacked:
            if not self._written:
                self._write(in_flight.unacked)
            if not wait and not self._is_written:
                break
            writing, self._writing = self._writing, []
            count, self._written = self._written, 0
            for future in writing:
                for error in future.result().values():
                    raise error
            for part in in_flight.unacked[:count]:
                self._finish(part)
            del in_flight.unacked[:count]
        following, self._following = self._following, []
        for origin, message in following:
            self._deliver(origin, [message])

    def _write(self, parts: Sequence[Unacked]) -> None:
        """Begin to write what comes again, and dead letters."""
        self._written = len(parts)
        now_ms = time.time_ns() // 1_000_000
        again: list[Outgoing] = []
        dead: list[Outgoing] = []
        for part in parts:
            if part.frame is None:
                continue
            if part.delay_ms is None:
                dead += self._driver.writer.dead(part, self._policy.request.topic)
            elif self._keys is None:
                again += self._driver.writer.again(part, now_ms)
        op = Operation(POLL, self._driver.name, POLL_TIMEOUT)
        letters = self._policy.request.dead_letter_topic
        for topic, messages in ((self._retry_topic, again), (letters and self._topics.name(letters), dead)):
            if topic and messages:
                future = self._component.producer.send(op, topic, messages)
                self._writing.append(future)
                future.add_done_callback(self._look_again)

    @property
    def _is_written(self) -> bool:
        return all(future.done() for future in self._writing)

    def _look_again(self, written: object) -> None:
        with self._fetched.changed:
            self._fetched.changed.notify_all()

    def _finish(self, part: Unacked) -> None:
        """Settle a part of which nothing is to be written any more."""
        origin: Origin = part.held.origin  # type: ignore[assignment]
        if self._keys is not None and part.delay_ms is not None and part.frame is not None:
            self._hold_back(origin, part)
        if part.done:
            self._done(origin, part.tokens)
        if part.delay_ms is None and part.events:
            self._end(origin, "dropped" if part.frame is None else "dead_lettered", part.events)

    def _hold_back(self, origin: Origin, part: Unacked) -> None:
        """Have a part come again from memory."""
        assert part.frame is not None
        assert part.delay_ms is not None
        token, *_ = part.tokens
        if (ledger := self._fetched.ledgers.get(origin)) is not None:
            with self._fetched.changed:
                ledger.handed.discard(token)
                ledger.counts[token] = part.deliveries
                ledger.changed = True
        self._twice[origin, token] = self._twice.get((origin, token), 1) + 1
        message = Incoming(token, None, part.frame, deliveries=part.deliveries + 1, past=part.history)
        heappush(self._later, _Later(time.time() + part.delay_ms / 1000, next(_numbers), origin, message))

    def _done(self, origin: Origin, tokens: Sequence[int]) -> None:
        """Note messages of which nothing is left."""
        if self._twice:
            tokens = [each for each in tokens if self._last(origin, each)]
        ledger = self._fetched.ledgers.get(origin)
        if ledger is None:  # the partition is another's
            return
        self._fetched.open[origin] = self._fetched.open.get(origin, 0) - len(tokens)
        if self._keys is not None:
            self._following += [(origin, each) for each in self._keys.leave(origin, tokens)]
        with self._fetched.changed:
            ledger.settle(tokens)

    def _end(self, origin: Origin, how: str, events: int) -> None:
        """Count events that were not acknowledged and come no more; those of a partition that is another's are that one's to count."""
        if (ledger := self._fetched.ledgers.get(origin)) is not None:
            with self._fetched.changed:
                ledger.end(how, events)

    def _last(self, origin: Origin, token: int) -> bool:
        remaining = self._twice.pop((origin, token), 1) - 1
        if remaining:
            self._twice[origin, token] = remaining
        return not remaining

    def _leave_partitions(self) -> None:
        """Let go of what was not handed out of partitions that go to others."""
        if not self._fetched.going:
            return
        with self._fetched.changed:
            going = list(self._fetched.going)
            self._fetched.new = deque(run for run in self._fetched.new if run[0] not in self._fetched.going)
        for origin in going:
            remaining = self._let_go(origin) or any(part.held.origin == origin for part in self._in_flight.unacked)
            self._revoked.add(origin)
            if not remaining or time.monotonic() >= self._fetched.going[origin]:
                self._revoked.discard(origin)
                self._forget(origin)
                with self._fetched.changed:
                    self._fetched.going.pop(origin, None)
                    self._fetched.changed.notify_all()

    def _let_go(self, origin: Origin) -> bool:
        """Let go of what was not handed out of a partition; returns whether anything handed out is left."""
        if self._keys is not None:
            self._keys.forget(origin)
        self._later = [each for each in self._later if each.origin != origin]
        heapify(self._later)
        return self._in_flight.leave(origin)

    def _forget(self, origin: Origin) -> None:
        """Have what is left of a partition be settled by nobody here."""
        self._in_flight.lose(origin, set(self._in_flight.tokens(origin)))
        self._fetched.open.pop(origin, None)
        self._twice = {position: count for position, count in self._twice.items() if position[0] != origin}
        for part in self._in_flight.unacked:
            if part.held.origin == origin:
                part.held.origin = None


def _by_partition(records: Sequence[Any]) -> Iterator[tuple[Origin, Sequence[int]]]:
    """Yield where delivered events came from, and the offsets of their messages."""
    for held, group in itertools.groupby(records, attrgetter("marks")):
        yield held.origin, _tokens(held, group)


def _tokens(held: Held, records: Iterable[Any]) -> Sequence[int]:
    """Return the offsets of the messages that events are in."""
    return [held.tokens[each.position] for each in records] if held.single else held.tokens
