"""Order by key (``order="key"``) over a log that members read by position.

A group has a fixed number of parts, and a key always falls into the same one. A member owns parts as long as it renews its membership. It reads the whole log, and takes in what belongs to its parts. Of each part the store keeps how far the group is, so that the next owner goes on there.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from math import inf
from operator import attrgetter
from typing import Any, Final, NamedTuple
from zlib import crc32

from ..._core.logs import repeated
from ..pubsub import Cause, Deliveries, Settled, Settlements
from .in_flight import Held, InFlight, token_text
from .policy import DeliveryPolicy

PARTS: Final = 32
"""Parts of a new group: so many members share its events at most."""
SURVEY_EVERY: Final = 1.0
"""Seconds after which a member looks again who else is there."""
WRITE_EVERY: Final = 0.01
"""Seconds after which a member writes again what was settled, at the earliest."""
_LANES: Final = 4096
_INDEX: Final = 20
"""Bits of the index of an event in its message."""


class Balance(NamedTuple):
    """Change of who owns parts, as a member sees it.

    Attributes:
        owned: what it has.
        take: free parts that it should have.
        give: parts that are more than its share.
    """

    owned: set[int]
    take: list[int]
    give: list[int]


def balance(name: str, live: Collection[str], owners: Sequence[str], leaving: Collection[int]) -> Balance:
    """Return the parts that a member should take and give, where ``owners`` has the owner of each part, ``live`` the members whose lease holds, and ``leaving`` what it gives already."""
    owned = {part for part, owner in enumerate(owners) if owner == name}
    share = share_of(name, live, len(owners))
    others = {*live, name}
    free = [part for part, owner in enumerate(owners) if owner not in others]
    return Balance(owned, free[: max(0, share - len(owned))], sorted(owned.difference(leaving))[share:])


def share_of(name: str, live: Collection[str], parts: int) -> int:
    """Return how many parts a member owns when all is even."""
    members = sorted({*live, name})
    each, more = divmod(parts, len(members))
    return each + (members.index(name) < more)


class Lane(NamedTuple):
    """Events of one lane, which is a hash of the key.

    Attributes:
        place: of the first that is not settled, see `OrderedInFlight._place`.
        tries: how often it was delivered to members that are gone.
    """

    place: int
    tries: int = 0


class Progress(NamedTuple):
    """Place of a group in a part.

    Attributes:
        read: the position up to which the part was read.
        open: lane → what is not settled up to there. Of two keys in one lane events may come again, and nothing is missed.
        events: how many these are.
        tries: how often what is behind ``read`` may have been delivered to members that died, up to the position ``doubt``.
        doubt: see there.
    """

    read: int
    open: dict[int, Lane]
    events: int = 0
    tries: int = 0
    doubt: int = 0

    @property
    def done(self) -> int:
        """The last position up to which all is settled."""
        return (min(self.open.values()).place >> _INDEX) - 1 if self.open else self.read

    def after_death(self, last: int) -> Progress:
        """Return it once its owner has died, when ``last`` was the last position of the log."""
        open = {lane: Lane(its.place, its.tries + 1) for lane, its in self.open.items()}
        return self._replace(open=open, tries=self.tries + 1, doubt=max(last, self.doubt))

    def text(self) -> str:
        """Return it as the store has it."""
        start = self.done << _INDEX
        lanes = [f"{lane:x}:{its.place - start:x}:{its.tries:x}" for lane, its in self.open.items()]
        return f"{self.read:x} {self.done:x} {self.events:x} {self.tries:x} {self.doubt:x} {','.join(lanes)}"

    @classmethod
    def of(cls, text: str) -> Progress:
        """Read what `text` made."""
        *numbers, lanes = text.split(" ")
        read, done, events, tries, doubt = (int(each, 16) for each in numbers)
        open = {}
        for each in filter(None, lanes.split(",")):
            lane, behind, its_tries = (int(part, 16) for part in each.split(":"))
            open[lane] = Lane((done << _INDEX) + behind, its_tries)
        return cls(read, open, events, tries, doubt)


class _Slice(Held):
    """Events of one part, which is the origin, in a message or in many: from its ``first`` index to its ``last`` one, which are at the positions ``begin`` and ``end``."""

    def __init__(self, part: int, whole: Held, indexes: Sequence[int], tries: int, begin: int, end: int) -> None:
        bits = (1 << whole.length) - 1
        for index in indexes:
            bits ^= 1 << index
        others = bits.to_bytes((whole.length + 7) // 8, "little")
        super().__init__(part, whole.frame, whole.tokens, whole.single, 1 + tries, whole.history, whole.unread, others)
        self.holes = True
        self.first, self.last = indexes[0], indexes[-1]
        self.begin, self.end = begin, end
        self.lanes: dict[int, Lane] | None = None


class _Part:
    """A part that a member owns.

    Attributes:
        inherited: how far the group was when the member took it.
        read: up to where the member has read it.
        told: the progress that the store has.
        leaving: whether it goes to another member.
        slices: what is held of it, in the order of the log.
    """

    def __init__(self, inherited: Progress) -> None:
        self.inherited = inherited
        self.read = inherited.done
        self.top = inherited.read
        self.told = inherited
        self.leaving = False
        self.slices: list[_Slice] = []


class OrderedInFlight(InFlight):
    """What a member holds of its parts. A driver calls `read_after` before it takes in what it has read, and `read_all` behind it.

    Args:
        policy, id_of, prefix: see `InFlight`.
        position_of: returns the position of the message of a token; later ones have greater ones.

    Attributes:
        parts: how many the group has.
        revision: see `EventSource`.
        take: parts that the member should take.
        beside: position → event of a place of the group alone, where redriven ones lie; see `take_beside`.
        due_ms: when the message that is taken in next may be delivered, milliseconds since 1970 UTC; 0: at once.
    """

    def __init__(
        self,
        policy: DeliveryPolicy,
        position_of: Callable[[Any], int],
        parts: int,
        id_of: Callable[[Any], str] = token_text,
        prefix: str = "ce-",
    ) -> None:
        super().__init__(policy, id_of, prefix)
        self.stays = True
        self._position_of = position_of
        self.parts = parts
        self.revision = 0
        self.take: Sequence[int] = ()
        self._owned: dict[int, _Part] = {}
        self._dirty: set[Any] = set()  # parts of which something was settled
        self._after = self._last = 0
        self.due_ms = 0
        self._later: list[tuple[int, _Slice]] = []
        self.beside: dict[int, _Slice] = {}
        self._is_beside = False

    # -- parts ------------------------------------------------------------

    def own(self, part: int, progress: Progress) -> None:
        """Note that the member owns a part now."""
        self._owned[part] = _Part(progress)

    def survey(self, name: str, live: Collection[str], owners: Sequence[str]) -> None:
        """Note who is there and owns what; see `balance`."""
        leaving = [part for part, its in self._owned.items() if its.leaving]
        there = balance(name, live, owners, leaving)
        self.lost(self._owned.keys() - there.owned)
        # an answer may have been lost, of which the member does not know that it was made an owner
        self.take = [*sorted(there.owned - self._owned.keys()), *there.take]
        for part in there.give:
            self._let_go(part)
        self.revision += bool(there.give)

    def lost(self, parts: Collection[int]) -> None:
        """Hold nothing of parts; settlements of them are void."""
        for part in parts:
            if (its := self._owned.pop(part, None)) is not None:
                aside = {position: held for position, held in self.beside.items() if held.origin == part}
                for held in (*its.slices, *aside.values()):
                    held.void = True
                    self.held.pop(held, None)
                for position in aside:
                    del self.beside[position]
                self.revision += 1
                self._dirty.discard(part)
        self._ready = deque(held for held in self._ready if not held.void)
        self.unacked = [each for each in self.unacked if not each.held.void]

    def forget(self, origin: Hashable = None) -> None:
        self.lost(list(self._owned))

    def release(self, which: Callable[[Held], bool] = lambda held: True) -> None:
        """Do nothing: the next owner goes on where this one was."""

    def _let_go(self, part: int) -> None:
        """Hand out nothing more of a part, which can be given once all that was handed out is settled."""
        self._owned[part].leaving = True
        self.withhold(part)

    def drained(self) -> list[int]:
        """Return the leaving parts of which nothing is handed out."""
        return [part for part, its in self._owned.items() if its.leaving and self.is_drained(part)]

    # -- reading ----------------------------------------------------------

    @property
    def position(self) -> int | None:
        """The position behind which to read next; ``None``: nothing is to be read."""
        return min((its.read for its in self._owned.values() if not its.leaving), default=None)

    def share(self, want: int) -> int:
        """Return how many events of all parts are expected to have so many of this member's."""
        return want * self.parts // max(1, sum(not its.leaving for its in self._owned.values()))

    def read_after(self, position: int) -> None:
        """Note that what is taken in next was read behind a position, without a gap."""
        self._after = self._last = position

    def read_all(self) -> int:
        """Note that all of it was taken in; return its last position."""
        for its in self._owned.values():
            if not its.leaving and its.read >= self._after:
                its.read = max(its.read, self._last)
        return self._last

    @contextmanager
    def take_beside(self) -> Iterator[None]:
        """Have what is taken in meanwhile lie beside the log, a message an event: the owner of its part delivers it, and it is gone once it is settled."""
        self._is_beside = True
        try:
            yield
        finally:
            self._is_beside = False

    def settled_beside(self) -> dict[int, _Slice]:
        """Return what of `beside` is settled: a driver removes it from its place, if the part is still its own, then from `beside`."""
        return {position: held for position, held in self.beside.items() if not held.remaining}

    def _hold_beside(self, held: Held, cause: Cause | None) -> int:
        position = self._position(held, 0)
        part = next(part for part, indexes in enumerate(self._deal(held)) if indexes)
        its = self._owned.get(part)
        if position not in self.beside and its is not None and not its.leaving:
            self.beside[position] = mine = self._slice(part, held, range(held.length), 0)
            super()._hold(mine, cause)
        return held.length

    def _hold(self, held: Held, cause: Cause | None = None) -> int:
        if self._is_beside:
            return self._hold_beside(held, cause)
        first, last = self._position(held, 0), self._position(held, -1)
        for part, indexes in enumerate(self._deal(held)):
            its = self._owned.get(part)
            # it is read again from there
            if not indexes or its is None or its.leaving or its.read < self._after or its.read >= last:
                continue
            if first > max(its.read, its.inherited.read, its.inherited.doubt):
                self._keep(its, self._slice(part, held, indexes, 0), cause)
                continue
            # in their order, or a later event of a key would come before one that was delivered oftener
            for tries, some in groupby(indexes, partial(self._tries, its, held)):
                if tries is not None:
                    self._keep(its, self._slice(part, held, list(some), tries), cause)
        self._last = last
        return held.length

    def _slice(self, part: int, held: Held, indexes: Sequence[int], tries: int) -> _Slice:
        begin, end = self._position(held, indexes[0]), self._position(held, indexes[-1])
        return _Slice(part, held, indexes, tries, begin, end)

    def _keep(self, its: _Part, mine: _Slice, cause: Cause | None) -> None:
        insort(its.slices, mine, key=attrgetter("begin"))
        super()._hold(mine, cause)
        if self.due_ms and self._ready and self._ready[-1] is mine:
            self._later.append((self.due_ms, mine))
            self._ready.pop()

    @property
    def next_due_ms(self) -> float:
        """When the next of what was taken in before its time may be delivered."""
        return min((due for due, _ in self._later), default=inf)

    def deliver(self, want: int, now_us: int) -> Deliveries:
        if self.next_due_ms * 1000 <= now_us:
            due = [held for at, held in self._later if at * 1000 <= now_us]
            self._ready.extend(held for held in due if not (held.void or held.leaving))
            self._later = [each for each in self._later if each[0] * 1000 > now_us]
        return super().deliver(want, now_us)

    def _deal(self, held: Held) -> list[list[int]]:
        """Return the indexes of each part. An event without a key goes where its position says."""
        groups: list[Any] = held.frame.partition(self.parts)
        keyless, dealt = groups.pop(), groups
        for index in keyless:
            place = hash(self._position(held, index)) + (0 if held.single else index)
            dealt[place % self.parts].append(index)
        if 0 < len(keyless) < held.length:
            for indexes in dealt:
                indexes.sort()
        return dealt

    def _tries(self, its: _Part, held: Held, index: int) -> int | None:
        """Return how often an event was delivered to members that are gone; ``None``: it needs no delivery."""
        position, inherited = self._position(held, index), its.inherited
        if position <= its.read:
            return None
        if position > inherited.read:
            return inherited.tries if position <= inherited.doubt else 0
        lane = inherited.open.get(_lane(held, index))
        return None if lane is None or lane.place > self._place(held, index) else lane.tries

    def _place(self, held: Held, index: int) -> int:
        """Return position and index of an event as one number, later ones are greater."""
        return self._position(held, index) << _INDEX | (0 if held.single else index)

    def _position(self, held: Held, index: int) -> int:
        return self._position_of(held.tokens[index if held.single else 0])

    def _refuse(self, held: Held, cause: Cause) -> None:
        if self._policy.request.dead_letter_topic is not None:
            super()._refuse(held, cause)
            return
        message = "%s: a message cannot be read and waits for a newer member: %s"
        repeated(f"poison {self._policy.label}", message, self._policy.label, cause.error)

    # -- settling ---------------------------------------------------------

    def settle(self, settled: Sequence[Settled]) -> None:
        answers = Settlements(settled)
        for tokens, *_ in answers.groups:
            self._dirty.update(record.marks.origin for record in tokens)
        super().settle(answers)

    def changed(self, *, everything: bool) -> Iterator[tuple[int, Progress]]:
        """Yield the parts whose progress the store does not have; see `told`. Unless it is ``everything``, those alone of which something was settled."""
        for part in self._owned if everything else self._dirty & self._owned.keys():
            its = self._owned[part]
            if (progress := self._progress(its)) != its.told:
                yield part, progress

    def told(self, part: int, progress: Progress) -> None:
        """Note what the store has of a part."""
        if part in self._owned:
            self._owned[part].told = progress
            self._dirty.discard(part)

    def _progress(self, its: _Part) -> Progress:
        begun = [held.end for held in its.slices if held.touched]
        its.slices = slices = [held for held in its.slices if held.remaining]
        if begun:
            its.top = max(its.top, *begun)
        if not slices or slices[-1].begin <= its.top:
            its.top = max(its.top, its.read)
        else:  # of its own there is nothing before
            its.top = max(its.top, slices[0].begin - 1)
        # what the group had left is there until all of it was read again
        catching_up = its.read < its.inherited.read
        open = dict(its.inherited.open) if catching_up else {}
        count = its.inherited.events if catching_up else 0
        for held in slices:
            if held.begin > its.top:
                break
            for lane, its_first in self._open_of(held).items():
                open[lane] = min(open.get(lane, its_first), its_first)
            count += 0 if catching_up else held.remaining
        tries, doubt = its.inherited[3:] if its.top < its.inherited.doubt else (0, 0)
        return Progress(its.top, open, count, tries, doubt)

    def _open_of(self, held: _Slice) -> dict[int, Lane]:
        if held.lanes is None or held.touched:
            held.touched = False
            held.lanes = {}
            for index in held.open(held.first, held.last + 1):
                held.lanes.setdefault(_lane(held, index), Lane(self._place(held, index), held.deliveries - 1))
        return held.lanes

    @property
    def count(self) -> int:
        """How many events are held."""
        return sum(held.remaining for its in self._owned.values() for held in its.slices)


def _lane(held: Held, index: int) -> int:
    record = held.frame[index]
    return crc32((record.key or record.id).encode()) % _LANES
