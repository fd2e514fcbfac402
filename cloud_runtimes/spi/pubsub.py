"""The SPI of the pub/sub service."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, overload

from ..errors import CloudRuntimesError
from .driver import Driver
from .operation import Operation

if TYPE_CHECKING:
    from .._native.events_py import Record

__all__ = [
    "ACK_WAIT",
    "DEAD_LETTER",
    "DELAY",
    "DELIVERY_COUNT",
    "GROUP",
    "KEY_ORDER",
    "MAX_DELIVERIES",
    "RAW",
    "RETRY_DELAY",
    "START",
    "SUBSCRIBE",
    "TTL",
    "Answer",
    "Answers",
    "Cause",
    "Deliveries",
    "Delivery",
    "EventSource",
    "PubSubDriver",
    "SubscribeRequest",
    "Verdict",
]

TTL: Final = "ttl"
DELAY: Final = "delay"
RAW: Final = "raw"
GROUP: Final = "group"
"""A ``group`` other than the application's id."""
START: Final = "start"
SUBSCRIBE: Final = "subscribe"
"""`subscribe`; a driver that does not declare it refuses it before any I/O, and says what would help."""
ACK_WAIT: Final = "ack_wait"
MAX_DELIVERIES: Final = "max_deliveries"
DEAD_LETTER: Final = "dead_letter"
RETRY_DELAY: Final = "retry_delay"
DELIVERY_COUNT: Final = "delivery_count"
KEY_ORDER: Final = "key_order"
"""Events of one key reach one member of a group at a time, in order."""


class Verdict(enum.Enum):
    """What a consumer says of an event."""

    ACK = "ack"
    RETRY = "retry"
    DROP = "drop"
    RETURN = "return"
    """Given back when the member leaves: at once, in its old place, and counted as a delivery."""


class Delivery(NamedTuple):
    """One event handed to a member.

    Attributes:
        record: the event.
        token: what the driver needs to settle it.
        deliveries: how often the group has got it, this time included; ``None``: not known.
    """

    record: Record
    token: Any
    deliveries: int | None


class Cause(NamedTuple):
    """Why an event was not acknowledged; a dead letter says so.

    Attributes:
        reason: ``"dropped"``, ``"deliveries"`` (it failed too often) or ``"undecodable"``.
        error: type and message of the error; ``None``: not known.
    """

    reason: str
    error: str | None = None


class Answer(NamedTuple):
    """What a member says of a delivery.

    Attributes:
        token: of the delivery.
        verdict: what to do.
        delay: for a retry, seconds; ``None``: the component backs off.
        cause: why, where it is known.
    """

    token: Any
    verdict: Verdict
    delay: float | None = None
    cause: Cause | None = None


_T = TypeVar("_T")


