"""Slices of frames that a member of a consumer group claims and settles."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from ..._native import events as kernel

if TYPE_CHECKING:
    from .ordered import PartWrites

_COUNT: Final = struct.Struct("<I")


def count_in(frame: bytes) -> int:
    """Return how many records a frame says it has."""
    return int(_COUNT.unpack_from(frame, 4)[0])


class Claimed(NamedTuple):
    """A slice of a frame that a member holds.

    Attributes:
        id: of the claim.
        frame: of the frame.
        start, length: the slice.
        deliveries: this one included.
        settled: bitmap over the slice, least significant bit first; ``None``: nothing yet.
        part: of the group it belongs to, where the group has an order.
    """

    id: int
    frame: int
    start: int
    length: int
    deliveries: int
    settled: bytes | None
    part: int | None = None

    @property
    def remaining(self) -> int:
        """How many positions are not settled."""
        return self.length - int.from_bytes(self.settled or b"").bit_count()

    def open(self) -> list[int]:
        """Return the positions, within the slice, that are not settled."""
        if self.settled is None:
            return list(range(self.length))
        return [index for index in range(self.length) if not self.settled[index >> 3] & (1 << (index & 7))]

    def rest(self) -> Claimed:
        """Return the slice from its first open position on; there is one."""
        first = self.open()[0]
        _, settled = cut(self.settled, first, self.length)
        return self._replace(start=self.start + first, length=self.length - first, settled=settled)


def cut(settled: bytes | None, at: int, length: int) -> tuple[bytes | None, bytes | None]:
    """Cut a bitmap before a position."""
    if settled is None:
        return None, None
    bits = int.from_bytes(settled, "little") & ((1 << length) - 1)
    head, tail = bits & ((1 << at) - 1), bits >> at
    return head.to_bytes((at + 7) // 8, "little"), tail.to_bytes((length - at + 7) // 8, "little")


class Held(kernel.Marks):
    """A claim of this member, in memory: what of it is settled, and when it was delivered (microseconds since 1970 UTC). Void once all of it is written, or another member has it. In a group with an order, the positions that are ``released`` are not handed out any more."""

    def __init__(self, claim: Claimed, at: int) -> None:
        super().__init__(claim.length, claim.settled)
        self.claim = claim
        self.at = at
        self.released: set[int] = set()


def with_places(held: Held, indexes: Iterable[int]) -> bytes:
    """Return what of a claim is settled, with more places of its slice."""
    bits = bytearray(held.settled)
    for index in indexes:
        bits[index >> 3] |= 1 << (index & 7)
    return bytes(bits)


class Again(NamedTuple):
    """An event that is delivered again.

    Attributes:
        claim: of the delivery; where the member has lost it, nothing happens.
        frame, position: where the event is.
        delay_ms: until then.
        deliveries: so far.
        part: of the claim.
    """

    claim: int
    frame: int
    position: int
    delay_ms: int
    deliveries: int
    part: int | None = None


class Dead(NamedTuple):
    """Events of one claim that are delivered no more.

    Attributes:
        claim: of their delivery; where the member has lost it, nothing happens.
        events: how many.
        frame: of the dead-letter topic; ``None``: they are dropped.
    """

    claim: int
    events: int
    frame: bytes | None


class Writes:
    """Changes that one transaction of a member makes.

    Attributes:
        settled: claims with their bitmaps; ``None``: all of it.
        again, dead: events that were not acknowledged.
        back: claims that any member may take at once, with the delivery not counted.
        expired: how many events expired.
        renew: prolong the lease of all that the member holds.
        seen: note that the group and the member are in use.
        leave: the member leaves the group.
        want: how many events to claim.
        parts: what changes of who owns the parts of a group with an order.
        durable: whether it has to outlast a crash of the machine. A transaction that only moves claims may be lost:
            they are delivered again then.
    """

    __slots__ = ("again", "back", "dead", "durable", "expired", "leave", "parts", "renew", "seen", "settled", "want")

    def __init__(self) -> None:
        self.settled: list[tuple[int, bytes | None]] = []
        self.again: list[Again] = []
        self.dead: list[Dead] = []
        self.back: list[Claimed] = []
        self.expired = 0
        self.renew = self.seen = self.leave = self.durable = False
        self.want = 0
        self.parts: PartWrites | None = None
