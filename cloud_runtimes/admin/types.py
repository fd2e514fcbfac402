"""Results of ``client.admin`` that are put together from what drivers tell, and how."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias, TypeVar

from .._native.record_py import parse_time
from ..pubsub import Event
from ..spi.admin import Position, Target
from ..spi.pubsub import Delivery, EventRecord

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
T = TypeVar("T")
PAGE: Final = 5000
"""Events that are read at once at most."""
Asks: TypeAlias = Generator[tuple[Any, ...], Any, T]
"""Steps without I/O: they yield a method of `PubSubAdmin` with its arguments, and are sent its result."""


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Dead letters of one group that failed alike.

    Attributes:
        group: that failed; ``None``: they do not say, as events that were published to the topic itself.
        topic: it got them from.
        reason: ``"dropped"``, ``"deliveries"`` or ``"undecodable"``; ``None``: they do not say.
        error: the type of the error; ``None``: they do not say.
        count: how many there are.
        first, last: when one failed for the last time: the earliest and the latest of them.
        sample: the latest.
    """

    group: str | None
    topic: str
    reason: str | None
    error: str | None
    count: int
    first: datetime
    last: datetime
    sample: Event[Any]


@dataclass(frozen=True, slots=True)
class Redriven:
    """Dead letters that were sent back.

    Attributes:
        count: how many; with ``dry_run``, how many would be.
        remaining: how many more were selected: beyond ``limit``, or because they do not say where they came from.
    """

    count: int
    remaining: int


def peeked(pubsub_name: str, deliveries: Sequence[Delivery], *, counted: bool = False) -> list[Event[Any]]:
    """Return events that belong to no subscription; ``counted``: how often a group got them is known."""
    counts = [each.deliveries if counted else None for each in deliveries]
    return [
        Event(record, fetcher=None, token=None, pubsub_name=pubsub_name, delivery_count=count, type=Any, raw=False)
        for (record, *_), count in zip(deliveries, counts, strict=True)
    ]


def collect(topic: str, start: Position, limit: int, group: str | None) -> Asks[list[Delivery] | None]:
    """Return so many events; ``None``: there is no such group. Without one there may be more after a page that is not full."""
    found: list[Delivery] = []
    position = start
    while True:
        page = yield "peek", topic, group, position, limit - len(found)
        if page is None:
            return None
        found += page
        if not page or len(found) >= limit or group is not None or start == "latest":
            return found
        position = page[-1].token


def group_letters(pubsub_name: str, topic: str) -> Asks[list[DeadLetters]]:
    """Return the dead letters of a topic in groups, the largest first."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    position: Position = "earliest"
    while deliveries := (yield "peek", topic, None, position, PAGE):
        position = deliveries[-1].token
        for delivery in deliveries:
            record = delivery.record
            says = record.extensions
            key = (says.get("dlgroup"), says.get("dltopic") or record.topic, says.get("dlreason"), _error_of(record))
            last = says.get("dllast")
            time = (parse_time(last) if isinstance(last, str) else None) or record.time_us
            group = found.get(key)
            if group is None:
                found[key] = [1, time, time, delivery]
                continue
            group[0] += 1
            if time < group[1]:
                group[1] = time
            if time >= group[2]:
                group[2:] = time, delivery
    letters = [
        DeadLetters(group, topic, reason, error, count, _time(first), _time(last), *peeked(pubsub_name, [sample]))
        for (group, topic, reason, error), (count, first, last, sample) in found.items()
    ]
    return sorted(letters, key=lambda each: -each.count)


def _error_of(record: EventRecord) -> str | None:
    error = record.extensions.get("dlerror")
    return None if error is None else str(error).partition(":")[0]


def selecting(
    group: str | None, reason: str | None, error: str | None, ids: Collection[str] | None
) -> Callable[[EventRecord], bool]:
    """Return what says whether a dead letter is one of those."""

    def selects(record: EventRecord) -> bool:
        says = record.extensions
        return (
            (group is None or says.get("dlgroup") == group)
            and (reason is None or says.get("dlreason") == reason)
            and (error is None or _error_of(record) == error)
            and (ids is None or record.id in ids)
        )

    return selects


def _goes(record: EventRecord, to: Target | None) -> bool:
    """Return whether a dead letter says where it came from, as far as that is needed."""
    needed = {"group": ("dltopic", "dlgroup"), "topic": ("dltopic",), None: ()}[to]
    return all(name in record.extensions for name in needed)


Save: TypeAlias = Callable[[Sequence[Delivery]], None]
"""Keeps events that are removed next."""


def purge_topic(topic: str, before: datetime | None, dry_run: bool, save: Save | None) -> Asks[int]:
    """Remove the events of a topic; those that are published while they are saved stay."""
    if save is not None and not dry_run:
        before = before or datetime.now(UTC)
        limit = (before - _EPOCH) // timedelta(microseconds=1)
        position: Position = "earliest"
        while page := (yield "peek", topic, None, position, PAGE):
            position = page[-1].token
            save([each for each in page if each.record.time_us < limit])
    count: int = yield "purge", topic, before, dry_run
    return count


def remove_letters(
    topic: str,
    selects: Callable[[EventRecord], bool],
    limit: int | None,
    to: Target | None,
    dry_run: bool,
    save: Save | None = None,
) -> Asks[Redriven]:
    """Remove dead letters and deliver them again; never more than there were at first, since some come back."""
    selected = most = count = 0
    position: Position = "earliest"
    while page := (yield "peek", topic, None, position, PAGE):
        position = page[-1].token
        fitting = [_goes(record, to) for record, *_ in page if selects(record)]
        selected += len(fitting)
        most += sum(fitting)
    if limit is not None:
        most = min(most, limit)
    before = -1
    while not dry_run and before < count < most:  # what lay behind the end of a page is found by the next pass
        before, position = count, "earliest"
        while count < most and (page := (yield "peek", topic, None, position, PAGE)):
            position = page[-1].token
            letters = [each for each in page if selects(each.record) and _goes(each.record, to)][: most - count]
            if letters:
                if save is not None:
                    save(letters)
                count += yield "remove", topic, letters, to
    count = most if dry_run else count
    return Redriven(count, max(0, selected - count))


def _time(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)
