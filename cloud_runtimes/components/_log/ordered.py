"""A member of a group whose events come in the order of their keys (``order="key"``).

A group has a fixed number of parts, and a key always falls into the same one. A member owns parts as long as it renews its membership. Whoever moves the group's cursor splits the slice that it passes into a claim for each part, so that the owner of a part finds its claims in the order of the log. A part changes hands with its claims: at once after its owner died, else once all that was handed out of it is settled.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from time import monotonic
from typing import Final, NamedTuple

from ..._native import events as kernel
from ...errors import PayloadError
from ...spi.broker.ordered import SURVEY_EVERY, balance
from ...spi.pubsub import Deliveries, Settled, Settlement, Settlements
from .claims import Writes
from .member import LogMember

FOREVER: Final = 2**62
"""Deadline of a claim that lasts as long as its member owns the part."""
SLICE: Final = 4096
"""How many events are split at once at most."""
_DEALT: Final = 8


class Survey(NamedTuple):
    """View of a group that a member has without writing.

    Attributes:
        live: the members whose lease holds.
        owners: the member that owns each part; empty: none.
        has_events: whether there is anything to claim.
        next_due: in how many seconds there will be what is known of; ``None``: nothing.
    """

    live: Collection[str]
    owners: Sequence[str]
    has_events: bool
    next_due: float | None


class PartWrites(NamedTuple):
    """Changes of who owns parts.

    Attributes:
        take: parts to own, if they are free or their owner is dead.
        give: own parts that become free, with their claims.
        leave: leave the group, and give all.
    """

    take: Collection[int] = ()
    give: Collection[int] = ()
    leave: bool = False


class OrderedMember(LogMember):
    """See the module; a subclass writes what a database does for it."""

    def _begin(self) -> None:
        super()._begin()
        self._owned: set[int] = set()
        self._leaving: set[int] = set()
        self._take: Collection[int] = ()
        # whether this member has no claim in the database that it does not know of
        self._sure = True
        # of the last frames, the indexes of each part
        self._dealt: OrderedDict[int, Sequence[Sequence[int]]] = OrderedDict()
        self._surveyed = 0.0
        self.valid_until = 0.0
        self.revision += 1

    @abstractmethod
    def _survey(self) -> Survey:
        """Look at the group, without writing."""

    # -- the source -------------------------------------------------------

    def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Deliveries:
        if monotonic() >= self._surveyed + SURVEY_EVERY:
            self._look()
        most = min(SURVEY_EVERY, self.ack_wait_ms / 3000)
        return super().poll(settled, want, most if timeout is None else min(timeout, most))

    def _look(self) -> tuple[bool, float | None]:
        survey = self._survey()
        self._surveyed = monotonic()
        there = balance(self.name, survey.live, survey.owners, self._leaving)
        self._adopt(there.owned)
        self._take = there.take
        self._let_go(there.give)
        return survey.has_events or bool(self._take), survey.next_due

    def _must_renew(self) -> bool:
        return self._clock() >= self._renewed + self.ack_wait_ms / 3000 or not self.valid_until

    def _must_write(self) -> bool:
        return bool(self._take or any(map(self._is_drained, self._leaving))) or super()._must_write()

    def _write(self, want: int, renew: bool, seen: bool) -> None:
        begun, renewed = monotonic(), self._renewed
        try:
            super()._write(want, renew, seen)
        except BaseException:
            self._sure = self._sure and not want
            raise
        self._sure = self._sure or want > 0
        if renew:
            self.valid_until = begun + self.ack_wait_ms / 1000
        else:
            self._renewed = renewed

    def _pending(self) -> Writes:
        writes = super()._pending()
        writes.parts = PartWrites(self._take, list(filter(self._is_drained, self._leaving)))
        return writes

    def close(self, settled: Sequence[Settled], /) -> None:
        self._end_doubt()
        self._mark(settled)
        writes = self._pending()
        writes.parts = PartWrites(leave=True)
        writes.durable = True
        try:
            self._commit(self._operation(), writes)
        finally:
            self._unsubscribe()

    def _mark(self, settled: Sequence[Settled]) -> None:
        released, answers = Settlements(settled).split(Settlement.RELEASE)
        for record in released:
            record.marks.released.add(record.position)
        super()._mark(answers)

    def _end_doubt(self) -> None:
        # a claim that came again by itself would come behind later ones of its part
        for id in self._doubtful:
            if (held := self._held.pop(id, None)) is not None:
                held.void = True
                assert held.claim.part is not None
                self._let_go([held.claim.part])
        self._doubtful.clear()

    # -- parts ------------------------------------------------------------

    def _adopt(self, owned: set[int]) -> None:
        """Take note of the parts that this member owns, by the database."""
        lost = self._owned - owned
        self._owned = owned
        self._leaving &= owned
        if lost:
            self._forget(lost)

    def _forget(self, parts: Collection[int]) -> None:
        """Hold nothing of parts."""
        for id, held in list(self._held.items()):
            if held.claim.part in parts:
                held.void = True
                del self._held[id]
        self._claimed = [claim for claim in self._claimed if claim.part not in parts]
        self.revision += 1

    def _let_go(self, parts: Collection[int]) -> None:
        """Hand out nothing more of parts, which become free once all that was handed out is settled."""
        if not parts:
            return
        self._leaving.update(parts)
        for held in self._held.values():
            if held.claim.part in parts:
                held.leaving = True
        self._claimed = [claim for claim in self._claimed if claim.part not in parts]
        self.revision += 1

    def _is_drained(self, part: int) -> bool:
        return all(held.remaining <= len(held.released) for held in self._held.values() if held.claim.part == part)

    def _changed(self, parts: PartWrites, owned: set[int], lost: Collection[int]) -> None:
        """Take note of what a transaction changed, and of the claims that had gone."""
        self._take = ()
        if parts.give:
            self._leaving.difference_update(parts.give)
            self._forget(parts.give)
        self._adopt(owned)
        self.revision += bool(lost)

    # -- splitting --------------------------------------------------------

    def _deal(self, id: int, stop: int, parts: int, load: Callable[[int], bytes]) -> Sequence[Sequence[int]]:
        """Return the indexes of a frame's events by part. One that is gone or cannot be read is one event, up to ``stop``, for whoever reads it."""
        if (dealt := self._dealt.get(id)) is not None:
            return dealt
        frame = self._frames.get(id)
        if frame is None:
            try:
                frame = self._frames[id] = kernel.Frame(load(id))
            except PayloadError:
                return [range(stop)]
        dealt = self._dealt[id] = deal(frame, id, parts)
        while len(self._dealt) > _DEALT:
            self._dealt.popitem(last=False)
        return dealt

    def _raw_want(self, want: int, parts: int) -> int:
        """Return how many events of all parts are expected to have so many of this member's."""
        return min(SLICE, max(want, want * parts // max(1, len(self._owned - self._leaving))))


def deal(frame: kernel.Frame, id: int, parts: int) -> list[Sequence[int]]:
    """Return the indexes of a frame's events by part. Events without a key go to all in turn."""
    *dealt, keyless = frame.partition(parts)
    for part in range(parts if keyless else 0):
        if others := keyless[(part - id) % parts :: parts]:
            dealt[part] = sorted([*dealt[part], *others])
    return dealt


def split(
    dealt: Sequence[Sequence[int]], start: int, length: int, settled: bytes | None = None
) -> Iterator[tuple[int, int, int, bytes | None]]:
    """Yield what is not settled of a slice of a frame as claims of parts: part, start, length, and the bitmap in which events of other parts count as settled."""
    stop, done = start + length, int.from_bytes(settled or b"", "little")
    for part, indexes in enumerate(dealt):
        low = bisect_left(indexes, start)
        high = bisect_left(indexes, stop, low)
        mine = indexes[low:high]
        if done:
            mine = [index for index in mine if not done >> (index - start) & 1]
        if not mine:
            continue
        first, length = mine[0], mine[-1] + 1 - mine[0]
        others: bytes | None = None
        if length != len(mine):
            bits = (1 << length) - 1
            for index in mine:
                bits ^= 1 << (index - first)
            others = bits.to_bytes((length + 7) // 8, "little")
        yield part, first, length, others
