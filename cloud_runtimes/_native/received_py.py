"""A received event, and the work of a subscription on batches of events; the twin of ``src_ext/views.pxi``.

`ReceivedEvent` is the base of `cloud_runtimes.pubsub.Event`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from threading import RLock
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..errors import PayloadError

if TYPE_CHECKING:
    from .events_py import EventRecord

__all__ = [
    "KeyedQueue",
    "Marks",
    "ReceivedEvent",
    "Worker",
    "all_settled",
    "hand_out",
    "mark_ranges",
    "mark_records",
    "receive_events",
    "settle_events",
]


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

    @property
    def data(self) -> Any:
        """The payload, decoded by its content type, into ``type=`` where the subscription gave one. An event without data has ``None``.

        Raises:
            PayloadError: it cannot be decoded; names the path.
        """
        if not self._decoded:
            self._data = _decode_other(self)
            self._decoded = True
        return self._data


_decode_other: Callable[[Any], Any]


def decode_by(decode: Callable[[Any], Any]) -> None:
    """Set what decodes the data of an event."""
    global _decode_other
    _decode_other = decode


class Worker:
    """Hands the events of a deque to a handler, one at a time.

    The event that the handler has is `event`, which `held` tells the time of; those that it is through with wait for `take_done`, which any thread may call.

    Attributes:
        event: the current event.
        error: why the current event was not handled.
        misfit: whether that is its data, which is not of the type asked for.
        stopped: whether to take no further event.
    """

    def __init__(
        self,
        ready: deque[Any],
        handler: Callable[..., Any],
        takes: Iterable[int],
        client: Any,
        *,
        typed: bool,
        flush_at: int,
        wake: Callable[[], None],
        enter: Callable[[Any], Any],
        late: Callable[[Any], None] | None = None,
        keys: KeyedQueue | None = None,
    ) -> None:
        """``takes``: what the handler's arguments are, as in `_core.handlers`; ``wake`` is called when ``flush_at`` events wait for `take_done`; ``enter`` enters the trace context of an event, until `leave` of what it returns; ``late`` gets an event that was answered while the handler had it; ``keys`` has the events that wait for an earlier one of their key, and gets those that are handled in place of `take_done`."""
        self._ready = ready
        self._keys = keys
        self._handler = handler
        self._takes = tuple(takes)
        self._client = client
        self._typed = typed
        self._flush_at = flush_at
        self._wake = wake
        self._enter = enter
        self._late = late
        self._done: deque[Any] = deque()
        self._began = self._since = self._busy = 0.0
        self.event: Any = None
        self.error: BaseException | None = None
        self.misfit = self.stopped = False

    def next(self) -> Any:
        """Take the next event and decode it where a type was asked for; ``None``: there is none."""
        if self.stopped or (self._keys is not None and self._keys.until < monotonic()):
            return None
        try:
            event = self._ready.popleft()
        except IndexError:
            return None
        self.event = event
        self._began = monotonic()
        self._since = self._since or self._began
        self.error = None
        self.misfit = False
        if self._typed:
            try:
                event.data  # noqa: B018
            except PayloadError as error:
                self.error = error
                self.misfit = True
        return event

    def arguments(self) -> list[Any]:
        """Return the arguments of the handler for the current event."""
        event = self.event
        return [event.data if role == 0 else event if role == 1 else self._client for role in self._takes]

    def run(self, limit: int) -> Any:
        """Handle up to so many events, each in its trace context; return the first that was not handled, which has an `error`."""
        while limit > 0 and (event := self.next()) is not None:
            if self.error is not None:
                return event
            try:
                entered = None if event._record.traceparent is None else self._enter(event)
                try:
                    self._handler(*self.arguments())
                finally:
                    if entered is not None:
                        entered.leave()
            except BaseException as error:
                self.error = error
                self._rest()
                return event
            self._end()
            limit -= 1
        self._rest()
        return None

    def _rest(self) -> None:
        since, self._since = self._since, 0.0
        if since:
            self._busy += monotonic() - since

    def finish(self) -> None:
        """Take the current event for handled."""
        self._end()
        self._rest()

    def _end(self) -> None:
        event = self.event
        if self._keys is None:
            self._done.append(event)
        self.event = None
        if self._late is not None and event._settlement is not None:
            self._late(event)
        if self._keys is not None:
            self._keys.finish(event)
        if (len(self._done) if self._keys is None else self._keys.handled) == self._flush_at:
            self._wake()

    def leave(self) -> None:
        """Forget the current event, which has another answer."""
        self.event = self.error = None
        self._rest()

    @property
    def waiting(self) -> int:
        """How many events are handled and not taken."""
        return len(self._done)

    def take_done(self) -> list[Any]:
        """Return the events that were handled since the last call."""
        return [self._done.popleft() for _ in range(len(self._done))]

    def held(self) -> float:
        """Return for how many seconds the current event has been with the handler."""
        return monotonic() - self._began

    @property
    def busy(self) -> float:
        """For how many seconds it has had events, the current one included. Of `run` what is between events counts too."""
        busy, since = self._busy, self._since
        return busy + (monotonic() - since if since else 0.0)


