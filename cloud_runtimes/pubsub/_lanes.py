"""Unsent events of a publisher: chunks of its buffer, dealt out to lanes, and the size of an attempt.

A lane has one batch under way at a time and sends its events in order. All events of a key go to one lane, so their
order holds through retries with any number of lanes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cached_property
from time import time_ns
from typing import Any, Final, TypeAlias

from .._native import events
from ..errors import CloudRuntimesError
from ..spi.operation import Operation
from ..spi.pubsub import BatchLimits, Failures, OutgoingBatch
from .types import DeliveryReport, FailedEvent

ATTEMPT: Final = 2.0
"""Seconds of the first attempt, so that what keeps events from a broker is told soon."""
STALL: Final = 10.0
"""Seconds of an attempt once a broker has taken something. A broker that stands still for longer may get events twice, under the same ids."""
_SLOW: Final = 4 * ATTEMPT
"""Seconds that an attempt at several events may have before one has come through."""


class Window:
    """Limits of the next attempt.

    After a timeout it shrinks to half of the bytes, and the first attempts get twice the time. It doubles while
    attempts take less than four seconds. So a steady broker soon times out no more.

    ``size``: bytes that an attempt may hold; one event is always allowed. ``seconds``: that it may take.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.size = limit
        self.seconds = ATTEMPT

    def took(self, size: int, seconds: float) -> None:
        """Note that the broker took ``size`` bytes in so many seconds."""
        if seconds <= _SLOW / 2:
            self.size = max(self.size, min(2 * size, self._limit))
        # by half at most: a small attempt says little of how long a large one takes
        self.seconds = max(STALL, 3 * seconds, self.seconds / 2)

    def ran_out(self, size: int, taken: int, *, alone: bool) -> None:
        """Note that time ran out for ``size`` bytes, of which the broker took ``taken``; ``alone``: they were one event."""
        self.refused(size, taken)
        longer = 2 * self.seconds
        self.seconds = longer if alone else min(longer, max(self.seconds, _SLOW))

    def refused(self, size: int, taken: int) -> None:
        """Note that ``size`` bytes were too many, of which the broker took ``taken``."""
        self.size = taken or size // 2


def is_passing(error: CloudRuntimesError) -> bool:
    """Return whether an attempt that failed with this may go well another time."""
    return error.retryable or error.code in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")


Kind: TypeAlias = tuple[str, bool, int | None]
"""Topic of a chunk; whether its events are raw; when they may be delivered, in milliseconds since 1970 UTC. A batch has one kind."""


class Chunk:
    """Events that left the buffer together, and are reported together."""

    def __init__(self, first: int, count: int, body: bytes, since: float, kind: Kind, token: Any = None) -> None:
        self.first = first  # sequence number of its first event
        self.count = count
        self.body = body
        self.since = since  # when its last event was accepted, by `time.monotonic`
        self.kind = kind
        self.token = token  # of a store where it waits
        self.open = count  # events that are neither delivered nor given up
        self.failed: dict[int, CloudRuntimesError] = {}  # place → error of those that were given up

    @property
    def last(self) -> int:
        """The sequence number of its last event."""
        return self.first + self.count - 1

    @cached_property
    def records(self) -> events.Frame:
        """Its events."""
        return events.Frame(self.body)

    def report(self) -> DeliveryReport:
        """Return what became of it."""
        failed = []
        for index, error in sorted(self.failed.items()):
            record = self.records[index]
            failed.append(FailedEvent(self.first + index, record.id, record.to_json(), error))
        return DeliveryReport(self.first, self.last, failed)


class _Pending:
    """Unsent events of a chunk in a lane, as their indexes in the chunk, in order."""

    def __init__(self, chunk: Chunk, remaining: Sequence[int]) -> None:
        self.chunk = chunk
        self.indexes = remaining

    def fitting(self, room: int, limit: int) -> tuple[Sequence[int], int]:
        """Return as many ``indexes``, at most ``limit``, as ``room`` bytes hold, and their size."""
        whole = self.chunk
        if len(self.indexes) == whole.count <= limit and len(whole.body) <= room:
            return self.indexes, len(whole.body)
        size = 0
        for number, index in enumerate(self.indexes[:limit]):
            needs = len(self.chunk.records.record_bytes(index))
            if size + needs > room:
                return self.indexes[:number], size
            size += needs
        return self.indexes[:limit], size

    def frame(self, indexes: Sequence[int]) -> bytes:
        """Return a frame of these events, under their ids."""
        whole = self.chunk
        return whole.body if len(indexes) == whole.count else self.chunk.records.select(indexes)

    def settle(self, remaining: Sequence[int]) -> None:
        """Take what is not in ``remaining`` for settled."""
        self.chunk.open -= len(self.indexes) - len(remaining)
        self.indexes = remaining


