"""The SPI of the pub/sub service: batches of events go to a broker, an `EventSource` brings them back.

An event is an `EventRecord`. Inside a batch the records stand in frames (``docs/log-format.md``), which a driver may store as they are. A driver that speaks a broker's protocol has them rendered instead.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from itertools import groupby
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

from .._native import events as kernel
from ..errors import CloudRuntimesError
from .change import Change
from .driver import Driver
from .events import Cause, EventRecord, frame_of
from .executor import in_thread
from .operation import Operation

if TYPE_CHECKING:
    from .admin import PubSubAdmin
    from .relay import Spool

__all__ = [
    "ACK_WAIT",
    "DEAD_LETTER",
    "DELAY",
    "DELETE_GROUP",
    "DELETE_TOPIC",
    "DELIVERY_COUNT",
    "DISCARD",
    "GROUP",
    "GROUPS",
    "INBOX",
    "KEY_ORDER",
    "LAG",
    "MAX_DELIVERIES",
    "PAUSE",
    "PEEK",
    "PURGE",
    "RAW",
    "REDRIVE",
    "RETRY_DELAY",
    "SEEK",
    "START",
    "START_TIME",
    "SUBSCRIBE",
    "TOPICS",
    "TTL",
    "AsyncEventSource",
    "BatchLimits",
    "Cause",
    "Deliveries",
    "Delivery",
    "EventRecord",
    "EventSource",
    "Failures",
    "OutgoingBatch",
    "PubSubDriver",
    "Settled",
    "Settlement",
    "Settlements",
    "SubscribeRequest",
    "Template",
]

TTL: Final = "ttl"
DELAY: Final = "delay"
RAW: Final = "raw"
GROUP: Final = "group"
"""A ``group`` other than the application's id."""
START: Final = "start"
START_TIME: Final = "start_time"
"""A ``start`` that is a time."""
SUBSCRIBE: Final = "subscribe"
"""`subscribe`; a driver that does not declare it refuses it before any I/O, and says what would help."""
ACK_WAIT: Final = "ack_wait"
MAX_DELIVERIES: Final = "max_deliveries"
DEAD_LETTER: Final = "dead_letter"
RETRY_DELAY: Final = "retry_delay"
DELIVERY_COUNT: Final = "delivery_count"
KEY_ORDER: Final = "key_order"
"""``order="key"``: the events of one key reach one member of a group at a time, in order."""
LAG: Final = "lag"
"""`PubSubDriver.lag`."""
TOPICS: Final = "topics"
GROUPS: Final = "groups"
PEEK: Final = "peek"
REDRIVE: Final = "redrive"
DISCARD: Final = "discard"
PURGE: Final = "purge"
SEEK: Final = "seek"
DELETE_GROUP: Final = "delete_group"
DELETE_TOPIC: Final = "delete_topic"
"""Methods of what `PubSubDriver.admin` returns."""
PAUSE: Final = "pause"
"""`PubSubAdmin.pause`, and `EventSource.is_paused` of its members."""
INBOX: Final = "inbox"
"""`EventSource.commit` settles events in one transaction with changes of a state driver of the same engine."""

# -- publishing ---------------------------------------------------------------


class BatchLimits(NamedTuple):
    """Limits of one `PubSubDriver.publish`, and of the number under way. A publisher keeps to them.

    Attributes:
        events: of one batch.
        bytes: of one batch's frames. A single event may have more, up to ``max_event_bytes``.
        in_flight: batches at once. With more than one, a publisher deals events out by key, so that the events of a
            key are never in two batches at once.
        retries: True if the client library retries until the deadline and deduplicates. An attempt then has all the
            time of its events, since another attempt might store them twice.
    """

    events: int = 1_000_000
    bytes: int = 8 * 1024 * 1024
    in_flight: int = 1
    retries: bool = False


