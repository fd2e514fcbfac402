"""Subscriptions that are streams: ``SubscribeTopicEventsAlpha1`` (dapr/dapr ``pkg/api/grpc/subscribe.go``)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from time import monotonic
from typing import Any, Final

from ..._core.logs import repeated
from ...errors import CloudRuntimesError, PayloadError
from ...protocols.dapr.failures import DaprError
from ...protocols.dapr.messages import messages
from ...pubsub import Event
from ...pubsub import Subscription as Handle
from ...pubsub.types import answer
from ...spi.events import cause_of
from ...spi.pubsub import Settlement
from ..context import Context
from ..limits import MAX_OPEN, no_more
from ..settings import Subscription
from .delivery import Route
from .envelope import read
from .subscriber import is_raw, open_handle, settle

_IN_FLIGHT: Final = 256
"""Events sent and not answered for."""


def _ended(text: str) -> DaprError:
    """Return the end of a stream, as Dapr tells it: a plain error."""
    return DaprError(500, "UNKNOWN", "ERROR", text)


class Streams:
    """All of one sidecar."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open: set[_Stream] = set()
        self._opening = 0
        self._closing = False

    async def serve(self, requests: Any) -> AsyncGenerator[Any, None]:
        """Answer one stream."""
        subscription = await self._first(requests)
        if self._context.lack("pubsub", subscription.pubsub_name) is not None:
            text = f"pubsub {subscription.pubsub_name} is not found"
            raise DaprError(404, "INVALID_ARGUMENT", "ERR_PUBSUB_NOT_FOUND", text, reason="DAPR_PUBSUB_NOT_FOUND")
        if len(self._open) + self._opening >= MAX_OPEN:
            raise no_more("streams of events", "close those that are not needed any more")
        self._opening += 1
        try:
            handle = await open_handle(self._context, subscription, _IN_FLIGHT)
        except CloudRuntimesError as error:
            raise _ended(f"failed to subscribe to topic {subscription.topic}: {error.message}") from error
        finally:
            self._opening -= 1
        stream = _Stream(handle, subscription)
        self._open.add(stream)
        self._context.subscriptions.append(subscription)
        try:
            yield messages().SubscribeTopicEventsResponseAlpha1(
                initial_response=messages().SubscribeTopicEventsResponseInitialAlpha1()
            )
            stream.begin(requests)
            while (item := await stream.outgoing.get()) is not None:
                yield item
            if stream.failure is not None:
                raise stream.failure
        finally:
            self._open.discard(stream)
            self._context.subscriptions.remove(subscription)
            await asyncio.shield(stream.close())

    async def _first(self, requests: Any) -> Subscription:
        request = await anext(aiter(requests), None)
        if self._closing:
            raise _ended("api server closed")
        if request is None or not request.HasField("initial_request"):
            raise _ended("initial request is required")
        initial = request.initial_request
        for name, value in (("pubsubName", initial.pubsub_name), ("topic", initial.topic)):
            if not value:
                raise _ended(f"{name} is required")
        return Subscription(
            initial.pubsub_name,
            initial.topic,
            "/",
            dead_letter_topic=initial.dead_letter_topic or None,
            metadata=dict(initial.metadata),
            kind="STREAMING",
        )

    async def stop(self, end: float) -> None:
        """Send nothing any more, wait for answers until ``end`` (monotonic), then end the streams."""
        self._closing = True
        for stream in tuple(self._open):
            stream.pause()
        while any(stream.pending for stream in self._open) and monotonic() < end:
            await asyncio.sleep(0.02)
        for stream in tuple(self._open):
            stream.end(_ended("stream closed"))


class _Stream:
    """Stream with two tasks besides the one that writes."""

    def __init__(self, handle: Handle[Event[Any]], subscription: Subscription) -> None:
        self.outgoing: asyncio.Queue[Any] = asyncio.Queue()
        self.pending: dict[str, deque[Event[Any]]] = {}
        self.failure: DaprError | None = None
        self._handle = handle
        self._route = Route(subscription, "/", is_raw(subscription))
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, requests: Any) -> None:
        """Begin to send, and to take answers."""
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._take(requests))]

    def pause(self) -> None:
        """Send no more."""
        if self._tasks:
            self._tasks[0].cancel()

    def end(self, failure: DaprError | None) -> None:
        """Have the writer end."""
        self.failure = self.failure or failure
        self.outgoing.put_nowait(None)

    async def close(self) -> None:
        """Leave the group; what has no answer goes back."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._handle.close_async(timeout=5.0)

    async def _send(self) -> None:
        from .delivery_grpc import event_message

        subscription = self._route.subscription
        try:
            while (event := await self._handle.receive_async()) is not None:
                try:
                    envelope = read(event, subscription.pubsub_name, subscription.topic, self._route.raw)
                    message = event_message(self._route, envelope)
                except PayloadError as error:
                    repeated(f"stream {subscription.topic}", "event %s is dropped: %s", event.id, error)
                    answer(event, Settlement.DROP, None, cause_of("undecodable", error))
                    continue
                if envelope.expired:
                    event.drop()
                    continue
                self.pending.setdefault(message.id, deque()).append(event)
                self.outgoing.put_nowait(messages().SubscribeTopicEventsResponseAlpha1(event_message=message))
        except CloudRuntimesError as error:
            self.end(_ended(error.message))
        except Exception as error:
            self.end(_ended(f"delivering failed: {type(error).__name__}"))
            raise

    async def _take(self, requests: Any) -> None:
        try:
            async for request in requests:
                if not request.HasField("event_processed"):
                    self.end(_ended("duplicate initial request received"))
                    return
                self._settle(request.event_processed)
        finally:
            self.end(None)  # the application has said its last: it unsubscribes

    def _settle(self, processed: Any) -> None:
        waiting = self.pending.get(processed.id)
        if not waiting:
            return
        event = waiting.popleft()
        if not waiting:
            del self.pending[processed.id]
        from .delivery_grpc import said_of

        settle(event, self._route.subscription, said_of(processed.status.status))
