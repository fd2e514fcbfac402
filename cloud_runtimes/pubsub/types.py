"""Types of the pub/sub service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from .._core.arguments import CLIENT_TIMEOUT
from .._core.notebook import Listing, line, table
from .._native import events as kernel
from ..codec.json import decode as decode_json
from ..codec.payload import JSON, OCTETS, decode_payload
from ..errors import CloudRuntimesError, InvalidArgumentError, UnsupportedError
from ..spi.pubsub import Cause, EventRecord, Settlement

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from ..state.transaction import StateTransaction

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = [
    "DeliveryReport",
    "DropEvent",
    "Event",
    "EventBatch",
    "FailedEvent",
    "OutgoingEvent",
    "PublisherStats",
    "SpoolStats",
    "SubscriptionStats",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


ReceivedEvent = kernel.ReceivedEvent


class DropEvent(Exception):
    """Raise it in a handler: the event goes to the dead-letter topic, without one away, and is not tried again. A dead letter has the message as ``dlerror``."""


def _of_record(name: str, doc: str) -> Any:
    """Return a property of an event that its record has."""
    return property(attrgetter(f"_record.{name}"), doc=doc)


class Event(ReceivedEvent, Generic[T]):
    """A CloudEvent that was received (CloudEvents 1.0). Attributes become Python objects when asked for.

    Attributes:
        pubsub_name: the component it came from; ``""`` where it came from none.
        delivery_count: how often the group has got it, this time included; ``None``: not known.
    """

    __slots__ = ()

    _shown = ("id", "time", "type", "topic", "key", "delivery_count", "data")

    def __repr__(self) -> str:
        key = "" if self.key is None else f" key={line(self.key)}"
        count = "" if self.delivery_count is None else f" delivery_count={self.delivery_count}"
        size = len(self._record.payload)
        return f"<Event {line(self.id)} type={line(self.type)} topic={line(self.topic)}{key}{count}, {size:,} bytes>"

    def _repr_html_(self) -> str:
        return table([self])

    source: str = _of_record("source", "CloudEvents ``source``.")
    type: str = _of_record("type", "CloudEvents ``type``.")
    subject: str | None = _of_record("subject", "CloudEvents ``subject``.")
    topic: str = _of_record("topic", "The topic it was published to; a dead letter keeps its first one.")
    key: str | None = _of_record("key", "The ordering key (CloudEvents extension ``partitionkey``).")
    content_type: str | None = _of_record("content_type", "CloudEvents ``datacontenttype``.")
    extensions: Mapping[str, Any] = _of_record("extensions", "Other CloudEvents extensions.")
    metadata: Mapping[str, str] = _of_record("metadata", "What the publisher gave as ``metadata``.")
    traceparent: str | None = _of_record("traceparent", "W3C trace context.")

    @property
    def time(self) -> datetime:
        """CloudEvents ``time``, UTC."""
        return _EPOCH + timedelta(microseconds=self._record.time_us)

    if TYPE_CHECKING:

        @property
        def data(self) -> T:
            """The payload, decoded by its content type, into ``type=`` where the subscription gave one. An event without data has ``None``.

            Raises:
                PayloadError: it cannot be decoded; names the path.
            """

    def to_json(self) -> bytes:
        """Return the event as CloudEvents 1.0 structured JSON."""
        return self._record.to_json()

    def ack(self) -> None:
        """Queue the answer "done"; of several answers the first counts. Never waits."""
        answer(self, Settlement.ACK, None)

    def retry(self, delay: float | None = None) -> None:
        """Queue the answer "again", after ``delay`` seconds; ``None``: the component backs off. Never waits."""
        if delay is not None and not 0 <= delay < float("inf"):
            raise InvalidArgumentError(f"delay must be seconds ≥ 0 or None, got {delay!r}")
        answer(self, Settlement.RETRY, delay)

    def drop(self) -> None:
        """Queue the answer "never again": to the dead-letter topic, without one away. Never waits."""
        answer(self, Settlement.DROP, None)

    def extend(self, seconds: float | None = None) -> None:
        """Keep the event for longer: it comes again ``seconds`` from now, by default ``ack_wait``, unless settled by then. Never waits.

        It is for events that were received or iterated. A handler keeps its events while it runs.

        Args:
            seconds: more than 0.

        Raises:
            InvalidArgumentError: ``seconds`` is no such number.
            UnsupportedError: the broker alone counts the time, as sidecars do, or the event came from no subscription.
        """
        extend((self,), self._fetcher, seconds)

    async def extend_async(self, seconds: float | None = None) -> None:
        """Keep the event for longer: it comes again ``seconds`` from now, by default ``ack_wait``, unless settled by then. Never waits.

        It is for events that were received or iterated. A handler keeps its events while it runs.

        Args:
            seconds: more than 0.

        Raises:
            InvalidArgumentError: ``seconds`` is no such number.
            UnsupportedError: the broker alone counts the time, as sidecars do, or the event came from no subscription.
        """
        extend((self,), self._fetcher, seconds)

    def transaction(
        self, store_name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> StateTransaction:
        """Return a state transaction whose end acknowledges the event too: exactly-once processing.

        A store on the event's own engine does both in one commit. Another one keeps the event's id in the commit, for ``inbox_retention``. If the event comes again, the transaction writes nothing and acknowledges it.

        An exception in the block writes nothing and settles nothing. A handler that lets it pass has the event delivered again.

        Args:
            store_name: a state component with transactions and conditions.
            timeout, metadata: as in `StateService.transaction`.

        Raises:
            UnsupportedError: the store has no transactions with conditions and time to live, or the event came from no subscription.
            ConflictError: on leaving, the event is settled already or has gone to another member, or a condition did not hold; nothing was written.
            UnavailableError, DeadlineExceededError: on leaving; unless it was applied, the event comes again.

        >>> with event.transaction("orders") as tx:  # doctest: +SKIP
        ...     tx.save(event.data["id"], event.data)
        """
        return _transaction((self,), self._fetcher, store_name, timeout, metadata)


def answer(event: Event[Any], settlement: Settlement, delay: float | None, cause: Cause | None = None) -> None:
    """Queue the answer to an event; a dead letter has the cause."""
    if event._fetcher is not None:
        event._fetcher.settle((event,), settlement, delay, cause)


def record_of(event: Event[Any]) -> EventRecord:
    """Return what was published: the payload undecoded, and whether it came without an envelope."""
    record: EventRecord = event._record
    return record


def _data_of(event: Event[Any]) -> Any:
    """Decode the data of an event."""
    record = event._record
    if event._raw and not record.raw:
        # a raw subscriber sees what a broker would hold: the envelope
        return decode_payload(record.to_json(), OCTETS, event._type)
    payload, content_type = record.payload, record.content_type
    if not payload and content_type is None and not record.raw and event._type is not bytes:
        payload, content_type = b"null", JSON  # no data (CloudEvents, section 3.1.1, "data")
    return decode_payload(payload, content_type, event._type)


kernel.receive_as(Event, decode_json, _data_of)


class EventBatch(Listing[Event[T]], Generic[T]):
    """The events that were there, 1 to ``batch``; its answers are for those of its members that have none yet."""

    __slots__ = ()

    def ack(self) -> None:
        """As `Event.ack`, for every unsettled member."""
        self._settle(Settlement.ACK, None)

    def retry(self, delay: float | None = None) -> None:
        """As `Event.retry`, for every unsettled member."""
        self._settle(Settlement.RETRY, delay)

    def drop(self) -> None:
        """As `Event.drop`, for every unsettled member."""
        self._settle(Settlement.DROP, None)

    def extend(self, seconds: float | None = None) -> None:  # type: ignore[override]  # a batch is not added to
        """Keep its unsettled members for longer: they come again ``seconds`` from now, by default ``ack_wait``, unless settled by then. Never waits.

        It is for events that were received or iterated. A handler keeps its events while it runs.

        Args:
            seconds: more than 0.

        Raises:
            InvalidArgumentError: ``seconds`` is no such number.
            UnsupportedError: the broker alone counts the time, as sidecars do, or the event came from no subscription.
        """
        extend(self, self[0]._fetcher if self else None, seconds)

    async def extend_async(self, seconds: float | None = None) -> None:
        """Keep its unsettled members for longer: they come again ``seconds`` from now, by default ``ack_wait``, unless settled by then. Never waits.

        It is for events that were received or iterated. A handler keeps its events while it runs.

        Args:
            seconds: more than 0.

        Raises:
            InvalidArgumentError: ``seconds`` is no such number.
            UnsupportedError: the broker alone counts the time, as sidecars do, or the event came from no subscription.
        """
        extend(self, self[0]._fetcher if self else None, seconds)

    def transaction(
        self, store_name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> StateTransaction:
        """As `Event.transaction`, for all members: one commit for the batch. On another engine it raises `ConflictError` where some were handled before: these are settled, and the others come again."""
        return _transaction(self, self[0]._fetcher if self else None, store_name, timeout, metadata)

    def _settle(self, settlement: Settlement, delay: float | None) -> None:
        if self and self[0]._fetcher is not None:
            self[0]._fetcher.settle(self, settlement, delay)


def extend(events: Sequence[Event[Any]], fetcher: Any, seconds: Any) -> None:
    """Give events longer; see `Event.extend`."""
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if seconds is not None and not (number and 0 < seconds < float("inf")):
        raise InvalidArgumentError(f"seconds must be more than 0, got {seconds!r}")
    if fetcher is None:
        raise UnsupportedError("this event came from no subscription, so nothing waits for its answer")
    fetcher.extend(events, seconds)


def _transaction(events: Sequence[Event[Any]], fetcher: Any, *arguments: Any) -> StateTransaction:
    if fetcher is None:
        raise UnsupportedError("these events came from no subscription, so there is nothing to settle")
    transaction: StateTransaction = fetcher.transaction(events, *arguments)
    return transaction


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """Event for `PubSubService.publish_bulk`.

    Attributes:
        data: the payload.
        key: the ordering key.
        attributes: CloudEvents attributes and extensions.
    """

    data: Any
    key: str | None = None
    attributes: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """An event that a publisher gave up.

    Attributes:
        sequence: what `Publisher.send` returned.
        id: its CloudEvents id.
        event: the whole event as CloudEvents JSON, to be kept or sent elsewhere.
        error: why.
    """

    sequence: int
    id: str
    event: bytes = field(repr=False)
    error: CloudRuntimesError


class DeliveryReport(NamedTuple):
    """Outcome of a batch.

    Attributes:
        first, last: sequence numbers.
        failed: events that were not delivered; empty when all were.
    """

    first: int
    last: int
    failed: list[FailedEvent]


class PublisherStats(NamedTuple):
    """A consistent snapshot: accepted = delivered + failed + buffered.

    Attributes:
        accepted: events that `send` took.
        delivered: at the broker.
        failed: given up and reported.
        dropped: not taken, ``on_full="drop"``.
        buffered: in memory.
        batches: sealed so far.
        bytes: in memory.
    """

    accepted: int
    delivered: int
    failed: int
    dropped: int
    buffered: int
    batches: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """Counters of a spool.

    Attributes:
        events: that wait on this machine.
        bytes: of them.
        oldest: when the first of them was published; ``None``: none waits.
        forwarded: events that the broker has, since the spool was made.
        dropped: events that were given up, since there was no room or they were too old.
        refused: events that the broker refused for good, which were set aside.
    """

    events: int
    bytes: int
    oldest: datetime | None
    forwarded: int
    dropped: int
    refused: int


@dataclass(frozen=True, slots=True)
class SubscriptionStats:
    """Counters of a subscription since it began. An answer counts once its thread has taken it in, within 50 ms.

    Attributes:
        handled: events that were acknowledged, also in a transaction.
        retried: answered "again", by a failure, `Event.retry` or the end of the time. It includes the last delivery before a dead letter.
        dropped: answered "never again", or not of the type asked for while there is a dead-letter topic.
        redelivered: deliveries that were not the first of their event, as far as the broker counts them.
        in_flight: unsettled events in the member, those fetched ahead included.
        waiting: events in the member that wait for an earlier one of their key, with ``order="key"``.
        handler_seconds: how long handlers have had events, summed over workers; calls that run now are included, a batch once it is through.
    """

    handled: int
    retried: int
    dropped: int
    redelivered: int
    in_flight: int
    waiting: int
    handler_seconds: float
