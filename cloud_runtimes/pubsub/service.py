"""`PubSubService`: what ``client.pubsub`` is."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

from .._native import events as kernel
from .._operation import CLIENT_TIMEOUT, Method, Operation, check_metadata, check_timeout
from .._service import Service
from ..errors import BulkError, CloudRuntimesError, InvalidArgumentError
from . import driver as spi
from ._outgoing import EVENT_TYPE, check_topic, make_record
from ._pump import Pump
from .driver import EventSource, PubSubDriver, SubscribeRequest, Verdict
from .publisher import OnFull, Publisher
from .subscription import Subscription
from .types import DeliveryReport, Event, EventBatch, OutgoingEvent

__all__ = ["PubSubService", "Start", "SubscribeOptions"]

T = TypeVar("T")
Start = Literal["earliest", "latest"]

_PUBLISH = Method("pubsub", "publish", repeatable=True)
_PUBLISH_BULK = Method("pubsub", "publish_bulk", repeatable=True)
_SUBSCRIBE = Method("pubsub", "subscribe", repeatable=True)
_FRAME_EVENTS = 1000
_FRAME_BYTES = 1024 * 1024


class SubscribeOptions(TypedDict, total=False):
    """Keyword arguments of `PubSubService.subscribe`."""

    group: str | None
    start: Start | None
    workers: int
    max_in_flight: int | None
    ack_wait: float | None
    max_deliveries: int | None
    dead_letter_topic: str | None
    raw: bool
    timeout: float | None
    metadata: Mapping[str, str] | None


class PubSubService(Service):
    """Events to topics, at least once, as CloudEvents 1.0 with W3C trace context."""

    name = "pubsub"

    # -- publishing -------------------------------------------------------

    def _publishing(
        self, method: Method, pubsub_name: str, topic: str, timeout: float | None, metadata: Any
    ) -> tuple[Operation, PubSubDriver]:
        driver: PubSubDriver = self._drivers.get(pubsub_name) or self._driver(pubsub_name)
        check_topic(topic)
        check_metadata(metadata)
        limit = self._timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        return Operation(method, pubsub_name, limit, metadata), driver

    def _one(
        self,
        pubsub_name: str,
        topic: str,
        data: Any,
        content_type: str | None,
        key: str | None,
        attributes: Mapping[str, Any] | None,
        ttl: float | timedelta | None,
        delay: float | timedelta | None,
        raw: bool,
        timeout: float | None,
        metadata: Mapping[str, str] | None,
    ) -> tuple[Operation, PubSubDriver, bytes, int | None, str]:
        op, driver = self._publishing(_PUBLISH, pubsub_name, topic, timeout, metadata)
        expires_us = delay_ms = None
        if ttl is not None:
            self._need(driver, spi.TTL, "ttl=", pubsub_name)
            expires_us = _now_us() + int(_seconds("ttl", ttl, least=0.001) * 1_000_000)
        if delay is not None:
            self._need(driver, spi.DELAY, "delay=", pubsub_name)
            delay_ms = int(_seconds("delay", delay, least=0.0) * 1000)
        if raw:
            self._need(driver, spi.RAW, "raw=True", pubsub_name)
        id = kernel.uuid7_text(kernel.uuid7())
        record = make_record(
            data,
            content_type=content_type,
            key=key,
            attributes=attributes,
            metadata=metadata,
            id=id,
            expires_us=expires_us,
            raw=raw,
            max_bytes=driver.max_event_bytes,
        )
        if attributes is not None:
            id = attributes.get("id") or id
        frame = kernel.build_frame(self._client._settings.app_id, EVENT_TYPE, topic, (record,))
        return op, driver, frame, delay_ms, id

    def publish(
        self,
        pubsub_name: str,
        topic: str,
        data: Any,
        *,
        content_type: str | None = None,
        key: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        ttl: float | timedelta | None = None,
        delay: float | timedelta | None = None,
        raw: bool = False,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Publish one event and return its id, once the broker has it.

        Args:
            pubsub_name: the component.
            topic: the topic.
            data: bytes as they are, anything else encoded by ``content_type``.
            content_type: JSON by default.
            key: the ordering key.
            attributes: CloudEvents ``id``, ``type`` (default ``cloud_runtimes.event``), ``source`` (default the ``app_id``), ``subject``, ``time``, and extensions.
            ttl: seconds after which it is not delivered any more.
            delay: seconds until it is delivered.
            raw: without an envelope.
            timeout: seconds, retries (under the same id) included; the client's by default.
            metadata: for the component.

        Raises:
            PayloadError: the data cannot be encoded.
            ResourceExhaustedError: the disk or the log is full, or the event too large.
        """
        op, driver, frame, delay_ms, id = self._one(
            pubsub_name, topic, data, content_type, key, attributes, ttl, delay, raw, timeout, metadata
        )
        _raise_first(self._call(op, driver.publish, topic, (frame,), delay_ms))
        return id

    async def publish_async(
        self,
        pubsub_name: str,
        topic: str,
        data: Any,
        *,
        content_type: str | None = None,
        key: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        ttl: float | timedelta | None = None,
        delay: float | timedelta | None = None,
        raw: bool = False,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Asynchronous `publish`."""
        op, driver, frame, delay_ms, id = self._one(
            pubsub_name, topic, data, content_type, key, attributes, ttl, delay, raw, timeout, metadata
        )
        _raise_first(await self._call_async(op, driver.publish_async, topic, (frame,), delay_ms))
        return id

    def _many(
        self, pubsub_name: str, topic: str, events: Iterable[Any], timeout: float | None, metadata: Any
    ) -> tuple[Operation, PubSubDriver, list[bytes], list[list[int]], list[str], dict[int, CloudRuntimesError]]:
        """Encode events into frames; tells which event stands where."""
        op, driver = self._publishing(_PUBLISH_BULK, pubsub_name, topic, timeout, metadata)
        if isinstance(events, (str, bytes, bytearray, Mapping)):
            raise InvalidArgumentError("publish_bulk takes several events: give a list of payloads or OutgoingEvent")
        frames: list[bytes] = []
        places: list[list[int]] = []
        ids: list[str] = []
        failed: dict[int, CloudRuntimesError] = {}
        records: list[bytes] = []
        indices: list[int] = []
        size = 0

        def seal() -> None:
            nonlocal size
            if records:
                frames.append(kernel.build_frame(self._client._settings.app_id, EVENT_TYPE, topic, records))
                places.append(indices.copy())
                records.clear()
                indices.clear()
                size = 0

        for index, item in enumerate(events):
            event = item if isinstance(item, OutgoingEvent) else OutgoingEvent(item)
            id = kernel.uuid7_text(kernel.uuid7())
            try:
                record = make_record(
                    event.data,
                    content_type=None,
                    key=event.key,
                    attributes=event.attributes,
                    metadata=metadata,
                    id=id,
                    max_bytes=driver.max_event_bytes,
                )
            except CloudRuntimesError as error:
                failed[index] = error
            else:
                if records and (len(records) >= _FRAME_EVENTS or size + len(record) > _FRAME_BYTES):
                    seal()
                records.append(record)
                indices.append(index)
                size += len(record)
                if event.attributes is not None:
                    id = event.attributes.get("id") or id
            ids.append(id)
        seal()
        return op, driver, frames, places, ids, failed

    def publish_bulk(
        self,
        pubsub_name: str,
        topic: str,
        events: Iterable[OutgoingEvent | Any],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Publish several events in order and return their ids, once the broker has them.

        Args:
            pubsub_name, topic, timeout, metadata: as in `publish`.
            events: payloads, or `OutgoingEvent` objects with keys and attributes.

        Raises:
            BulkError: ``failed`` maps the index of each event that failed to its error; ``result`` is the list of all ids.
        """
        op, driver, frames, places, ids, failed = self._many(pubsub_name, topic, events, timeout, metadata)
        found = self._call(op, driver.publish, topic, frames, None) if frames else {}
        return _finish_bulk(pubsub_name, places, ids, failed, found)

    async def publish_bulk_async(
        self,
        pubsub_name: str,
        topic: str,
        events: Iterable[OutgoingEvent | Any],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Asynchronous `publish_bulk`."""
        op, driver, frames, places, ids, failed = self._many(pubsub_name, topic, events, timeout, metadata)
        found = await self._call_async(op, driver.publish_async, topic, frames, None) if frames else {}
        return _finish_bulk(pubsub_name, places, ids, failed, found)

    def publisher(
        self,
        pubsub_name: str,
        topic: str,
        *,
        linger: float = 0.005,
        batch_events: int = 1000,
        batch_bytes: int = 1_048_576,
        buffer_bytes: int = 67_108_864,
        on_full: OnFull = "block",
        delivery_timeout: float = 120.0,
        on_delivery: Callable[[DeliveryReport], None] | None = None,
        content_type: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Publisher:
        """Return a handle that batches events and sends them in the background; see `Publisher`.

        Args:
            pubsub_name, topic: as in `publish`.
            linger: seconds that an event waits at most for its batch to fill.
            batch_events, batch_bytes: at which a batch leaves.
            buffer_bytes: that events not yet settled may take.
            on_full: ``"block"`` waits for room, ``"raise"`` raises at once, ``"drop"`` counts and drops the new event.
            delivery_timeout: seconds for which an event is tried, under one id, before it has failed.
            on_delivery: called per batch once settled, in order, on the publisher's own thread; never ``async``.
            content_type, attributes: of its events.

        Raises:
            InvalidArgumentError: an option is wrong.
        """
        check_topic(topic)
        return Publisher(
            self,
            pubsub_name,
            topic,
            linger=linger,
            batch_events=batch_events,
            batch_bytes=batch_bytes,
            buffer_bytes=buffer_bytes,
            on_full=on_full,
            delivery_timeout=delivery_timeout,
            on_delivery=on_delivery,
            content_type=content_type,
            attributes=attributes,
        )

    # -- subscribing ------------------------------------------------------

    def _subscribing(
        self, pubsub_name: str, topic: str, handler: Any, batch: int | None, options: SubscribeOptions
    ) -> tuple[Operation, PubSubDriver, SubscribeRequest]:
        unknown = set(options) - set(SubscribeOptions.__annotations__)
        if unknown:
            raise TypeError(f"subscribe() got an unexpected keyword argument {sorted(unknown)[0]!r}")
        timeout = options.get("timeout", CLIENT_TIMEOUT)
        op, driver = self._publishing(_SUBSCRIBE, pubsub_name, topic, timeout, options.get("metadata"))
        if handler is not None and not callable(handler):
            raise InvalidArgumentError(f"handler must be callable, not {type(handler).__name__}")
        _count("workers", options.get("workers", 1), 1000)
        _count("max_in_flight", options.get("max_in_flight"), 1_000_000)
        _count("max_deliveries", options.get("max_deliveries"), 1_000_000)
        _count("batch", batch, 1_000_000)
        group = options.get("group")
        app_id = self._client._settings.app_id
        for name, feature, given in (
            ("group", spi.GROUP, group if group != app_id else None),
            ("start", spi.START, options.get("start")),
            ("ack_wait", spi.ACK_WAIT, options.get("ack_wait")),
            ("max_deliveries", spi.MAX_DELIVERIES, options.get("max_deliveries")),
            ("dead_letter_topic", spi.DEAD_LETTER, options.get("dead_letter_topic")),
            ("raw", spi.RAW, options.get("raw") or None),
        ):
            if given is not None:
                self._need(driver, feature, f"{name}=", pubsub_name)
        start = options.get("start")
        if start not in (None, "earliest", "latest"):
            raise InvalidArgumentError(f"start {start!r}: give 'earliest', 'latest' or None")
        ack_wait = options.get("ack_wait")
        if ack_wait is not None:
            _seconds("ack_wait", ack_wait, least=0.01)
        dead_letter_topic = options.get("dead_letter_topic")
        if dead_letter_topic is not None and check_topic(dead_letter_topic, "dead_letter_topic") == topic:
            raise InvalidArgumentError(
                "dead_letter_topic must be another topic, or dead letters would come back for ever"
            )
        request = SubscribeRequest(
            topic,
            app_id if group is None else check_topic(group, "group"),
            start,
            ack_wait,
            options.get("max_deliveries"),
            dead_letter_topic,
            bool(options.get("raw", False)),
            options.get("metadata"),
        )
        return op, driver, request

    def _subscription(
        self,
        source: EventSource,
        pubsub_name: str,
        driver: PubSubDriver,
        request: SubscribeRequest,
        handler: Any,
        batch: int | None,
        type: Any,
        options: SubscribeOptions,
        loop: Any,
    ) -> Subscription[Any]:
        in_flight = options.get("max_in_flight") or max(256, 2 * (batch or 1))
        pump = Pump(
            source,
            name=f"{pubsub_name}/{request.topic} (group {request.group})",
            pubsub_name=pubsub_name,
            type=type,
            raw=request.raw,
            max_in_flight=in_flight,
            ack_wait=(request.ack_wait or 30.0) if spi.ACK_WAIT in driver.features else None,
            poison=Verdict.DROP if request.dead_letter_topic else Verdict.RETRY,
        )
        return Subscription(self, pump, handler=handler, workers=options.get("workers", 1), batch=batch, loop=loop)

    @overload
    def subscribe(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[[Event[T]], Any] | None = None,
        *,
        type: builtins.type[T],
        batch: None = None,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[Event[T]]: ...
    @overload
    def subscribe(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[[EventBatch[T]], Any] | None = None,
        *,
        type: builtins.type[T],
        batch: int,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[EventBatch[T]]: ...
    @overload
    def subscribe(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[[Event[Any]], Any] | None = None,
        *,
        type: Any = None,
        batch: None = None,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[Event[Any]]: ...
    @overload
    def subscribe(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[[EventBatch[Any]], Any] | None = None,
        *,
        type: Any = None,
        batch: int,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[EventBatch[Any]]: ...
    def subscribe(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[[Any], Any] | None = None,
        *,
        type: Any = None,
        batch: int | None = None,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[Any]:
        """Join a consumer group of a topic; the subscription is live on return. At least once.

        Args:
            pubsub_name, topic, timeout, metadata: as in `publish`.
            handler: called for each event (or batch): return = ack, an exception = retry, logged, `DropEvent` = drop. Plain ones run in threads, ``async`` ones on the client's own loop. Without one, iterate the subscription.
            type: what the data is decoded into, strictly; what does not fit goes to the dead-letter topic at once, without one it is retried.
            batch: hand out `EventBatch` lists of the 1 to ``batch`` events there.
            group: its members share the events; default the ``app_id``.
            start: where a new group begins, ``"earliest"`` or ``"latest"``.
            workers: handlers running at once.
            max_in_flight: unsettled events at most (embedded: 256, or twice ``batch``).
            ack_wait: seconds after which an unsettled event comes again (embedded: 30).
            max_deliveries: after the last one it is dropped (embedded: unlimited, 5 with a dead-letter topic).
            dead_letter_topic: where dropped events go.
            raw: events without envelopes.
        """
        op, driver, request = self._subscribing(pubsub_name, topic, handler, batch, options)
        source = self._call(op, driver.subscribe, request)
        return self._subscription(source, pubsub_name, driver, request, handler, batch, type, options, None)

    @overload
    async def subscribe_async(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[[Event[T]], Any] | None = None,
        *,
        type: builtins.type[T],
        batch: None = None,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[Event[T]]: ...
    @overload
    async def subscribe_async(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[[EventBatch[T]], Any] | None = None,
        *,
        type: builtins.type[T],
        batch: int,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[EventBatch[T]]: ...
    @overload
    async def subscribe_async(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[[Event[Any]], Any] | None = None,
        *,
        type: Any = None,
        batch: None = None,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[Event[Any]]: ...
    @overload
    async def subscribe_async(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[[EventBatch[Any]], Any] | None = None,
        *,
        type: Any = None,
        batch: int,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[EventBatch[Any]]: ...
    async def subscribe_async(
        self,
        pubsub_name: str,
        topic: str,
        handler: Callable[[Any], Any] | None = None,
        *,
        type: Any = None,
        batch: int | None = None,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[Any]:
        """Asynchronous `subscribe`; ``async`` handlers run on this loop."""
        import asyncio

        op, driver, request = self._subscribing(pubsub_name, topic, handler, batch, options)
        source = await self._call_async(op, driver.subscribe_async, request)
        loop = asyncio.get_running_loop()
        return self._subscription(source, pubsub_name, driver, request, handler, batch, type, options, loop)


def _now_us() -> int:
    import time

    return time.time_ns() // 1000


def _seconds(name: str, value: Any, *, least: float) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise InvalidArgumentError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    if not least <= seconds <= 100 * 365 * 86400.0:
        raise InvalidArgumentError(f"{name} must be {least:g} seconds or more, and at most 100 years; got {seconds}")
    return float(seconds)


def _count(name: str, value: Any, most: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most):
        raise InvalidArgumentError(f"{name} must be an int from 1 to {most:,}, got {value!r}")


def _raise_first(failed: Mapping[tuple[int, int], CloudRuntimesError]) -> None:
    for error in failed.values():
        raise error


def _finish_bulk(
    pubsub_name: str,
    places: Sequence[Sequence[int]],
    ids: list[str],
    failed: dict[int, CloudRuntimesError],
    found: Mapping[tuple[int, int], CloudRuntimesError],
) -> list[str]:
    failed = {**failed, **{places[frame][record]: error for (frame, record), error in found.items()}}
    if failed:
        first = min(failed)
        raise BulkError(
            f"publish_bulk: {len(failed)} of {len(ids)} events failed in {pubsub_name!r}; number {first}: {failed[first]}",
            failed=failed,
            result=ids,
            service="pubsub",
            operation="publish_bulk",
            component=pubsub_name,
        )
    return ids
