"""The thread that a consumer belongs to: it fetches, commits and takes part in rebalances, so that none of these waits for handlers. confluent-kafka lets one thread at a time use a consumer."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from itertools import chain, groupby
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from ..._core import fork
from ..._core.logs import repeated
from ..._core.threads import Background
from ...errors import CloudRuntimesError, ConflictError, InternalError, NotFoundError, UnavailableError
from ...spi.broker.policy import POLL
from ...spi.operation import Operation
from .cluster import committed, uncommitted
from .fetched import Fetched, Origin
from .ledger import Ledger
from .librdkafka import client, keep, map_error
from .messages import Run, runs
from .removals import SUFFIX
from .settings import KafkaSettings
from .topics import REDRIVEN, Topics

SLICE: Final = 0.05
_SOON: Final = 0.01
_PATIENCE: Final = 1.0
"""Seconds that the fetching waits for room before it pauses the partitions, which costs what librdkafka has read ahead."""
COMMIT_EVERY: Final = 0.05
_MOST: Final = 10_000
"""Messages that a member holds at most; with as many it fetches no more."""
_AHEAD: Final = 1000
"""Messages that a member has fetched and not handed out, at most: few enough to be in the processor's cache still."""
_STEP: Final = 200
"""Messages that are read at once: so few are gone before a garbage collection is due."""
_BYTES: Final = 16 * 1024 * 1024
"""The same in bytes, about."""
LEAVING: Final = 10.0
"""Seconds that a member takes to leave its group, and to ask where a partition stands."""
_MARGIN: Final = 1.0
"""Seconds of `session_timeout` that a member leaves out, for clocks that do not go alike."""
_LOOK: Final = 5.0
"""Seconds after which a member with messages that wait learns what was removed."""
_REBALANCING: Final = frozenset([KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION])


