"""The thread behind a publisher: when a batch leaves, what is tried again and for how long, who is told.

The native buffer encodes and counts; everything here is policy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Final

from .._core.backoff import NONE, Backoff
from .._core.logs import repeated
from .._core.threads import Background, Changes, Mutex
from .._core.workers import Workers
from .._native import batch as kernel
from ..errors import BulkError, ClosedError, CloudRuntimesError
from ..spi.events import EVENT_TYPE
from ..spi.operation import Method, Operation
from ..spi.pubsub import Failures
from ._lanes import ATTEMPT, Attempt, Chunk, Lane, Window, deal, is_passing
from .types import DeliveryReport, FailedEvent

if TYPE_CHECKING:
    from .._service import ServiceFrame
    from ..spi.pubsub import PubSubDriver

PUBLISHER: Final = Method("pubsub", "publisher", repeatable=False, handle=True)
_TAKE_BYTES: Final = 8 * 1024 * 1024
_KEPT_FAILURES: Final = 1000
_PAUSES: Final = Backoff(0.01, 1.0, jitter=NONE)
_MARKS: Final = 4096
_NEVER: Final = float("inf")
_OF_TOPIC: Final = frozenset(
    ["FAILED_PRECONDITION", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"]
)
"""Codes of refusals that concern all events of a topic."""


class _AttemptOperation(Operation):
    """Attempt at publishing; if its time is too short, the caller can raise `delivery_timeout`."""

    __slots__ = ()
    argument: ClassVar[str] = "delivery_timeout"


class Sender:
    """Buffer and thread of a publisher, created by its first send; a forked child creates another.

    ``settled`` is the sequence number up to which everything is settled and reported. ``changes`` announces a change
    of it or of the room in the buffer.
    """

    def __init__(
        self,
        frame: ServiceFrame,
        pubsub_name: str,
        topic: str,
        limits: Mapping[str, int],
        linger: float,
        delivery_timeout: float,
        on_delivery: Callable[[DeliveryReport], None] | None,
        on_refusal: Callable[[], None],
    ) -> None:
        self._frame = frame
        self._pubsub_name = pubsub_name
        self._topic = topic
        self._linger = linger
        self._delivery_timeout = delivery_timeout
        self._on_delivery = on_delivery
        self.driver: PubSubDriver = frame.driver(pubsub_name)
        source = frame.context.settings.app_id
        self._window = Window(min(_TAKE_BYTES, self.driver.limits.bytes))
        self.buffer = kernel.BatchBuffer(source, EVENT_TYPE, topic, ready=self._on_ready, **limits)
        # a SimpleQueue, since signal handlers may send too
        self._wake: SimpleQueue[None] = SimpleQueue()
        self.changes = Changes()
        self._lock = Mutex()
        self.settled = 0
        self._thread = Background(self._run, "cloud-runtimes-publisher")
        self._flush_to = 0
        self._closing = False
        self._give_up_at: float | None = None
        self._marks: deque[tuple[int, float]] = deque()
        # what was taken from the buffer and is not settled, and its bytes
        self._chunks: deque[Chunk] = deque()
        self._queued = 0
        self._lanes = [Lane() for _ in range(self.driver.limits.in_flight)]
        self._turn = 0
        self._returns: SimpleQueue[Attempt] = SimpleQueue()
        self._workers = Workers("cloud-runtimes-publisher-call", len(self._lanes))
        self._failures: dict[int, CloudRuntimesError] = {}
        self._failed = 0
        self.refusal: CloudRuntimesError | None = None
        self._on_refusal = on_refusal

    # -- the publisher's side ---------------------------------------------

    def _on_ready(self) -> None:
        self._wake.put(None)
        self._thread.start()

    def is_current(self) -> bool:
        """Return whether the caller is the sender's own thread, in ``on_delivery``."""
        return self._thread.is_current()

    def request_flush(self) -> int:
        """Have everything accepted so far sent at once; returns up to where that is."""
        accepted = self.buffer.stats()[0]
        self._flush_to = max(self._flush_to, accepted)
        if accepted:
            self._on_ready()
        return accepted

    def close(self, end: float | None) -> bool:
        """Take nothing any more, send what is left until ``end`` (monotonic), then fail the rest; returns whether all is settled."""
        self.request_flush()
        self._give_up_at = end
        self.buffer.close()
        self._closing = True
        self._wake.put(None)
        # it gives up by itself at `end`; an attempt under way may take a little longer
        return self._thread.join(None if end is None else max(0.0, end - monotonic()) + 2 * ATTEMPT)

    def raise_failures(self) -> None:
        """Raise what failed since the last time, once."""
        with self._lock:
            count, failures = self._failed, self._failures
            self._failed, self._failures = 0, {}
        if count:
            first = next(iter(failures.values()))
            raise BulkError(
                f"{count:,} events to {self._pubsub_name}/{self._topic} failed: {first}",
                failed=failures,
                service="pubsub",
                operation="publisher",
                component=self._pubsub_name,
            )

    # -- the thread -------------------------------------------------------

    def _run(self) -> None:
        opened: float | None = None
        while True:
            closing = self._closing  # before the last look at the buffer
            self._mark()
            if self._take():
                opened = None
            self._collect()
            soonest = self._launch()
            self._settle()
            if soonest == 0.0:
                continue
            now, buffer = monotonic(), self.buffer
            if buffer.open_events:
                opened = opened or now
                if self._closing or self._flush_to > self.settled or now >= opened + self._linger:
                    buffer.seal()
                    continue
                soonest = min(soonest, opened + self._linger - now)
            else:
                opened = None
                if closing and not self._chunks:
                    break
            self._wait(None if soonest == _NEVER else soonest)
        self._workers.close()

    def _wait(self, seconds: float | None) -> None:
        """Wait until something happens, ``seconds`` at most."""
        try:
            self._wake.get(timeout=seconds)
            while True:
                self._wake.get_nowait()
        except Empty:
            pass

    def _mark(self) -> None:
        """Note when how many were accepted: it gives every event an age without a clock reading of its own."""
        accepted = self.buffer.stats()[0]
        if not self._marks or self._marks[-1][0] < accepted:
            self._marks.append((accepted, monotonic()))
            if len(self._marks) > _MARKS:  # coarser is fine
                self._marks = deque(list(self._marks)[1::2])

    def _take(self) -> bool:
        """Deal out what the buffer has sealed, as much as may wait here; return whether there was any."""
        has_work = False
        while self.buffer.has_sealed and self._queued < _TAKE_BYTES:
            for taken in self.buffer.take(_TAKE_BYTES - self._queued):
                last = taken.first + taken.count - 1
                while len(self._marks) > 1 and self._marks[0][0] < last:
                    self._marks.popleft()
                chunk = Chunk(taken, self._marks[0][1])
                self._chunks.append(chunk)
                self._queued += len(taken.body)
                self._turn = deal(chunk, self._lanes, self._turn, self.driver.limits)
                has_work = True
        return has_work

    def _launch(self) -> float:
        """Send a batch of each lane that may; return the seconds until the next one may, 0 where one was sent and has landed."""
        soonest = _NEVER
        for lane in self._lanes:
            if (attempt := lane.attempt) is not None:
                if (end := self._give_up_at) is not None:
                    attempt.op.deadline = min(end, attempt.op.deadline or end)
            elif lane:
                wait = lane.again - monotonic()
                # once everything is to be given up, there is nothing to wait for
                if wait > 0 and (self._give_up_at is None or monotonic() < self._give_up_at):
                    soonest = min(soonest, wait)
                elif self._send(lane):
                    soonest = 0.0
        return soonest

    def _expiry(self, lane: Lane) -> float:
        """Return when the event at the front has been tried long enough: waiting behind events that are delivered does not count."""
        expiry = max(lane.front[0].since, lane.delivered) + self._delivery_timeout
        return expiry if self._give_up_at is None else min(expiry, self._give_up_at)

    def _send(self, lane: Lane) -> bool:
        """Make one attempt, and return whether it has landed; else it is under way."""
        try:
            self.driver = self._frame.driver(self._pubsub_name)
        except ClosedError:
            pass  # the client closes, and waits for this
        limits = self.driver.limits
        seconds = self._expiry(lane) - monotonic()
        if not (limits.retries and lane.delivered):  # what keeps the first events from the engine is said soon
            seconds = min(self._window.seconds, seconds)
        seconds = max(0.05, seconds)
        attempt = lane.next(self._topic, limits, self._window.size)
        attempt.op = op = _AttemptOperation(PUBLISHER, self._pubsub_name, seconds)
        attempt.begun = monotonic()
        publish = partial(self._frame.call, op, self.driver.publish, attempt.batch)
        if len(self._lanes) == 1 and not limits.retries:
            self._note(attempt, publish)
            self._landed(attempt)
            return True
        lane.attempt = attempt
        future: Future[Failures] | None = None
        if not self._frame.interceptors:
            try:
                future = self.driver.begin(op, attempt.batch)
            except Exception as error:
                future = Future()
                future.set_exception(error)
        if future is None:
            future = self._workers.submit(publish)
        future.add_done_callback(partial(self._returned, attempt))
        return False

    def _note(self, attempt: Attempt, publish: Callable[[], Failures]) -> None:
        """Note what ``publish`` returns or raises."""
        try:
            attempt.failures = publish()
        except Exception as error:
            attempt.error = attempt.op.mapped(error, self._frame.runtime_name)
        attempt.ended = monotonic()

    def _returned(self, attempt: Attempt, future: Future[Failures]) -> None:
        self._note(attempt, future.result)
        self._returns.put(attempt)
        self._wake.put(None)

    def _collect(self) -> None:
        """Take in what has come back."""
        while not self._returns.empty():
            attempt = self._returns.get_nowait()
            attempt.lane.attempt = None
            self._landed(attempt)

    def _landed(self, attempt: Attempt) -> None:
        """Take in what became of an attempt: the next one may be what this one has shown."""
        lane, window, failure = attempt.lane, self._window, attempt.error
        front, count, expiry = lane.front, len(attempt.batch), self._expiry(lane)
        arrived = 0
        if failure is None:
            arrived, failure = count - len(attempt.failures), attempt.landed()
        if failure is None:
            window.took(attempt.size, attempt.ended - attempt.begun)
        elif failure.code == "DEADLINE_EXCEEDED":
            window.ran_out(attempt.size, attempt.size * arrived // count, alone=count == 1)
            self._log(
                f"publishing to %s: the broker took {arrived:,} of {count:,} events in {attempt.op.timeout:.3g} s; trying again with "
                f"at most {window.size:,} bytes for {window.seconds:.3g} s. If this goes on, send more slowly, or raise delivery_timeout"
            )
        elif is_passing(failure):
            if failure.code == "RESOURCE_EXHAUSTED":
                window.refused(attempt.size, attempt.size * arrived // count)
            self._log("publishing to %s: %s; trying again", failure)
        lane.advance()
        goes_on = arrived > 0 and (not lane or lane.front != front)
        if goes_on:
            lane.delivered, lane.failures = monotonic(), 0
        if failure is None:
            return
        if not is_passing(failure):
            if attempt.parts == 1:
                lane.give_up(count, failure)
            else:  # one of them may be what the broker does not take: find out which
                lane.alone = attempt.parts
        elif not goes_on and monotonic() >= expiry:
            lane.give_up(None, failure)
        else:
            lane.failures += 1
            lane.again = monotonic() + min(_PAUSES.after(lane.failures), max(0.0, expiry - monotonic()))
            return
        lane.advance()

    def _log(self, message: str, *arguments: object) -> None:
        name = f"{self._pubsub_name}/{self._topic}"
        repeated(f"publisher {name}", message, name, *arguments)

    def _settle(self) -> None:
        """Settle the chunks at the front of which every event is.

        Count, report, and wake who waits: without ``on_delivery`` once for all, since every waiter wants the GIL too.
        """
        reports: list[DeliveryReport] = []
        while self._chunks and not self._chunks[0].open:
            chunk = self._chunks.popleft()
            size = len(chunk.chunk.body)
            self._queued -= size
            self.buffer.settle(chunk.chunk.count, size, len(chunk.failed))
            reports.append(chunk.report())
        slowly = self._on_delivery is not None
        if slowly and reports:
            self.changes.announce()  # there is room, however long the reports take
        for report in reports:
            self._report(report)
            self.settled = report.last
            if slowly or report is reports[-1]:
                self.changes.announce()  # a flush returns after its report

    def _report(self, report: DeliveryReport) -> None:
        if self._on_delivery is not None:
            try:
                self._on_delivery(report)
            except Exception as error:
                name = f"{self._pubsub_name}/{self._topic}"
                message = "on_delivery of the publisher to %s failed; events go on: %r"
                repeated(f"on_delivery {name}", message, name, error, exc_info=error)
        elif report.failed:
            self._tell_refusals(report.failed)
            with self._lock:
                self._failed += len(report.failed)
                for event in report.failed[: _KEPT_FAILURES - len(self._failures)]:
                    self._failures[event.sequence] = event.error

    def _tell_refusals(self, failed: Sequence[FailedEvent]) -> None:
        """Log the first failure of a kind at once. One that concerns the topic, not its event, is raised by the next `send` too."""
        name = f"{self._pubsub_name}/{self._topic}"
        for code, error in {event.error.code: event.error for event in failed}.items():
            count = sum(event.error.code == code for event in failed)
            message = "publishing to %s: %d events have failed: %s. flush() and close() raise this"
            repeated(f"publisher {name} {code}", message, name, count, error)
            if code in _OF_TOPIC and not self._closing:
                self.refusal = error
                self._on_refusal()
