"""The thread behind a publisher: when a batch leaves, what is tried again and for how long, who is told.

The native buffer encodes and counts; everything here is policy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final

from .._core.logs import repeated
from .._core.threads import Background, Changes, Mutex
from .._native import batch as kernel
from ..errors import BulkError, CloudRuntimesError
from ..spi.events import EVENT_TYPE
from ..spi.operation import Method
from ._lanes import ATTEMPT, Chunk, Lane
from ._sending import NEVER, TAKE_BYTES, Sending
from .types import DeliveryReport, FailedEvent

if TYPE_CHECKING:
    from .._service import ServiceFrame

PUBLISHER: Final = Method("pubsub", "publisher", repeatable=False, handle=True)
_KEPT_FAILURES: Final = 1000
_MARKS: Final = 4096
_OF_TOPIC: Final = frozenset(
    ["FAILED_PRECONDITION", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"]
)
"""Codes of refusals that concern all events of a topic."""


class Sender(Sending):
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
        super().__init__(frame, pubsub_name, PUBLISHER, at_once=True)
        self._topic = topic
        self._linger = linger
        self._delivery_timeout = delivery_timeout
        self._on_delivery = on_delivery
        source = frame.context.settings.app_id
        self.buffer = kernel.BatchBuffer(source, EVENT_TYPE, topic, ready=self._on_ready, **limits)
        self.changes = Changes()
        self._lock = Mutex()
        self.settled = 0
        self._thread = Background(self._run, "cloud-runtimes-publisher")
        self._flush_to = 0
        self._closing = False
        self._marks: deque[tuple[int, float]] = deque()
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
                f"{count:,} events to {self._name} failed: {first}",
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
            self._wait(None if soonest == NEVER else soonest)
        self._workers.close()

    @property
    def _name(self) -> str:
        return f"{self._pubsub_name}/{self._topic}"

    def _expiry(self, lane: Lane) -> float:
        # waiting behind events that are delivered does not count
        expiry = max(lane.front[0].since, lane.delivered) + self._delivery_timeout
        return expiry if self._give_up_at is None else min(expiry, self._give_up_at)

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
        while self.buffer.has_sealed and self._queued < TAKE_BYTES:
            for taken in self.buffer.take(TAKE_BYTES - self._queued):
                last = taken.first + taken.count - 1
                while len(self._marks) > 1 and self._marks[0][0] < last:
                    self._marks.popleft()
                chunk = Chunk(taken.first, taken.count, taken.body, self._marks[0][1], (self._topic, False, None))
                self._queue(chunk)
                has_work = True
        return has_work

    def _settle(self) -> None:
        """Settle the chunks at the front of which every event is.

        Count, report, and wake who waits: without ``on_delivery`` once for all, since every waiter wants the GIL too.
        """
        reports: list[DeliveryReport] = []
        while self._chunks and not self._chunks[0].open:
            chunk = self._chunks.popleft()
            size = len(chunk.body)
            self._queued -= size
            self.buffer.settle(chunk.count, size, len(chunk.failed))
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
                message = "on_delivery of the publisher to %s failed; events go on: %r"
                repeated(f"on_delivery {self._name}", message, self._name, error, exc_info=error)
        elif report.failed:
            self._tell_refusals(report.failed)
            with self._lock:
                self._failed += len(report.failed)
                for event in report.failed[: _KEPT_FAILURES - len(self._failures)]:
                    self._failures[event.sequence] = event.error

    def _tell_refusals(self, failed: Sequence[FailedEvent]) -> None:
        """Log the first failure of a kind at once. One that concerns the topic, not its event, is raised by the next `send` too."""
        name = self._name
        for code, error in {event.error.code: event.error for event in failed}.items():
            count = sum(event.error.code == code for event in failed)
            message = "publishing to %s: %d events have failed: %s. flush() and close() raise this"
            repeated(f"publisher {name} {code}", message, name, count, error)
            if code in _OF_TOPIC and not self._closing:
                self.refusal = error
                self._on_refusal()