class KeyedQueue:
    """Ready events of a subscription in the order of their keys: of each key one is ready or handled, later ones wait.

    The first event of a key that nobody has done with is the current one. Events without a key do not wait. A taker removes events from ``ready`` itself. Any thread may call any method.

    Attributes:
        until: by `time.monotonic`; nothing may be taken from ``ready`` any later.
        waiting: how many events wait for an earlier one of their key.
    """

    def __init__(self, ready: deque[Any]) -> None:
        self._ready = ready
        # by key: the current event, whether it is retried, and later events
        self._slots: dict[str, tuple[list[Any], deque[Any]]] = {}
        self._done: deque[Any] = deque()
        self._lock = RLock()
        self.until = inf
        self.waiting = 0

    def add(self, events: Iterable[ReceivedEvent]) -> None:
        """Queue events in the order of their delivery."""
        with self._lock:
            for event in events:
                if (key := event._record.key) is None:
                    self._ready.append(event)
                elif (slot := self._slots.get(key)) is None:
                    self._slots[key] = [event, False], deque()
                    self._ready.append(event)
                else:
                    slot[1].append(event)
                    self.waiting += 1

    def release(self, event: ReceivedEvent) -> bool:
        """Let the next event of a key become ready if this one is current and not kept; return whether there is one."""
        with self._lock:
            slot = self._slots.get(event._record.key)  # type: ignore[arg-type]
            if slot is None or slot[0][0] is not event or slot[0][1]:
                return False
            return self._advance(event._record.key, slot)

    def finish(self, event: ReceivedEvent) -> bool:
        """Note that an event is handled, and `release` it."""
        self._done.append(event)
        return self.release(event)

    @property
    def handled(self) -> int:
        """How many events are handled and not taken."""
        return len(self._done)

    def take_done(self) -> list[Any]:
        """Return the events that were handled since the last call, of each key in its order: what comes before one of them is among them, or was returned before."""
        return [self._done.popleft() for _ in range(len(self._done))]

    def _advance(self, key: Any, slot: tuple[list[Any], deque[Any]]) -> bool:
        current, later = slot
        if not later:
            del self._slots[key]
            return False
        current[:] = later.popleft(), False
        self.waiting -= 1
        self._ready.append(current[0])
        return True

    def keep(self, event: ReceivedEvent) -> bool:
        """Have an event hold back its key until `replace`; return whether it is current, or has no key."""
        with self._lock:
            if (key := event._record.key) is None:
                return True
            slot = self._slots.get(key)
            if slot is None or slot[0][0] is not event:
                return False
            slot[0][1] = True
            return True

    def replace(self, event: ReceivedEvent, again: ReceivedEvent | None) -> bool:
        """Make another delivery of a current event ready, or with ``None`` the next event of its key; return whether one is."""
        with self._lock:
            key = event._record.key
            slot = None if key is None else self._slots.get(key)
            if key is not None and (slot is None or slot[0][0] is not event):
                return False
            if again is None:
                return slot is not None and self._advance(key, slot)
            if slot is not None:
                slot[0][:] = again, False
            self._ready.append(again)
            return True

    def sweep(self) -> list[ReceivedEvent]:
        """Remove the events that nobody has taken and whose marks are `void` or `leaving`; return them."""
        with self._lock:
            swept: list[Any] = []
            for _ in range(len(self._ready)):
                try:
                    event = self._ready.popleft()
                except IndexError:
                    break
                (swept if _left(event) else self._ready).append(event)
            ready = {id(event) for event in swept}
            for key, (current, later) in list(self._slots.items()):
                if gone := [event for event in later if _left(event)]:
                    swept += gone
                    self.waiting -= len(gone)
                    kept = [event for event in later if not _left(event)]
                    later.clear()
                    later.extend(kept)
                if id(current[0]) in ready:
                    self._advance(key, (current, later))
            return swept


def _left(event: ReceivedEvent) -> bool:
    marks = getattr(event._record, "marks", None)
    return marks is not None and (marks.void or marks.leaving)


def receive_events(
    cls: Any, records: Iterable[Any], deliveries: int | None, fetcher: Any, pubsub_name: str, type: Any, raw: bool
) -> list[Any]:
    """Make an event, of a subclass of `ReceivedEvent`, of each record, which is its own token. Nobody else gets one before `hand_out`, or a `Worker`, has had it."""
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


def hand_out(events: Iterable[Any], decode: bool) -> list[tuple[Any, PayloadError]]:
    """Let others have events, with their data decoded if asked for; return those whose data does not fit, with the errors."""
    misfits = []
    for event in events if decode else ():
        try:
            event.data  # noqa: B018
        except PayloadError as error:
            misfits.append((event, error))
    return misfits


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

    `remaining` events are not settled. `touched`: something was settled; the owner takes it back. `void`: set by the owner; `mark_records` passes it by. `leaving`: set by the owner; events that were not handed out are not any more (`KeyedQueue.sweep`).
    """

    def __init__(self, length: int, settled: bytes | None = None) -> None:
        if length < 0 or (settled is not None and len(settled) != (length + 7) // 8):
            raise ValueError("a bitmap has one bit for each position")
        self._bits = bytearray((length + 7) // 8) if settled is None else bytearray(settled)
        self.length = length
        self.remaining = sum(not self._bits[index >> 3] >> (index & 7) & 1 for index in range(length))
        self.touched = self.void = self.leaving = False

    @property
    def settled(self) -> bytes:
        """The bitmap, least significant bit first."""
        return bytes(self._bits)

    def open(self, start: int, stop: int) -> list[int]:
        """Return the positions from ``start`` to ``stop`` that are not settled (`IndexError`)."""
        if not 0 <= start <= stop <= self.length:
            raise IndexError(f"positions {start} to {stop} of {self.length}")
        bits = int.from_bytes(self._bits, "little")
        return [index for index in range(start, stop) if not bits >> index & 1]

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


def mark_ranges(records: Iterable[Any]) -> list[tuple[Any, int, int]]:
    """Do as `mark_records`, and return the marks, start and end of each row of positions that follow one another."""
    ranges: list[tuple[Any, int, int]] = []
    for record in mark_records(records):
        marks, position = record.marks, record.position
        if ranges and ranges[-1][0] is marks and ranges[-1][2] == position:
            ranges[-1] = marks, ranges[-1][1], position + 1
        else:
            ranges.append((marks, position, position + 1))
    return ranges
