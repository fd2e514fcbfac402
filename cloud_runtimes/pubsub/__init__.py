"""Pub/sub: CloudEvents to topics, consumer groups, batching publishers."""

from ..spi.pubsub import Answer, Cause, Delivery, EventSource, PubSubDriver, SubscribeRequest
from .publisher import Publisher
from .service import PubSubService
from .subscription import Subscription
from .types import (
    DeliveryReport,
    DropEvent,
    Event,
    EventBatch,
    FailedEvent,
    OutgoingEvent,
    PublisherStats,
)

__all__ = [
    "Answer",
    "Cause",
    "Delivery",
    "DeliveryReport",
    "DropEvent",
    "Event",
    "EventBatch",
    "EventSource",
    "FailedEvent",
    "OutgoingEvent",
    "PubSubDriver",
    "PubSubService",
    "Publisher",
    "PublisherStats",
    "SubscribeRequest",
    "Subscription",
]
