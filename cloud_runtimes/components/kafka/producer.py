"""Publishing by one producer of librdkafka, which all drivers of a component share: idempotent, and acknowledged by all replicas in sync.

A thread of its own serves the delivery reports while anything is under way. It also ends what runs out of time: a message that was not sent by then never will be, so a caller that tries again repeats only what was on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Producer

from ..._core import fork
from ..._core.logs import repeated
from ..._core.threads import Background, Mutex
from ...errors import ClosedError, CloudRuntimesError, DeadlineExceededError
from .librdkafka import MISSING, PURGED, client, keep, map_error

if TYPE_CHECKING:
    from ...spi.operation import Operation
    from .settings import KafkaSettings
    from .topics import Topics

_SLICE: Final = 0.05
_LEAVING: Final = 10.0
_ENDING: Final = 1.0
_LONG: Final = 5.0
"""Seconds without an acknowledgement that are told of."""
_ONE: Final = 100 * 1024 * 1024
_QUEUE: Final = 10_000_000
_ANY: Final = -1
"""The partition that the key chooses."""

Headers: TypeAlias = list[tuple[str, bytes]]
Outgoing: TypeAlias = tuple[bytes, str | None, Headers]
"""A message: its data, its key, by which its partition is chosen (``None``: any), its headers."""


class _Sent:
    """Messages of one call, under way.

    Attributes:
        done: gets place → error of those that failed.
        tell_at: `time.monotonic` at which it is told that they wait.
    """

    def __init__(self, op: Operation, topic: str, messages: Sequence[Outgoing]) -> None:
        self.op = op
        self.topic = topic
        self.messages = messages
        self.done: Future[dict[int, CloudRuntimesError]] = Future()
        self.remaining = len(messages)
        self.tell_at = monotonic() + _LONG
        self.failed: list[tuple[KafkaError, bytes]] = []

    def report(self, error: KafkaError | None, message: Any) -> None:
        """Take in the delivery report of one."""
        self.remaining -= 1
        if error is not None:
            self.failed.append((error, message.value()))


class KafkaProducer:
    """See the module; made without I/O."""

    def __init__(self, settings: KafkaSettings, topics: Topics) -> None:
        self._settings = settings
        self._topics = topics
        self._producer: Any = None
        self._closed = False
        self.forked()
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: the threads of the producer are not there."""
        self._lock = Mutex()
        keep(self._producer)
        self._producer = None
        self._sent: list[_Sent] = []
        self._serving = False
        self._last_error: KafkaError | None = None
        self._taken = False  # whether a broker has ever acknowledged anything

    @property
    def client(self) -> Any:
        """The producer of confluent-kafka."""
        with self._lock:
            if self._closed:
                raise ClosedError("this client is closed: make another")
            if self._producer is None:
                self._producer = client(
                    Producer,
                    self._settings,
                    {
                        "linger.ms": 5,
                        "partitioner": "murmur2_random",
                        "queue.buffering.max.messages": _QUEUE,
                        "queue.buffering.max.kbytes": 1024 * 1024,
                        "message.max.bytes": _ONE,
                        # of a share group, one member gets all that is in a batch
                        **({"batch.num.messages": 100} if self._settings.group_type == "share" else {}),
                        **(self._settings.options or {}),
                        "acks": "all",
                        "enable.idempotence": True,
                        "message.timeout.ms": 0,
                        "error_cb": self._note,
                    },
                )
            return self._producer

    def _note(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # the others say why
            self._last_error = error
        repeated(f"kafka {self._topics.where}", "kafka %s: %s", self._topics.where, error.str())

    # -- sending ----------------------------------------------------------

    def send(self, op: Operation, topic: str, messages: Sequence[Outgoing]) -> Future[dict[int, CloudRuntimesError]]:
        """Send messages; the future gets place → error of those that failed, or what all failed with."""
        sent = _Sent(op, topic, messages)
        if not messages:
            sent.done.set_result({})
            return sent.done
        producer = self.client
        with self._lock:
            self._sent.append(sent)
        self._produce(producer, sent, messages)
        with self._lock:
            if not self._serving:
                self._serving = True
                Background(self._serve, "cloud-runtimes-kafka").start()
        return sent.done

    def _produce(self, producer: Any, sent: _Sent, messages: Sequence[Outgoing]) -> None:
        topic, report, produce = sent.topic, sent.report, producer.produce
        for number, (data, key, headers) in enumerate(messages):
            try:  # by position, which takes two thirds of the time that keywords do
                produce(topic, data, key, _ANY, report, None, 0, headers)
            except KafkaException as error:
                sent.remaining -= 1
                sent.failed.append((error.args[0], data))
            except BufferError:
                full = KafkaError(KafkaError._QUEUE_FULL, "more than is taken is on its way: send more slowly")
                rest = messages[number:]
                sent.remaining -= len(rest)
                sent.failed += [(full, data) for data, _, _ in rest]
                return

    def _serve(self) -> None:
        """Serve reports while anything is under way."""
        while True:
            try:
                producer = self.client
            except ClosedError:
                return
            producer.poll(_SLICE)
            now = monotonic()
            with self._lock:
                ended = [sent for sent in self._sent if sent.remaining == 0]
                late = [
                    sent
                    for sent in self._sent
                    if sent.remaining and sent.op.deadline is not None and sent.op.deadline <= now
                ]
                long = [sent for sent in self._sent if sent.remaining and sent.tell_at <= now]
            for sent in long:
                sent.tell_at = inf
                where = self._topics.where
                message = "kafka %s: %d messages have had no acknowledgement for %g s; they are sent again until their time is over"
                repeated(f"kafka {where} waits", message, where, sent.remaining, _LONG)
            if late:
                self._purge(producer)
                ended = [sent for sent in self._sent if sent.remaining == 0 or sent in late]
            for sent in ended:
                if not self._again(producer, sent, now):
                    self._finish(sent)
            # after a fatal error it gets no more acknowledgements
            if self._producer is not producer and not self._closed:
                self._end(producer)
            with self._lock:
                if not self._sent:
                    self._serving = False
                    return

    def _end(self, producer: Any) -> None:
        """Fail what is under way by a producer that sends nothing any more."""
        with self._lock:
            pending = list(self._sent)
        producer.purge(in_queue=True, in_flight=True, blocking=True)
        end = monotonic() + _ENDING
        while any(sent.remaining > 0 for sent in pending) and monotonic() < end:
            producer.poll(_SLICE)
        for sent in pending:
            if sent.remaining <= 0:
                self._finish(sent)

    def _purge(self, producer: Any) -> None:
        """Take back what was not sent; its reports come at once."""
        producer.purge(in_queue=True, in_flight=False, blocking=True)
        while producer.poll(0):
            pass

    def _again(self, producer: Any, sent: _Sent, now: float) -> bool:
        """Send again what was taken back for the sake of another call."""
        if sent.remaining or (sent.op.deadline is not None and sent.op.deadline <= now):
            return False
        taken = [data for error, data in sent.failed if error.code() == PURGED]
        if not taken:
            return False
        sent.failed = [(error, data) for error, data in sent.failed if error.code() != PURGED]
        indexes = _indexes(sent.messages, taken)
        sent.remaining += len(indexes)
        self._produce(producer, sent, [sent.messages[index] for index in indexes])
        return True

    def _finish(self, sent: _Sent) -> None:
        with self._lock:
            self._sent.remove(sent)
        where, last_error = self._topics.where, self._last_error
        failures: dict[int, CloudRuntimesError] = {}
        errors: dict[int, CloudRuntimesError] = {}
        indexes = _indexes(sent.messages, [data for _, data in sent.failed])
        self._taken |= len(indexes) + sent.remaining < len(sent.messages)
        for index, (error, _) in zip(indexes, sent.failed, strict=True):
            code = error.code()
            if code in MISSING:
                self._topics.forget(sent.topic)
            if code not in errors:
                errors[code] = map_error(where, error, sent.topic, last_error)
                # what was on a connection that was lost is queued again, and not told from what was never sent
                errors[code].maybe_applied |= code == PURGED and self._taken
            failures[index] = errors[code]
            if error.fatal():
                self._producer = None
        if sent.remaining:
            sent.done.set_exception(
                DeadlineExceededError(
                    f"kafka {where}: {sent.remaining:,} of {len(sent.messages):,} events were sent and not acknowledged "
                    f"in {sent.op.timeout:.3g} s",
                    maybe_applied=True,
                )
            )
        elif len(failures) == len(sent.messages):
            sent.done.set_exception(failures[0])
        else:
            sent.done.set_result(failures)
            self._last_error = None

    def close(self, timeout: float | None) -> None:
        """Send what is under way, and end; what is not sent in so many seconds is given up."""
        with self._lock:
            self._closed = True
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.flush(_LEAVING if timeout is None else timeout)


def _indexes(messages: Sequence[Outgoing], taken: Sequence[bytes]) -> list[int]:
    """Return which messages these are, by their data."""
    if not taken:
        return []
    by_data: dict[bytes, list[int]] = {}
    for index in range(len(messages) - 1, -1, -1):
        by_data.setdefault(messages[index][0], []).append(index)
    return [by_data[data].pop() for data in taken]