class OutgoingBatch:
    """Events of one topic, in order. It is immutable, and an event's id does not change when it is sent again.

    Attributes:
        topic: they are published to.
        frames: the events as they lie in memory, without a copy.
        count: of events.
        delay_ms: milliseconds until they may be delivered; ``None``: at once.
        raw: whether they are published without an envelope.
    """

    __slots__ = ("count", "delay_ms", "frames", "raw", "topic")

    def __init__(
        self, topic: str, frames: Sequence[bytes], count: int, delay_ms: int | None = None, *, raw: bool = False
    ) -> None:
        self.topic = topic
        self.frames = frames
        self.count = count
        self.delay_ms = delay_ms
        self.raw = raw

    @classmethod
    def of(cls, topic: str, records: Sequence[EventRecord], delay_ms: int | None = None) -> OutgoingBatch:
        """Return a batch of events that were received or made (`cloud_runtimes.spi.events`). They are all raw, or none is."""
        frames = [frame_of(record, topic) for record in records]
        return cls(topic, frames, len(frames), delay_ms, raw=bool(records) and records[0].raw)

    @classmethod
    def merged(cls, batches: Iterable[OutgoingBatch]) -> list[OutgoingBatch]:
        """Return the same events in as few batches and frames as hold them. Only neighbours merge, so the order stays."""
        merged = []
        for (topic, raw, delay_ms), some in groupby(batches, lambda each: (each.topic, each.raw, each.delay_ms)):
            frames = [kernel.Frame(body) for each in some for body in each.frames]
            bodies = [_joined(list(alike)) for _, alike in groupby(frames, lambda each: (each.source, each.type))]
            merged.append(cls(topic, bodies, sum(map(len, frames)), delay_ms, raw=raw))
        return merged

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[EventRecord]:
        for frame in map(kernel.Frame, self.frames):
            for index in range(len(frame)):
                yield frame[index]

    def __repr__(self) -> str:
        return f"<OutgoingBatch of {self.count:,} to {self.topic!r}>"

    @property
    def size(self) -> int:
        """Bytes of its frames."""
        return sum(map(len, self.frames))

    def structured(self) -> list[bytes]:
        """Return each event as CloudEvents structured JSON, made by the kernel."""
        return [event for frame in self.frames for event in kernel.Frame(frame).structured()]

    def render(self, template: Template) -> bytes:
        """Return all events in one buffer, each by a template: what a broker's protocol has around an event.

        With ``[b"PUB orders ", range(3, 4), b"\\r\\n", "json", b"\\r\\n"]`` each event is a message of NATS. The kernel renders a frame in one call.

        Args:
            template: at most 32 parts. Bytes stand as they are; ``"json"`` is the event as structured JSON, ``"id"`` its id, ``"key"`` its key, empty without one, ``"time"`` its time. A range is the decimal length of those parts together; a pair of a range and 1, 2, 4 or 8 is that length in so many bytes, big-endian. A pair of ``"key"`` and a number of parts is the number of the part of the key, as a text, empty without a key.
        """
        return b"".join([kernel.Frame(frame).render(template) for frame in self.frames])


def _joined(frames: Sequence[kernel.Frame]) -> bytes:
    """Return frames with one header as one frame."""
    records = [frame.record_bytes(index) for frame in frames for index in range(len(frame))]
    body: bytes = kernel.build_frame(frames[0].source, frames[0].type, frames[0].topic, records)
    return body


Template: TypeAlias = Sequence[
    bytes | Literal["json", "id", "key", "time"] | range | tuple[range, int] | tuple[Literal["key"], int]
]
"""See `OutgoingBatch.render`."""
Failures: TypeAlias = Mapping[int, CloudRuntimesError]
"""Place of an event in its batch → why this event failed and others did not."""

# -- consuming ----------------------------------------------------------------


class Settlement(enum.Enum):
    """Answer of a consumer about an event."""

    ACK = "ack"
    RETRY = "retry"
    DROP = "drop"
    RELEASE = "release"
    """Give it back, since the member leaves: it is delivered again, where and when the broker likes."""


class Delivery(NamedTuple):
    """Event handed to a member.

    Attributes:
        record: the event.
        token: the source settles the event by it. It is opaque to all others.
        deliveries: how often the group has received it, this time included; ``None``: not known.
    """

    record: EventRecord
    token: Any
    deliveries: int | None


class Settled(NamedTuple):
    """Answer of a member about a delivery.

    Attributes:
        token: of the delivery.
        settlement: what to do.
        delay: for a retry, seconds; ``None``: the component backs off.
        cause: why, where it is known.
    """

    token: Any
    settlement: Settlement
    delay: float | None = None
    cause: Cause | None = None


_T = TypeVar("_T")


