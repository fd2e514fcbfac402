"""`PubSubService`: what ``client.pubsub`` is."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .._core import sigterm
from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._native import events as kernel
from .._service import Outgoing, error_context
from ..errors import InvalidArgumentError, NotFoundError, UnsupportedError
from ..spi import pubsub as spi
from ..spi.events import EVENT_TYPE
from ..spi.operation import Method, Operation
from ..spi.pubsub import OutgoingBatch, PubSubDriver
from ._asked import seconds
from ._declaring import Declaring
from ._subscribing import Start
from .outgoing import OutgoingBulk, check_topic, make_record, publish_all, publish_all_async
from .publisher import PUBLISHER, OnFull, Publisher
from .relays import PubSubFrame
from .types import DeliveryReport, OutgoingEvent, SpoolStats

if TYPE_CHECKING:
    from .._service import ClientContext
    from ..spi.relay import Backlog

__all__ = ["PubSubService", "Start"]

_PUBLISH = Method("pubsub", "publish", repeatable=True)
_PUBLISH_BULK = Method("pubsub", "publish_bulk", repeatable=True)
_SPOOL = Method("pubsub", "spool", repeatable=True, writes=False)
_LAG = Method("pubsub", "lag", repeatable=True, writes=False)
_SIGTERM_SECONDS: Final = 10.0


class PubSubService(Declaring):
    """Events to topics, at least once, as CloudEvents 1.0 with W3C trace context."""

    _frame_type = PubSubFrame
    _frame: PubSubFrame

    def __init__(self, context: ClientContext) -> None:
        super().__init__(context)
        self._frame.make_event = self._event
        self._frame.watch_relays = self._frame.relays.watch

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
        op, driver = self._asking(_PUBLISH, pubsub_name, topic, timeout, metadata)
        expires_us = delay_ms = None
        if ttl is not None:
            self._frame.need(driver, spi.TTL, "ttl=", pubsub_name)
            expires_us = time.time_ns() // 1000 + int(seconds("ttl", ttl, least=0.001) * 1_000_000)
        if delay is not None:
            self._frame.need(driver, spi.DELAY, "delay=", pubsub_name)
            delay_ms = int(seconds("delay", delay, least=0.0) * 1000)
        if raw:
            self._frame.need(driver, spi.RAW, "raw=True", pubsub_name)
        id = kernel.uuid7_text(kernel.uuid7())
        outgoing = self._creating(op, topic) if self._frame.interceptors else None
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
            if outgoing is not None:
                outgoing.leave()
        if attributes is not None:
            id = attributes.get("id") or id
        if outgoing is not None:
            outgoing.tell("messaging.message.id", id)
        frame = kernel.build_frame(self._frame.context.settings.app_id, EVENT_TYPE, topic, (record,))
        return op, driver, OutgoingBatch(topic, (frame,), 1, delay_ms, raw=raw), id

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

        >>> id = client.pubsub.publish("bus", "orders", {"id": "1"}, key="customer-7")

        Args:
            pubsub_name, topic: the component and the topic.
            data: bytes as they are, anything else encoded by ``content_type``.
            content_type: JSON by default.
            key: the ordering key.
            attributes: CloudEvents ``id``, ``type`` (default ``cloud_runtimes.event``), ``source`` (default the ``app_id``), ``subject``, ``time``, and extensions.
            ttl, delay: seconds after which it is not delivered any more, and until it is delivered.
            raw: without an envelope.
            timeout: seconds, retries (under the same id) included; the client's by default.
            metadata: for the component.

        Raises:
            PayloadError: the data cannot be encoded.
            ResourceExhaustedError: the disk or the log is full, or the event too large.
            UnsupportedError: the component has no ``ttl``, ``delay`` or ``raw``.
            ComponentNotFoundError: the configuration does not declare it, and is strict.
            UnavailableError, DeadlineExceededError: the broker cannot be reached, or does not answer within ``timeout``.
        """
        op, driver, batch, id = self._one(
            pubsub_name, topic, data, content_type, key, attributes, ttl, delay, raw, timeout, metadata
        )
        for error in self._frame.call(op, driver.publish, batch).values():
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
        """Publish one event and return its id, once the broker has it.

        >>> id = client.pubsub.publish("bus", "orders", {"id": "1"}, key="customer-7")

        Args:
            pubsub_name, topic: the component and the topic.
            data: bytes as they are, anything else encoded by ``content_type``.
            content_type: JSON by default.
            key: the ordering key.
            attributes: CloudEvents ``id``, ``type`` (default ``cloud_runtimes.event``), ``source`` (default the ``app_id``), ``subject``, ``time``, and extensions.
            ttl, delay: seconds after which it is not delivered any more, and until it is delivered.
            raw: without an envelope.
            timeout: seconds, retries (under the same id) included; the client's by default.
            metadata: for the component.

        Raises:
            PayloadError: the data cannot be encoded.
            ResourceExhaustedError: the disk or the log is full, or the event too large.
            UnsupportedError: the component has no ``ttl``, ``delay`` or ``raw``.
            ComponentNotFoundError: the configuration does not declare it, and is strict.
            UnavailableError, DeadlineExceededError: the broker cannot be reached, or does not answer within ``timeout``.
        """
        op, driver, batch, id = self._one(
            pubsub_name, topic, data, content_type, key, attributes, ttl, delay, raw, timeout, metadata
        )
        for error in (await self._frame.call_async(op, driver.publish_async, batch)).values():
            raise error
        return id

    def _event(
        self,
        service: str,
        store_name: str,
        engine: Hashable,
        pubsub_name: str,
        topic: str,
        data: Any,
        content_type: str | None,
        key: str | None,
        attributes: Mapping[str, Any] | None,
        ttl: float | timedelta | None,
        delay: float | timedelta | None,
        raw: bool,
        metadata: Mapping[str, str] | None,
    ) -> tuple[OutgoingBatch, str, Callable[[OutgoingBatch], Any], Callable[[], None]]:
        """Make an event for a transaction of another service; see `ServiceFrame.make_event`."""
        event = (topic, data, content_type, key, attributes, ttl, delay, raw)
        _, driver, batch, id = self._one(pubsub_name, *event, None, metadata)
        if engine is not None and driver.engine == engine:
            return batch, id, driver.change, driver.spool.wake if driver.spool is not None else _nothing
        forwarder = self._frame.relays.outbox(service, store_name, pubsub_name)
        return batch, id, forwarder.add, forwarder.wake

    def _creating(self, op: Operation, topic: str) -> Outgoing | None:
        return self._frame.first(lambda each: each.creating(op, topic))

    def _many(
        self, pubsub_name: str, topic: str, events: Iterable[Any], timeout: float | None, metadata: Any
    ) -> tuple[Operation, PubSubDriver, OutgoingBulk]:
        op, driver = self._asking(_PUBLISH_BULK, pubsub_name, topic, timeout, metadata)
        app_id = self._frame.context.settings.app_id
        outgoing = self._creating(op, topic) if self._frame.interceptors else None
        try:
            bulk = OutgoingBulk(events, app_id, topic, metadata, driver)
        finally:
            if outgoing is not None:
                outgoing.leave()
        if outgoing is not None:
            outgoing.tell("messaging.batch.message_count", len(bulk.ids))
        return op, driver, bulk

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
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `publish`.
        """
        op, driver, bulk = self._many(pubsub_name, topic, events, timeout, metadata)
        publish_all(self._frame, op, driver, bulk.batches)
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
        """Publish several events in order and return their ids, once the broker has them.

        Args:
            pubsub_name, topic, timeout, metadata: as in `publish`.
            events: payloads, or `OutgoingEvent` objects with keys and attributes.

        Raises:
            BulkError: ``failed`` maps the index of each event that failed to its error; ``result`` is the list of all ids.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `publish`.
        """
        op, driver, bulk = self._many(pubsub_name, topic, events, timeout, metadata)
        await publish_all_async(self._frame, op, driver, bulk.batches)
        return bulk.finish(pubsub_name)

    def _group(
        self, pubsub_name: str, topic: str, group: str | None, timeout: float | None, metadata: Any
    ) -> tuple[Operation, PubSubDriver, str]:
        op, driver = self._asking(_LAG, pubsub_name, topic, timeout, metadata)
        self._frame.need(driver, spi.LAG, "lag", pubsub_name)
        return op, driver, check_topic(self._frame.context.settings.app_id if group is None else group, "group")

    @error_context(_LAG)
    def lag(
        self,
        pubsub_name: str,
        topic: str,
        *,
        group: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Return how many events of a topic a group has not settled, those included that its members hold or that come again later.

        A broker counts messages: with ``layout = "frame"`` one has many events. Answers of the last moment, and events that expired, may be counted.

        Args:
            pubsub_name, topic, timeout, metadata: as in `publish`.
            group: default the ``app_id``.

        Raises:
            NotFoundError: the group does not exist.
            UnsupportedError: the component cannot tell.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `publish`.
        """
        op, driver, name = self._group(pubsub_name, topic, group, timeout, metadata)
        return _require_lag(self._frame.call(op, driver.lag, topic, name), pubsub_name, topic, name)

    @error_context(_LAG)
    async def lag_async(
        self,
        pubsub_name: str,
        topic: str,
        *,
        group: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Return how many events of a topic a group has not settled, those included that its members hold or that come again later.

        A broker counts messages: with ``layout = "frame"`` one has many events. Answers of the last moment, and events that expired, may be counted.

        Args:
            pubsub_name, topic, timeout, metadata: as in `publish`.
            group: default the ``app_id``.

        Raises:
            NotFoundError: the group does not exist.
            UnsupportedError: the component cannot tell.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `publish`.
        """
        op, driver, name = self._group(pubsub_name, topic, group, timeout, metadata)
        return _require_lag(await self._frame.call_async(op, driver.lag_async, topic, name), pubsub_name, topic, name)

    @error_context(_SPOOL)
    def spool(
        self,
        pubsub_name: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> SpoolStats:
        """Return what waits on this machine for a broker: the spool of a component whose table has ``spool``.

        Args:
            pubsub_name, timeout, metadata: as in `publish`.

        Raises:
            UnsupportedError: the component has no spool.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `publish`.
        """
        op, waiting, refused = self._spooled(pubsub_name, timeout, metadata)
        return _spool_stats(self._frame.call(op, waiting), self._frame.call(op, refused))

    @error_context(_SPOOL)
    async def spool_async(
        self,
        pubsub_name: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> SpoolStats:
        """Return what waits on this machine for a broker: the spool of a component whose table has ``spool``.

        Args:
            pubsub_name, timeout, metadata: as in `publish`.

        Raises:
            UnsupportedError: the component has no spool.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `publish`.
        """
        op, waiting, refused = self._spooled(pubsub_name, timeout, metadata)
        in_thread = self._frame.driver(pubsub_name).executor.in_thread
        return _spool_stats(await in_thread(partial(waiting, op), op), await in_thread(partial(refused, op), op))

    def _spooled(
        self, pubsub_name: str, timeout: float | None, metadata: Any
    ) -> tuple[Operation, Callable[[Operation], Backlog], Callable[[Operation], Backlog]]:
        check_metadata(metadata)
        limit = self._frame.timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        spool = self._frame.driver(pubsub_name).spool
        if spool is None:
            raise UnsupportedError(f"{pubsub_name!r} has no spool: add spool = true to [pubsub.{pubsub_name}]")
        relay = self._frame.relays.of_spool(pubsub_name)
        waiting, refused = (spool.log(name).backlog for name in relay.names)
        return Operation(_SPOOL, pubsub_name, limit, metadata), waiting, refused

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
        flush_on_sigterm: bool = False,
    ) -> Publisher:
        """Return a handle that batches events and sends them in the background; see `Publisher`.

        >>> with client.pubsub.publisher("bus", "orders") as publisher:
        ...     for number in range(1000):
        ...         number_of_event = publisher.send({"id": number})
        >>> publisher.stats().delivered
        1000

        Args:
            pubsub_name, topic: as in `publish`.
            linger: seconds that an event waits at most for its batch to fill.
            batch_events, batch_bytes: at which a batch leaves.
            buffer_bytes: that events not yet settled may take.
            on_full: ``"block"`` waits for room, ``"raise"`` raises at once, ``"drop"`` counts and drops the new event.
            delivery_timeout: seconds for which an event is tried, under one id, before it has failed. Waiting behind events that are delivered does not count.
            on_delivery: called per batch once settled, in order, on the publisher's own thread; never ``async``.
            content_type, attributes: of its events.
            flush_on_sigterm: SIGTERM, unless it is ignored or handled by `run`, ends the process only after a flush of at most 10 s. For programs that nobody else shuts down in order.

        Raises:
            InvalidArgumentError: an option is wrong; or ``flush_on_sigterm`` is asked for outside of the main thread, which alone can set handlers of signals, before it was there.
        """
        check_topic(topic)
        result = Publisher(
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
        if flush_on_sigterm and not sigterm.flush_on_sigterm(result, _SIGTERM_SECONDS):
            result.close()
            raise InvalidArgumentError(
                "flush_on_sigterm needs the main thread, and no handler of SIGTERM outside of Python: open the publisher there"
            )
        return result


def _spool_stats(waiting: Backlog, refused: Backlog) -> SpoolStats:
    oldest = None if waiting.oldest_ms is None else datetime.fromtimestamp(waiting.oldest_ms / 1000, UTC)
    counts = (waiting.forwarded or 0, waiting.dropped or 0)
    return SpoolStats(waiting.events, waiting.bytes, oldest, *counts, refused.events)


def _nothing() -> None:
    """Do nothing after a commit: the events are where they are to be."""


def _require_lag(lag: int | None, pubsub_name: str, topic: str, group: str) -> int:
    if lag is None:
        raise NotFoundError(
            f"{pubsub_name}/{topic} has no group {group!r}: a group exists once it has subscribed; check the names"
        )
    return lag
