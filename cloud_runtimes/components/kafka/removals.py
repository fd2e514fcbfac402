"""Which events of a topic are removed, though the log has them still. A second topic says so, ``<topic>.removed``.

Who removes some first writes a claim, then the copies that are delivered again, then all that is removed by now. Each copy names its event. Readers take an event as removed from the moment its copy is there, so a crash between these steps neither loses nor doubles one. One claim at a time is granted, by the order of the log. It ends with the last step, or by the broker's clock with its lease.
"""

from __future__ import annotations

import json
import os
import random
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from confluent_kafka import KafkaException, TopicCollection, TopicPartition

from ...errors import UnavailableError
from ...spi.operation import Operation
from .browse import read
from .librdkafka import map_error
from .messages import COPY

if TYPE_CHECKING:
    from .producer import KafkaProducer
    from .settings import KafkaSettings
    from .topics import Topics

Parts: TypeAlias = dict[int, dict[int, int]]
"""Partition → offset of a message → bits of its events, `ALL` of them."""
ALL: Final = -1
SUFFIX: Final = ".removed"
LEASE: Final = 10.0
_MARGIN: Final = 2.0
_SKEW_MS: Final = 600_000
"""By which the clock of a publisher may be ahead of the broker's, milliseconds."""
_STEP: Final = 30.0
_MOST: Final = 20
"""Records that are kept at most."""
_CONFIG: Final = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "message.timestamp.type": "LogAppendTime"}  # fmt: skip


@dataclass(slots=True)
class Claim:
    """The right to remove events of a topic, and what was removed of it.

    Attributes:
        name: of the topic.
        id: of this claim.
        topic_id: of the topic. One that was made again has another.
        op: has the time in which copies may be sent.
        removed: so far.
    """

    name: str
    id: str
    topic_id: str
    op: Operation
    removed: Parts

    def copy_of(self, partition: int, offset: int, index: int, length: int) -> str:
        """Return how a copy names its event, one of so many in a message."""
        return f"{self.topic_id} {partition} {offset} {index} {length}"

    def remove(self, partition: int, offset: int, index: int, length: int) -> bool:
        """Note that an event is removed; returns whether it was there."""
        return _add(self.removed, partition, offset, index, length)


@dataclass(slots=True)
class _Journal:
    """Content of ``<topic>.removed``."""

    removed: Parts = field(default_factory=dict)
    topic_id: str = ""
    holder: str = ""
    until: int = 0
    unfinished: list[tuple[int, dict[str, dict[str, int]]]] = field(default_factory=list)
    finished: set[str] = field(default_factory=set)
    done_at: int = 0
    begin: int = 0


