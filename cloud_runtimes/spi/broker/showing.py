"""Messages that ``client.admin`` shows. They are read as a member reads them, and nobody settles them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ..pubsub import Cause, Delivery, SubscribeRequest
from .in_flight import Held, InFlight, token_text
from .ordered import OrderedInFlight, Progress
from .policy import DeliveryPolicy

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Of events that are read at once."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _policy(topic: str) -> DeliveryPolicy:
    return DeliveryPolicy("", SubscribeRequest(topic, "", None, None, None, None, False, None))


class Shown(InFlight):
    """Messages of a topic, all of whose events are shown."""

    def __init__(self, topic: str, id_of: Callable[[Any], str] = token_text, prefix: str = "ce-") -> None:
        super().__init__(_policy(topic), id_of, prefix)

    def _hold(self, held: Held, cause: Cause | None = None) -> int:
        self.held[held] = None
        return held.length

    def events(self, after: tuple[Any, int] | None = None) -> list[Delivery]:
        """Return the events; their tokens are that of the message and the index in it. ``after``: without those up to this one, of the first message."""
        found = [event for held in self.held for event in events_of(held)]
        if after is not None:
            found = [event for event in found if event.token[0] != after[0] or event.token[1] > after[1]]
        return found


def all_parts(
    topic: str,
    parts: Iterable[Progress],
    position_of: Callable[[Any], int],
    id_of: Callable[[Any], str] = token_text,
) -> OrderedInFlight:
    """Return what a member of a group with an order would hold that had all of its parts."""
    places = list(parts)
    in_flight = OrderedInFlight(_policy(topic), position_of, len(places), id_of)
    for part, place in enumerate(places):
        in_flight.own(part, place)
    return in_flight


def in_order(in_flight: OrderedInFlight, position_of: Callable[[Any], int]) -> list[Delivery]:
    """Return the events that a group with an order has not settled, with their deliveries so far."""
    found = [event._replace(deliveries=held.deliveries - 1) for held in in_flight.held for event in events_of(held)]
    return sorted(found, key=lambda event: (position_of(event.token[0]), event.token[1]))


def events_of(held: Held) -> Iterator[Delivery]:
    """Yield the events of a message that are not settled."""
    for index in held.open(0, held.length):
        token = (held.tokens[index], 0) if held.single else (held.tokens[0], index)
        yield Delivery(held.frame[index], token, held.deliveries)


def oldest_of(found: Iterable[Delivery]) -> datetime | None:
    """Return when the oldest of events was published; ``None``: there are none."""
    return min((time_of(event.record.time_us / 1000) for event in found), default=None)


def is_full(found: Sequence[Delivery], limit: int) -> bool:
    """Return whether a page has so many events, or so many bytes of them that it ends."""
    return len(found) >= limit or sum(len(event.record.payload) for event in found) >= PAGE_BYTES


def time_of(ms: float) -> datetime:
    """Return a time of so many milliseconds since 1970 UTC."""
    return _EPOCH + timedelta(milliseconds=ms)


def milliseconds(time: datetime) -> int:
    """Return a time as milliseconds since 1970 UTC, not before."""
    return max(0, (time - _EPOCH) // timedelta(milliseconds=1))
