"""A received event, and the work of a subscription on batches of events; the twin of ``src_ext/views.pxi``.

`ReceivedEvent` is the base of `cloud_runtimes.pubsub.Event`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .events_py import EventRecord

__all__ = ["Marks", "ReceivedEvent", "all_settled", "mark_records", "receive_events", "settle_events"]


class ReceivedEvent:
    """Contents of a received event.

    Attributes:
        pubsub_name: the component it came from; ``""`` where it came from none.
        delivery_count: how often the group has got it, this time included; ``None``: not known.
    """

    __slots__ = (
        "_data",
        "_decoded",
        "_fetcher",
        "_raw",
        "_record",
        "_settlement",
        "_token",
        "_type",
        "delivery_count",
        "pubsub_name",
    )

    def __init__(
        self,
        record: EventRecord,
        *,
        fetcher: Any = None,
        token: Any = None,
        pubsub_name: str = "",
        delivery_count: int | None = None,
        type: Any = None,
        raw: bool = False,
    ) -> None:
        self._record = record
        self._fetcher = fetcher
        self._token = token
        self._type = type
        self._raw = raw
        self._decoded = False
        self._data: Any = None
        self._settlement: Any = None
        self.pubsub_name = pubsub_name
        self.delivery_count = delivery_count

    @property
    def id(self) -> str:
        """CloudEvents ``id``: with `source` it names the event; the same in every delivery."""
        return self._record.id


def receive_events(
    cls: Any, records: Iterable[Any], deliveries: int | None, fetcher: Any, pubsub_name: str, type: Any, raw: bool
) -> list[Any]:
    """Make an event, of a subclass of `ReceivedEvent`, of each record, which is its own token."""
    if not issubclass(cls, ReceivedEvent):
        raise TypeError(f"{cls.__name__} is no subclass of ReceivedEvent")
    return [
        cls(
            record,
            fetcher=fetcher,
            token=record,
            pubsub_name=pubsub_name,
            delivery_count=deliveries,
            type=type,
            raw=raw,
        )
        for record in records
    ]


def settle_events(events: Iterable[ReceivedEvent], settlement: Any) -> list[Any]:
    """Give those that have no answer this one; return their tokens."""
    tokens = []
    for event in events:
        if event._settlement is None:
            event._settlement = settlement
            tokens.append(event._token)
    return tokens


def all_settled(events: Iterable[ReceivedEvent]) -> bool:
    """Whether every event has an answer."""
    return all(event._settlement is not None for event in events)


class Marks:
    """Bitmap of the settled positions of a slice, least significant bit first.

    `remaining` events are not settled. `touched`: something was settled; the owner takes it back. `void`: set by the owner; `mark_records` passes it by.
    """

    def __init__(self, length: int, settled: bytes | None = None) -> None:
        if length < 0 or (settled is not None and len(settled) != (length + 7) // 8):
            raise ValueError("a bitmap has one bit for each position")
        self._bits = bytearray((length + 7) // 8) if settled is None else bytearray(settled)
        self.length = length
        self.remaining = sum(not self._bits[index >> 3] >> (index & 7) & 1 for index in range(length))
        self.touched = self.void = False

    @property
    def settled(self) -> bytes:
        """The bitmap, least significant bit first."""
        return bytes(self._bits)

    def settle(self, index: int) -> bool:
        """Mark a position (`IndexError`); ``False`` if it was marked before."""
        if not 0 <= index < self.length:
            raise IndexError(f"position {index} of {self.length}")
        bit = 1 << (index & 7)
        if self._bits[index >> 3] & bit:
            return False
        self._bits[index >> 3] |= bit
        self.remaining -= 1
        self.touched = True
        return True


def mark_records(records: Iterable[Any]) -> list[Any]:
    """Mark the positions of delivered records as settled; return those that were not before, and whose marks are not void (`IndexError`)."""
    return [record for record in records if not record.marks.void and record.marks.settle(record.position)]
