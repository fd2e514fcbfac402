"""Pub/sub: CloudEvents to topics, consumer groups, batching publishers."""

from ._rate import Rate
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
    SpoolStats,
    SubscriptionStats,
)

__all__ = [
    "DeliveryReport",
    "DropEvent",
    "Event",
    "EventBatch",
    "FailedEvent",
    "OutgoingEvent",
    "PubSubService",
    "Publisher",
    "PublisherStats",
    "Rate",
    "Subscription",
    "SpoolStats",
    "SubscriptionStats",
]
