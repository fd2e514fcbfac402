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

    def _subscribe_request(self, pubsub: str, request: SubscribeRequest) -> Any:
        pb = messages()
        metadata = dict(request.metadata or {})
        if request.raw:
            metadata["rawPayload"] = "true"
        return pb.SubscribeTopicEventsRequestAlpha1(
            initial_request=pb.SubscribeTopicEventsRequestInitialAlpha1(
                pubsub_name=pubsub, topic=request.topic, metadata=metadata, dead_letter_topic=request.dead_letter_topic
            )
        )

    def _record(self, event: Any) -> EventRecord:
        return incoming(event, raw=self._raw)

    def _settlement_message(self, id: str, settlement: Settlement) -> Any:
        pb = messages()
        return pb.SubscribeTopicEventsRequestAlpha1(
            event_processed=pb.SubscribeTopicEventsRequestProcessedAlpha1(
                id=id, status=pb.TopicEventResponse(status=STATUS[settlement])
            )
        )
