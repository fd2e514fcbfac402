"""Backlogs of groups, of all topics at once: a request for each group, two for all offsets, and a few for the oldest events.

confluent-kafka asks for the offsets of one group a request, so these are under way together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import confluent_kafka.admin
from confluent_kafka import TopicPartition

from ...spi.admin import GroupInfo
from ...spi.broker.showing import time_of
from ...spi.operation import Operation
from .browse import Place, events, first
from .cluster import uncommitted
from .ledger import Ledger
from .removals import SUFFIX
from .topics import NOTES, PAUSED

if TYPE_CHECKING:
    from .settings import KafkaSettings
    from .topics import Topics

_admin: Final[Any] = confluent_kafka.admin  # its types are incomplete
_spec: Final = _admin.OffsetSpec
Bounds: TypeAlias = tuple[Mapping[tuple[str, int], Any], Mapping[tuple[str, int], Any]]


class _Stand(NamedTuple):
    """Where a group stands in a topic, and in the one with what comes again for it: partitions with their ledgers."""

    topic: str
    group: str
    paused: bool
    ledgers: Mapping[tuple[str, int], Ledger]

    @property
    def order(self) -> str:
        return "key" if any(ledger.ordered for ledger in self.ledgers.values()) else ""

    def lag(self, bounds: Bounds) -> int:
        """Return how many messages are not settled."""
        begin, end = bounds
        return sum(ledger.count(begin[at].offset, end[at].offset) for at, ledger in self.ledgers.items())

    def firsts(self, bounds: Bounds) -> Iterator[Place]:
        """Yield the first message of each partition that is not settled."""
        begin, end = bounds
        for at, ledger in self.ledgers.items():
            if (offset := ledger.first(begin[at].offset)) < end[at].offset:
                yield Place(*at, offset)

    def oldest(self, places: Sequence[Place], messages: Mapping[Place, Any]) -> datetime | None:
        """Return when the oldest event of messages was published."""
        times = [
            event.record.time_us
            for place in places
            if place in messages
            for _, _, event in events(self.topic, [messages[place]])
            if not self.ledgers[place[:2]].parts.get(place.offset, 0) >> event.token[1] & 1
        ]
        return time_of(min(times) / 1000) if times else None


class Backlogs:
    """See the module."""

    def __init__(self, settings: KafkaSettings, topics: Topics) -> None:
        self._settings = settings
        self._topics = topics

    def of(self, op: Operation, names: Mapping[str, str], ids: Collection[str]) -> list[GroupInfo]:
        """Return the groups of topics, without their members.

        Args:
            op: the operation.
            names: of topics in the cluster, each with ours.
            ids: of all groups of the component, also those that tell who is paused.
        """
        stands = list(self._stands(op, names, ids))
        partitions = {at for stand in stands for at in stand.ledgers}
        wanted = [TopicPartition(*at) for at in partitions]
        begin, end = self._topics.all_offsets(op, wanted, _spec.earliest(), _spec.latest())
        bounds = begin, end
        places = [list(stand.firsts(bounds)) for stand in stands]
        messages = first(op, self._settings, {each for those in places for each in those}, end)
        return [
            GroupInfo(
                stand.topic,
                stand.group,
                stand.lag(bounds),
                stand.oldest(those, messages),
                paused=stand.paused,
                order=stand.order,
            )
            for stand, those in zip(stands, places, strict=True)
        ]

    def _stands(self, op: Operation, names: Mapping[str, str], ids: Collection[str]) -> Iterator[_Stand]:
        topics, cut = self._topics, len(self._settings.prefix)
        there = topics.metadata(op).topics
        positions = topics.positions(op, ids)
        removed = {
            name: topics.removals.of(op, name)
            for name in {topic for those in positions.values() for topic in those}
            if name + SUFFIX in there
        }

        def ledgers(id: str, name: str) -> dict[int, Ledger]:
            known, of = positions.get(id, {}).get(name, {}), there.get(name)
            return {
                each: _ledger(known.get(each), removed.get(name, {}).get(each, {}))
                for each in (of.partitions if of is not None else ())
            }

        for id in sorted(id for id in ids if not id.endswith(NOTES)):
            for name in sorted(names.keys() & positions[id].keys() - {id}):
                known = positions[id][name].values()
                if len(uncommitted(known)) == len(known):
                    continue
                mine = ledgers(id, name)
                again, retrier = topics.retried(names[name], id[cut:], mine)
                note = positions.get(id + PAUSED, {}).get(name, {}).get(0)
                yield _Stand(
                    names[name],
                    id[cut:],
                    note is not None and note.offset == 1,
                    {(name, each): ledger for each, ledger in mine.items()}
                    | {(again, each): ledger for each, ledger in ledgers(retrier, again).items()},
                )


def _ledger(position: TopicPartition | None, removed: Mapping[int, int]) -> Ledger:
    ledger = Ledger(0, None) if position is None else Ledger(max(0, position.offset), position.metadata)
    ledger.remove(removed)
    return ledger
