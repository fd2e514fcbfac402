"""Publishing, and subscriptions that are streams, over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ...protocols.dapr.messages import messages
from .api import Entry, PubSubApi
from .outgoing import Trace
from .streaming import Streams

__all__ = ["PubSubMethods"]


class PubSubMethods:
    """The methods of pub/sub."""

    def __init__(self, api: PubSubApi, streams: Streams) -> None:
        self._api = api
        self._streams = streams

    def add_to(self, grpc: Any) -> None:
        """Add them."""
        grpc.unary("PublishEvent", "PublishEventRequest", self._publish)
        for name in ("BulkPublishEvent", "BulkPublishEventAlpha1"):
            grpc.unary(name, "BulkPublishRequest", self._publish_bulk)
        grpc.stream("SubscribeTopicEventsAlpha1", "SubscribeTopicEventsRequestAlpha1", self._subscribe)

    async def _publish(self, request: Any, context: Any) -> Any:
        await self._api.publish(
            request.pubsub_name,
            request.topic,
            request.data,
            request.data_content_type,
            dict(request.metadata),
            _trace(context),
        )
        return messages().Empty()

    async def _publish_bulk(self, request: Any, context: Any) -> Any:
        entries = [
            Entry(each.entry_id, each.event, each.content_type, dict(each.metadata) or None) for each in request.entries
        ]
        failed = await self._api.publish_bulk(
            request.pubsub_name, request.topic, entries, dict(request.metadata), _trace(context)
        )
        if failed:  # Dapr tells not which
            raise self._api.failed_bulk(request.pubsub_name, request.topic, failed)
        return messages().BulkPublishResponse()

    def _subscribe(self, requests: Any, context: Any) -> AsyncGenerator[Any, None]:
        return self._streams.serve(requests)


def _trace(context: Any) -> Trace:
    found = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
    return Trace(found.get("traceparent", ""), found.get("tracestate", ""))