class _Grouped(Sequence[_T]):
    """A sequence of tuples that are made when they are looked at."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        return list(iter(self))[index]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self)}>"


class Deliveries(_Grouped[Delivery]):
    """Deliveries of a source that has many at a time: ``groups`` of (records, ``deliveries`` of all of them). Their tokens are the records themselves."""

    __slots__ = ("groups",)

    def __init__(self) -> None:
        self.groups: list[tuple[Sequence[EventRecord], int | None]] = []

    def __len__(self) -> int:
        return sum(len(records) for records, _ in self.groups)

    def __iter__(self) -> Iterator[Delivery]:
        return (Delivery(record, record, count) for records, count in self.groups for record in records)


class Settlements(_Grouped[Settled]):
    """Answers of a member about deliveries: ``groups`` of (tokens, settlement, ``delay``, ``cause``)."""

    __slots__ = ("groups",)

    def __init__(self, settled: Iterable[Settled] = ()) -> None:
        self.groups: list[tuple[Sequence[Any], Settlement, float | None, Cause | None]] = []
        if isinstance(settled, Settlements):
            self.groups += settled.groups
        else:
            self.groups += [((token,), what, delay, cause) for token, what, delay, cause in settled]

    def __len__(self) -> int:
        return sum(len(group[0]) for group in self.groups)

    def __iter__(self) -> Iterator[Settled]:
        return (Settled(token, what, delay, cause) for tokens, what, delay, cause in self.groups for token in tokens)

    def add(
        self, tokens: Sequence[Any], settlement: Settlement, delay: float | None = None, cause: Cause | None = None
    ) -> None:
        """Append a settlement for each token."""
        if tokens:
            self.groups.append((tokens, settlement, delay, cause))

    def split(self, settlement: Settlement) -> tuple[list[Any], Settlements]:
        """Return the tokens that have one answer, and the other answers."""
        tokens: list[Any] = []
        others = Settlements()
        for group in self.groups:
            if group[1] is settlement:
                tokens += group[0]
            else:
                others.groups.append(group)
        return tokens, others


class SubscribeRequest(NamedTuple):
    """Request of a member of a group; ``None`` leaves a choice to the component.

    Attributes:
        topic: as published to.
        group: its members share the events.
        start: where a new group begins: ``"earliest"``, ``"latest"``, or an aware time in the past: at the first
            event that was published at or after it.
        ack_wait: seconds until the events of a dead member go to another.
        max_deliveries: after the last one the event goes to the dead-letter topic, or is dropped.
        dead_letter_topic: of the same component.
        raw: events without envelopes.
        metadata: for the component.
        batch: how many events are handled at once; ``None``: one.
        max_in_flight: maximum number of unsettled events, where the application sets it.
        order: ``"key"``: the events of a key in order (`KEY_ORDER`). A group has one order, see `EventSource`.
    """

    topic: str
    group: str
    start: str | datetime | None
    ack_wait: float | None
    max_deliveries: int | None
    dead_letter_topic: str | None
    raw: bool
    metadata: Mapping[str, str] | None
    batch: int | None = None
    max_in_flight: int | None = None
    order: Literal["key"] | None = None


class EventSource(ABC):
    """Member of a group, driven by one thread of the service.

    Only `wake` may be called from other threads. A living member keeps the events that it holds: the source renews
    its leases, whatever the component calls them.

    With ``order`` the events of a key come to one member at a time, in order, also when members come, go, and die. The
    service hands out one of a key at a time, and redelivers them itself. So a source gets no `Settlement.RETRY`, and
    may return more than ``want`` events. It sets ``leaving`` in the `Marks` of events that go to another member, and
    waits until all of them that were handed out are settled; the service answers for the others with
    `Settlement.RELEASE`. It sets ``void`` in the marks of what it has lost. Both add to ``revision``.

    Attributes:
        valid_until: by `time.monotonic`; nothing that it delivered in order may be handed out any later, unless it has
            renewed its leases.
        revision: changes with marks that are ``leaving`` or ``void``.
    """

    valid_until: float = inf
    revision: int = 0

    @abstractmethod
    def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Sequence[Delivery]:
        """Settle deliveries, then wait for events and return them.

        The wait ends when there are events, by `wake`, or after ``timeout`` seconds. So an idle member makes no call to its broker, unless the driver has to. A settlement for a delivery that has gone to another member is ignored.

        Args:
            settled: what became of earlier deliveries; the service gives `Settlements`.
            want: how many events there is room for; 0: only settle and wait.
            timeout: seconds to wait for events; ``None``: no limit.

        Returns:
            1 to ``want`` deliveries, or none; `Deliveries` from a source that has many at a time.

        Raises:
            CloudRuntimesError: one that is ``retryable`` is followed by another poll with the same settlements, after a pause; any other ends the subscription.
        """

    @abstractmethod
    def wake(self) -> None:
        """End a `poll` that waits, or the next one that would. Thread-safe."""

    def is_paused(self) -> bool:
        """Return whether somebody has paused the group (`PAUSE`). The service asks twice a second while there are events, and before it hands out the first."""
        raise NotImplementedError

    def failed(self, token: Any, deliveries: int, /) -> None:
        """Note that the delivery of this number has failed, and that the service delivers the event again; only with ``order``."""

    def commit(self, op: Operation, tokens: Sequence[Any], changes: Sequence[Change], /) -> None:
        """Acknowledge deliveries and apply changes in one transaction (`INBOX`).

        Args:
            op: the operation.
            tokens: of deliveries that are not settled.
            changes: of drivers of the same engine.

        Raises:
            ConflictError: one of the deliveries has gone to another member, or a condition of a change does not hold; nothing was applied.
            CloudRuntimesError: it failed. With ``maybe_applied`` the source finds out: the events come again unless it was applied.
        """
        raise NotImplementedError

    @abstractmethod
    def close(self, settled: Sequence[Settled], /) -> None:
        """Settle for the last time, give back all that is still held, and leave the group."""


class AsyncEventSource(ABC):
    """An `EventSource` whose connection belongs to an event loop: a task of the client's own loop drives it, and no thread."""

    @abstractmethod
    async def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Sequence[Delivery]:
        """See `EventSource.poll`."""

    @abstractmethod
    def wake(self) -> None:
        """See `EventSource.wake`. Thread-safe."""

    async def is_paused(self) -> bool:
        """See `EventSource.is_paused`."""
        raise NotImplementedError

    @abstractmethod
    async def close(self, settled: Sequence[Settled], /) -> None:
        """See `EventSource.close`."""


