"""`PubSubService`: what ``client.pubsub`` is."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, TypeVar, Unpack, overload

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._native import events as kernel
from .._service import Outgoing, Service, error_context
from ..errors import CloudRuntimesError
from ..spi import pubsub as spi
from ..spi.operation import Method, Operation
from ..spi.pubsub import AsyncEventSource, EventSource, OutgoingBatch, PubSubDriver, Settlement, SubscribeRequest
from ._fetcher import Fetcher
from ._subscribing import Start, SubscribeOptions, check_options, make_request, needed_features, seconds
from .outgoing import EVENT_TYPE, OutgoingBatches, OutgoingBulk, check_topic, make_record
from .publisher import PUBLISHER, OnFull, Publisher
from .subscription import Subscription
from .types import DeliveryReport, Event, EventBatch, OutgoingEvent

__all__ = ["PubSubService", "Start", "SubscribeOptions"]

T = TypeVar("T")

_PUBLISH = Method("pubsub", "publish", repeatable=True)
_PUBLISH_BULK = Method("pubsub", "publish_bulk", repeatable=True)
_SUBSCRIBE = Method("pubsub", "subscribe", repeatable=True)


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
    ) -> tuple[Operation, PubSubDriver, OutgoingBatch, str]:
        op, driver = self._publishing(_PUBLISH, pubsub_name, topic, timeout, metadata)
        expires_us = delay_ms = None
        if ttl is not None:
            self._need(driver, spi.TTL, "ttl=", pubsub_name)
            expires_us = time.time_ns() // 1000 + int(seconds("ttl", ttl, least=0.001) * 1_000_000)
        if delay is not None:
            self._need(driver, spi.DELAY, "delay=", pubsub_name)
            delay_ms = int(seconds("delay", delay, least=0.0) * 1000)
        if raw:
            self._need(driver, spi.RAW, "raw=True", pubsub_name)
        id = kernel.uuid7_text(kernel.uuid7())
        made = self._creating(op, topic) if self._interceptors else None
        try:
            record = make_record(
                data,
                content_type=content_type,
                key=key,
                attributes=attributes,
                metadata=metadata,
                id=id,
                expires_us=expires_us,
                raw=raw,
                driver=driver,
            )
        finally:
            if made is not None:
                made.leave()
        if attributes is not None:
            id = attributes.get("id") or id
        if made is not None:
            made.tell("messaging.message.id", id)
        frame = kernel.build_frame(self._context.settings.app_id, EVENT_TYPE, topic, (record,))
        return op, driver, OutgoingBatch(topic, (frame,), 1, delay_ms), id

    @error_context(_PUBLISH)
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
        op, driver, batch, id = self._one(
            pubsub_name, topic, data, content_type, key, attributes, ttl, delay, raw, timeout, metadata
        )
        for error in self._call(op, driver.publish, batch).values():
            raise error
        return id

    @error_context(_PUBLISH)
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
        op, driver, batch, id = self._one(
            pubsub_name, topic, data, content_type, key, attributes, ttl, delay, raw, timeout, metadata
        )
        for error in (await self._call_async(op, driver.publish_async, batch)).values():
            raise error
        return id

    def _creating(self, op: Operation, topic: str) -> Outgoing | None:
        return self._first(lambda each: each.creating(op, topic))

    def _many(
        self, pubsub_name: str, topic: str, events: Iterable[Any], timeout: float | None, metadata: Any
    ) -> tuple[Operation, PubSubDriver, OutgoingBulk]:
        op, driver = self._publishing(_PUBLISH_BULK, pubsub_name, topic, timeout, metadata)
        app_id = self._context.settings.app_id
        made = self._creating(op, topic) if self._interceptors else None
        try:
            bulk = OutgoingBulk(events, app_id, topic, metadata, driver)
        finally:
            if made is not None:
                made.leave()
        if made is not None:
            made.tell("messaging.batch.message_count", len(bulk.ids))
        return op, driver, bulk

    def _publish_all(self, op: Operation, driver: PubSubDriver, batches: OutgoingBatches) -> None:
        """Publish batches in order; every event is tried."""
        while (batch := batches.next()) is not None:
            try:
                batches.landed(self._call(op, driver.publish, batch))
            except CloudRuntimesError as error:
                batches.stopped(error)
            op = op.following()

    async def _publish_all_async(self, op: Operation, driver: PubSubDriver, batches: OutgoingBatches) -> None:
        while (batch := batches.next()) is not None:
            try:
                batches.landed(await self._call_async(op, driver.publish_async, batch))
            except CloudRuntimesError as error:
                batches.stopped(error)
            op = op.following()

    @error_context(_PUBLISH_BULK)
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
        op, driver, bulk = self._many(pubsub_name, topic, events, timeout, metadata)
        self._publish_all(op, driver, bulk.batches)
        return bulk.finish(pubsub_name)

    @error_context(_PUBLISH_BULK)
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
        op, driver, bulk = self._many(pubsub_name, topic, events, timeout, metadata)
        await self._publish_all_async(op, driver, bulk.batches)
        return bulk.finish(pubsub_name)

    @error_context(PUBLISHER)
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
            delivery_timeout: seconds for which an event is tried, under one id, before it has failed; those in which it waits behind events that are delivered do not count.
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
        check_options(handler, batch, options)
        timeout = options.get("timeout", CLIENT_TIMEOUT)
        op, driver = self._publishing(_SUBSCRIBE, pubsub_name, topic, timeout, options.get("metadata"))
        app_id = self._context.settings.app_id
        for feature, name, given in needed_features(app_id, options):
            if given:
                self._need(driver, feature, f"{name}=", pubsub_name)
        return op, driver, make_request(topic, app_id, options, batch)

    def _subscription(
        self,
        source: EventSource | AsyncEventSource,
        pubsub_name: str,
        driver: PubSubDriver,
        request: SubscribeRequest,
        handler: Any,
        batch: int | None,
        type: Any,
        options: SubscribeOptions,
        loop: Any,
    ) -> Subscription[Any]:
        """Make a source live."""
        # eight batches let the next ones be fetched while one is worked on; twice one is needed for that at least
        ahead = 0 if batch is None else max(2 * batch, min(8 * batch, 1000))
        in_flight = options.get("max_in_flight") or max(256, ahead)
        fetcher = Fetcher(
            source,
            name=f"{pubsub_name}/{request.topic} (group {request.group})",
            pubsub_name=pubsub_name,
            type=type,
            raw=request.raw,
            max_in_flight=in_flight,
            ack_wait=(request.ack_wait or 30.0) if spi.ACK_WAIT in driver.features else None,
            poison=Settlement.DROP if request.dead_letter_topic else Settlement.RETRY,
            run_task=self._run_task,
        )
        subscription: Subscription[Any] = Subscription(self, fetcher, request, handler=handler, batch=batch)
        try:
            subscription._begin(options.get("workers", 1), loop)
        except BaseException:
            subscription._abandon()
            raise
        return subscription

    def _run_task(self, task: Coroutine[Any, Any, None]) -> Future[None]:
        import asyncio

        return asyncio.run_coroutine_threadsafe(task, self._context.loop())

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
    @error_context(_SUBSCRIBE)
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
            max_in_flight: unsettled events at most (embedded: 256; with ``batch`` eight times it up to 1,000, and twice it at least).
            ack_wait: seconds after which an unsettled event comes again (embedded: 30).
            max_deliveries: after the last one it is dropped (embedded: unlimited, 5 with a dead-letter topic).
            dead_letter_topic: where dropped events go. Embedded, and over Layotto, the extensions of a dead letter say why: ``dlreason`` (``dropped``, ``deliveries``, ``undecodable``), ``dlerror`` (type and message of the last error), ``dlcount`` (deliveries), ``dlfirst`` and ``dllast`` (times of the first and the last), ``dltopic``, ``dlgroup``; what is not known is left out.
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
    @error_context(_SUBSCRIBE)
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
