"""Operations on events that wait in outboxes and spools, or that a broker refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._native import events as kernel
from ..spi.events import EventRecord, undo_dead_letter
from ..spi.pubsub import OutgoingBatch
from ..spi.relay import Backlog, Waiting

if TYPE_CHECKING:
    from ._relay_stores import RelayStore
    from .relays import Relay, Relays

_READ: Final = 8 * 1024 * 1024


class RelayStatus(NamedTuple):
    """Counts of a relay.

    Attributes:
        relay: which.
        waiting: counts of what waits.
        refused: counts of what the broker refused.
        taken: whether this configuration has the broker.
    """

    relay: Relay
    waiting: Backlog
    refused: Backlog
    taken: bool


def statuses(relays: Relays) -> list[RelayStatus]:
    """Return what lies under each relay."""
    return [
        RelayStatus(relay, waiting.backlog(), refused.backlog(), relays.takes(relay))
        for relay in relays.known()
        for waiting, refused in [relays.stores(relay)]
    ]


def refused_events(relays: Relays, relay: Relay) -> Iterator[EventRecord]:
    """Yield the events that the broker refused. Their extensions say why, as those of dead letters."""
    for each in _all(relays.stores(relay)[1]):
        yield from _records(each)


def send_again(relays: Relays, relay: Relay) -> int:
    """Have the events wait again that the broker refused; return how many."""
    waiting, refused = relays.stores(relay)
    count = 0
    for page in _pages(refused):
        added: list[object] = []
        for each in page:
            for record in _records(each):
                body = kernel.build_frame(record.source, record.type, record.topic, (undo_dead_letter(record),))
                added += waiting.add(OutgoingBatch(record.topic, [body], 1, raw=record.raw))
        refused.move(page, added)
        count += sum(each.events for each in page)
    return count


def drop(store: RelayStore) -> int:
    """Remove all that lies in a store; return how many events that were."""
    count = 0
    for page in _pages(store):
        store.move(page, None)
        count += sum(each.events for each in page)
    return count


def _records(waiting: Waiting) -> Iterator[EventRecord]:
    frame = kernel.Frame(waiting.frame)
    return (frame[index] for index in range(len(frame)))


def _pages(store: RelayStore) -> Iterator[Sequence[Waiting]]:
    """Yield what lies in a store until nothing is left; the caller removes each page."""
    while page := store.read(None, _READ, ())[0]:
        yield page


def _all(store: RelayStore) -> Iterator[Waiting]:
    """Yield what lies in a store, and leave it there."""
    after: Any = None
    seen: set[Any] = set()
    while True:
        page, after = store.read(after, _READ, seen)
        fresh = [each for each in page if each.token not in seen]
        if not fresh:
            return
        seen.update(each.token for each in fresh)
        yield from fresh
