"""Conformance of a `PubSubDriver`, through the service: events, groups, answers."""

from __future__ import annotations

import re
from typing import Any

from ...client import CloudRuntimesClient
from ...errors import BulkError, ResourceExhaustedError, UnsupportedError
from ..faces import Face
from ..harness import requires
from ._base import Call, Suite
from ._publisher import PublisherTests
from ._pubsub_answers import AnswerTests
from ._pubsub_events import EventTests
from ._pubsub_handlers import HandlerTests
from ._slow_broker import SlowBrokerTests

__all__ = ["PubSubSuite"]


@requires("pubsub.subscribe")
class PubSubSuite(EventTests, AnswerTests, HandlerTests, PublisherTests, SlowBrokerTests, Suite):
    """Every case of Dapr's pub/sub conformance, and those that it misses: redelivery, dead letters, groups, give-back."""

    service = "pubsub"

    # -- what is not there --------------------------------------------------

    def test_undeclared_features_are_refused(self, call: Call) -> None:
        uses: dict[str, tuple[str, dict[str, Any]]] = {
            "pubsub.ttl": ("publish", {"ttl": 5}),
            "pubsub.delay": ("publish", {"delay": 5}),
            "pubsub.raw": ("publish", {"raw": True}),
            "pubsub.group": ("subscribe", {"group": "other"}),
            "pubsub.start": ("subscribe", {"start": "latest"}),
            "pubsub.ack_wait": ("subscribe", {"ack_wait": 5}),
            "pubsub.max_deliveries": ("subscribe", {"max_deliveries": 5}),
            "pubsub.dead_letter": ("subscribe", {"dead_letter_topic": "dead"}),
        }
        for feature, (method, arguments) in uses.items():
            if call.lacks(feature):
                call.fails(UnsupportedError)(method, "t", *([1] if method == "publish" else []), **arguments)

    def test_too_large_is_refused(self, call: Call, client: CloudRuntimesClient, face: Face, store: str) -> None:
        driver = client.pubsub._driver(store)
        largest = driver.max_event_bytes
        told = re.escape(f"has {largest + 1:,} bytes, {largest:,} are taken: {driver.larger_events}")
        call.fails(ResourceExhaustedError, match=told)("publish", "t", bytes(largest + 1))
        call.fails(BulkError, match=told)("publish_bulk", "t", [bytes(largest + 1)])
        with call.opened("publisher", "t") as publisher:
            face.fails(ResourceExhaustedError, match=told)(publisher, "send", bytes(largest + 1))