class Fetcher:
    """The thread for one topic; see the module. A group of its own for each topic has its partitions dealt out evenly.

    Attributes:
        consumer: of confluent-kafka.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Topics,
        topic: str,
        fetched: Fetched,
        more: dict[str, Any],
    ) -> None:
        self._topics = topics
        self._where = topics.where
        self._topic = topic
        self._fetched = fetched
        self._changed = fetched.changed
        self._handover = settings.handover
        self._static = settings.instance is not None
        self._lease = settings.session_timeout - _MARGIN
        self._ordered = fetched.rules.request.order is not None
        self._group: str = more["group.id"]
        self._redriven: dict[Origin, list[TopicPartition]] = {}  # partitions that go with one; see `_beside`
        self._asked: float | None = None  # when the commit that is under way was sent
        self._room = 1  # messages to fetch ahead
        self._look_at = time.monotonic() + _LOOK
        self._stopped = False
        self._failure: Exception | None = None
        self._refused: KafkaError | None = None
        self._thread: Background | None = None
        self.consumer: Any = self._open(settings, more)
        fork.register(self)

    def _open(self, settings: KafkaSettings, more: dict[str, Any]) -> Any:
        """Make the consumer."""
        return client(
            Consumer,
            settings,
            {
                "queued.max.messages.kbytes": 16 * 1024,
                "fetch.queue.backoff.ms": 10,  # else a full queue stops fetching for a second
                "heartbeat.interval.ms": 1000,  # by which members learn of a rebalance
                # within which a member has given up its partitions and the hold on them is over
                "max.poll.interval.ms": max(300_000, int(1000 * (2 * settings.session_timeout + self._handover))),
                **(settings.options or {}),
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": int(settings.session_timeout * 1000),
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "error_cb": self._note,
                "on_commit": self._committed,
                **more,
            },
        )

    def forked(self) -> None:
        """In a forked child: the threads of the consumer are not there."""
        keep(self.consumer)

    def subscribe(self) -> None:
        """Join the group, once the thread runs."""
        self.consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def start(self) -> None:
        """Start the thread, if it does not run."""
        if self._thread is None:
            self._thread = Background(self._fetch, "cloud-runtimes-kafka-member")
            self._thread.start()

    def check(self) -> None:
        """Raise what ended the thread, once, or for ever in a group of another order; the next `start` begins another."""
        failure = self._failure
        if failure is None:
            return
        if not isinstance(failure, ConflictError):
            self._failure = None
        self._thread = None
        if isinstance(failure, CloudRuntimesError):
            raise failure
        if isinstance(failure, KafkaException):
            raise map_error(self._where, failure.args[0], self._topic)
        raise InternalError(f"kafka {self._where}: the consumer ended: {failure}") from failure

    def stop(self, end: float) -> None:
        """Have the thread end, until ``end``, by `time.monotonic`.

        Raises:
            CloudRuntimesError: it has not.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None and not self._thread.join(end - time.monotonic()):
            raise self._uncertain()

    def close(self, end: float) -> None:
        """Commit for the last time, and leave the group; both until ``end``, by `time.monotonic`.

        Raises:
            CloudRuntimesError: what was settled last may come again.
        """
        try:
            self.stop(end)
            try:
                self._commit_last(end)
            finally:
                self._leave(end)
        finally:
            closing = Background(self._close, "cloud-runtimes-kafka-leaving")
            closing.start()  # without a broker it has no end
            closing.join(max(SLICE, end - time.monotonic()))

    def _close(self) -> None:
        if self._thread is not None:
            self._thread.join(None)
        self.consumer.close()

    def _commit_last(self, end: float) -> None:
        """Commit until it is done or refused; librdkafka would wait for a broker without end."""
        self._refused = None
        while True:
            self._commit()
            again = time.monotonic() + SLICE
            while (ledgers := self._uncommitted()) and (time.monotonic() < again or any(each.sent for each in ledgers)):
                self.consumer.poll(_SOON)  # which calls `_committed`, and lets a rebalance end
                refused = self._refused and map_error(self._where, self._refused, self._topic)
                if time.monotonic() >= end or (refused and not refused.retryable):
                    for each in ledgers:
                        each.changed, each.sent = False, 0
                    raise refused or self._uncertain()
            if not ledgers:
                return

    def _has(self, origin: Origin) -> bool:
        """Return whether a partition is this consumer's; with an order there is no other."""
        return self._ordered or origin[0] == self._topic

    def _uncertain(self) -> CloudRuntimesError:
        return UnavailableError(
            f"kafka {self._where}: no broker takes the last commit: what was settled last may go to another member again"
        )

    def _uncommitted(self) -> list[Ledger]:
        with self._changed:
            ledgers = self._fetched.ledgers.items()
            return [ledger for origin, ledger in ledgers if self._has(origin) and ledger.is_open]

    def _leave(self, end: float) -> None:
        """Leave the group: librdkafka does not when it is closed amid a rebalance, and all others would wait for `session_timeout`."""
        self.consumer.unsubscribe()
        while not self._static and self.consumer.memberid() and time.monotonic() < end:
            self.consumer.poll(_SOON)

    def _note(self, error: Any) -> None:
        repeated(f"kafka {self._where}", "kafka %s: %s", self._where, error.str())

    # -- fetching ---------------------------------------------------------

    def _fetch(self) -> None:
        try:
            self._run()
        except Exception as error:
            if isinstance(error, ConflictError):  # others may have what it was given
                self._leave(time.monotonic() + LEAVING)
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _run(self) -> None:
        commit_at = full_since = 0.0
        while not self._stopped:
            if time.monotonic() >= commit_at:
                self._commit()
                commit_at = time.monotonic() + COMMIT_EVERY
            with self._changed:
                has_room = self._changed.wait_for(lambda: self._stopped or not self._full(), SLICE)
            if has_room:
                full_since = 0.0
            elif not full_since:
                full_since = time.monotonic()
            elif time.monotonic() > full_since + _PATIENCE:
                self._stand_by()
            self._look()
            if (first := self.consumer.poll(SLICE if has_room else 0)) is not None:
                self._room = max(1, min(_AHEAD, _BYTES // (len(first.value() or b"") + 100)))
                self._read([first], self._room if has_room else 1)

    def _look(self) -> None:
        """Learn now and then what was removed of a topic of which messages wait here, if anything was ever."""
        if not self._fetched.new or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK
        name = self._topic + SUFFIX
        try:
            if self.consumer.list_topics(name, timeout=_MARGIN).topics[name].error is not None:
                return
            removed = self._topics.removals.of(Operation(POLL, self._fetched.rules.pubsub, _MARGIN), self._topic)
        except (KafkaException, CloudRuntimesError) as error:
            repeated(f"kafka {self._where}", "kafka %s: %s", self._where, error)
            return
        with self._changed:
            for (topic, partition), ledger in self._fetched.ledgers.items():
                if topic == self._topic:
                    ledger.remove(removed.get(partition, {}))

    def _read(self, messages: list[Any], room: int) -> None:
        """Take in messages, and what else is there; each time before the next call, in which their partition may go."""
        while messages:
            for topic, those in groupby(messages, Message.topic) if self._redriven else [(self._topic, messages)]:
                name = topic or self._topic
                self._fetched.add(name, [self._with_start(name, run) for run in runs(list(those), self._ordered)])
            room -= len(messages)
            messages = self.consumer.consume(min(room, _STEP), 0)
        self._fetched.tell()

    def _with_start(self, topic: str, run: Run) -> Run:
        """Add where the log begins, as the broker said with what it sent last."""
        if not run.offsets:
            return run
        partition = TopicPartition(topic, run.partition)
        start, _ = self.consumer.get_watermark_offsets(partition, cached=True)
        return run._replace(start=start)

    def _commit(self, *, wait: bool = False) -> None:
        """Commit what has changed, in a group with an order unless a commit is under way; with ``wait`` it is known afterwards."""
        if self._ordered and self._asked is not None and not wait:
            return
        now = time.monotonic()
        offsets = []
        with self._changed:
            renews = self._ordered and now > self._fetched.valid_until - self._lease * 2 / 3
            for origin, ledger in self._fetched.ledgers.items():
                # a commit that is on its way may fail when nobody can say so any more
                if self._has(origin) and (renews or (ledger.is_open if wait else ledger.changed)):
                    ledger.changed = False
                    ledger.sent += 1
                    offsets.append(TopicPartition(*origin, ledger.base, ledger.text()))
        if not offsets:
            return
        before, self._asked = self._asked, now
        error = None
        try:
            self.consumer.commit(offsets=offsets, asynchronous=not wait)
        except KafkaException as refused:
            error = refused.args[0]
        if wait or error is not None:
            self._committed(error, offsets)
            self._asked = before

    def _committed(self, error: Any, partitions: list[TopicPartition]) -> None:
        """Have what was not committed be so the next time; what was proves that this process was a member.

        The broker takes a commit from a member of its group alone, and begins to wait ``session_timeout`` anew for
        the next sign of it. Before that is over nobody else gets a partition that the member has not given up. The
        broker counts from when it has the commit, this process from before it sent it. So neither delays nor a
        standstill at any point make it trust its partitions for too long. The heartbeats of librdkafka's own thread
        say nothing, since their answers are not seen here. One commit at a time is under way, so that it is known
        which one an answer is of.
        """
        asked, self._asked = self._asked, None
        if error is None and asked is not None:
            self._fetched.valid_until = max(self._fetched.valid_until, asked + self._lease)
        if error is not None and error.code() not in _REBALANCING:
            self._refused = error
            self._note(error)
        for each in partitions:
            if (ledger := self._fetched.ledgers.get((each.topic, each.partition))) is not None:
                ledger.sent = max(0, ledger.sent - 1)
                if error is not None:
                    ledger.changed = True

    def _full(self) -> bool:
        waiting = sum(len(run.offsets) for _, run in self._fetched.new)
        if self._ordered:  # the service bounds what waits for its key
            return waiting >= self._room
        return waiting >= self._room or sum(self._fetched.open.values()) >= _MOST

    def _stand_by(self) -> None:
        """Take part in rebalances, and fetch nothing."""
        consumer = self.consumer
        paused = consumer.assignment()
        consumer.pause(paused)
        while self._full() and not self._stopped:
            self._commit()
            self._look()
            if (message := consumer.poll(SLICE)) is not None:
                self._read([message], 1)
        there = consumer.assignment()
        consumer.resume([each for each in paused if each in there])

    # -- rebalances -------------------------------------------------------

    def _beside(self, op: Operation, partitions: list[TopicPartition]) -> None:
        """Note which partitions with redriven events go with these. So events of a key stay together: they are the group's, and the assignment of the topic deals them out."""
        request = self._fetched.rules.request
        redriven = self._topics.name(request.topic, request.group, REDRIVEN)
        if self._topics.knows(redriven):
            with suppress(NotFoundError):  # another has deleted it
                self._topics.partitions(op, redriven)
        there = self._topics.there(op, redriven, self._topic)
        if redriven not in there or self._topic not in there:
            return
        count, parts = len(there[self._topic]), there[redriven]
        for each in partitions:
            those = [TopicPartition(redriven, one) for one in parts if one % count == each.partition]
            self._redriven[each.topic, each.partition] = those

    def _all(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Return partitions with those that go with them."""
        beside = (self._redriven.get((each.topic, each.partition), ()) for each in partitions)
        return [*partitions, *chain.from_iterable(beside)]

    def _assigned(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        op = Operation(POLL, self._fetched.rules.pubsub, None)
        while not self._stopped:
            attempt = op.limited(LEAVING)
            try:
                if self._ordered:
                    self._beside(attempt, partitions)
                removed = self._topics.removals.of(attempt, self._topic)
                those = self._all(partitions)
                with self._changed:  # of what comes back, nothing of the time before may be left
                    origins = {(each.topic, each.partition) for each in those}
                    self._changed.wait_for(partial(self._is_free, origins))
                those = committed(consumer, those, LEAVING)
                new = uncommitted(those)
                begins = self._topics.beginnings(attempt, self._group, self._topic, new)
            except (KafkaException, CloudRuntimesError) as error:  # without its position a group would begin anew
                repeated(f"kafka {self._where}", "kafka %s: %s", self._where, error)
                time.sleep(SLICE)
                continue
            for each in those:
                known = each not in new
                begin = begins.get(each.partition) if not known and each.topic == self._topic else None
                at = each if known else begin
                ledger = Ledger(0, None) if at is None else Ledger(at.offset, at.metadata)
                ledger.changed = begin is not None  # nothing else is committed before events are settled
                if self._ordered:  # which says so, and has to know that it is a member
                    ledger.ordered = ledger.changed = True
                elif ledger.ordered:
                    self._fetched.rules.check_order(has_order=True)
                if each.topic == self._topic:
                    ledger.remove(removed.get(each.partition, {}))
                self._fetched.ledgers[each.topic, each.partition] = ledger
                if at is not each:
                    each.offset = OFFSET_BEGINNING if at is None else at.offset
            consumer.incremental_assign(those)
            return

    def _is_free(self, origins: set[Origin]) -> bool:
        return self._stopped or origins.isdisjoint(self._fetched.going)

    def _revoked(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Wait until what was handed out is settled, then give up the partitions."""
        origins = {(each.topic, each.partition) for each in self._all(partitions)}
        end = time.monotonic() + self._handover
        with self._changed:
            if not self._stopped:
                self._fetched.going.update(dict.fromkeys(origins, end))
                self._changed.notify_all()
        gone, left = False, 1.0
        while not gone and left > 0:
            with self._changed:  # a member that takes no part hands out what it has until then
                left = max(end + 1, self._fetched.told) - time.monotonic()
                gone = self._changed.wait_for(
                    lambda: self._stopped or origins.isdisjoint(self._fetched.going),
                    max(0.0, min(left, self._lease / 3)),
                )
            self._commit(wait=True)
        self._lost(consumer, partitions)

    def _lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Forget partitions that are another's; settlements of their messages are void."""
        those = self._all(partitions)
        with self._changed:
            for each in those:
                self._fetched.ledgers.pop((each.topic, each.partition), None)
                if not self._stopped:
                    self._fetched.going[each.topic, each.partition] = 0.0
            self._changed.notify_all()
        if self._stopped:
            return
        consumer.incremental_unassign(those)