class Removals:
    """See the module."""

    def __init__(self, settings: KafkaSettings, topics: Topics) -> None:
        self._settings = settings
        self._topics = topics

    def of(self, op: Operation, name: str) -> Parts:
        """Return what is removed of a topic."""
        if not self._topics.there(op, name + SUFFIX):
            return {}
        return self._removed(op, self._read(op, name), self._id(op, name))

    def claim(self, op: Operation, producer: KafkaProducer, name: str, targets: Iterable[str]) -> Claim:
        """Wait for the right to remove events, of which copies go to other topics."""
        self._topics.ensure(op, [name + SUFFIX], 1, **_CONFIG)
        partitions = {target: self._topics.partitions(op, target) for target in targets}
        copies = {target: self._topics.bounds(op, target, those)[1] for target, those in partitions.items()}
        id, topic_id = os.urandom(8).hex(), self._id(op, name)
        while True:
            sending = op.limited(LEASE - _MARGIN)
            self._write(sending, producer, name, {"id": id, "lease": int(LEASE * 1000), "copies": copies})
            journal = self._read(op, name)
            if journal.holder == id:
                return Claim(name, id, topic_id, sending, self._removed(op, journal, topic_id))
            if op.remaining() == 0.0:
                raise op.timed_out(f"kafka {self._topics.where}: another removes events of {name!r}")
            time.sleep(random.uniform(0.05, 0.2))

    def finish(self, op: Operation, producer: KafkaProducer, claim: Claim) -> None:
        """Write what is removed, and give the claim back."""
        name, begin = claim.name, self._topics.bounds(op, claim.name, claim.removed)[0]
        for partition, events in claim.removed.items():
            claim.removed[partition] = {each: bits for each, bits in events.items() if each >= begin[partition]}
        entry = {"id": claim.id, "topic": claim.topic_id, "removed": _pack(claim.removed)}
        self._write(op, producer, name, entry)
        journal = self._read(op, name)
        if not claim.op.remaining() and claim.id not in journal.finished:
            raise UnavailableError(
                f"kafka {self._topics.where}: removing took longer than {LEASE:g} s, and another goes on: run it again"
            )
        if journal.done_at - journal.begin > _MOST:
            self.delete(op, name + SUFFIX, {0: journal.done_at})

    def delete(self, op: Operation, name: str, offsets: Mapping[int, int]) -> None:
        """Delete the messages of a topic before offsets."""
        wanted = [TopicPartition(name, partition, offset) for partition, offset in offsets.items()]
        try:
            deleting = self._topics.admin().delete_records(wanted, request_timeout=op.remaining() or _STEP)
            for future in deleting.values():
                future.result()
        except KafkaException as error:
            raise map_error(self._topics.where, error.args[0], name) from error

    def _write(self, op: Operation, producer: KafkaProducer, name: str, entry: dict[str, Any]) -> None:
        sent = producer.send(op, name + SUFFIX, [(zlib.compress(json.dumps(entry).encode()), None, [])])
        for error in sent.result().values():
            raise error

    def _id(self, op: Operation, name: str) -> str:
        try:
            wanted = TopicCollection([name])
            (asked,) = self._topics.admin().describe_topics(wanted, request_timeout=op.remaining() or _STEP).values()
            return str(asked.result().topic_id)
        except KafkaException as error:
            raise map_error(self._topics.where, error.args[0], name) from error

    def _read(self, op: Operation, name: str) -> _Journal:
        begin, end = self._topics.bounds(op, name + SUFFIX, [0])
        journal = _Journal(begin=begin[0])
        for message in read(op, self._settings, name + SUFFIX, begin, end)[0]:
            entry, at = json.loads(zlib.decompress(message.value())), message.timestamp()[1]
            if "lease" in entry:
                if not journal.holder or at > journal.until:
                    journal.holder, journal.until = entry["id"], at + entry["lease"]
                    journal.unfinished.append((at, entry["copies"]))
            elif entry["id"] == journal.holder or message.offset() == begin[0]:
                journal.removed, journal.topic_id, journal.holder = _unpack(entry["removed"]), entry["topic"], ""
                journal.finished.add(entry["id"])
                journal.unfinished.clear()
                journal.done_at = message.offset()
        return journal

    def _removed(self, op: Operation, journal: _Journal, topic_id: str) -> Parts:
        """Return what is removed, with what has copies of removals that are not finished."""
        removed = journal.removed if journal.topic_id == topic_id else {}
        there = self._topics.there(op, *{target for _, copies in journal.unfinished for target in copies})
        for claimed_at, copies in journal.unfinished:
            for target, since in copies.items():
                if target in there:
                    messages = self._since(
                        op, target, {int(each): offset for each, offset in since.items()}, claimed_at
                    )
                    for name, value in (header for message in messages for header in message.headers() or ()):
                        if name == COPY and (value or b"").startswith(topic_id.encode()):
                            _add(removed, *map(int, value.split()[1:]))
        return removed

    def _since(self, op: Operation, topic: str, offsets: dict[int, int], claimed_at: int) -> Iterator[Any]:
        """Yield the messages among which are the copies of a claim, if there are any."""
        begin, end = self._topics.bounds(op, topic, offsets)
        first = {partition: max(offset, begin[partition]) for partition, offset in offsets.items()}
        last = self._topics.since(op, topic, end, claimed_at + int(LEASE * 1000) + _SKEW_MS)
        return chain.from_iterable(read(op, self._settings, topic, first, last).values())


def _add(removed: Parts, partition: int, offset: int, index: int, length: int) -> bool:
    of = removed.setdefault(partition, {})
    before = of.get(offset, 0)
    bits = before | 1 << index
    of[offset] = ALL if bits in (ALL, (1 << length) - 1) else bits
    return bits != before


def _pack(removed: Parts) -> dict[int, list[list[int]]]:
    """Return ranges: the first and the last message, and the bits if they are not all of them."""
    packed: dict[int, list[list[int]]] = {}
    for partition, events in removed.items():
        ranges = packed[partition] = []
        for offset in sorted(events):
            if (bits := events[offset]) != ALL:
                ranges.append([offset, offset, bits])
            elif ranges and len(ranges[-1]) == 2 and ranges[-1][1] == offset - 1:
                ranges[-1][1] = offset
            else:
                ranges.append([offset, offset])
    return packed


def _unpack(packed: Mapping[str, list[list[int]]]) -> Parts:
    return {
        int(partition): {
            offset: bits[0] if bits else ALL for first, last, *bits in ranges for offset in range(first, last + 1)
        }
        for partition, ranges in packed.items()
    }
