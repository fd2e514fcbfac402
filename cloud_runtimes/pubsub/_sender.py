"""The thread behind a publisher: when a batch leaves, what is tried again and for how long, who is told.

The native buffer encodes and counts; everything here is policy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from itertools import takewhile
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Final

from .._core.logs import repeated
from .._core.threads import Background, Changes, Mutex
from .._native import batch as kernel
from ..errors import BulkError, ClosedError, CloudRuntimesError
from ..spi.operation import Method, Operation
from ._attempts import ATTEMPT, Batch, Chosen, Window, choose, mark, passing
from ._outgoing import EVENT_TYPE
from .types import DeliveryReport

if TYPE_CHECKING:
    from ..spi.pubsub import PubSubDriver
    from .service import PubSubService

__all__ = ["PUBLISHER", "Sender"]

PUBLISHER: Final = Method("pubsub", "publisher", repeatable=False)
_TAKE_BYTES: Final = 8 * 1024 * 1024
_KEPT_FAILURES: Final = 1000
_MARKS: Final = 4096


class _Attempt(Operation):
    """One attempt at publishing; who finds its time too short has `delivery_timeout` to give more."""

    __slots__ = ()
    argument: ClassVar[str] = "delivery_timeout"


class Sender:
    """One publisher's buffer and thread, made by its first send; a forked child makes another.

    Attributes:
        buffer: of encoded events.
        driver: of the component.
        settled: sequence number up to which everything is settled and reported.
        changes: announced when that or the room in the buffer changes.
    """

    def __init__(
        self,
        service: PubSubService,
        pubsub_name: str,
        topic: str,
        *,
        limits: Mapping[str, int],
        linger: float,
        delivery_timeout: float,
        on_delivery: Callable[[DeliveryReport], None] | None,
    ) -> None:
        self._service = service
        self._pubsub_name = pubsub_name
        self._topic = topic
        self._linger = linger
        self._delivery_timeout = delivery_timeout
        self._on_delivery = on_delivery
        self.driver: PubSubDriver = service._driver(pubsub_name)
        source = service._client._settings.app_id
        self._window = Window(_TAKE_BYTES)
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
        # when the last events were delivered: until then, those behind them were not tried but waited
        self._delivered = 0.0
        self._failures: dict[int, CloudRuntimesError] = {}
        self._failed = 0

    # -- the publisher's side ---------------------------------------------

    def _on_ready(self) -> None:
        self._wake.put(None)
        self._thread.start()

    def is_current(self) -> bool:
        """Tell whether the caller is the sender's own thread, in ``on_delivery``."""
        return self._thread.is_current()

    def hurry(self) -> int:
        """Have everything accepted so far sent at once; returns up to where that is."""
        accepted = self.buffer.stats()[0]
        self._flush_to = max(self._flush_to, accepted)
        if accepted:
            self._on_ready()
        return accepted

    def close(self, end: float | None) -> bool:
        """Take nothing any more, send what is left until ``end`` (monotonic), then fail the rest; tells whether all is settled."""
        self.hurry()
        self._give_up_at = end
        self._closing = True
        self.buffer.close()
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
        buffer = self.buffer
        opened: float | None = None
        while True:
            self._mark()
            if buffer.has_sealed:
                self._deliver([Batch(chunk) for chunk in buffer.take(_TAKE_BYTES)])
                opened = None
                continue
            pause: float | None = None
            if buffer.open_events:
                now = monotonic()
                opened = opened or now
                if self._closing or self._flush_to > self.settled or now >= opened + self._linger:
                    buffer.seal()
                    continue
                pause = opened + self._linger - now
            elif self._closing:
                return
            else:
                opened = None
            try:
                self._wake.get(timeout=pause)
                while True:
                    self._wake.get_nowait()
            except Empty:
                continue

    def _mark(self) -> None:
        """Note when how many were accepted: it gives every event an age without a clock reading of its own."""
        accepted = self.buffer.stats()[0]
        if not self._marks or self._marks[-1][0] < accepted:
            self._marks.append((accepted, monotonic()))
            if len(self._marks) > _MARKS:  # coarser is fine
                self._marks = deque(list(self._marks)[1::2])

    def _expiry(self, last: int) -> float:
        """Return when an event has been tried long enough: waiting behind events that are delivered does not count."""
        while len(self._marks) > 1 and self._marks[0][0] < last:
            self._marks.popleft()
        expiry = max(self._marks[0][1], self._delivered) + self._delivery_timeout
        return expiry if self._give_up_at is None else min(expiry, self._give_up_at)

    def _deliver(self, batches: list[Batch]) -> None:
        """Send batches, in order, until every event of them is settled."""
        pause = 0.01
        while batches := self._settle(batches):
            head = batches[0]
            front = head.left[0]
            chosen = choose(batches, self._window.size)
            failure, arrived = self._send(chosen, self._expiry(head.last))
            goes_on = arrived > 0 and (not head.left or head.left[0] != front)
            if goes_on:
                self._delivered, pause = monotonic(), 0.01
            if failure is None:
                continue
            if not passing(failure):
                if len(batches) == 1:
                    head.give_up(chosen[0][1], failure)
                    continue
                # one of them may be what the broker does not take: find out which
                for batch in batches:
                    self._deliver([batch])
                return
            if not goes_on and monotonic() >= self._expiry(head.last):
                head.give_up(head.left, failure)
                continue
            self._mark()
            try:
                self._wake.get(timeout=min(pause, max(0.0, self._expiry(head.last) - monotonic())))
            except Empty:
                pause = min(pause * 2, 1.0)

    def _send(self, chosen: Chosen, expiry: float) -> tuple[CloudRuntimesError | None, int]:
        """Make one attempt, and let the next one be what this one has shown.

        Returns:
            Why there is something left of it, ``None``: there is not; how many events arrived.
        """
        window, begun = self._window, monotonic()
        frames = [batch.frame(places) for batch, places in chosen]
        size, count = sum(map(len, frames)), sum(len(places) for _, places in chosen)
        op = _Attempt(PUBLISHER, self._pubsub_name, max(0.05, min(window.seconds, expiry - begun)))
        try:
            self.driver = self._service._driver(self._pubsub_name)
        except ClosedError:
            pass  # the client closes, and waits for this
        arrived, failure = 0, None
        try:
            found = self._service._call(op, self.driver.publish, self._topic, frames, None)
        except CloudRuntimesError as error:
            failure = error
        else:
            arrived, failure = count - len(found), mark(chosen, found)
        name = f"{self._pubsub_name}/{self._topic}"
        if failure is None:
            window.took(size, monotonic() - begun)
        elif failure.code == "DEADLINE_EXCEEDED":
            window.ran_out(size, size * arrived // count, alone=count == 1)
            repeated(
                f"publisher {name}",
                "publishing to %s: the broker took %s of %s events in %.3g s; trying again with at most %s bytes for %.3g s. "
                "If this goes on, send more slowly, or raise delivery_timeout",
                name,
                f"{arrived:,}",
                f"{count:,}",
                op.timeout,
                f"{window.size:,}",
                window.seconds,
            )
        elif passing(failure):
            if failure.code == "RESOURCE_EXHAUSTED":
                window.refused(size, size * arrived // count)
            repeated(f"publisher {name}", "publishing to %s: %s; trying again", name, failure)
        return failure, arrived

    def _settle(self, batches: list[Batch]) -> list[Batch]:
        """Settle the batches at the front of which nothing is left, and return the others.

        Count, report, and wake who waits: without ``on_delivery`` once for all, since every waiter wants the GIL too.
        """
        done = list(takewhile(lambda batch: not batch.left, batches))
        reports: list[DeliveryReport] = []
        for batch in done:
            self.buffer.settle(batch.chunk.count, len(batch.chunk.body), len(batch.failed))
            reports.append(batch.report())
        slowly = self._on_delivery is not None
        if slowly and reports:
            self.changes.announce()  # there is room, however long the reports take
        for report in reports:
            self._report(report)
            self.settled = report.last
            if slowly or report is reports[-1]:
                self.changes.announce()  # a flush returns after its report
        return batches[len(done) :]

    def _report(self, report: DeliveryReport) -> None:
        if self._on_delivery is not None:
            try:
                self._on_delivery(report)
            except Exception as error:
                name = f"{self._pubsub_name}/{self._topic}"
                repeated(
                    f"on_delivery {name}",
                    "on_delivery of the publisher to %s failed; events go on: %r",
                    name,
                    error,
                    exc_info=error,
                )
        elif report.failed:
            with self._lock:
                self._failed += len(report.failed)
                for event in report.failed[: _KEPT_FAILURES - len(self._failures)]:
                    self._failures[event.sequence] = event.error
