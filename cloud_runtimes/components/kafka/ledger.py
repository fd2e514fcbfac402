"""State of a group in a partition, as Kafka can keep it.

It is an offset, before which all is settled, and a text about the messages after it. The text is the metadata of a
commit, ``cr1:3-9,12;1:2,10-11;dropped:4``: ranges counted from the offset. The settled messages come first. Then
each number of deliveries is followed by the messages that were delivered so often. The last part counts the events
that came to each end (`ENDS`), and ``order:key`` says that the group has this order. A broker takes 4,096 bytes.
Messages that do not fit are omitted: they may be delivered again after a rebalance, or count as new.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

ENDS: Final = ("dropped", "dead_lettered", "expired", "deleted")
"""What becomes of events that nobody acknowledged; "deleted": by the broker, before a member has read them. The count is committed with the settlement, so it is as true as that."""
_MARK: Final = "cr1:"
_ORDER: Final = ";order:key"
ORDERED: Final = _MARK + _ORDER
"""Text that says of a new group that it has the order of keys."""
GONE: Final = "cr1:;gone"
"""Text that says of a position that its group was deleted, where the same consumer group has other topics."""
_MOST: Final = 4000
_WIDEST: Final = 1_000_000


class Ledger:
    """Ledger of one partition.

    Attributes:
        anew: whether the partition has another log than before, so that offsets mean other messages.
        base: the first offset that is not settled, as far as was read.
        changed: whether there is anything to commit.
        counts: offset → deliveries that have ended, of messages that are not settled.
        ended: one of `ENDS` → events of all time.
        handed: offsets that are being delivered.
        ordered: whether its group has the order of keys.
        parts: offset → bits of the removed events, of messages that have others too.
        sent: commits of which it is not known whether they were made.
    """

    __slots__ = ("_settled", "_top", "anew", "base", "changed", "counts", "ended", "handed", "ordered", "parts", "sent")

    def __init__(self, base: int, text: str | None) -> None:
        self.base = self._top = base
        self.anew = self.changed = False
        self.sent = 0
        self.handed: set[int] = set()
        self._settled: set[int] = set()
        self.counts: dict[int, int] = {}
        self.ended: dict[str, int] = {}
        self.parts: Mapping[int, int] = {}
        self.ordered = _ORDER in (text or "")
        if not text or not text.startswith(_MARK):  # another program's
            return
        settled, *counted = text.removeprefix(_MARK).split(";")
        self._settled.update(_read(base, settled))
        for each in counted:
            count, _, ranges = each.partition(":")
            if count.isdigit():
                self.counts.update(dict.fromkeys(_read(base, ranges), int(count)))
            elif count in ENDS and ranges.isdigit():
                self.ended[count] = int(ranges)

    @property
    def ahead(self) -> int:
        """How many offsets after `base` are settled."""
        return len(self._settled)

    def first(self, begin: int) -> int:
        """Return the first offset of a log that is not settled."""
        offset = max(self.base, begin)
        while offset in self._settled:
            offset += 1
        return offset

    def count(self, begin: int, end: int) -> int:
        """Return how many messages of a log are not settled."""
        base = max(self.base, begin)
        return max(0, end - base - sum(each >= base for each in self._settled))

    def remove(self, removed: Mapping[int, int]) -> None:
        """Note which messages that were not read yet are removed, -1, or bits of their events."""
        first = max(self._top, self.base)
        whole = [each for each, bits in removed.items() if bits < 0 and each >= first and each not in self._settled]
        if whole:
            self.settle(whole)
        self.parts = {offset: bits for offset, bits in removed.items() if bits > 0}

    @property
    def is_open(self) -> bool:
        """Whether there is anything of which it is not known that it was committed."""
        return self.changed or self.sent > 0

    def read(self, offsets: Sequence[int], start: int = 0) -> Sequence[int]:
        """Note that messages were read, in their order, and return those that need a delivery.

        Numbers between that have no message count as settled. Those before ``start``, where the log begins, had one that was deleted.
        """
        first, last = offsets[0], offsets[-1]
        # the base is ahead of the top where the next messages were settled before this member came
        if self.base <= first == self._top and last - first + 1 == len(offsets) and self._settled.isdisjoint(offsets):
            self._top = last + 1
            return offsets
        return [each for each in offsets if self._read(each, start)]

    def _read(self, offset: int, start: int) -> bool:
        if offset < self._top:  # the topic was made again, or a leader has lost what its log ended with
            self.base = self._top = offset
            self._settled.clear()
            self.counts.clear()
            self.handed.clear()
            self.parts = {}
            self.anew = self.changed = True
        if offset > self._top:
            gone = range(max(self._top, self.base), min(offset, start))
            if gone and (unread := len(gone) - sum(map(gone.__contains__, self._settled))):
                self.end("deleted", unread)
            if self.base >= self._top:
                self.base = max(self.base, offset)
                self._settled = {each for each in self._settled if each >= self.base}
                self.settle(())
            else:
                self._settled.update(range(self._top, offset))
        self._top = max(self._top, offset + 1)
        return offset >= self.base and offset not in self._settled

    def hand(self, offsets: Sequence[int]) -> None:
        """Note that messages are being delivered."""
        self.handed.update(offsets)
        self.changed = True

    def take_back(self, offsets: Collection[int]) -> None:
        """Note that messages in hand were not delivered."""
        if not self.handed.isdisjoint(offsets):
            self.handed.difference_update(offsets)
            self.changed = True

    def settle(self, offsets: Sequence[int]) -> None:
        """Note messages that are done with."""
        self.changed = True
        self.handed.difference_update(offsets)
        if self.counts:
            for offset in offsets:
                self.counts.pop(offset, None)
        settled = self._settled
        if not settled and offsets and max(offsets) - self.base == len(offsets) - 1 and min(offsets) == self.base:
            self.base += len(offsets)
            return
        settled.update(offsets)
        base = self.base
        while base in settled:
            settled.remove(base)
            base += 1
        self.base = base

    def end(self, how: str, events: int) -> None:
        """Count events that have come to one of `ENDS`."""
        self.ended[how] = self.ended.get(how, 0) + events
        self.changed = True

    def text(self) -> str:
        """Return the metadata of a commit at `base`."""
        groups: dict[int, list[int]] = {}
        for offset in self.handed:
            groups.setdefault(self.counts.get(offset, 0) + 1, []).append(offset)
        for offset, count in self.counts.items():
            if offset not in self.handed:
                groups.setdefault(count, []).append(offset)
        ended = "".join(f";{how}:{events}" for how, events in self.ended.items()) + _ORDER * self.ordered
        room = _MOST - len(ended)
        text = _MARK + ",".join(self._ranges(self._settled, room))
        for count, offsets in sorted(groups.items(), reverse=True):
            text += f";{count}:{','.join(self._ranges(offsets, room - len(text)))}"
        text += ended
        return text if len(text) > len(_MARK) else ""

    def _ranges(self, offsets: Sequence[int] | set[int], room: int) -> Iterator[str]:
        """Yield ranges, as many as there is room for."""
        first: int | None = None
        last = 0
        for offset in [*sorted(offsets), -1]:
            if first is not None and offset == last + 1:
                last = offset
                continue
            if first is not None:
                part = str(first - self.base) if first == last else f"{first - self.base}-{last - self.base}"
                room -= len(part) + 4
                if room < 0:
                    return
                yield part
            first = last = offset


def _read(base: int, text: str) -> Iterator[int]:
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            return
        yield from range(base + int(first), base + min(int(last or first), int(first) + _WIDEST) + 1)
