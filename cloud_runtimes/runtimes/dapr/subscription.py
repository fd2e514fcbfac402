"""A subscription of Dapr (Dapr, "Streaming subscriptions"; alpha)."""

from __future__ import annotations

from typing import Any

from ...protocols.dapr.messages import messages
from ...spi.pubsub import EventRecord, Settlement, SubscribeRequest
from .._sidecar.subscription import STATUS, StreamSubscription
from .events import incoming

__all__ = ["DaprSubscription"]


class DaprSubscription(StreamSubscription):
    """See `StreamSubscription`."""

    def _asks(self, pubsub: str, request: SubscribeRequest) -> Any:
        kinds = messages()
        metadata = dict(request.metadata or {})
        if request.raw:
            metadata["rawPayload"] = "true"
        return kinds.SubscribeTopicEventsRequestAlpha1(
            initial_request=kinds.SubscribeTopicEventsRequestInitialAlpha1(
                pubsub_name=pubsub, topic=request.topic, metadata=metadata, dead_letter_topic=request.dead_letter_topic
            )
        )

    def _record(self, event: Any) -> EventRecord:
        return incoming(event, raw=self._raw)

    def _says(self, id: str, settlement: Settlement) -> Any:
        kinds = messages()
        return kinds.SubscribeTopicEventsRequestAlpha1(
            event_processed=kinds.SubscribeTopicEventsRequestProcessedAlpha1(
                id=id, status=kinds.TopicEventResponse(status=STATUS[settlement])
            )
        )
