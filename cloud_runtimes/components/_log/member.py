"""A member of a consumer group: it claims slices of frames, holds them, settles them. What a database does for it, a subclass writes.

It belongs to the thread of its subscription; only `wake` may be called from others.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Collection, Sequence
from itertools import groupby
from operator import attrgetter
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol

from ..._core.logs import repeated
from ..._native import events as kernel
from ...errors import ConflictError, NotFoundError, PayloadError
from ...spi.broker.policy import NO_HISTORY, POLL, POLL_TIMEOUT, DeliveryHistory, DeliveryPolicy
from ...spi.broker.reading import pack_payload
from ...spi.change import Change
from ...spi.events import cause_of
from ...spi.operation import Operation
from ...spi.pubsub import Cause, Deliveries, EventSource, Settled, Settlement, Settlements, SubscribeRequest
from .claims import Again, Claimed, Dead, Held, Writes, with_places

_MARKS: Final = attrgetter("marks")
_POSITION: Final = attrgetter("position")
_FRAMES_KEPT: Final = 8
_PAST_KEPT: Final = 4096
_SEEN_EVERY: Final = 60.0
MEMBER_MS: Final = 180_000
"""How long a member without an order counts as one after it was seen, milliseconds."""


class Waits(Protocol):
    """Waiter of a member for its topic."""

    def wait(self, timeout: float) -> object:
        """Return when woken, or after ``timeout`` seconds."""

    def wake(self) -> None:
        """Wake it, from any thread."""

    def close(self) -> None:
        """Unsubscribe."""


class _Unread(NamedTuple):
    """A frame that cannot be read: damaged on its disk, or of a later version."""

    body: bytes
    error: PayloadError

    def letter(self, topic: str, frame: int) -> kernel.Frame:
        """Return a frame of one event without an envelope that has all its bytes."""
        return kernel.Frame(pack_payload(self.body, None, topic, f"{topic}-{frame}"))


class _UnreadableEvent(NamedTuple):
    """An event of a frame that cannot be read, as a record stands for others."""

    marks: Held
    position: int


class _Event(NamedTuple):
    """An event that is delivered no more, and why."""

    claim: Claimed
    position: int
    cause: Cause

    def first(self) -> _Event:
        """Return it as the only one of a frame."""
        return self._replace(claim=self.claim._replace(start=0), position=0)


class LogMember(EventSource):
    """See the module.

    Args:
        pubsub: the component's name.
        request: of the member.

    Attributes:
        name: of the member; no other has it.
        request: of the member.
        ack_wait_ms: how long a lease lasts.
        label: what counters and messages call the group.
    """

    def __init__(self, pubsub: str, request: SubscribeRequest) -> None:
        self.pubsub = pubsub
        self.request = request
        self._policy = rules = DeliveryPolicy(pubsub, request)
        self.name, self.label, self.ack_wait_ms = rules.name, rules.label, rules.ack_wait_ms
        self._begin()

    def _begin(self) -> None:
        """Hold nothing."""
        self._waiter: Waits | None = None
        self._held: dict[int, Held] = {}
        # claimed and not yet delivered; settlements, and events found expired, not yet written
        self._claimed: list[Claimed] = []
        self._unwritten: list[Settled] = []
        self._exhausted: list[Claimed] = []
        self._expired = 0
        # claims of which it is not known whether the database has what was settled last
        self._doubtful: set[int] = set()
        self._frames: OrderedDict[int, kernel.Frame] = OrderedDict()
        # of events that were retried, by frame and place
        self._past: OrderedDict[tuple[int, int], DeliveryHistory] = OrderedDict()
        self._renewed = self._clock()
        self._seen = monotonic()
        self._next_due: float | None = None

    # -- what a database does ---------------------------------------------

    def _clock(self) -> float:
        """Return the seconds of the clock by which leases are renewed."""
        return monotonic()

    @abstractmethod
    def _now_us(self) -> int:
        """Return the time by which events expire, microseconds since 1970 UTC."""

    @abstractmethod
    def _wait_on(self) -> Waits:
        """Return what wakes this member when there is something new."""

    @abstractmethod
    def _look(self) -> tuple[bool, float | None]:
        """Tell, without writing, whether there is anything to claim, and in how many seconds there will be what is known of; ``None``: nothing."""

    @abstractmethod
    def _commit(
        self, op: Operation, writes: Writes, changes: Sequence[Change] | None = None
    ) -> tuple[Collection[int], list[Claimed]]:
        """Settle, renew and claim in one transaction; returns the claims that had gone to others, whose settlements are void, and what was claimed.

        With ``changes``, which are applied too, none of the claims may have gone: the transaction fails by the error of `gone`.
        """

    @abstractmethod
    def _give_back(self, claims: Sequence[int]) -> None:
        """Give up claims as they stand in the database, behind every transaction of this member that may yet be applied."""

    @abstractmethod
    def _load(self, frame: int) -> bytes | None:
        """Return a frame; ``None``: it is gone."""

    def _operation(self) -> Operation:
        return Operation(POLL, self.pubsub, POLL_TIMEOUT)

    # -- the source -------------------------------------------------------

    def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Deliveries:
        self._end_doubt()
        waiter = self._waiter
        if waiter is None:
            self._waiter = self._wait_on()
        self._mark(settled)
        renew = self._must_renew()
        seen = monotonic() >= self._seen + _SEEN_EVERY
        wanting = want > 0 and not self._claimed
        if renew or seen or self._must_write():
            # what is there is found by the write that has to be made anyway
            self._write(want if wanting else 0, renew, seen)
            if wanting and not self._claimed:
                self._next_due = self._look()[1]
        elif wanting:
            has_events, self._next_due = self._look()
            if has_events:
                self._write(want, renew, seen)
        if self._exhausted:
            self._write(0, False, False)
        deliveries = self._deliver()
        if not deliveries and not self._unwritten and waiter is not None:  # nobody could wake it before
            pause = 60.0 if timeout is None else timeout
            waiter.wait(pause if self._next_due is None else min(pause, max(0.001, self._next_due)))
        return deliveries

    def wake(self) -> None:
        if (waiter := self._waiter) is not None:
            waiter.wake()

    def _must_renew(self) -> bool:
        return bool(self._held) and self._clock() >= self._renewed + self.ack_wait_ms / 3000

    def _must_write(self) -> bool:
        return bool(
            self._unwritten or self._exhausted or self._expired or any(held.touched for held in self._held.values())
        )

    def _write(self, want: int, renew: bool, seen: bool) -> None:
        """Settle, renew and claim; what failed is tried again with the next poll."""
        writes = self._pending()
        writes.renew, writes.seen, writes.want = renew, seen, want
        idle = not self._held
        begun = self._clock()
        lost, claimed = self._commit(self._operation(), writes)
        self._exhausted = [claim for claim in claimed if self._policy.is_exhausted(claim.deliveries)]
        self._claimed += [claim for claim in claimed if claim not in self._exhausted]
        if renew or idle:
            self._renewed = begun
        if seen:
            self._seen = monotonic()
        self._unwritten, self._expired = [], 0
        for id, _ in writes.settled:
            held = self._held.get(id)
            if held is None:
                continue
            held.touched = False
            if not held.remaining or id in lost:
                held.void = True
                del self._held[id]

    def commit(self, op: Operation, tokens: Sequence[Any], changes: Sequence[Change], /) -> None:
        self._end_doubt()
        if self._unwritten or self._exhausted or self._expired:
            self._write(0, False, False)
        indexes_by_claim: dict[Held, list[int]] = {}
        for held, records in groupby(tokens, _MARKS):
            indexes_by_claim.setdefault(held, []).extend(map(_POSITION, records))
        writes = Writes()
        writes.durable = True
        for held, settled in indexes_by_claim.items():
            if held.void:
                raise self.gone()
            remaining = held.remaining - len(settled)
            writes.settled.append((held.claim.id, with_places(held, settled) if remaining else None))
        try:
            self._commit(op, writes, changes)
        except BaseException as error:
            if getattr(error, "maybe_applied", False) or not isinstance(error, Exception):
                self._doubtful.update(id for id, _ in writes.settled)
            raise
        kernel.mark_records(tokens)
        for held in indexes_by_claim:
            held.touched = False
            if not held.remaining:
                held.void = True
                del self._held[held.claim.id]

    def gone(self) -> ConflictError:
        """Return the error of a transaction whose claims have gone."""
        return ConflictError(
            f"an event of {self.label} has gone to another member, since its lease was over: it is handled there"
        )

    def no_group(self) -> NotFoundError:
        """Return the error of a member whose group is there no more."""
        return NotFoundError(
            f"the group of {self.label} was deleted, or had no living member for longer than group_expiry: subscribe again"
        )

    def _end_doubt(self) -> None:
        """Give up claims in doubt: what the database has of them is right, and what is open there is delivered again."""
        if self._doubtful:
            self._give_back(list(self._doubtful))
            for id in self._doubtful:
                if (held := self._held.pop(id, None)) is not None:
                    held.void = True
            self._doubtful.clear()

    def close(self, settled: Sequence[Settled], /) -> None:
        self._end_doubt()
        self._mark(settled)
        writes = self._pending()
        claims = [held.claim._replace(settled=held.settled) for held in self._held.values() if held.remaining]
        writes.back = [claim.rest() for claim in (*claims, *self._claimed)]
        writes.leave = writes.durable = True
        try:
            self._commit(self._operation(), writes)
        finally:
            self._unsubscribe()

    def _unsubscribe(self) -> None:
        if self._waiter is not None:
            self._waiter.close()

    # -- settlements ------------------------------------------------------

    def _mark(self, settled: Sequence[Settled]) -> None:
        """Mark what is settled; settlements other than ACK are kept for the next write."""
        for tokens, settlement, delay, cause in Settlements(settled).groups:
            marked = kernel.mark_records(tokens)
            if settlement is not Settlement.ACK:
                self._unwritten += [Settled(token, settlement, delay, cause) for token in marked]
                if self.request.dead_letter_topic and settlement is not Settlement.RELEASE:
                    for record in marked:
                        self._remember(record, cause)

    def _pending(self) -> Writes:
        """Gather what is to be written."""
        writes = Writes()
        writes.settled = [
            (id, held.settled if held.remaining else None) for id, held in self._held.items() if held.touched
        ]
        writes.expired = self._expired
        dead: list[_Event] = []
        for record, settlement, delay, cause in self._unwritten:
            claim: Claimed = record.marks.claim
            answer = self._policy.decide(settlement, delay, cause, claim.deliveries)
            if isinstance(answer, Cause):
                dead.append(_Event(claim, record.position, answer))
            else:
                writes.again.append(
                    Again(claim.id, claim.frame, claim.start + record.position, answer, claim.deliveries, claim.part)
                )
        for claim in self._exhausted:
            counted = claim._replace(deliveries=claim.deliveries - 1)
            dead += [_Event(counted, index, Cause("deliveries")) for index in claim.open()]
            writes.settled.append((claim.id, None))
        writes.dead = self._dead(dead)
        # deliveries that are limited are counted for good; a dead letter is a publish
        writes.durable = bool(writes.dead) or self._policy.max_deliveries is not None
        return writes

    # -- dead letters -----------------------------------------------------

    def _dead(self, events: Sequence[_Event]) -> list[Dead]:
        by_claim: dict[int, list[_Event]] = {}
        for event in events:
            by_claim.setdefault(event.claim.id, []).append(event)
        return [Dead(id, *self._letters(group)) for id, group in by_claim.items()]

    def _letters(self, events: Sequence[_Event]) -> tuple[int, bytes | None]:
        """Return events of one claim as they go to the dead-letter topic, and how many they are there."""
        frame = None if self.request.dead_letter_topic is None else self._frame(events[0].claim.frame)
        if frame is None:
            if (cause := events[0].cause).reason != "dropped":
                self._policy.log_lost(len(events), cause)
            return len(events), None
        if isinstance(frame, _Unread):  # one letter has all of it
            frame, events = frame.letter(self.request.topic, events[0].claim.frame), [events[0].first()]
        records = [self._dead_record(frame, event) for event in events]
        return len(records), kernel.build_frame(frame.source, frame.type, frame.topic, records)

    def _dead_record(self, frame: kernel.Frame, event: _Event) -> bytes:
        index = event.claim.start + event.position
        past = self._past.get((event.claim.frame, index), NO_HISTORY)
        return self._policy.dead_letter(frame, index, event.cause, event.claim.deliveries, past)

    def _remember(self, record: Any, cause: Cause | None) -> None:
        """Note what a dead letter will tell of an event that was delivered and not acknowledged."""
        held = record.marks
        position = held.claim.frame, held.claim.start + record.position
        past = self._past.pop(position, NO_HISTORY)
        self._past[position] = past.after(held.at, held.claim.deliveries, cause)
        if len(self._past) > _PAST_KEPT:
            self._past.popitem(last=False)

    # -- delivering -------------------------------------------------------

    def _deliver(self) -> Deliveries:
        """Turn claims into deliveries; a claim whose frame cannot be read stays for the next time."""
        deliveries = Deliveries()
        now_us = self._now_us() if self._claimed else 0
        while self._claimed:
            claim = self._claimed[0]
            frame = self._frame(claim.frame)
            held = Held(claim, now_us)
            gone: Sequence[int] = held.open(0, claim.length)
            if isinstance(frame, _Unread):
                self._refuse(held, gone, frame.error)
            elif frame is not None:
                records: list[kernel.ClaimedRecord] = []
                gone = frame.deliver(claim.start, gone, now_us, held, records)
                deliveries.groups.append((records, claim.deliveries))
                self._expired += len(gone)
            for index in gone:
                held.settle(index)  # expired, or dropped from a full log
            if claim.id in self._held:
                # overdue, and taken over from ourselves: only settlements of the later delivery count
                self._held[claim.id].void = True
            self._held[claim.id] = held
            del self._claimed[0]
        while len(self._frames) > _FRAMES_KEPT:
            self._frames.popitem(last=False)
        return deliveries

    def _refuse(self, held: Held, indexes: Sequence[int], error: PayloadError) -> None:
        """Have events that cannot be read become dead letters, or come again: a newer member may read them."""
        settlement = Settlement.DROP if self.request.dead_letter_topic else Settlement.RETRY
        cause = cause_of("undecodable", error)
        message = "%s: %d events cannot be read: %s. They become a dead letter, or are tried again"
        repeated(f"poison {self.label}", message, self.label, len(indexes), error)
        self._unwritten += [Settled(_UnreadableEvent(held, index), settlement, None, cause) for index in indexes]

    def _frame(self, id: int) -> kernel.Frame | _Unread | None:
        """Return a frame, which is kept until `_deliver` is done with it, unless it cannot be read."""
        if (frame := self._frames.get(id)) is not None:
            return frame
        body = self._load(id)
        if body is None:
            return None
        try:
            frame = self._frames[id] = kernel.Frame(body)
        except PayloadError as error:
            return _Unread(body, error)
        return frame
