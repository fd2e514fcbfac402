"""A member of a consumer group on Kafka.

What a member holds of a partition that goes to another stays its own for a while: its `Fetcher` gives the partition up once all that was handed out is settled, or ``handover`` is over.

In a group with an order the partitions are its parts (see `EventSource`). What such a member does not settle comes again to whoever has the partition next, so it has no retry topic.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import KafkaError

from ..._core.logs import repeated
from ..._native import events as kernel
from ...errors import CloudRuntimesError, UnavailableError
from ...spi.broker.in_flight import Held, InFlight, Unacked
from ...spi.broker.policy import LOOK_TIMEOUT, POLL, POLL_TIMEOUT, DeliveryPolicy, begins_at
from ...spi.operation import Operation
from ...spi.pubsub import Deliveries, EventSource, Settled, Settlement, Settlements
from .fetched import Fetched, Origin
from .fetcher import LEAVING, Fetcher
from .ledger import ORDERED, Ledger
from .librdkafka import MISSING, map_error
from .messages import Incoming, Run
from .pausing import KEEP_EVERY, is_paused, pause
from .producer import Outgoing
from .topics import REDRIVEN

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
        self._ordered = request.order is not None
        if self._ordered:
            self.valid_until = 0.0
        self._retry_topic = self._topics.name(request.topic, request.group, "retry")
        topics = [self._topic] if self._ordered else [self._topic, self._retry_topic]
        dead = [self._topics.name(request.dead_letter_topic)] if request.dead_letter_topic else []
        self._topics.ensure(op, [*topics, *dead])
        if self._ordered and component.settings.ensure == "create":
            redriven = self._topics.name(request.topic, request.group, REDRIVEN)
            self._topics.ensure_beside(op, self._topic, redriven)
        self._adding: Origin = (self._topic, 0)
        self._in_flight = InFlight(rules, lambda offset: f"{self._adding[0]}-{self._adding[1]}-{offset}", "ce_")
        self._woken = False
        self._kept_at = 0.0  # when it was noted anew that the group is paused
        self._later: list[_Later] = []
        self._writing: list[Future[dict[int, CloudRuntimesError]]] = []
        self._written = 0  # how many of the parts that are in these
        # partitions that go to others, and of which only what was handed out is left
        self._revoked: set[Origin] = set()
        self._fetched = Fetched(rules)
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
        fetcher = Fetcher(settings, self._topics, topic, self._fetched, more)
        try:
            begins = begins_at(request) if topic == self._topic else None
            note = partial(self._check_order, op)
            self._topics.begin(op, fetcher.consumer, group, topic, begins, note)
            fetcher.subscribe()
        except BaseException:
            fetcher.close(time.monotonic() + LEAVING)
            raise
        return fetcher

    def _check_order(self, op: Operation, marked: bool) -> str:
        """Refuse another order than the group has, which is ``marked`` if it has one; return the text of positions that it begins with."""
        if not self._ordered or marked:
            self._policy.check_order(has_order=marked)
        elif self._component.settings.retry == "topic":  # else groups of earlier versions have no mark
            again = self._retry_topic
            self._policy.check_order(has_order=self._topics.ledgers(op, again, again) is None)
        return ORDERED if self._ordered else ""

    @property
    def _where(self) -> str:
        return self._topics.where

    # -- the source -------------------------------------------------------

    def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Deliveries:
        self._component.check_open()
        for each in self._fetchers:
            each.start()
        if self._ordered:
            released, settled = Settlements(settled).split(Settlement.RELEASE)
            self._take_back(released)
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

    def is_paused(self) -> bool:
        op, request = Operation(POLL, self._policy.pubsub, LOOK_TIMEOUT), self._policy.request
        paused = is_paused(self._topics, op, request.topic, request.group)
        if paused and time.monotonic() >= self._kept_at + KEEP_EVERY:
            pause(self._topics, op, request.topic, request.group, True)
            self._kept_at = time.monotonic()
        return paused

    def wake(self) -> None:
        with self._fetched.changed:
            self._woken = True
            self._fetched.changed.notify_all()

    def failed(self, token: Any, deliveries: int, /) -> None:
        held: Held = token.marks
        ledger = self._fetched.ledgers.get(held.origin)  # type: ignore[call-overload]
        if ledger is not None and not held.void:
            with self._fetched.changed:  # once more while it is in hand
                ledger.counts.update(dict.fromkeys(_tokens(held, [token]), deliveries - 1))
                ledger.changed = True

    def close(self, settled: Sequence[Settled], /) -> None:
        released, kept = Settlements(settled).split(Settlement.RELEASE)
        try:
            self._in_flight.settle(kept)
            self._give_back(released)
            self._settle(wait=True)
            with self._fetched.changed:  # what was not handed out does not count as a delivery
                for ledger in self._fetched.ledgers.values():
                    ledger.take_back(list(ledger.handed))
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
        if not self._ordered:
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
            known = {each: ledger.counts[each] for each in wanted if each in ledger.counts} if ledger.counts else {}
            anew, ledger.anew = ledger.anew, False
        if ledger.parts:
            self._in_flight.removed = self._removed
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
        if run.plain and not known and self._add(origin, wanted, messages):
            return
        incoming = messages
        if run.plain:
            pairs = messages if self._ordered else zip(messages, itertools.repeat(None))
            incoming = [Incoming(offset, key, data) for offset, (data, key) in zip(wanted, pairs, strict=False)]
        if known:
            incoming = [each._replace(deliveries=each.deliveries + known.get(each.offset, 0)) for each in incoming]
        self._deliver(origin, incoming)

    def _removed(self, held: Held) -> Iterator[int]:
        """Yield which events of a message were removed."""
        ledger = self._fetched.ledgers.get(held.origin)  # type: ignore[call-overload]
        bits = 0 if ledger is None or held.single else ledger.parts.get(held.tokens[0], 0)
        return (index for index in range(held.length) if bits >> index & 1)

    def _add(self, origin: Origin, offsets: Sequence[int], messages: Sequence[Any]) -> bool:
        """Have plain messages delivered; in a group with an order only if their events have their keys, else nothing happens."""
        self._adding = origin
        if not self._ordered:
            self._in_flight.add(origin, offsets, messages)
            return True
        body, bad = kernel.pack_cloudevents([data for data, _ in messages], self._policy.request.topic)
        keys = b"".join([(key or b"") + b"\0" for _, key in messages])
        if bad or body is None or kernel.Frame(body).render(["key", b"\0"]) != keys:
            return False
        self._in_flight.add_packed(origin, offsets, body)
        return True

    def _deliver(self, origin: Origin, messages: list[Incoming]) -> None:
        """Have messages delivered once they are due."""
        self._adding = origin
        for plain, group in itertools.groupby(messages, lambda each: each.is_plain and not self._ordered):
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

    def _take_back(self, released: Sequence[Any]) -> None:
        """Hold no more what was not handed out of partitions that go to others; a frame comes again as a whole."""
        for held, records in itertools.groupby(kernel.mark_records(released), attrgetter("marks")):
            if (ledger := self._fetched.ledgers.get(held.origin)) is not None:
                with self._fetched.changed:
                    ledger.take_back(_tokens(held, records))
            held.void = not held.single
            if held.void or not held.remaining:
                self._in_flight.held.pop(held, None)

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
            elif not self._ordered:
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
        if self._ordered and part.delay_ms is not None:  # it cannot be read yet
            if origin in self._fetched.ledgers:
                due = time.time() + part.delay_ms / 1000
                again = (part.tokens[0], None, part.frame or b"", None, part.deliveries + 1, part.history, due)
                self._deliver(origin, [Incoming(*again)])
            return
        if part.done:
            self._done(origin, part.tokens)
        if part.delay_ms is None and part.events:
            self._end(origin, "dropped" if part.frame is None else "dead_lettered", part.events)

    def _done(self, origin: Origin, tokens: Sequence[int]) -> None:
        """Note messages of which nothing is left."""
        ledger = self._fetched.ledgers.get(origin)
        if ledger is None:  # the partition is another's
            return
        self._fetched.open[origin] = self._fetched.open.get(origin, 0) - len(tokens)
        with self._fetched.changed:
            ledger.settle(tokens)

    def _end(self, origin: Origin, how: str, events: int) -> None:
        """Count events that were not acknowledged and come no more; those of a partition that is another's are that one's to count."""
        if (ledger := self._fetched.ledgers.get(origin)) is not None:
            with self._fetched.changed:
                ledger.end(how, events)

    def _leave_partitions(self) -> None:
        """Let go of what was not handed out of partitions that go to others."""
        with self._fetched.changed:
            if self._ordered:  # before the loss of a partition that is behind a later commit
                self.valid_until = self._fetched.told = self._fetched.valid_until
            going = list(self._fetched.going)
            if going:
                self._fetched.new = deque(run for run in self._fetched.new if run[0] not in self._fetched.going)
        for origin in going:
            self.revision += origin not in self._revoked
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
        self._later = [each for each in self._later if each.origin != origin]
        heapify(self._later)
        return self._in_flight.leave(origin)

    def _forget(self, origin: Origin) -> None:
        """Have what is left of a partition be settled by nobody here."""
        self._in_flight.lose(origin, set(self._in_flight.tokens(origin)))
        self._fetched.open.pop(origin, None)
        self.revision += 1
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
