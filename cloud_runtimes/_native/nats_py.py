"""Messages of a JetStream consumer that are events; the twin of ``src_ext/nats.pxi``."""

from __future__ import annotations


def take_messages(data: bytes, at: int, number: int, topic: str) -> tuple[int, list[bytes], bytes | None]:
    """Take messages that stand in a row: first deliveries of a subscription, each an event as structured JSON, without headers but an id.

    It stops at the first message that is anything else, or that is not there as a whole. This twin takes none.

    Args:
        data: what was received.
        at: where the first message begins.
        number: of the subscription.
        topic: of the frame.

    Returns:
        Where it stopped, and of the messages before it the subjects for the reply and the frame of their events (`pack_cloudevents`), if there are any.
    """
    return at, [], None
