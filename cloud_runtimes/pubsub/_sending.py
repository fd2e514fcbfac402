"""Sending of chunks to a broker, for whoever has some: batches of lanes, attempts, and what is tried again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Final

from .._core.backoff import NONE, Backoff
from .._core.logs import repeated
from .._core.workers import Workers
from ..errors import ClosedError
from ..spi.operation import Method, Operation
from ..spi.pubsub import Failures
from ._lanes import Attempt, Chunk, Lane, Window, deal, is_passing

if TYPE_CHECKING:
    from .._service import ServiceFrame
    from ..spi.pubsub import PubSubDriver

TAKE_BYTES: Final = 8 * 1024 * 1024
NEVER: Final = float("inf")
_PAUSES: Final = Backoff(0.01, 1.0, jitter=NONE)


class AttemptOperation(Operation):
    """Attempt at publishing; if its time is too short, the caller can raise `delivery_timeout`."""

    __slots__ = ()
    argument: ClassVar[str] = "delivery_timeout"


class Sending:
    """Base of the threads that publish chunks; `_sent` says in the subclass's words what is sent.

    Args:
        frame: of pub/sub.
        pubsub_name: the component.
        method: of the attempts.
        at_once: publish in the own thread where a driver has one lane and does not retry; else always in workers.
    """

    def __init__(self, frame: ServiceFrame, pubsub_name: str, method: Method, *, at_once: bool) -> None:
        self._frame = frame
        self._pubsub_name = pubsub_name
        self._method = method
        self.driver: PubSubDriver = self._find_driver()
        self._window = Window(min(TAKE_BYTES, self.driver.limits.bytes))
        # a SimpleQueue, since signal handlers may send too
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._give_up_at: float | None = None
        # what is not settled, and its bytes
        self._chunks: deque[Chunk] = deque()
        self._queued = 0
        self._lanes = [Lane() for _ in range(self.driver.limits.in_flight)]
        self._turn = 0
        self._returns: SimpleQueue[Attempt] = SimpleQueue()
        self._workers = Workers("cloud-runtimes-publisher-call", len(self._lanes))
        self._at_once = at_once

    def _find_driver(self) -> PubSubDriver:
        driver: PubSubDriver = self._frame.driver(self._pubsub_name)
        return driver

    @property
    def _name(self) -> str:
        """Where the events go, for messages."""
        raise NotImplementedError

    def _expiry(self, lane: Lane) -> float:
        """Return when the event at the front has been tried long enough."""
        raise NotImplementedError

    def _wait(self, seconds: float | None) -> None:
        """Wait until something happens, ``seconds`` at most."""
        try:
            self._wake.get(timeout=seconds)
            while True:
                self._wake.get_nowait()
        except Empty:
            pass

    def _queue(self, chunk: Chunk) -> None:
        """Deal out a chunk's events to the lanes."""
        self._chunks.append(chunk)
        self._queued += len(chunk.body)
        self._turn = deal(chunk, self._lanes, self._turn, self.driver.limits)

    def _launch(self) -> float:
        """Send a batch of each lane that may; return the seconds until the next one may, 0 where one was sent and has landed."""
        soonest = NEVER
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

    def _send(self, lane: Lane) -> bool:
        """Make one attempt, and return whether it has landed; else it is under way."""
        try:
            self.driver = self._find_driver()
        except ClosedError:
            pass  # the client closes, and waits for this
        limits = self.driver.limits
        seconds = self._expiry(lane) - monotonic()
        if not (limits.retries and lane.delivered):  # what keeps the first events from the engine is said soon
            seconds = min(self._window.seconds, seconds)
        seconds = max(0.05, seconds)
        attempt = lane.next(limits, self._window.size)
        attempt.op = op = AttemptOperation(self._method, self._pubsub_name, seconds)
        attempt.begun = monotonic()
        publish = partial(self._frame.call, op, self.driver.publish, attempt.batch)
        if self._at_once and len(self._lanes) == 1 and not limits.retries:
            self._note(attempt, publish)
            self._landed(attempt)
            return True
        lane.attempt = attempt
        future: Future[Failures] | None = None
        if not self._frame.interceptors and (len(self._lanes) > 1 or limits.retries):
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
        repeated(f"publisher {self._name}", message, self._name, *arguments)