class PubSubDriver(Driver, ABC):
    """Topics of one broker.

    Attributes:
        limits: of one batch, and of batches under way.
        max_event_bytes: largest payload.
        too_large_hint: what lets larger ones through, for the message that refuses one.
        default_order: of subscriptions that ask for none.
        spool: where its events wait on this machine before they go to the broker; ``None``: they do not.
        expiry_extension: attribute of an event that tells other programs on this broker when it expires, beside CloudEvents' ``expirytime``; ``None``: they read that.
    """

    limits: BatchLimits = BatchLimits()
    max_event_bytes: int = 16 * 1024 * 1024
    too_large_hint: str = "send a reference to it instead"
    default_order: Literal["key"] | None = None
    spool: Spool | None = None
    expiry_extension: str | None = None

    @abstractmethod
    def publish(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        """Store a batch's events in order; return once the broker has them, with those that failed alone. What concerns all raises."""

    publish_async = in_thread(publish)

    def change(self, batch: OutgoingBatch, /) -> Change:
        """Return a batch as a change for another driver of the engine; needed where one declares ``outbox``."""
        raise NotImplementedError

    def begin(self, op: Operation, batch: OutgoingBatch, /) -> Future[Failures] | None:
        """Start to publish, for a broker that acknowledges later: the future gets what `publish` returns or raises, by the call's deadline.

        Only called where ``limits.in_flight`` is more than one, or ``limits.retries`` is set. The operation's deadline may become an earlier one meanwhile. ``None``, the default: the service calls `publish` in a thread for each batch under way.
        """
        return None

    @abstractmethod
    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource | AsyncEventSource:
        """Join a group; from the return on it exists and misses nothing."""

    subscribe_async = in_thread(subscribe)

    def lag(self, op: Operation, topic: str, group: str, /) -> int | None:
        """Return how many events a group has not settled, those included that members hold or that come again later (`LAG`); ``None``: there is no such group. It makes nothing."""
        raise NotImplementedError

    lag_async = in_thread(lag)

    def admin(self) -> PubSubAdmin:
        """Return what shows the topics, without I/O; needed where one of `cloud_runtimes.spi.admin.FEATURES` is declared."""
        raise NotImplementedError
