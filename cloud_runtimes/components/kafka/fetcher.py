"""The thread that a consumer belongs to: it fetches, commits and takes part in rebalances, so that none of these waits for handlers. confluent-kafka lets one thread at a time use a consumer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from threading import Condition
from typing import Any, Final, TypeAlias

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from ..._core import fork
from ..._core.logs import repeated
from ..._core.threads import Background
from ...errors import CloudRuntimesError, ConflictError, InternalError, UnavailableError
from ...spi.broker.policy import DeliveryPolicy
from .ledger import Ledger
from .librdkafka import client, keep, map_error
from .messages import Run, runs
from .settings import KafkaSettings
from .topics import committed, uncommitted

Origin: TypeAlias = tuple[str, int]
"""A topic and a partition."""

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
_REBALANCING: Final = frozenset([KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION])


class Fetched:
    """State that a member and its fetchers share, guarded by `changed`, which also notifies of a change.

    Attributes:
        rules: of the member.
        changed: see above.
        new: messages that were fetched, and where they came from.
        open: partition → messages that were taken and are not settled.
        ledgers: of the partitions that the member has.
        going: partitions that go to another member, and until when that waits; the member takes out what it has let
            go of.
        valid_until: when, by `time.monotonic`, the member may have lost its partitions without knowing; see
            `Fetcher._committed`.
        told: the `valid_until` that the member has read.
    """

    def __init__(self, rules: DeliveryPolicy) -> None:
        self.rules = rules
        self.changed = Condition()
        self.new: deque[tuple[Origin, Run]] = deque()
        self.open: dict[Origin, int] = {}
        self.ledgers: dict[Origin, Ledger] = {}
        self.going: dict[Origin, float] = {}
        self.valid_until = self.told = 0.0

    def add(self, topic: str, runs: Sequence[Run]) -> None:
        """Take in messages that were fetched, without telling of them."""
        with self.changed:
            for run in runs:
                origin = topic, run.partition
                if not self.new or self.new[-1][0] != origin or not self.new[-1][1].join(run):
                    self.new.append((origin, run))

    def tell(self) -> None:
        """Tell of a change."""
        with self.changed:
            self.changed.notify_all()

    def take(self, limit: int) -> list[tuple[Origin, Run]]:
        """Return messages that were fetched."""
        taken = []
        with self.changed:
            while self.new and limit > 0:
                origin, run = self.new.popleft()
                if len(run.offsets) > limit:
                    run, rest = run.split(limit)
                    self.new.appendleft((origin, rest))
                taken.append((origin, run))
                limit -= len(run.offsets)
            self.changed.notify_all()
        return taken


class Fetcher:
    """The thread for one topic; see the module. A group of its own for each topic has its partitions dealt out evenly.

    Attributes:
        consumer: of confluent-kafka.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        where: str,
        topic: str,
        fetched: Fetched,
        more: dict[str, Any],
    ) -> None:
        self._where = where
        self._topic = topic
        self._fetched = fetched
        self._changed = fetched.changed
        self._handover = settings.handover
        self._static = settings.instance is not None
        self._lease = settings.session_timeout - _MARGIN
        self._ordered = fetched.rules.request.order is not None
        self._asked: float | None = None  # when the commit that is under way was sent
        self._room = 1  # messages to fetch ahead
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

    def _uncertain(self) -> CloudRuntimesError:
        return UnavailableError(
            f"kafka {self._where}: no broker takes the last commit: what was settled last may go to another member again"
        )

    def _uncommitted(self) -> list[Ledger]:
        with self._changed:
            ledgers = self._fetched.ledgers.items()
            return [ledger for origin, ledger in ledgers if origin[0] == self._topic and ledger.is_open]

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
            if (first := self.consumer.poll(SLICE if has_room else 0)) is not None:
                self._room = max(1, min(_AHEAD, _BYTES // (len(first.value() or b"") + 100)))
                self._read([first], self._room if has_room else 1)

    def _read(self, messages: list[Any], room: int) -> None:
        """Take in messages, and what else is there; each time before the next call, in which their partition may go."""
        while messages:
            self._fetched.add(self._topic, list(map(self._with_start, runs(messages, self._ordered))))
            room -= len(messages)
            messages = self.consumer.consume(min(room, _STEP), 0)
        self._fetched.tell()

    def _with_start(self, run: Run) -> Run:
        """Add where the log begins, as the broker said with what it sent last."""
        if not run.offsets:
            return run
        partition = TopicPartition(self._topic, run.partition)
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
                if origin[0] == self._topic and (renews or (ledger.is_open if wait else ledger.changed)):
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
            if (message := consumer.poll(SLICE)) is not None:
                self._read([message], 1)
        there = consumer.assignment()
        consumer.resume([each for each in paused if each in there])

    # -- rebalances -------------------------------------------------------

    def _assigned(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        with self._changed:  # of what comes back, nothing of the time before may be left
            origins = {(each.topic, each.partition) for each in partitions}
            self._changed.wait_for(lambda: self._stopped or origins.isdisjoint(self._fetched.going))
        while not self._stopped:
            try:
                partitions = committed(consumer, partitions, LEAVING)
            except KafkaException as error:  # without its position a group would begin anew
                self._note(error.args[0])
                time.sleep(SLICE)
                continue
            new = uncommitted(partitions)
            for each in partitions:
                known = each not in new
                ledger = Ledger(each.offset if known else 0, each.metadata if known else None)
                if self._ordered:  # which says so, and has to know that it is a member
                    ledger.ordered = ledger.changed = True
                elif ledger.ordered:
                    self._fetched.rules.check_order(has_order=True)
                self._fetched.ledgers[each.topic, each.partition] = ledger
                if not known:
                    each.offset = OFFSET_BEGINNING
            consumer.incremental_assign(partitions)
            return

    def _revoked(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Wait until what was handed out is settled, then give up the partitions."""
        origins = {(each.topic, each.partition) for each in partitions}
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
        with self._changed:
            for each in partitions:
                self._fetched.ledgers.pop((each.topic, each.partition), None)
                if not self._stopped:
                    self._fetched.going[each.topic, each.partition] = 0.0
            self._changed.notify_all()
        if self._stopped:
            return
        consumer.incremental_unassign(partitions)