_Chosen: TypeAlias = list[tuple[_Pending, Sequence[int]]]


class Attempt:
    """A batch of a lane on its way, with events of so many chunks (``parts``); what failed of it alone, and what ended it as a whole (``error``)."""

    op: Operation
    begun = ended = 0.0

    def __init__(self, lane: Lane, chosen: _Chosen) -> None:
        self._chosen = chosen
        self.lane = lane
        self.failures: Failures = {}
        self.error: CloudRuntimesError | None = None
        self.parts = len(chosen)
        frames = [part.frame(indexes) for part, indexes in chosen]
        topic, raw, due = chosen[0][0].chunk.kind
        delay = None if due is None else max(0, due - time_ns() // 1_000_000)
        self.batch = OutgoingBatch(topic, frames, sum(len(indexes) for _, indexes in chosen), delay, raw=raw)
        self.size = self.batch.size

    def landed(self) -> CloudRuntimesError | None:
        """Take in what arrived, and return why something is to be tried again; ``None``: nothing is.

        An event that arrived while an earlier one of its key failed is sent again behind that one. So the last event of a key stays the last.
        """
        failures = self.failures
        why: CloudRuntimesError | None = None
        keys: set[str] = set()
        number = -1
        for part, indexes in self._chosen:
            again: list[int] = []
            if failures:
                for index in indexes:
                    number += 1
                    error = failures.get(number)
                    if error is None:
                        if keys and part.chunk.records[index].key in keys:
                            again.append(index)
                    elif is_passing(error):
                        why = why or error
                        again.append(index)
                        if (key := part.chunk.records[index].key) is not None:
                            keys.add(key)
                    else:
                        part.chunk.failed[index] = error
            rest = part.indexes[len(indexes) :]
            part.settle([*again, *rest] if again else rest)
        return why


class Lane:
    """A queue of events of which one batch is under way at a time."""

    def __init__(self) -> None:
        self._parts: deque[_Pending] = deque()
        self.again = 0.0  # before this time there is no other attempt
        self.failures = 0  # in a row, of attempts that brought nothing forward
        self.delivered = 0.0  # when events of it were last delivered: those behind them waited until then
        self.alone = 0  # parts to send one by one, since one of them may be what the broker does not take
        self.attempt: Attempt | None = None  # that is under way

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, chunk: Chunk, indexes: Sequence[int]) -> None:
        """Queue events of a chunk."""
        self._parts.append(_Pending(chunk, indexes))

    def next(self, limits: BatchLimits, room: int) -> Attempt:
        """Return the first events of one kind that are left, as many as ``room`` bytes hold; one at least."""
        chosen: _Chosen = []
        limit = limits.events
        for part in self._parts:
            if chosen and part.chunk.kind != chosen[0][0].chunk.kind:
                break
            indexes, size = part.fitting(room, limit)
            if not chosen and not indexes:
                indexes = part.indexes[:1]
            if indexes:
                chosen.append((part, indexes))
            if len(indexes) < len(part.indexes) or self.alone:
                break
            room -= size
            limit -= len(indexes)
        return Attempt(self, chosen)

    @property
    def front(self) -> tuple[Chunk, int]:
        """The event that goes first: its chunk, and its place there."""
        part = self._parts[0]
        return part.chunk, part.indexes[0]

    def advance(self) -> None:
        """Let go of the parts at the front of which nothing is left."""
        while self._parts and not self._parts[0].indexes:
            self._parts.popleft()
            self.alone = max(0, self.alone - 1)

    def give_up(self, count: int | None, error: CloudRuntimesError) -> None:
        """Fail the first ``count`` events of the part at the front, or all of it."""
        part = self._parts[0]
        part.chunk.failed.update(dict.fromkeys(part.indexes[:count], error))
        part.settle([] if count is None else part.indexes[count:])


def deal(chunk: Chunk, lanes: Sequence[Lane], turn: int, limits: BatchLimits) -> int:
    """Queue a chunk's events, those of one key in one lane, those without a key a batch to each lane in turn; return the lane whose turn is next."""
    if len(lanes) == 1:
        lanes[0].add(chunk, range(chunk.count))
        return 0
    *keyed, keyless = chunk.records.partition(len(lanes))
    for lane, indexes in zip(lanes, keyed, strict=True):
        if indexes:
            lane.add(chunk, indexes)
    batches = max(1, -(-len(keyless) // limits.events), -(-len(chunk.body) // limits.bytes))
    step = max(1, -(-len(keyless) // batches))
    for start in range(0, len(keyless), step):
        lanes[turn].add(chunk, keyless[start : start + step])
        turn = (turn + 1) % len(lanes)
    return turn