class _Grouped(Sequence[_T]):
    """A sequence of tuples that are made when they are looked at."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: int) -> _T: ...
    @overload
    def __getitem__(self, index: slice) -> list[_T]: ...
    def __getitem__(self, index: int | slice) -> _T | list[_T]:
        return list(iter(self))[index]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self)}>"


class Deliveries(_Grouped[Delivery]):
    """Deliveries of a source that has many at a time, a group of records at a time: their tokens are the records themselves.

    Attributes:
        groups: (records, ``deliveries`` of all of them).
    """

    __slots__ = ("groups",)

    def __init__(self) -> None:
        self.groups: list[tuple[Sequence[Record], int | None]] = []

    def __len__(self) -> int:
        return sum(len(records) for records, _ in self.groups)

    def __iter__(self) -> Iterator[Delivery]:
        return (Delivery(record, record, count) for records, count in self.groups for record in records)


class Answers(_Grouped[Answer]):
    """Answers, a group of tokens at a time.

    Attributes:
        groups: (tokens, verdict, ``delay``, ``cause``).
    """

    __slots__ = ("groups",)

    def __init__(self, answers: Iterable[Answer] = ()) -> None:
        self.groups: list[tuple[Sequence[Any], Verdict, float | None, Cause | None]] = []
        if isinstance(answers, Answers):
            self.groups += answers.groups
        else:
            self.groups += [((token,), verdict, delay, cause) for token, verdict, delay, cause in answers]

    def __len__(self) -> int:
        return sum(len(group[0]) for group in self.groups)

    def __iter__(self) -> Iterator[Answer]:
        return (
            Answer(token, verdict, delay, cause) for tokens, verdict, delay, cause in self.groups for token in tokens
        )

    def add(
        self, tokens: Sequence[Any], verdict: Verdict, delay: float | None = None, cause: Cause | None = None
    ) -> None:
        """Append an answer for each token."""
        if tokens:
            self.groups.append((tokens, verdict, delay, cause))


class SubscribeRequest(NamedTuple):
    """What a member of a group asks for; ``None`` leaves it to the component.

    Attributes:
        topic: as published to.
        group: its members share the events.
        start: where a group begins that did not exist: ``"earliest"`` or ``"latest"``.
        ack_wait: seconds until what a dead member held goes to another.
        max_deliveries: the last one goes to the dead-letter topic, or away.
        dead_letter_topic: of the same component.
        raw: events without envelopes.
        metadata: for the component.
        batch: how many events are handled at once; ``None``: one.
    """

    topic: str
    group: str
    start: str | None
    ack_wait: float | None
    max_deliveries: int | None
    dead_letter_topic: str | None
    raw: bool
    metadata: Mapping[str, str] | None
    batch: int | None = None


class EventSource(ABC):
    """One member of a group, driven by one thread (`wake` excepted).

    The service asks with `exchange` for as many events as it has room for, waits with `wait`, and answers with the next `exchange`. What a living member holds stays its own: the source renews it, whatever the component calls that.
    """

    @abstractmethod
    def exchange(self, answers: Sequence[Answer], want: int, /) -> Sequence[Delivery]:
        """Land answers, then return up to ``want`` events that are there now. Does not wait for events.

        The service gives `Answers`; a source that has many events at a time returns `Deliveries`.

        An answer for a delivery that has gone to another member is ignored.
        """

    @abstractmethod
    def wait(self, timeout: float, /) -> None:
        """Return when there may be events, when woken, or after ``timeout`` seconds."""

    @abstractmethod
    def wake(self) -> None:
        """End a `wait`, from any thread; one that comes before the wait counts."""

    @abstractmethod
    def close(self, answers: Sequence[Answer], /) -> None:
        """Land the last answers, give back all that is still held, and leave the group."""


class PubSubDriver(Driver, ABC):
    """Topics of one broker. Events come and go as frames of records (``docs/log-format.md``).

    Attributes:
        max_event_bytes: largest payload.
        larger_events: what lets larger ones through, for the message that refuses one.
    """

    __spi__ = ("publish", "subscribe")

    max_event_bytes: int = 16 * 1024 * 1024
    larger_events: str = "send a reference to it instead"

    @abstractmethod
    def publish(
        self, op: Operation, topic: str, frames: Sequence[bytes], delay_ms: int | None, /
    ) -> Mapping[tuple[int, int], CloudRuntimesError]:
        """Store frames in order; returns once the broker has them.

        Returns:
            (frame, record) → error of those that failed alone. What concerns all raises. A publisher's call (`Operation.repeatable` is unset) that ends in the middle returns the error for all that was not reached: a publisher sends only those again.
        """

    @abstractmethod
    async def publish_async(
        self, op: Operation, topic: str, frames: Sequence[bytes], delay_ms: int | None, /
    ) -> Mapping[tuple[int, int], CloudRuntimesError]: ...

    @abstractmethod
    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        """Join a group; from the return on it exists and misses nothing."""

    @abstractmethod
    async def subscribe_async(self, op: Operation, request: SubscribeRequest, /) -> EventSource: ...
