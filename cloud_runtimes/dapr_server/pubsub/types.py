"""A subscription of the application, whoever has declared it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["BulkSubscribe", "Subscription"]

BULK_MESSAGES: Final = 100
BULK_WAIT: Final = 1.0


@dataclass(frozen=True, slots=True)
class BulkSubscribe:
    """Several events in one callback (Dapr, "Publish and subscribe to bulk messages").

    Attributes:
        max_messages: most events in one callback.
        max_wait: seconds that an event may wait for others.
    """

    max_messages: int = BULK_MESSAGES
    max_wait: float = BULK_WAIT


@dataclass(frozen=True, slots=True)
class Subscription:
    """One subscription (Dapr, resource ``Subscription`` and ``GET /dapr/subscribe``).

    Attributes:
        pubsub_name, topic: what is subscribed to.
        default_route: path of the events that no rule takes; ``""``: they are dropped, over gRPC sent without a path.
        rules: (``match``, path) pairs, of which the first that fits is taken; ``""`` matches all.
        dead_letter_topic: of the same component, for what is dropped or fails too often.
        metadata: for the component; ``rawPayload`` is ours.
        bulk: events come several at once.
        scopes: the app ids that it is for; empty: all. Only declared ones have it.
        kind: ``"DECLARATIVE"``, ``"PROGRAMMATIC"`` or ``"STREAMING"``, as ``GetMetadata`` tells it.
    """

    pubsub_name: str
    topic: str
    default_route: str = ""
    rules: tuple[tuple[str, str], ...] = ()
    dead_letter_topic: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    bulk: BulkSubscribe | None = None
    scopes: tuple[str, ...] = ()
    kind: str = "DECLARATIVE"
